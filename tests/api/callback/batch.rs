//! Batches: each message by its own key.

use serde_json::{Value, json};

use super::{as_somebody, start};
use crate::support::V2;
use crate::support::actors::payload;
use crate::support::backend::{Backend, Reply};

fn message(channel_type: u8, id: &str) -> Value {
    json!({"channelId": id, "channelType": channel_type, "payload": payload("x")})
}

#[tokio::test]
async fn each_sender_and_channel_of_a_batch_is_decided_once() {
    let backend = Backend::start().await;
    let app = start(V2, &backend).await;
    backend.answers(|question| {
        let denied = question["channelId"] == "owned" || question["uid"] == "bob";
        Reply::allow(!denied)
    });
    let batch = json!([
        message(2, "g"),
        message(2, "owned"),
        message(2, "g"),
        message(1, "bob"),
        as_somebody("bob", "g"),
        as_somebody("alice", "g"),
        as_somebody("bob", "g"),
    ]);
    let answer = app.admin().post("/message/sendbatch", &batch).await;
    assert_eq!(answer.status, 207, "{answer:#?}");
    let sent: Vec<bool> = answer.body["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| match entry.get("error") {
            None => true,
            Some(error) => {
                assert_eq!(error["code"], "forbidden");
                false
            }
        })
        .collect();
    assert_eq!(sent, [true, false, true, true, false, true, false]);
    let mut asked: Vec<String> = backend
        .bodies()
        .iter()
        .map(|question| {
            let text = |name: &str| question[name].as_str().unwrap_or("-");
            format!("{} {} {}", text("uid"), text("actor"), text("channelId"))
        })
        .collect();
    asked.sort();
    assert_eq!(
        asked,
        [
            "alice root g",
            "bob root g",
            "root - bob",
            "root - g",
            "root - owned"
        ]
    );
}

#[tokio::test]
async fn a_batch_without_a_decision_is_not_sent() {
    let backend = Backend::start().await;
    let app = start(V2, &backend).await;
    backend.answers(|_| Reply::Body(500, String::new()));
    let batch = json!([message(2, "g"), message(1, "bob")]);
    let answer = app.user("alice").post("/message/sendbatch", &batch).await;
    answer.fails(503, "upstream_unavailable");
    app.nothing_was_written();
}
