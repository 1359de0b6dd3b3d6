//! v2 asks the record under (uid, 1) whether a user may have a token, and a group's record with an equal key is one as well: it says
//! nothing of the user.

use dev_upstream::{V2Release, fnv1a64};
use wukongim_gateway::domain::ChannelId;

use crate::support::audit;
use crate::support::prelude::*;

/// A user, and a group whose record has the key of his.
const USER: &str = "vZ02MFzwjqqC";
const GROUP_ID: &str = "hv2hY4sse_0C";

#[test]
fn the_two_keys_are_equal() {
    let group = fnv1a64(&format!("{GROUP_ID}-2"));
    assert_eq!(fnv1a64(&format!("{USER}-1")), group);
}

fn token(app: &TestApp) -> String {
    let token = app.state().token_of(USER, 1);
    token.unwrap_or_default()
}

#[tokio::test]
async fn a_deleted_groups_record_does_not_block_a_user() {
    for release in V2Release::ALL {
        for banned in [false, true] {
            println!("{release:?} banned: {banned}");
            let app = TestApp::release(release).await;
            let user = app.user(USER);
            let old = user.post_nothing("/token").await.ok();
            app.state().connect(USER, 1);
            let mallory = app.user("mallory");
            mallory.create_group(GROUP_ID).await.ok();
            if banned {
                app.state().ban_group(GROUP_ID, true);
            }
            mallory.delete_group(GROUP_ID).await.ok();

            assert_eq!(user.post_nothing("/token").await.ok(), old);
            user.send_to_person("bob", "still here").await.ok();
            user.post_nothing("/token/revoke").await.ok();
            assert_eq!(app.state().connections(), 0);
            let new = user.post_nothing("/token").await.ok();
            assert_ne!(new["token"], old["token"]);
            assert_eq!(token(&app), new["token"]);
            let flags = app.state().flags(PERSON, USER).unwrap_or_default();
            assert!(!flags.ban && (!flags.disband || release < V2Release::V2_2_1));
            failure(409, "channel_deleted").is(mallory.create_group(GROUP_ID).await);
        }
    }
}

#[tokio::test]
async fn a_revocation_replaces_the_record_of_a_deleted_group() {
    let app = TestApp::start(V2).await;
    let old = app.user(USER).post_nothing("/token").await.ok();
    app.state().connect(USER, 1);
    app.user("mallory").create_group(GROUP_ID).await.ok();
    app.user("mallory").delete_group(GROUP_ID).await.ok();
    let body = json!({"uid": USER});
    app.admin().post("/token/revoke", &body).await.ok();
    assert_eq!(app.state().connections(), 0);
    assert!(!token(&app).is_empty() && token(&app) != old["token"]);
}

#[tokio::test]
async fn a_half_deleted_groups_record_is_replaced_and_the_delete_is_finished_without_it() {
    let app = TestApp::start(V2).await;
    let mallory = app.user("mallory");
    mallory.create_group(GROUP_ID).await.ok();
    app.state().join(GROUP_ID, "bob");
    let path = "/channel/subscriber_remove_all";
    app.faults().once(path, Fault::Status(500, "{}".into()));
    failure(502, "upstream_error").is(mallory.delete_group(GROUP_ID).await);
    app.state().ban_group(GROUP_ID, true);

    app.user(USER).post_nothing("/token").await.ok();
    app.clear_calls();
    mallory.delete_group(GROUP_ID).await.ok();
    assert_eq!(app.state().members(GROUP_ID), [""; 0]);
    assert!(
        app.calls_to("/channel/delete").is_empty(),
        "it is the user's record by now"
    );
    app.user(USER).post_nothing("/token").await.ok();
    failure(404, "channel_not_found").is(mallory.delete_group(GROUP_ID).await);
}

#[tokio::test]
async fn a_live_groups_flags_are_kept_and_an_error_is_logged() {
    let app = TestApp::start(V2).await;
    app.user(USER).post_nothing("/token").await.ok();
    app.state().connect(USER, 1);
    app.user("mallory").create_group(GROUP_ID).await.ok();
    app.state().ban_group(GROUP_ID, true);
    app.clear_calls();

    let (lines, _listening) = audit::listen_to_errors();
    failure(502, "upstream_error").is(app.user(USER).post_nothing("/token").await);
    let told: Vec<_> = lines.take();
    let told = told
        .iter()
        .find(|line| line["user.id"] == USER)
        .unwrap_or_else(|| panic!("{told:?}"));
    assert_eq!(told["channel.id"], GROUP_ID);
    assert!(app.calls_to("/channel").is_empty(), "nothing was lifted");
    // The ban is the group's: the user sends and reads.
    app.user(USER).send_to_person("bob", "not me").await.ok();
    app.user(USER).sync(PERSON, "bob", "").await.ok();

    // And what was stolen is worth nothing once an admin says so.
    let body = json!({"uid": USER});
    app.admin().post("/token/revoke", &body).await.ok();
    assert_eq!(token(&app), "");
    assert_eq!(app.state().connections(), 0);
    assert!(app.state().flags(GROUP, GROUP_ID).unwrap().ban);
}

#[tokio::test]
async fn a_users_own_ban_is_never_lifted() {
    let app = TestApp::start(V2).await;
    app.user("mallory").create_group(GROUP_ID).await.ok();
    app.user("mallory").delete_group(GROUP_ID).await.ok();
    app.state().ban_user(USER, true);
    failure(403, "forbidden").is(app.user(USER).post_nothing("/token").await);
    failure(403, "forbidden").is(app.user(USER).send_to_person("bob", "banned").await);
    assert!(app.state().flags(PERSON, USER).unwrap().ban);
    failure(404, "channel_not_found").is(app.user("mallory").delete_group(GROUP_ID).await);
}

#[tokio::test]
async fn a_ban_is_not_lifted_for_a_deleted_group_with_the_same_id() {
    let app = TestApp::start(V2).await;
    let spent = ChannelId::parse("bob", 128).unwrap();
    app.store.mark_deleted(&spent, None).await.unwrap();
    let row = json!({"data": [{"channel_id": "bob", "channel_type": 1, "ban": 1, "disband": 0}]});
    let faults = app.faults();
    faults.always("/cluster/channels?", Fault::Status(200, row.to_string()));
    faults.always("/user/token", Fault::Status(200, r#"{"status":19}"#.into()));
    failure(502, "upstream_error").is(app.user("alice").post_nothing("/token").await);
    assert!(app.calls_to("/channel/info").is_empty());
}
