//! What a batch answers when not all of it was sent.

use wukongim_gateway::config::Settings;

use crate::support::messages::{seqs, series};
use crate::support::prelude::*;

const SECOND: Duration = Duration::from_secs(1);

/// A gateway with the group `g` of alice.
async fn app(dialect: Dialect, change: fn(&mut Settings)) -> TestApp {
    let app = TestApp::with(dialect, change).await;
    app.group("g", "alice", &[]).await;
    app
}

/// Sends as alice, of whose messages some are sent and some are not: the answer, and what became of each.
async fn partly(app: &TestApp, bodies: &[Value], expected: &[&str]) -> Answer {
    let answer = failure(207, "partial_failure").is(app.user("alice").send_batch(bodies).await);
    assert_eq!(answer.outcomes(), expected, "{:?}", app.dialect);
    answer
}

#[tokio::test]
async fn some_sent_is_207_with_an_entry_for_each() {
    for app in TestApp::both_with_group(&["bob"]).await {
        app.group("h", "alice", &[]).await;
        app.state().deny(1, "carol", "bob");
        let bodies = [
            message(2, "g", "fine"),
            message(2, "h", "not mine"),
            message(2, "nowhere", "unknown"),
            message(1, "carol", "blocked"),
            message(2, "g", "fine too"),
        ];
        let answer = failure(207, "partial_failure").is(app.user("bob").send_batch(&bodies).await);
        assert_eq!(answer.body["message"], "批量发送消息失败");
        let refused = ["not_a_member", "channel_not_found", "blocked"];
        assert_eq!(answer.outcomes()[1..4], refused);
        assert_eq!(
            (answer.outcomes()[0], answer.outcomes()[4]),
            ("sent", "sent")
        );
        assert_eq!(answer.body["data"][1]["error"]["message"], "不是该群成员");
        assert_eq!(app.stored_in("g").len(), 2);
        assert!(app.stored_in("h").is_empty() && app.stored_in("nowhere").is_empty());
        assert!(app.state().messages_between("bob", "carol").is_empty());
    }
}

#[tokio::test]
async fn none_sent_is_the_first_errors_status_and_code() {
    for app in TestApp::both_with_group(&[]).await {
        for (to, status, code) in [
            (["g", "nowhere"], 403, "not_a_member"),
            (["nowhere", "g"], 404, "channel_not_found"),
        ] {
            let bodies = to.map(|id| message(2, id, "x"));
            let answer = failure(status, code).is(app.user("bob").send_batch(&bodies).await);
            assert_eq!(answer.body["message"], "批量发送消息失败");
            assert_eq!(answer.body["data"].as_array().unwrap().len(), 2);
            assert_eq!(answer.outcomes()[0], code);
        }
    }
}

#[tokio::test]
async fn entries_and_message_are_english_if_preferred() {
    let app = TestApp::with_group(V2, &[]).await;
    let batch = json!([message(2, "g", "x")]).to_string();
    let request = app.user("bob").posting("/message/sendbatch", batch);
    let request = request.header("accept-language", "en-US,en;q=0.9");
    let answer = failure(403, "not_a_member").is(Answer::to(request).await);
    assert_eq!(answer.body["message"], "failed to send the batch");
    let entry = &answer.body["data"][0]["error"];
    assert_eq!(entry["message"], "not a member of this group");
}

#[tokio::test]
async fn an_unreachable_upstream_is_reported_with_an_entry_for_each_message() {
    for app in TestApp::both().await {
        app.upstream.stop().await;
        let bodies = vec![message(1, "bob", "x"); 3];
        let answer = app.user("alice").send_batch(&bodies).await;
        let answer = answer.fails(503, "upstream_unavailable");
        assert_eq!(answer.header("retry-after"), "1");
        assert_eq!(answer.outcomes(), ["upstream_unavailable"; 3]);
        let entry = &answer.body["data"][0]["error"];
        assert_eq!(entry["message"], "批量发送消息失败");
    }
}

#[tokio::test]
async fn an_unconfirmed_message_of_a_batch_returns_its_client_msg_no() {
    let app = app(V2, |settings| settings.wukongim.confirm_timeout = SECOND).await;
    app.each_send("n-1", Fault::DropMessage);
    let bodies = series(3);
    let expected = ["sent", "message_unconfirmed", "sent"];
    let answer = partly(&app, &bodies, &expected).await;
    app.faults().clear();
    assert_eq!(answer.body["data"][1]["error"]["clientMsgNo"], "n-1");
    // The whole batch again: only what is missing is stored.
    let again = app.user("alice").send_batch(&bodies).await.ok();
    assert_eq!(again[0], answer.body["data"][0]);
    assert_eq!(again[1]["messageSeq"], 3);
    assert_eq!(app.stored_in("g").len(), 3);
}

