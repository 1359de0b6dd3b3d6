//! Mode `open`: any valid token may do anything, but not as another user and not in a deleted channel.

use dev_upstream::{Dialect, GROUP, PERSON};
use serde_json::json;
use wukongim_gateway::config::Mode;

use super::{is_in, is_kept_out, nothing_was_sent};
use crate::support::actors::payload;
use crate::support::seeds::{self, page};
use crate::support::{TestApp, V2, V3};

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
    state.deny(PERSON, "bob", "alice");
    app.user("alice").send_to_person("bob", "x").await.ok();
    assert!(
        app.calls_to("/cluster/channels/g/2/subscribers").is_empty(),
        "nobody's list is asked for"
    );
}

#[tokio::test]
async fn what_v3_itself_refuses_stays_refused() {
    let app = app(V3).await;
    app.group("g", "owner", &["denied"]).await;
    app.state().deny(GROUP, "g", "denied");
    app.state().deny(PERSON, "bob", "alice");
    is_in(&app, "owner").await;
    is_kept_out(&app, "stranger", 403, "not_a_member").await;
    app.user("denied")
        .send_to_group("g", "x")
        .await
        .fails(403, "blocked");
    app.user("alice")
        .send_to_person("bob", "x")
        .await
        .fails(403, "blocked");
}

#[tokio::test]
async fn no_user_acts_as_another() {
    for dialect in [V2, V3] {
        let app = app(dialect).await;
        seeds::group(&app, "g", &["alice", "bob"]);
        let body =
            json!({"channelId": "g", "channelType": 2, "payload": payload("x"), "fromUid": "bob"});
        let alice = app.user("alice");
        alice
            .post("/message/send", &body)
            .await
            .fails(403, "forbidden");
        alice
            .post("/message/sendbatch", &json!([body]))
            .await
            .fails(403, "forbidden");
        app.nothing_was_written();
        app.user("alice")
            .send_to_person("bob", "private")
            .await
            .ok();
        let read = app
            .user("carol")
            .sync(PERSON, "bob", "&fromUid=alice&login_uid=alice")
            .await;
        assert_eq!(page(read), (vec![], false), "{dialect:?}");
        let anonymous = app.anon();
        anonymous
            .send_to_group("g", "x")
            .await
            .fails(401, "token_missing");
        anonymous
            .sync(GROUP, "g", "")
            .await
            .fails(401, "token_missing");
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
        seeds::group(&app, "disbanded", &["alice"]);
        app.state().disband("disbanded");
        let alice = app.user("alice");
        alice
            .send_to_group("disbanded", "x")
            .await
            .fails(404, "channel_not_found");
        nothing_was_sent(&app);
    }
}

#[tokio::test]
async fn a_banned_group_is_not_sent_to() {
    for dialect in [V2, V3] {
        let app = app(dialect).await;
        seeds::group(&app, "g", &["alice"]);
        app.state().ban_group("g", true);
        app.user("alice")
            .send_to_group("g", "x")
            .await
            .fails(403, "channel_banned");
        nothing_was_sent(&app);
        app.user("alice").sync(GROUP, "g", "").await.ok();
    }
}
