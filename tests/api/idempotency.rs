//! One client_msg_no, one message: repeats, conflicts, concurrent duplicates, restarts.

mod hang_ups;

use wukongim_gateway::config::{Confirm, DuplicateCheck};

use crate::support::prelude::*;

#[tokio::test]
async fn the_same_client_msg_no_gets_the_same_answer_and_is_stored_once() {
    for app in TestApp::both_with_group(&["bob"]).await {
        let body = numbered(2, "g", "hi", "n-1");
        let first = app.user("alice").send(&body).await.ok();
        app.user("bob").send_to_group("g", "in between").await.ok();
        for _ in 0..3 {
            let again = app.user("alice").send(&body).await.ok();
            assert_eq!(again, first);
        }
        assert_eq!(app.stored_in("g").len(), 2);
    }
}

#[tokio::test]
async fn a_client_msg_no_used_for_another_payload_is_a_conflict() {
    for app in TestApp::both().await {
        let alice = app.user("alice");
        let first = alice.send(&numbered(1, "bob", "one", "n-1")).await.ok();
        for _ in 0..2 {
            let answer = alice.send(&numbered(1, "bob", "other", "n-1")).await;
            answer.fails(409, "message_conflict");
        }
        let again = alice.send(&numbered(1, "bob", "one", "n-1")).await.ok();
        assert_eq!(again, first);
        assert_eq!(app.state().messages_between("alice", "bob").len(), 1);
    }
}

#[tokio::test]
async fn numbers_are_the_senders_own_and_the_channels_own() {
    for app in TestApp::both_with_group(&["bob"]).await {
        app.group("h", "alice", &[]).await;
        for (uid, channel_type, id, seq) in [
            ("alice", 2, "g", 1),
            ("bob", 2, "g", 2),
            ("alice", 2, "h", 1),
            // One conversation, two senders.
            ("alice", 1, "bob", 1),
            ("bob", 1, "alice", 2),
        ] {
            let body = numbered(channel_type, id, &format!("{uid} {id}"), "n");
            let sent = app.user(uid).send(&body).await.ok();
            assert_eq!(sent["messageSeq"], seq, "{uid} to {id}");
        }
        assert_eq!(app.stored_in("g").len(), 2);
    }
}

#[tokio::test]
async fn an_admins_client_msg_no_belongs_to_the_user_it_sends_as() {
    for app in TestApp::both_with_group(&["root"]).await {
        let body = numbered(2, "g", "hi", "n");
        let first = app.user("alice").send(&body).await.ok();
        let as_alice = as_user("alice", body.clone());
        assert_eq!(app.admin().send(&as_alice).await.ok(), first);
        assert_eq!(app.admin().send(&body).await.ok()["messageSeq"], 2);
    }
}

#[tokio::test]
async fn concurrent_duplicates_store_one_message_and_all_get_its_answer() {
    for app in TestApp::both_with_group(&[]).await {
        let body = numbered(2, "g", "hi", "n-1");
        let alice = app.user("alice");
        let answers = join_all((0..16).map(|_| alice.send(&body))).await;
        let answers: Vec<_> = answers.into_iter().map(Answer::ok).collect();
        let are_one = answers.iter().all(|answer| *answer == answers[0]);
        assert!(are_one, "{answers:#?}");
        assert_eq!(app.stored_in("g").len(), 1);
        if app.dialect == V2 {
            assert_eq!(app.sends().len(), 1);
        }
    }
}

/// Their statuses, sorted.
fn statuses(answers: &[Answer]) -> Vec<u16> {
    let mut statuses: Vec<_> = answers.iter().map(|answer| answer.status).collect();
    statuses.sort_unstable();
    statuses
}

#[tokio::test]
async fn of_two_payloads_with_one_client_msg_no_one_is_sent() {
    for app in TestApp::both().await {
        let alice = app.user("alice");
        let bodies = ["one", "two"].map(|text| numbered(1, "bob", text, "n"));
        let answers = join_all(bodies.iter().map(|body| alice.send(body))).await;
        assert_eq!(statuses(&answers), [200, 409], "{answers:#?}");
        assert_eq!(app.state().messages_between("alice", "bob").len(), 1);
    }
}