#[tokio::test]
async fn what_follows_a_message_that_was_not_taken_does_not_overtake_it() {
    for dialect in [V2, V3] {
        let app = app(dialect, |_| {}).await;
        app.each_send("n-1", Fault::Status(400, "{}".into()));
        let mut bodies = series(4);
        bodies.push(message(1, "bob", "another channel"));
        let [error, sent] = ["upstream_error", "sent"];
        partly(&app, &bodies, &[sent, error, error, error, sent]).await;
        assert_eq!(app.stored_in("g").len(), 1);
    }
}

#[tokio::test]
async fn every_message_has_an_entry_when_the_time_is_up() {
    for dialect in [V2, V3] {
        let app = app(dialect, |settings| {
            settings.server.request_timeout = SECOND * 6;
            settings.wukongim.confirm_timeout = SECOND * 3;
        });
        let app = app.await;
        app.each_send("n-", Fault::Delay(Duration::from_millis(400)));
        app.each_send("stuck", Fault::Hang);
        let mut bodies = series(40);
        bodies.push(numbered(1, "bob", "hi", "stuck"));
        bodies.push(message(1, "carol", "no number"));
        let answer = app.user("alice").send_batch(&bodies).await;
        let answer = answer.fails(207, "partial_failure");
        let (told, data) = (answer.outcomes(), &answer.body["data"]);
        assert_eq!(told.len(), 42, "{dialect:?}");
        assert_eq!((told[0], told[41]), ("sent", "sent"), "{dialect:?}");
        for index in [38, 39, 40] {
            assert_eq!(told[index], "message_unconfirmed", "{dialect:?}");
            let number = &bodies[index]["clientMsgNo"];
            assert_eq!(data[index]["error"]["clientMsgNo"], *number);
        }
        // Those that were sent are a beginning of the channel, in order.
        let sent = told.iter().take_while(|code| **code == "sent").count();
        assert!(told[sent..41].iter().all(|code| *code != "sent"));
        let numbers = app.stored_in("g").into_iter().map(|stored| stored.1);
        let expected = (0..40).map(|n| format!("n-{n}"));
        assert!(numbers.zip(expected).all(|(is, should)| is == should));
    }
}

#[tokio::test]
async fn nothing_overtakes_a_message_that_was_not_answered() {
    for dialect in [V2, V3] {
        let app = app(dialect, |settings| {
            settings.wukongim.timeout = SECOND;
            settings.wukongim.confirm_timeout = SECOND;
        });
        let app = app.await;
        app.each_send("n-1", Fault::Hang);
        let rest = "upstream_timeout";
        let expected = ["sent", "message_unconfirmed", rest, rest];
        partly(&app, &series(4), &expected).await;
        assert_eq!(app.sends().len(), 2, "{dialect:?}");
    }
}

#[tokio::test]
async fn a_lost_answer_whose_message_is_found_stops_nothing() {
    for dialect in [V2, V3] {
        let app = app(dialect, |_| {}).await;
        let lost = Rule::new("/message/send", Fault::ResetAfter).containing("n-1");
        app.faults().add(lost.times(1));
        let sent = app.user("alice").send_batch(&series(4)).await.ok();
        assert_eq!(seqs(&sent), [1, 2, 3, 4], "{dialect:?}");
    }
}

#[tokio::test]
async fn messages_before_a_hanging_one_are_reported_as_sent() {
    for dialect in [V2, V3] {
        let app = app(dialect, |settings| {
            settings.server.request_timeout = SECOND * 4;
            settings.wukongim.confirm_timeout = SECOND * 2;
            settings.wukongim.timeout = SECOND * 30;
        });
        let app = app.await;
        app.each_send("n-2", Fault::Hang);
        let rest = "message_unconfirmed";
        partly(&app, &series(4), &["sent", "sent", rest, rest]).await;
    }
}

/// As a busy v2 does it, which handles two messages at once that come close to each other.
#[tokio::test]
async fn a_message_that_is_stored_late_is_not_overtaken() {
    let app = app(V2, |_| {}).await;
    app.each_send("n-1", Fault::StoreLate(Duration::from_millis(15)));
    let sent = app.user("alice").send_batch(&series(3)).await.ok();
    assert_eq!(seqs(&sent), [1, 2, 3]);
}
