//! Stopping, restarting, dying, and being watched.

use dev_upstream::{Dialect, GROUP, Options, PERSON, StoredMessage};
use serde_json::{Value, json};

use crate::support::{Upstream, message};

#[tokio::test]
async fn a_stopped_server_refuses_connects_and_keeps_its_data_for_a_restart() {
    let upstream = Upstream::v2().await;
    upstream.send("a", "g", 2, "kept").await.ok();
    let url = upstream.server.url();
    upstream.server.stop().await;
    let error = upstream.try_get("/health").await.expect_err("refused");
    assert!(error.is_connect(), "{error:?}");
    upstream.server.restart().await.expect("restarts");
    assert_eq!(upstream.server.url(), url);
    assert_eq!(upstream.texts("a", "g", 2).await, ["kept"]);
}

#[tokio::test]
async fn another_dialect_on_the_same_port_is_another_server() {
    let manager = Some(("admin".to_owned(), "secret".to_owned()));
    let upstream = Upstream::start(Options {
        manager,
        ..Options::new(Dialect::V2)
    })
    .await;
    upstream.create("g", &["a"]).await;
    assert_eq!(upstream.server.manager_url(), None);
    upstream
        .server
        .restart_as(Dialect::V3)
        .await
        .expect("restarts");
    upstream.get("/healthz").await.ok();
    assert_eq!(upstream.get("/health").await.status, 404);
    assert_eq!(upstream.send("a", "g", 2, "x").await.ok()["reason"], 5);
    assert!(upstream.server.manager_url().is_some());
    upstream
        .server
        .restart_as(Dialect::V2)
        .await
        .expect("restarts");
    upstream.get("/health").await.ok();
    assert_eq!(upstream.server.manager_url(), None);
}

#[tokio::test]
async fn calls_are_recorded_in_order_with_their_request_ids() {
    let upstream = Upstream::v2().await;
    let url = format!("{}/route?uid=a", upstream.server.url());
    let headers = [("x-request-id", "r-1"), ("token", "t")];
    upstream
        .call("GET", &url, &headers, None)
        .await
        .expect("answer")
        .ok();
    let url = format!("{}/channel", upstream.server.url());
    upstream
        .call("POST", &url, &[], Some("{nope".to_owned()))
        .await
        .expect("answer");
    let calls = upstream.server.calls();
    let [route, channel] = &calls[..] else {
        panic!("{calls:?}")
    };
    assert_eq!(
        (route.method.as_str(), route.path.as_str()),
        ("GET", "/route?uid=a")
    );
    assert_eq!(route.request_id.as_deref(), Some("r-1"));
    assert_eq!(route.token.as_deref(), Some("t"));
    assert_eq!(route.body, Value::Null);
    assert_eq!(channel.body, json!("{nope"));
    upstream.server.clear_calls();
    assert!(upstream.server.calls().is_empty());
}

#[tokio::test]
async fn the_development_mode_records_nothing_and_keeps_ten_thousand() {
    let upstream = Upstream::start(Options::development(Dialect::V2)).await;
    upstream.get("/health").await.ok();
    assert!(upstream.server.calls().is_empty());
    for number in 0..10_005 {
        upstream.server.state().store_message(StoredMessage {
            channel_id: "g".to_owned(),
            channel_type: GROUP,
            payload: number.to_string().into_bytes(),
            ..StoredMessage::default()
        });
    }
    let kept = upstream.server.state().messages(GROUP, "g");
    assert_eq!((kept.len(), kept[0].message_seq), (10_000, 6));
}

#[tokio::test]
async fn inputs_that_kill_a_v2_node_are_answered_and_then_it_is_gone() {
    let long = "x".repeat(32 * 1024);
    let mut number = message("a", "g", 2, "x");
    number["client_msg_no"] = json!(long);
    let deadly = [
        number,
        message(&long, "g", 2, "x"),
        message("a", &long, 2, "x"),
        message("a", "g", 2, &"x".repeat(1 << 20)),
    ];
    for body in deadly {
        let upstream = Upstream::v2().await;
        assert!(!upstream.server.killed());
        upstream.post("/message/send", body).await.ok();
        assert!(upstream.server.killed());
        upstream.try_get("/health").await.expect_err("dead");
        upstream
            .server
            .restart()
            .await
            .expect("a supervisor starts it again");
        upstream.get("/health").await.ok();
        assert!(upstream.server.killed(), "it stays on the record");
        assert!(upstream.server.state().messages(GROUP, "g").is_empty());
    }
}

#[tokio::test]
async fn inputs_below_the_deadly_sizes_are_survived() {
    let upstream = Upstream::v2().await;
    let long = "x".repeat(32 * 1024 - 1);
    let mut body = message("a", "g", 2, &"x".repeat(1_024_000));
    body["client_msg_no"] = json!(long);
    upstream.post("/message/send", body).await.ok();
    assert!(!upstream.server.killed());
    assert_eq!(upstream.texts("a", "g", 2).await.len(), 1);
}

#[tokio::test]
async fn inputs_that_kill_a_v3_node_are_never_answered() {
    let long = "x".repeat(64 * 1024);
    let mut number = message("a", "b", 1, "x");
    number["client_msg_no"] = json!(long);
    let token = json!({ "uid": "a", "token": long, "device_flag": 1, "device_level": 0 });
    for (path, body) in [("/message/send", number), ("/user/token", token)] {
        let upstream = Upstream::v3().await;
        upstream.try_post(path, &body).await.expect_err("no answer");
        assert!(upstream.server.killed());
        upstream.try_get("/healthz").await.expect_err("dead");
        assert!(
            upstream
                .server
                .state()
                .messages_between("a", "b")
                .is_empty()
        );
        assert_eq!(upstream.server.state().token_of("a", 1), None);
    }
}

#[tokio::test]
async fn a_stored_message_is_whatever_the_test_says() {
    let upstream = Upstream::v2().await;
    let (id, seq) = upstream.server.state().store_message(StoredMessage {
        channel_id: "hc-bob@hc-alice".to_owned(),
        channel_type: PERSON,
        from_uid: "mallory".to_owned(),
        client_msg_no: "taken".to_owned(),
        payload: b"foreign".to_vec(),
        timestamp: Some(7),
        message_id: Some(42),
    });
    assert_eq!((id, seq), (42, 1));
    let page = upstream.sync("hc-alice", "hc-bob", 1).await.ok();
    let message = &page["messages"][0];
    assert_eq!(message["from_uid"], "mallory");
    assert_eq!(message["client_msg_no"], "taken");
    assert_eq!(message["timestamp"], 7);
    assert_eq!(message["message_id"], 42);
}
