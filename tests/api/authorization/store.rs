//! The store's part: tombstones hold in every mode and on every replica; without the store, membership alone decides.

use wukongim_gateway::config::Mode;
use wukongim_gateway::domain::ChannelId;

use super::{is_in, is_kept_out};
use crate::support::database;
use crate::support::prelude::*;

/// Takes the store's tables away.
async fn fail(app: &TestApp) {
    app.database().hide_tables().await;
    assert!(app.store.ping().await.is_err(), "the store fails");
}

#[tokio::test]
async fn without_the_store_membership_alone_decides() {
    for dialect in [V2, V3] {
        let builder = TestApp::builder().upstream(dialect);
        let app = builder.database(database::Kind::Sqlite).await.start().await;
        app.group("g", "owner", &["member"]).await;
        app.group("gone", "owner", &["member"]).await;
        app.user("owner").delete_group("gone").await.ok();
        fail(&app).await;
        is_in(&app, "owner").await;
        is_in(&app, "member").await;
        is_kept_out(&app, "stranger", 403, "not_a_member").await;
        app.user("member").send_to_person("owner", "x").await.ok();
        app.user("member").sync(1, "owner", "").await.ok();
        // What this replica knows to be deleted stays so, though WuKongIM has it back.
        app.state().forget_channel("gone");
        seeds::group(&app, "gone", &["member"]);
        failure(404, "channel_not_found").is(app.user("member").send_to_group("gone", "x").await);
        // To a replica that does not know it yet, upstream's members are the only answer.
        let replica = app.beside(|_| {}).await;
        replica.user("member").sync(GROUP, "gone", "").await.ok();
        app.database().show_tables().await;
        tokio::time::sleep(Duration::from_millis(1050)).await;
        failure(404, "channel_not_found").is(replica.user("member").sync(GROUP, "gone", "").await);
    }
}

#[tokio::test]
async fn in_mode_open_a_failing_store_refuses_no_request_either() {
    let builder = TestApp::builder().database(database::Kind::Sqlite).await;
    let builder = builder.config(|settings| settings.authorization.mode = Mode::Open);
    let app = builder.start().await;
    seeds::group(&app, "g", &["member"]);
    fail(&app).await;
    is_in(&app, "member").await;
    is_in(&app, "anybody").await;
}

#[tokio::test]
async fn a_group_deleted_on_one_replica_is_gone_on_another_in_both_modes() {
    for dialect in [V2, V3] {
        for mode in [Mode::Members, Mode::Open] {
            let first = TestApp::start(dialect).await;
            first.group("g", "owner", &["member"]).await;
            first.user("owner").delete_group("g").await.ok();
            // Another gateway over the same store, whose WuKongIM still has it all.
            let builder = TestApp::builder()
                .upstream(dialect)
                .config(move |settings| settings.authorization.mode = mode);
            let second = builder.store(first.store.clone()).start().await;
            seeds::group(&second, "g", &["owner", "member"]);
            seeds::message(&second, GROUP, "g", "member", b"before");
            for uid in ["owner", "member", "stranger"] {
                is_kept_out(&second, uid, 404, "channel_not_found").await;
            }
            failure(404, "channel_not_found").is(second.admin().sync(GROUP, "g", "").await);
            assert!(second.calls_to("/channel/messagesync").is_empty());
        }
    }
}

#[tokio::test]
async fn a_tombstone_counts_while_the_upstream_is_away() {
    let app = TestApp::with_group(V2, &[]).await;
    let id = ChannelId::parse("g", 128).unwrap();
    app.store.mark_deleted(&id, None).await.unwrap();
    app.upstream.stop().await;
    failure(404, "channel_not_found").is(app.user("alice").sync(GROUP, "g", "").await);
}
