//! Seeing a message stored (v2): the real seq or the truth about why there is none.

mod busy;
mod lost_answers;
mod numbers;
mod pace;
mod retries;
mod unknown_v3;

use crate::support::prelude::*;

/// Short enough for a test to wait for it, long enough for a busy machine to find what is there.
const SHORT: Duration = Duration::from_secs(1);

/// A v2 gateway with a short `confirm_timeout` and the group `g` of alice, bob and carol.
async fn impatient() -> TestApp {
    waiting(SHORT).await
}

/// The same with so much time that only what is never found is missed.
async fn patient() -> TestApp {
    waiting(SHORT * 20).await
}

async fn waiting(confirm_timeout: Duration) -> TestApp {
    let app = TestApp::with(V2, move |settings| {
        settings.wukongim.confirm_timeout = confirm_timeout;
        settings.server.request_timeout = (confirm_timeout * 3).max(Duration::from_secs(10));
    });
    let app = app.await;
    app.group("g", "alice", &["bob", "carol"]).await;
    app
}

/// As [`impatient`]; it has sent to the group before, where so.
async fn impatient_known(known_before: bool) -> TestApp {
    known(impatient().await, known_before).await
}

async fn patient_known(known_before: bool) -> TestApp {
    known(patient().await, known_before).await
}

async fn known(app: TestApp, known_before: bool) -> TestApp {
    if known_before {
        app.user("alice").send_to_group("g", "known").await.ok();
    }
    app
}

/// Sends as alice what v2 loses.
async fn lose(app: &TestApp, body: &Value) -> Answer {
    app.next_send(Fault::DropMessage);
    let answer = app.user("alice").send(body).await;
    answer.fails(504, "message_unconfirmed")
}

/// Alice's message with the number `n`.
fn hi() -> Value {
    numbered(2, "g", "hi", "n")
}

/// Whether the request that sent the first of the recorded messages had looked for it before. Looks for a confirmation are
/// nobody's own and bear no request id.
fn looked_before_sending(app: &TestApp) -> bool {
    let calls = app.upstream.calls();
    let mut paths = calls.iter();
    let sent = paths.position(|call| call.path == "/message/send").unwrap();
    calls[..sent].iter().any(|call| {
        call.path == "/channel/messagesync" && call.request_id == calls[sent].request_id
    })
}

#[tokio::test]
async fn a_dropped_message_is_unconfirmed_and_its_client_msg_no_is_returned() {
    let app = impatient().await;
    let answer = lose(&app, &hi()).await;
    assert_eq!(answer.body["clientMsgNo"], "n");
    assert_eq!(answer.body["message"], "发送消息失败");
    assert!(answer.body.get("data").is_none(), "{answer:#?}");
    assert!(app.stored_in("g").is_empty());
}

#[tokio::test]
async fn a_retry_searches_for_the_first_attempt_before_it_sends() {
    for known_before in [false, true] {
        let app = impatient_known(known_before).await;
        let (alice, body) = (app.user("alice"), hi());
        lose(&app, &body).await;
        app.clear_calls();
        let sent = alice.send(&body).await.ok();
        assert!(looked_before_sending(&app));
        assert_eq!(app.sends().len(), 1);
        let stored = app.stored_in("g");
        assert_eq!(stored.len(), 1 + usize::from(known_before));
        assert_eq!(sent["messageSeq"], stored.last().unwrap().2);
    }
}

#[tokio::test]
async fn a_retry_answers_the_first_when_it_turned_up_late() {
    for known_before in [false, true] {
        let app = impatient_known(known_before).await;
        let (alice, body) = (app.user("alice"), hi());
        app.next_send(Fault::StoreLate(SHORT * 3));
        let answer = alice.send(&body).await;
        let before = app.stored_in("g").len();
        answer.fails(504, "message_unconfirmed");
        until(|| app.stored_in("g").len() == before + 1).await;
        // More pages than one lie above it.
        app.chatter("g", 300);
        app.clear_calls();
        let sent = alice.send(&body).await.ok();
        assert_eq!(sent["messageSeq"], before + 1);
        assert!(app.sends().is_empty());
        // And from now on it is simply known.
        app.clear_calls();
        assert_eq!(alice.send(&body).await.ok(), sent);
        assert_eq!(app.looks(), 0);
    }
}

#[tokio::test]
async fn a_retry_in_a_very_busy_channel_still_finds_the_first() {
    let app = impatient().await;
    let (alice, body) = (app.user("alice"), hi());
    lose(&app, &body).await;
    app.state().store_message(stored("g", "alice", "n", "hi"));
    app.chatter("g", 2500);
    assert_eq!(alice.send(&body).await.ok()["messageSeq"], 1);
    assert_eq!(app.sends().len(), 1);
}

#[tokio::test]
async fn a_retry_does_not_take_an_older_message_for_the_first() {
    let app = impatient().await;
    let (alice, body) = (app.user("alice"), hi());
    app.state().store_message(of_last_year("hi"));
    app.state().store_message(of_last_year("other"));
    lose(&app, &body).await;
    assert_eq!(alice.send(&body).await.ok()["messageSeq"], 3);
}

/// A message of alice herself, with the number `n`, of a time long before this process.
fn of_last_year(text: &str) -> dev_upstream::StoredMessage {
    let mut message = stored("g", "alice", "n", text);
    message.message_id = Some(1_900_000_000_000_000_000);
    message
}