/// A v2 gateway that waits a second for a message, with the group `g` of alice.
async fn impatient() -> TestApp {
    let app = TestApp::with(V2, |settings| {
        settings.wukongim.confirm_timeout = Duration::from_secs(1);
    });
    let app = app.await;
    app.group("g", "alice", &[]).await;
    app
}

#[tokio::test]
async fn a_duplicate_of_a_lost_first_sends_in_its_place() {
    let app = impatient().await;
    app.next_send(Fault::DropMessage);
    let (alice, body) = (app.user("alice"), numbered(2, "g", "hi", "n"));
    let answers = join_all((0..3).map(|_| alice.send(&body))).await;
    assert_eq!(statuses(&answers), [200, 200, 504], "{answers:#?}");
    assert_eq!(app.stored_in("g").len(), 1);
}

#[tokio::test]
async fn a_removed_member_repeating_a_send_is_refused() {
    for app in TestApp::both_with_group(&["bob"]).await {
        let body = numbered(2, "g", "hi", "n");
        app.user("bob").send(&body).await.ok();
        app.user("alice").remove("g", &["bob"]).await.ok();
        app.user("bob").send(&body).await.fails(403, "not_a_member");
        app.user("alice").add("g", &["bob"]).await.ok();
        assert_eq!(app.user("bob").send(&body).await.ok()["messageSeq"], 1);
        app.user("alice").delete_group("g").await.ok();
        failure(404, "channel_not_found").is(app.user("bob").send(&body).await);
        assert_eq!(app.stored_in("g").len(), 1);
    }
}

#[tokio::test]
async fn after_the_window_a_client_msg_no_is_new() {
    let window = Duration::from_millis(20);
    let app = TestApp::with(V2, move |settings| {
        settings.wukongim.idempotency_window = window;
    })
    .await;
    let body = numbered(1, "bob", "hi", "n");
    assert_eq!(app.user("alice").send(&body).await.ok()["messageSeq"], 1);
    tokio::time::sleep(window * 2).await;
    assert_eq!(app.user("alice").send(&body).await.ok()["messageSeq"], 2);
    tokio::time::sleep(window * 2).await;
    let other = numbered(1, "bob", "other", "n");
    assert_eq!(app.user("alice").send(&other).await.ok()["messageSeq"], 3);
}

#[tokio::test]
async fn a_generated_client_msg_no_of_a_504_can_be_sent_again() {
    let app = impatient().await;
    app.next_send(Fault::DropMessage);
    let alice = app.user("alice");
    let answer = failure(504, "message_unconfirmed").is(alice.send(&message(2, "g", "hi")).await);
    let number = answer.body["clientMsgNo"].as_str().unwrap().to_owned();
    assert_eq!(app.sends()[0].body["client_msg_no"], *number);
    // It turns up after all.
    app.state()
        .store_message(stored("g", "alice", &number, "hi"));
    let again = alice.send(&numbered(2, "g", "hi", &number)).await.ok();
    assert_eq!(again["messageSeq"], 1);
    assert_eq!((app.stored_in("g").len(), app.sends().len()), (1, 1));
}

/// The gateway starts anew in front of the same WuKongIM, with the same store.
async fn restarted(app: TestApp, check: DuplicateCheck) -> TestApp {
    app.clear_calls();
    TestApp::builder()
        .store(app.store.clone())
        .config(move |settings| settings.wukongim.duplicate_check = check)
        .start_on(app.upstream)
        .await
}

#[tokio::test]
async fn searching_upstream_recognises_a_client_msg_no_across_a_restart() {
    let app = TestApp::with_group(V2, &["bob"]).await;
    let body = numbered(2, "g", "hi", "n");
    let first = app.user("alice").send(&body).await.ok();
    // Somebody else's message with this number is not seen at all, whatever is in it.
    for text in ["hi", "other"] {
        app.state().store_message(stored("g", "bob", "n", text));
    }
    let app = restarted(app, DuplicateCheck::Upstream).await;
    assert_eq!(app.user("alice").send(&body).await.ok(), first);
    let other = numbered(2, "g", "other", "n");
    failure(409, "message_conflict").is(app.user("alice").send(&other).await);
    assert!(app.sends().is_empty());
    // Near, but not the same number.
    let near = numbered(2, "g", "hi", "N");
    let near = app.user("alice").send(&near).await.ok();
    assert_eq!(near["messageSeq"], 4);
}

