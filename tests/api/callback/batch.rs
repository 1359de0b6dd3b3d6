//! Batches: each message by its own key.

use super::{as_somebody, asking};
use crate::support::prelude::*;

#[tokio::test]
async fn each_sender_and_channel_of_a_batch_is_decided_once() {
    let (backend, app) = asking(V2).await;
    backend.answers(|question| {
        let denied = question["channelId"] == "owned" || question["uid"] == "bob";
        Reply::allow(!denied)
    });
    let batch = [
        message(2, "g", "x"),
        message(2, "owned", "x"),
        message(2, "g", "x"),
        message(1, "bob", "x"),
        as_somebody("bob", "g"),
        as_somebody("alice", "g"),
        as_somebody("bob", "g"),
    ];
    let answer = failure(207, "partial_failure").is(app.admin().send_batch(&batch).await);
    let (sent, no) = ("sent", "forbidden");
    assert_eq!(answer.outcomes(), [sent, no, sent, sent, no, sent, no]);
    let asked = backend.bodies().into_iter().map(|question| {
        let text = |name| question[name].as_str().unwrap_or("-");
        ["uid", "actor", "channelId"].map(text).join(" ")
    });
    let mut asked: Vec<String> = asked.collect();
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
    let (backend, app) = asking(V2).await;
    backend.answers(|_| Reply::Body(500, String::new()));
    let batch = [message(2, "g", "x"), message(1, "bob", "x")];
    failure(503, "upstream_unavailable").is(app.user("alice").send_batch(&batch).await);
    app.nothing_was_written();
}