#[tokio::test]
async fn a_retry_does_not_match_another_senders_message() {
    for known_before in [false, true] {
        let app = impatient_known(known_before).await;
        let (alice, body) = (app.user("alice"), hi());
        lose(&app, &body).await;
        // The same number, with the same and with another payload; and almost the same number by herself.
        for (from, number, text) in [
            ("bob", "n", "hi"),
            ("bob", "n", "other"),
            ("alice", "N", "hi"),
        ] {
            app.state().store_message(stored("g", from, number, text));
        }
        let seq = app.stored_in("g").len() as u64 + 1;
        let sent = alice.send(&body).await.ok();
        assert_eq!(sent["messageSeq"], seq);
        assert_eq!(
            app.stored_in("g").last().unwrap(),
            &("alice".into(), "n".into(), seq)
        );
    }
}

#[tokio::test]
async fn a_retry_with_another_payload_is_a_conflict_and_sends_nothing() {
    let app = impatient().await;
    let alice = app.user("alice");
    lose(&app, &hi()).await;
    app.clear_calls();
    failure(409, "message_conflict").is(alice.send(&numbered(2, "g", "other", "n")).await);
    assert!(app.sends().is_empty());
}

#[tokio::test]
async fn a_retry_whose_search_fails_sends_nothing() {
    let app = impatient().await;
    let (alice, body) = (app.user("alice"), hi());
    lose(&app, &body).await;
    app.clear_calls();
    app.faults().always("/channel/messagesync", Fault::Reset);
    alice.send(&body).await.fails(503, "upstream_unavailable");
    assert!(app.sends().is_empty());
    app.faults().clear();
    alice.send(&body).await.ok();
    assert_eq!(app.stored_in("g").len(), 1);
}

/// `g` with ten messages known to the gateway, then lost by the upstream and made again by its owner.
async fn made_again(confirm_timeout: Duration) -> TestApp {
    let app = waiting(confirm_timeout).await;
    for _ in 0..10 {
        app.user("alice").send_to_group("g", "before").await.ok();
    }
    app.state().forget_channel("g");
    app.group("g", "alice", &["bob"]).await;
    app
}

#[tokio::test]
async fn a_group_that_was_lost_and_made_again_counts_from_one() {
    let app = made_again(SHORT * 4).await;
    for seq in 1..=3 {
        let sent = app.user("alice").send_to_group("g", "after").await.ok();
        assert_eq!(sent["messageSeq"], seq);
    }
}

#[tokio::test]
async fn a_failed_check_for_a_lost_channel_is_repeated() {
    let app = made_again(SHORT * 4).await;
    // Only that look asks for a single message.
    let fault = Rule::new("/channel/messagesync", Fault::Reset).containing("\"limit\":1,");
    app.faults().add(fault.times(1));
    let sent = app.user("alice").send_to_group("g", "after").await.ok();
    assert_eq!(sent["messageSeq"], 1);
    assert_eq!(app.faults().remaining(), 0);
}

#[tokio::test]
async fn a_retry_in_a_recreated_group_searches_from_its_beginning() {
    let app = made_again(SHORT).await;
    let (alice, body) = (app.user("alice"), hi());
    lose(&app, &body).await;
    app.state().store_message(stored("g", "alice", "n", "hi"));
    assert_eq!(alice.send(&body).await.ok()["messageSeq"], 1);
    assert_eq!(app.sends().len(), 1);
}

#[tokio::test]
async fn a_ban_set_after_the_lookup_is_reported() {
    // The facts are known from then on.
    let app = impatient_known(true).await;
    let alice = app.user("alice");
    app.state().ban_group("g", true);
    app.clear_calls();
    let body = hi();
    let answer = alice.send(&body).await.fails(403, "channel_banned");
    assert!(answer.body.get("clientMsgNo").is_none());
    assert_eq!(app.sends().len(), 1, "the old facts let it through");
    // The next one is refused at once.
    alice.send(&body).await.fails(403, "channel_banned");
    assert_eq!(app.sends().len(), 1);
    // Once the ban is lifted and the facts are no longer believed, the same number goes through.
    app.state().ban_group("g", false);
    app.user("alice").add("g", &["dave"]).await.ok();
    assert_eq!(alice.send(&body).await.ok()["messageSeq"], 2);
}

#[tokio::test]
async fn a_disbanding_after_the_lookup_is_reported() {
    // The facts are known from then on.
    let app = impatient_known(true).await;
    let alice = app.user("alice");
    app.state().disband("g");
    app.clear_calls();
    let body = hi();
    for _ in 0..2 {
        alice.send(&body).await.fails(404, "channel_not_found");
        assert_eq!(app.sends().len(), 1);
    }
}

#[tokio::test]
async fn why_a_message_is_missing_may_stay_unknown() {
    // The facts are known from then on.
    let app = impatient_known(true).await;
    let alice = app.user("alice");
    app.state().ban_group("g", true);
    app.faults().always("/cluster/channels", Fault::Reset);
    let answer = failure(504, "message_unconfirmed").is(alice.send(&hi()).await);
    assert_eq!(answer.body["clientMsgNo"], json!("n"));
}