#[tokio::test]
async fn another_channels_message_with_the_client_msg_no_is_no_duplicate() {
    let app = TestApp::with_group(V2, &["bob"]).await;
    for text in ["hi", "other"] {
        app.state().store_message(stored("g", "bob", "n", text));
    }
    let app = restarted(app, DuplicateCheck::Upstream).await;
    let body = numbered(2, "g", "hi", "n");
    let sent = app.user("alice").send(&body).await.ok();
    assert_eq!(sent["messageSeq"], 3);
    assert_eq!(app.stored_in("g")[2].0, "alice");
}

#[tokio::test]
async fn looking_upstream_reaches_the_newest_thousand() {
    for (others, again) in [(999, 1), (1000, 1002)] {
        let app = TestApp::with_group(V2, &["carol"]).await;
        let body = numbered(2, "g", "hi", "n");
        app.user("alice").send(&body).await.ok();
        app.chatter("g", others);
        let app = restarted(app, DuplicateCheck::Upstream).await;
        let sent = app.user("alice").send(&body).await.ok();
        assert_eq!(sent["messageSeq"], again, "{others} in between");
    }
}

#[tokio::test]
async fn memory_alone_ends_with_the_process() {
    let app = TestApp::with_group(V2, &[]).await;
    let body = numbered(2, "g", "hi", "n");
    app.user("alice").send(&body).await.ok();
    let app = restarted(app, DuplicateCheck::Memory).await;
    assert_eq!(app.user("alice").send(&body).await.ok()["messageSeq"], 2);
    let calls = app.upstream.calls();
    let first = |path| calls.iter().position(|call| call.path == path);
    let (sent, first) = (first("/message/send"), first("/channel/messagesync"));
    assert!(sent < first, "nothing is looked for before the send");
}

#[tokio::test]
async fn v3_recognises_a_client_msg_no_across_a_restart() {
    let app = TestApp::with_group(V3, &[]).await;
    let body = numbered(2, "g", "hi", "n");
    let first = app.user("alice").send(&body).await.ok();
    let app = restarted(app, DuplicateCheck::Memory).await;
    assert_eq!(app.user("alice").send(&body).await.ok(), first);
    let other = numbered(2, "g", "other", "n");
    failure(409, "message_conflict").is(app.user("alice").send(&other).await);
    assert_eq!((app.stored_in("g").len(), app.looks()), (1, 0));
}

#[tokio::test]
async fn accepted_is_answered_without_a_poll_and_still_once() {
    for (dialect, seq) in [(V2, 0), (V3, 1)] {
        let app = TestApp::with(dialect, |settings| {
            settings.wukongim.confirm = Confirm::Accepted;
        })
        .await;
        app.group("g", "alice", &[]).await;
        let body = numbered(2, "g", "hi", "n");
        let first = app.user("alice").send(&body).await.ok();
        assert_eq!(first["messageSeq"], seq, "{dialect:?}");
        assert_eq!(app.user("alice").send(&body).await.ok(), first);
        let other = numbered(2, "g", "other", "n");
        failure(409, "message_conflict").is(app.user("alice").send(&other).await);
        until(|| app.stored_in("g").len() == 1).await;
        let id = app.state().messages(2, "g")[0].message_id;
        assert_eq!(first["messageId"], id.to_string());
        assert_eq!(app.looks(), 0, "{dialect:?}");
    }
}

#[tokio::test]
async fn accepted_without_a_client_msg_no_takes_no_entry_in_the_store() {
    let app = TestApp::with(V2, |settings| {
        settings.wukongim.confirm = Confirm::Accepted;
        settings.wukongim.idempotency_entries = 2;
    })
    .await;
    let (alice, body) = (app.user("alice"), numbered(1, "bob", "hi", "n"));
    let first = alice.send(&body).await.ok();
    for _ in 0..3 {
        alice.send(&message(1, "bob", "no number")).await.ok();
    }
    assert_eq!(alice.send(&body).await.ok(), first);
    assert_eq!(app.sends().len(), 4);
}
