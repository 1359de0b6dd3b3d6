//! Mode `open`: any valid token may do anything, but not as another user and not in a deleted channel.

use wukongim_gateway::config::Mode;

use super::{is_in, is_kept_out, looked_up, nothing_was_sent};
use crate::support::prelude::*;

async fn app(dialect: Dialect) -> TestApp {
    TestApp::with(dialect, |settings| settings.authorization.mode = Mode::Open).await
}

#[tokio::test]
async fn every_user_sends_and_reads_on_v2() {
    let app = app(V2).await;
    app.group("g", "owner", &["denied"]).await;
    let state = app.state();
    state.deny(GROUP, "g", "denied");
    state.allow("g", "owner");
    state.ban_user("banned", true);
    for uid in ["owner", "denied", "banned", "stranger", "root"] {
        is_in(&app, uid).await;
    }
    let of_the_group = ["/cluster/channels?channel_id=g&channel_type=2"];
    assert_eq!(looked_up(&app), of_the_group, "nobody's list is asked for");
    state.deny(PERSON, "bob", "alice");
    app.clear_calls();
    app.user("alice").send_to_person("bob", "x").await.ok();
    app.user("alice").sync(PERSON, "bob", "").await.ok();
    assert!(looked_up(&app).is_empty());
}

#[tokio::test]
async fn what_v3_itself_refuses_stays_refused() {
    let app = app(V3).await;
    app.group("g", "owner", &["denied"]).await;
    app.group("quiet", "owner", &["bob"]).await;
    app.state().deny(GROUP, "g", "denied");
    app.state().deny(PERSON, "bob", "alice");
    app.state().allow("quiet", "owner");
    is_in(&app, "owner").await;
    failure(403, "forbidden").is(app.user("bob").send_to_group("quiet", "x").await);
    is_kept_out(&app, "stranger", 403, "not_a_member").await;
    failure(403, "blocked").in_each([
        app.user("denied").send_to_group("g", "x").await,
        app.user("alice").send_to_person("bob", "x").await,
    ]);
}

#[tokio::test]
async fn no_user_acts_as_another() {
    for dialect in [V2, V3] {
        let app = app(dialect).await;
        seeds::group(&app, "g", &["alice", "bob"]);
        let body = as_user("bob", message(GROUP, "g", "x"));
        let [alice, carol] = app.users(["alice", "carol"]);
        failure(403, "forbidden")
            .in_each([alice.send(&body).await, alice.send_batch(&[body]).await]);
        app.nothing_was_written();
        alice.send_to_person("bob", "private").await.ok();
        let as_alice = "&fromUid=alice&login_uid=alice";
        let read = carol.sync(PERSON, "bob", as_alice).await;
        assert_eq!(page(read), (vec![], false), "{dialect:?}");
        let anonymous = app.anon();
        failure(401, "token_missing").in_each([
            anonymous.send_to_group("g", "x").await,
            anonymous.sync(GROUP, "g", "").await,
        ]);
    }
}

#[tokio::test]
async fn a_deleted_unknown_or_disbanded_group_is_404() {
    for dialect in [V2, V3] {
        let app = app(dialect).await;
        is_kept_out(&app, "alice", 404, "channel_not_found").await;
        app.group("g", "owner", &["alice"]).await;
        is_in(&app, "alice").await;
        app.user("owner").delete_group("g").await.ok();
        app.state().forget_channel("g");
        seeds::group(&app, "g", &["owner", "alice"]);
        for uid in ["owner", "alice", "stranger"] {
            is_kept_out(&app, uid, 404, "channel_not_found").await;
        }
        assert!(app.upstream.calls().is_empty());
        seeds::group(&app, "disbanded", &["alice"]);
        app.state().disband("disbanded");
        let eve = app.user("eve");
        failure(404, "channel_not_found").in_each([
            eve.send_to_group("disbanded", "x").await,
            eve.sync(GROUP, "disbanded", "").await,
        ]);
        nothing_was_sent(&app);
    }
}

#[tokio::test]
async fn a_banned_group_is_not_sent_to() {
    for dialect in [V2, V3] {
        let app = app(dialect).await;
        seeds::group(&app, "g", &["alice"]);
        app.state().ban_group("g", true);
        failure(403, "channel_banned").is(app.user("alice").send_to_group("g", "x").await);
        nothing_was_sent(&app);
        app.user("alice").sync(GROUP, "g", "").await.ok();
    }
}
