//! Creating, joining, leaving, deleting and sending where another channel lies.

use dev_upstream::StoredMessage;
use wukongim_gateway::config::Mode;

use super::{FIRST, PAIR, SECOND, TWIN, dropped};
use crate::support::prelude::*;

#[tokio::test]
async fn an_id_with_the_hash_of_a_pair_that_spoke_cannot_be_created() {
    let app = TestApp::start(V2).await;
    app.user("hc-alice")
        .send_to_person("hc-bob", "private")
        .await
        .ok();
    app.clear_calls();
    let mallory = app.user("mallory");
    for _ in 0..2 {
        failure(409, "channel_exists").is(mallory.create_group(TWIN).await);
    }
    failure(404, "channel_not_found").is(mallory.sync(GROUP, TWIN, "").await);
    failure(404, "channel_not_found").is(mallory.send_to_group(TWIN, "x").await);
    for actor in [mallory, app.admin()] {
        failure(404, "channel_not_found").is(actor.add(TWIN, &["mallory"]).await);
        failure(404, "channel_not_found").is(actor.remove(TWIN, &["hc-alice"]).await);
        failure(404, "channel_not_found").is(actor.delete_group(TWIN).await);
    }
    app.nothing_was_written();
    assert_eq!(app.state().members(TWIN), Vec::<String>::new());
    assert_eq!(app.state().flags(PERSON, PAIR), None);
}

#[tokio::test]
async fn an_id_with_the_hash_of_another_group_cannot_be_created_joined_or_deleted() {
    let app = TestApp::start(V2).await;
    let bob = app.user("bob");
    app.group(FIRST, "alice", &["bob"]).await;
    let mallory = app.user("mallory");
    failure(409, "channel_exists").is(mallory.create_group(SECOND).await);
    for actor in [mallory, app.user("alice"), app.admin()] {
        failure(404, "channel_not_found").is(actor.add(SECOND, &["mallory"]).await);
        failure(404, "channel_not_found").is(actor.remove(SECOND, &["bob"]).await);
        failure(404, "channel_not_found").is(actor.delete_group(SECOND).await);
        failure(404, "channel_not_found").is(actor.send_to_group(SECOND, "x").await);
        failure(404, "channel_not_found").is(actor.sync(GROUP, SECOND, "").await);
    }
    app.nothing_was_written();
    let mut members = app.state().members(FIRST);
    members.sort();
    assert_eq!(members, ["alice", "bob"]);
    bob.send_to_group(FIRST, "still ours").await.ok();
}

#[tokio::test]
async fn a_lost_group_is_not_made_again_where_another_one_lies_now() {
    let app = TestApp::start(V2).await;
    app.group(FIRST, "alice", &["bob"]).await;
    app.state().forget_channel(FIRST);
    seeds::group(&app, SECOND, &["victor"]);
    let alice = app.user("alice");
    alice.create_group(FIRST).await.fails(409, "channel_exists");
    failure(404, "channel_not_found").is(alice.add(FIRST, &["alice"]).await);
    failure(404, "channel_not_found").is(alice.send_to_group(FIRST, "x").await);
    failure(404, "channel_not_found").is(alice.sync(GROUP, FIRST, "").await);
    app.nothing_was_written();
    // The id is the owner's to spend; what lies under its hash is not.
    alice.delete_group(FIRST).await.ok();
    app.nothing_was_written();
    assert_eq!(app.state().members(SECOND), ["victor"]);
    let flags = app.state().flags(GROUP, SECOND).expect("a record");
    assert!(!flags.disband);
    app.user("victor")
        .send_to_group(SECOND, "untouched")
        .await
        .ok();
}

#[tokio::test]
async fn in_mode_open_a_twin_shows_nothing_and_takes_nothing_either() {
    let app = TestApp::with(V2, |settings| {
        settings.authorization.mode = Mode::Open;
        settings.authorization.cache_ttl = Duration::ZERO;
    })
    .await;
    app.user("hc-alice")
        .send_to_person("hc-bob", "private")
        .await
        .ok();
    app.clear_calls();
    let mallory = app.user("mallory");
    failure(404, "channel_not_found").is(mallory.sync(GROUP, TWIN, "").await);
    failure(404, "channel_not_found").is(mallory.send_to_group(TWIN, "x").await);
    failure(409, "channel_exists").is(mallory.create_group(TWIN).await);
    failure(404, "channel_not_found").is(mallory.add(TWIN, &["mallory"]).await);
    app.nothing_was_written();
    seeds::group(&app, TWIN, &[]);
    let answer = mallory.sync(GROUP, TWIN, "").await;
    assert_eq!(
        page(answer),
        (vec![], false),
        "the group is there now, the pair's messages stay the pair's"
    );
}

#[tokio::test]
async fn a_foreign_message_is_no_confirmation_and_a_swallowed_send_no_success() {
    let app = TestApp::with(V2, |settings| {
        settings.wukongim.confirm_timeout = Duration::from_millis(200);
    })
    .await;
    seeds::group(&app, TWIN, &["mallory"]);
    // The pair owns the log: what the group sends is answered 200 and never stored.
    app.state().store_message(StoredMessage {
        channel_id: PAIR.into(),
        channel_type: PERSON,
        from_uid: "hc-alice".into(),
        client_msg_no: "n-1".into(),
        payload: b"private".to_vec(),
        ..StoredMessage::default()
    });
    let body =
        json!({"channelId": TWIN, "channelType": 2, "payload": payload("x"), "clientMsgNo": "n-1"});
    let mallory = app.user("mallory");
    failure(409, "channel_exists").is(mallory.post("/message/send", &body).await);
    // A v2 that does not say whose log it is.
    let silent = Fault::Status(404, "404 page not found".into());
    app.add_fault(Rule::new("/cluster/channels/", silent).containing("/config"));
    let answer = failure(504, "message_unconfirmed").is(mallory.post("/message/send", &body).await);
    assert_eq!(answer.body["clientMsgNo"], "n-1");
}

#[tokio::test]
async fn v3_compares_ids_so_a_twin_is_a_group_like_any_other() {
    let app = TestApp::start(V3).await;
    app.user("hc-alice")
        .send_to_person("hc-bob", "private")
        .await
        .ok();
    app.group(TWIN, "carol", &["dave"]).await;
    app.user("dave").send_to_group(TWIN, "ours").await.ok();
    let answer = app.user("carol").sync(GROUP, TWIN, "").await;
    assert_eq!(answer.body["data"][0]["fromUid"], "dave");
    assert_eq!(page(answer), (vec![1], false));
    assert_eq!(dropped(&app), 0);
}
