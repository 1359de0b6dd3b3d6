//! Missing or broken answers of v2: the message is searched for by sender and client_msg_no before the request is answered.

use super::{
    hi, impatient, impatient_known, looked_before_sending, of_last_year, patient, patient_known,
};
use crate::support::prelude::*;

#[tokio::test]
async fn a_message_whose_answer_was_lost_is_found_and_answered() {
    for fault in [Fault::ResetAfter, Fault::HalfAnswer] {
        for known_before in [false, true] {
            let app = patient_known(known_before).await;
            let alice = app.user("alice");
            app.next_send(fault.clone());
            let body = hi();
            let sent = alice.send(&body).await.ok();
            let seq = 1 + u64::from(known_before);
            assert_eq!(sent["messageSeq"], seq, "{fault:?}");
            let id = app.state().messages(2, "g").last().unwrap().message_id;
            assert_eq!(sent["messageId"], id.to_string());
            assert_eq!(alice.send(&body).await.ok(), sent);
            assert_eq!(app.stored_in("g").len() as u64, seq, "{fault:?}");
        }
    }
}

#[tokio::test]
async fn a_message_with_a_generated_client_msg_no_and_a_lost_answer_is_found() {
    let app = patient().await;
    app.next_send(Fault::ResetAfter);
    let sent = app.user("alice").send_to_person("bob", "hi").await.ok();
    assert_eq!(sent["messageSeq"], 1);
    assert_eq!(app.state().messages_between("alice", "bob").len(), 1);
}

#[tokio::test]
async fn a_message_without_an_answer_in_time_is_searched_for() {
    let app = TestApp::with(V2, |settings| settings.wukongim.timeout = super::SHORT).await;
    app.group("g", "alice", &[]).await;
    app.next_send(Fault::HoldAnswer("for ever".into()));
    let sent = app.user("alice").send(&hi()).await.ok();
    assert_eq!(sent["messageSeq"], 1);
    assert_eq!(app.stored_in("g").len(), 1);
}

#[tokio::test]
async fn a_message_that_never_arrived_is_sent_by_the_retry_alone() {
    for (fault, status, code) in [
        (Fault::Reset, 504, "message_unconfirmed"),
        (Fault::Hang, 504, "message_unconfirmed"),
        // It may have arrived all the same, and so the number is told.
        (Fault::Garbage, 502, "upstream_error"),
        (Fault::Status(500, "{}".into()), 502, "upstream_error"),
    ] {
        let hangs = fault == Fault::Hang;
        let app = TestApp::with(V2, move |settings| {
            if hangs {
                settings.wukongim.timeout = super::SHORT;
            }
            settings.wukongim.confirm_timeout = super::SHORT;
        })
        .await;
        app.group("g", "alice", &[]).await;
        app.next_send(fault.clone());
        let (alice, body) = (app.user("alice"), hi());
        let answer = alice.send(&body).await.fails(status, code);
        assert_eq!(answer.body["clientMsgNo"], "n", "{fault:?}");
        assert!(app.stored_in("g").is_empty());
        app.clear_calls();
        assert_eq!(alice.send(&body).await.ok()["messageSeq"], 1, "{fault:?}");
        assert!(looked_before_sending(&app));
        assert_eq!(app.stored_in("g").len(), 1, "{fault:?}");
    }
}

#[tokio::test]
async fn a_refused_message_is_not_searched_for() {
    let app = patient().await;
    for body in [r#"{"msg":"不行","status":400}"#, "not even json"] {
        app.next_send(Fault::Status(400, body.into()));
        let answer = failure(502, "upstream_error").is(app.user("alice").send(&hi()).await);
        let number = answer.body.get("clientMsgNo");
        assert_eq!(number, None, "it is certainly not stored");
    }
    app.next_send(Fault::Status(200, r#"{"status":15}"#.into()));
    failure(502, "upstream_error").is(app.user("alice").send(&hi()).await);
    assert_eq!(app.looks(), 0);
    // Nothing is left of them: the number is free.
    let other = numbered(2, "g", "other", "n");
    app.user("alice").send(&other).await.ok();
}

#[tokio::test]
async fn another_senders_message_never_confirms_a_send() {
    for known_before in [false, true] {
        let app = impatient_known(known_before).await;
        let alice = app.user("alice");
        // One before the send, one that comes while its answer is out, both with the victim's number and payload.
        app.state().store_message(stored("g", "bob", "n", "hi"));
        app.next_send(Fault::Hold("send".into()));
        app.next_send(Fault::Reset);
        let body = hi();
        let foreign = async {
            app.faults().wait_held("send", 1).await;
            app.state().store_message(stored("g", "carol", "n", "hi"));
            app.faults().release("send");
        };
        let (answer, ()) = tokio::join!(alice.send(&body), foreign);
        answer.fails(504, "message_unconfirmed");
        let before = app.stored_in("g").len() as u64;
        assert_eq!(alice.send(&body).await.ok()["messageSeq"], before + 1);
        assert_eq!(app.stored_in("g").last().unwrap().0, "alice");
    }
}

#[tokio::test]
async fn another_senders_message_does_not_hide_the_own_one() {
    let app = patient().await;
    for text in ["hi", "other"] {
        app.state().store_message(stored("g", "bob", "n", text));
    }
    app.next_send(Fault::ResetAfter);
    let sent = app.user("alice").send(&hi()).await.ok();
    assert_eq!(sent["messageSeq"], 3);
}

#[tokio::test]
async fn an_own_message_of_last_year_is_not_the_confirmation() {
    for text in ["hi", "other"] {
        let app = impatient().await;
        app.state().store_message(of_last_year(text));
        app.next_send(Fault::Reset);
        failure(504, "message_unconfirmed").is(app.user("alice").send(&hi()).await);
    }
}

#[tokio::test]
async fn a_failed_poll_is_repeated() {
    for fault in [
        Fault::Reset,
        Fault::HalfAnswer,
        Fault::Garbage,
        Fault::Status(500, "{}".into()),
    ] {
        let app = patient().await;
        app.add_fault(Rule::new("/channel/messagesync", fault.clone()).times(2));
        let sent = app.user("alice").send_to_group("g", "hi").await.ok();
        assert_eq!(sent["messageSeq"], 1, "{fault:?}");
        assert_eq!(app.faults().remaining(), 0, "{fault:?}");
    }
}
