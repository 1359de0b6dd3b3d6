//! What v3 was to check never goes to a v2 unchecked, wherever that comes from: v2 stores and shows whatever it is asked to.

use dev_upstream::StoredMessage;

use crate::support::prelude::*;

/// A v3 and, next in the list, a v2 with the group `g` of alice; the gateway has spoken to the v3 alone so far.
async fn v3_before_v2() -> (TestApp, DevUpstream) {
    let second = DevUpstream::start(Options::new(V2)).await.expect("a v2");
    let url = second.url().parse().expect("an address");
    let app = TestApp::with(V3, move |settings| settings.wukongim.api_urls.push(url)).await;
    app.user("alice").send_to_person("bob", "hi").await.ok();
    second.state().ban_group("g", false);
    second.state().join("g", "alice");
    second.state().store_message(StoredMessage {
        channel_id: "g".into(),
        channel_type: GROUP,
        from_uid: "alice".into(),
        payload: b"a secret".to_vec(),
        ..StoredMessage::default()
    });
    (app, second)
}

#[tokio::test]
async fn a_send_that_v3_was_to_check_is_not_sent_to_another_nodes_v2() {
    let (app, second) = v3_before_v2().await;
    app.upstream.stop().await;
    for who in ["stranger", "alice", "stranger"] {
        failure(503, "upstream_unavailable").is(app.user(who).send_to_group("g", "x").await);
    }
    assert_eq!(second.state().messages(GROUP, "g").len(), 1);
}

#[tokio::test]
async fn a_batch_that_v3_was_to_check_is_not_sent_to_another_nodes_v2() {
    let (app, second) = v3_before_v2().await;
    app.upstream.stop().await;
    let body = crate::support::messages::message(GROUP, "g", "x");
    let answer = app.user("stranger").send_batch(&[body.clone(), body]).await;
    answer.fails(503, "upstream_unavailable");
    assert_eq!(second.state().messages(GROUP, "g").len(), 1);
}

#[tokio::test]
async fn a_history_that_v3_was_to_guard_is_not_read_from_another_nodes_v2() {
    let (app, second) = v3_before_v2().await;
    app.upstream.stop().await;
    for who in ["stranger", "alice", "stranger"] {
        failure(503, "upstream_unavailable").is(app.user(who).sync(GROUP, "g", "").await);
    }
    assert!(second.calls_to("/channel/messagesync").is_empty());
}

#[tokio::test]
async fn a_v2_that_replaced_a_v3_refuses_messages_left_to_v3s_check() {
    let app = TestApp::start(V3).await;
    app.user("alice").send_to_person("bob", "hi").await.ok();
    app.upstream.restart_as(V2).await.expect("a restart");
    seeds::group(&app, "g", &["alice"]);
    for who in ["stranger", "alice", "stranger"] {
        failure(503, "upstream_unavailable").is(app.user(who).send_to_group("g", "x").await);
    }
    assert!(app.state().messages(GROUP, "g").is_empty());
}

#[tokio::test]
async fn a_silent_v3_is_probed_before_a_read() {
    let app = TestApp::start(V3).await;
    app.user("alice").send_to_person("bob", "hi").await.ok();
    app.upstream.restart_as(V2).await.expect("a restart");
    seeds::group(&app, "g", &["alice"]);
    seeds::message(&app, GROUP, "g", "alice", b"a secret");
    // Longer than a silent node is believed in.
    tokio::time::sleep(Duration::from_millis(2100)).await;
    failure(503, "upstream_unavailable").is(app.user("stranger").sync(GROUP, "g", "").await);
    assert!(app.calls_to("/channel/messagesync").is_empty());
}
