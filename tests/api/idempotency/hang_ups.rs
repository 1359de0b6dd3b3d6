//! Clients that disconnect: their sends continue, and their retry gets the outcome.

use crate::support::prelude::*;

#[tokio::test]
async fn a_client_that_hung_up_sends_again_without_storing_twice() {
    for app in TestApp::both_with_group(&[]).await {
        let answer = Fault::HoldAnswer("answer".into());
        app.each_send("n-1", answer);
        let (alice, body) = (app.user("alice"), numbered(2, "g", "hi", "n-1"));
        let held = app.faults().wait_held("answer", 1);
        alice.send_and_hang_up(&body, held).await;
        app.faults().clear();
        assert_eq!(alice.send(&body).await.ok()["messageSeq"], 1);
        assert_eq!(app.stored_in("g").len(), 1);
    }
}

/// A v2 whose answer to `n-1` is held, and which stores it only some time later.
async fn slow() -> TestApp {
    let app = TestApp::with(V2, |settings| {
        settings.wukongim.confirm_timeout = Duration::from_secs(20);
        settings.server.request_timeout = Duration::from_mins(1);
    })
    .await;
    app.group("g", "alice", &[]).await;
    let late = Fault::StoreLate(Duration::from_millis(700));
    for fault in [Fault::HoldAnswer("answer".into()), late] {
        app.add_fault(Rule::new("/message/send", fault).containing("n-1"));
    }
    app
}

#[tokio::test]
async fn a_retry_after_a_disconnect_waits_for_the_first_attempt() {
    let app = slow().await;
    let (alice, body) = (app.user("alice"), numbered(2, "g", "hi", "n-1"));
    let held = app.faults().wait_held("answer", 1);
    alice.send_and_hang_up(&body, held).await;
    app.faults().clear();
    assert_eq!(alice.send(&body).await.ok()["messageSeq"], 1);
    assert_eq!((app.stored_in("g").len(), app.sends().len()), (1, 1));
    let id = &app.sends()[0].request_id;
    let looks = app.calls_to("/channel/messagesync");
    let are_the_firsts = looks.iter().all(|look| look.request_id == *id);
    assert!(are_the_firsts, "the looks are the first request's");
}

#[tokio::test]
async fn a_batch_goes_on_when_its_client_has_hung_up() {
    let app = slow().await;
    let alice = app.user("alice");
    let bodies = [1, 2, 3].map(|n| numbered(2, "g", "hi", &format!("n-{n}")));
    let request = alice.posting("/message/sendbatch", json!(bodies).to_string());
    tokio::select! {
        answer = request.send() => panic!("answered before the client was gone: {answer:?}"),
        () = app.faults().wait_held("answer", 1) => {}
    }
    app.faults().clear();
    alice.send_batch(&bodies).await.ok();
    let numbers = app.stored_in("g").into_iter().map(|stored| stored.1);
    let mut numbers: Vec<_> = numbers.collect();
    numbers.sort();
    assert_eq!(numbers, ["n-1", "n-2", "n-3"]);
    assert_eq!(app.sends().len(), 3);
}
