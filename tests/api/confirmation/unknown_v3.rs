//! v3: answers to sends with an unknown outcome, and their recorded attempts.

use super::hi;
use crate::support::prelude::*;

#[tokio::test]
async fn a_message_that_may_have_arrived_is_not_reported_as_not_sent() {
    let app = TestApp::with_group(V3, &[]).await;
    app.next_send(Fault::HoldAnswer("answer".into()));
    let (alice, body) = (app.user("alice"), hi());
    let gone = async {
        app.faults().wait_held("answer", 1).await;
        // The first answer is lost; the second try meets nobody.
        app.upstream.stop().await;
    };
    let (answer, ()) = tokio::join!(alice.send(&body), gone);
    let answer = answer.fails(504, "message_unconfirmed");
    assert_eq!(answer.body["clientMsgNo"], "n");
    assert_eq!(app.stored_in("g").len(), 1);
}

#[tokio::test]
async fn a_conflict_of_a_generated_client_msg_no_is_not_the_clients_fault() {
    let app = TestApp::start(V3).await;
    let conflict = r#"{"error":"append: log conflict"}"#;
    for (body, status, code) in [
        (message(1, "bob", "hi"), 502, "upstream_error"),
        (numbered(1, "bob", "hi", "n"), 409, "message_conflict"),
    ] {
        app.next_send(Fault::Status(500, conflict.into()));
        app.user("alice").send(&body).await.fails(status, code);
    }
}

#[tokio::test]
async fn a_lost_answer_is_not_retried_on_a_v2() {
    let app = TestApp::with_group(V3, &[]).await;
    app.next_send(Fault::HoldAnswer("answer".into()));
    let (alice, body) = (app.user("alice"), hi());
    let swapped = async {
        app.faults().wait_held("answer", 1).await;
        app.upstream.restart_as(V2).await.unwrap();
    };
    let (answer, ()) = tokio::join!(alice.send(&body), swapped);
    answer.fails(504, "message_unconfirmed");
    assert!(app.stored_in("g").is_empty());
}
