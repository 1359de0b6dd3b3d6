//! Retries of unconfirmed messages: nothing is sent while the first attempt may still appear.

use std::time::Instant;

use super::{SHORT, hi, impatient, lose};
use crate::support::prelude::*;

/// A gateway that waits for a lost message longer than any test runs, with little time for each request.
async fn waiting_long() -> TestApp {
    let app = TestApp::with(V2, |settings| {
        settings.wukongim.confirm_timeout = SHORT * 100;
        settings.server.request_timeout = SHORT;
    })
    .await;
    app.group("g", "alice", &[]).await;
    app
}

#[tokio::test]
async fn a_retry_sends_nothing_while_the_first_attempt_may_appear() {
    let app = waiting_long().await;
    let (alice, body) = (app.user("alice"), hi());
    app.next_send(Fault::Reset);
    for _ in 0..2 {
        let answer = alice.send(&body).await.fails(504, "message_unconfirmed");
        assert_eq!(answer.body["clientMsgNo"], "n");
        assert_eq!(app.sends().len(), 1);
    }
    app.state().store_message(stored("g", "alice", "n", "hi"));
    assert_eq!(alice.send(&body).await.ok()["messageSeq"], 1);
    assert_eq!(app.sends().len(), 1);
}

#[tokio::test]
async fn a_retry_sends_an_overdue_message_again() {
    let app = impatient().await;
    let (alice, body) = (app.user("alice"), hi());
    app.next_send(Fault::DropMessage);
    let began = Instant::now();
    alice.send(&body).await.fails(504, "message_unconfirmed");
    assert_eq!(alice.send(&body).await.ok()["messageSeq"], 1);
    assert!(began.elapsed() >= SHORT * 5 / 2);
    assert_eq!((app.stored_in("g").len(), app.sends().len()), (1, 2));
}

#[tokio::test]
async fn a_retry_waits_for_the_first_attempt_to_appear() {
    let app = impatient().await;
    let (alice, body) = (app.user("alice"), hi());
    lose(&app, &body).await;
    app.clear_calls();
    let late = async {
        until(|| app.looks() >= 3).await;
        app.state().store_message(stored("g", "alice", "n", "hi"));
    };
    let (answer, ()) = tokio::join!(alice.send(&body), late);
    assert_eq!(answer.ok()["messageSeq"], 1);
    assert!(app.sends().is_empty());
}

#[tokio::test]
async fn a_refused_retry_does_not_forget_the_first() {
    let app = impatient().await;
    let (alice, body) = (app.user("alice"), hi());
    lose(&app, &body).await;
    app.next_send(Fault::Status(400, "{}".into()));
    alice.send(&body).await.fails(502, "upstream_error");
    // Now the first one turns up.
    app.state().store_message(stored("g", "alice", "n", "hi"));
    app.clear_calls();
    assert_eq!(alice.send(&body).await.ok()["messageSeq"], 1);
    assert!(app.sends().is_empty());
}

#[tokio::test]
async fn the_search_for_the_first_is_bounded_and_goes_on_with_the_next_retry() {
    let app = impatient().await;
    let (alice, body) = (app.user("alice"), hi());
    alice.send_to_group("g", "the channel is known").await.ok();
    lose(&app, &body).await;
    app.chatter("g", 7000);
    let (_, seq) = app.state().store_message(stored("g", "alice", "n", "hi"));
    app.clear_calls();
    let answer = alice.send(&body).await.fails(504, "message_unconfirmed");
    assert_eq!(answer.body["clientMsgNo"], "n");
    assert!(app.looks() <= 70, "{} looks", app.looks());
    assert_eq!(alice.send(&body).await.ok()["messageSeq"], seq);
    assert!(app.sends().is_empty());
}

#[tokio::test]
async fn unconfirmed_is_answered_before_the_deadline_with_any_configuration() {
    for fault in [Fault::DropMessage, Fault::Hang] {
        let app = TestApp::with(V2, |settings| {
            settings.wukongim.timeout = SHORT * 20;
            settings.wukongim.confirm_timeout = SHORT * 20;
            settings.server.request_timeout = SHORT;
        })
        .await;
        let alice = app.user("alice");
        app.next_send(fault.clone());
        let body = numbered(1, "bob", "hi", "n");
        for _ in 0..2 {
            // The second waits for the first, which goes on.
            let answer = alice.send(&body).await.fails(504, "message_unconfirmed");
            assert_eq!(answer.body["clientMsgNo"], "n", "{fault:?}");
        }
        assert_eq!(app.sends().len(), 1, "{fault:?}");
        let batch = [body, numbered(1, "carol", "hi", "m")];
        let answer = alice.send_batch(&batch).await;
        let data = answer.fails(207, "partial_failure").body["data"].clone();
        assert_eq!(data[0]["error"]["code"], "message_unconfirmed", "{fault:?}");
        assert_eq!(data[0]["error"]["clientMsgNo"], "n");
        assert_eq!(data[1]["messageSeq"], 1);
    }
}

#[tokio::test]
async fn finding_the_reason_does_not_delay_the_answer() {
    let app = impatient().await;
    let alice = app.user("alice");
    alice.send_to_group("g", "the facts are known").await.ok();
    app.next_send(Fault::DropMessage);
    app.faults().always("/cluster/channels", Fault::Hang);
    let began = Instant::now();
    failure(504, "message_unconfirmed").is(alice.send(&hi()).await);
    // `wukongim.timeout` alone is five.
    assert!(began.elapsed() < SHORT * 4, "{:?}", began.elapsed());
}
