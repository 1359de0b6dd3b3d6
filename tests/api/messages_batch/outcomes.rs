//! What a batch answers when not all of it was sent.

use std::time::Duration;

use dev_upstream::{Fault, Rule};
use serde_json::{Value, json};

use crate::support::messages::{message, numbered};
use crate::support::{TestApp, V2, V3};

fn codes(data: &Value) -> Vec<&str> {
    let entries = data.as_array().unwrap();
    let code = |entry: &'static str, value: &Value| value.get(entry).is_some();
    entries
        .iter()
        .map(|entry| {
            if code("error", entry) {
                assert!(
                    entry["error"]["message"]
                        .as_str()
                        .is_some_and(|text| !text.is_empty())
                );
                entry["error"]["code"].as_str().unwrap()
            } else {
                assert!(
                    entry["messageSeq"].as_u64().is_some_and(|seq| seq > 0),
                    "{entry}"
                );
                "sent"
            }
        })
        .collect()
}

#[tokio::test]
async fn some_sent_is_207_with_an_entry_for_each() {
    for dialect in [V2, V3] {
        let app = TestApp::start(dialect).await;
        app.group("g", "alice", &["bob"]).await;
        app.group("h", "alice", &[]).await;
        app.state().deny(1, "carol", "bob");
        let bodies = [
            message(2, "g", "fine"),
            message(2, "h", "not mine"),
            message(2, "nowhere", "unknown"),
            message(1, "carol", "blocked"),
            message(2, "g", "fine too"),
        ];
        let answer = app.user("bob").send_batch(&bodies).await;
        let answer = answer.fails(207, "partial_failure");
        assert_eq!(answer.body["message"], "批量发送消息失败");
        let expected = [
            "sent",
            "not_a_member",
            "channel_not_found",
            "blocked",
            "sent",
        ];
        assert_eq!(codes(&answer.body["data"]), expected, "{dialect:?}");
        assert_eq!(answer.body["data"][1]["error"]["message"], "不是该群成员");
        assert_eq!(app.stored_in("g").len(), 2);
    }
}

#[tokio::test]
async fn none_sent_is_the_first_errors_status_and_code() {
    for dialect in [V2, V3] {
        let app = TestApp::start(dialect).await;
        app.group("g", "alice", &[]).await;
        for (bodies, status, code) in [
            (
                [message(2, "g", "x"), message(2, "nowhere", "x")],
                403,
                "not_a_member",
            ),
            (
                [message(2, "nowhere", "x"), message(2, "g", "x")],
                404,
                "channel_not_found",
            ),
        ] {
            let answer = app
                .user("bob")
                .send_batch(&bodies)
                .await
                .fails(status, code);
            assert_eq!(answer.body["message"], "批量发送消息失败");
            assert_eq!(answer.body["data"].as_array().unwrap().len(), 2);
            assert_eq!(codes(&answer.body["data"])[0], code, "{dialect:?}");
        }
    }
}

#[tokio::test]
async fn entries_and_message_are_english_if_preferred() {
    let app = TestApp::start(V2).await;
    app.group("g", "alice", &[]).await;
    let request = app
        .user("bob")
        .request("POST", "/message/sendbatch")
        .header("content-type", "application/json")
        .header("accept-language", "en-US,en;q=0.9")
        .body(json!([message(2, "g", "x")]).to_string());
    let answer = crate::support::answer::Answer::to(request).await;
    let answer = answer.fails(403, "not_a_member");
    assert_eq!(answer.body["message"], "failed to send the batch");
    let entry = &answer.body["data"][0]["error"];
    assert_eq!(entry["message"], "not a member of this group");
}

#[tokio::test]
async fn an_unreachable_upstream_is_reported_with_an_entry_for_each_message() {
    for dialect in [V2, V3] {
        let app = TestApp::start(dialect).await;
        app.upstream.stop().await;
        let bodies = vec![message(1, "bob", "x"); 3];
        let answer = app.user("alice").send_batch(&bodies).await;
        let answer = answer.fails(503, "upstream_unavailable");
        assert_eq!(answer.header("retry-after"), "1");
        assert_eq!(
            codes(&answer.body["data"]),
            ["upstream_unavailable"; 3],
            "{dialect:?}"
        );
        let entry = &answer.body["data"][0]["error"];
        assert_eq!(entry["message"], "批量发送消息失败", "{dialect:?}");
    }
}

#[tokio::test]
async fn an_unconfirmed_message_of_a_batch_returns_its_client_msg_no() {
    let app = TestApp::with(V2, |settings| {
        settings.wukongim.confirm_timeout = Duration::from_secs(1);
    })
    .await;
    app.group("g", "alice", &[]).await;
    let drop = Rule::new("/message/send", Fault::DropMessage)
        .containing("n-1")
        .times(1);
    app.faults().add(drop);
    let bodies: Vec<_> = (0..3)
        .map(|n| numbered(2, "g", "hi", &format!("n-{n}")))
        .collect();
    let answer = app.user("alice").send_batch(&bodies).await;
    let answer = answer.fails(207, "partial_failure");
    assert_eq!(
        codes(&answer.body["data"]),
        ["sent", "message_unconfirmed", "sent"]
    );
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
        let app = TestApp::start(dialect).await;
        app.group("g", "alice", &[]).await;
        let refuse = Fault::Status(400, "{}".into());
        app.faults()
            .add(Rule::new("/message/send", refuse).containing("n-1"));
        let mut bodies: Vec<_> = (0..4)
            .map(|n| numbered(2, "g", "hi", &format!("n-{n}")))
            .collect();
        bodies.push(message(1, "bob", "another channel"));
        let answer = app.user("alice").send_batch(&bodies).await;
        let answer = answer.fails(207, "partial_failure");
        let expected = [
            "sent",
            "upstream_error",
            "upstream_error",
            "upstream_error",
            "sent",
        ];
        assert_eq!(codes(&answer.body["data"]), expected, "{dialect:?}");
        assert_eq!(app.stored_in("g").len(), 1);
    }
}

#[tokio::test]
async fn every_message_has_an_entry_when_the_time_is_up() {
    for dialect in [V2, V3] {
        let app = TestApp::with(dialect, |settings| {
            settings.server.request_timeout = Duration::from_secs(6);
            settings.wukongim.confirm_timeout = Duration::from_secs(3);
        })
        .await;
        app.group("g", "alice", &[]).await;
        let slow = Rule::new("/message/send", Fault::Delay(Duration::from_millis(400)));
        app.faults().add(slow.containing("n-"));
        let stuck = Rule::new("/message/send", Fault::Hang);
        app.faults().add(stuck.containing("stuck"));
        let mut bodies: Vec<_> = (0..40)
            .map(|n| numbered(2, "g", "hi", &format!("n-{n}")))
            .collect();
        bodies.push(numbered(1, "bob", "hi", "stuck"));
        bodies.push(message(1, "carol", "no number"));
        let answer = app.user("alice").send_batch(&bodies).await;
        let data = answer.fails(207, "partial_failure").body["data"].clone();
        let told = codes(&data);
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
        let app = TestApp::with(dialect, |settings| {
            settings.wukongim.timeout = Duration::from_secs(1);
            settings.wukongim.confirm_timeout = Duration::from_secs(1);
        })
        .await;
        app.group("g", "alice", &[]).await;
        let stuck = Rule::new("/message/send", Fault::Hang);
        app.faults().add(stuck.containing("n-1"));
        let bodies: Vec<_> = (0..4)
            .map(|n| numbered(2, "g", "hi", &format!("n-{n}")))
            .collect();
        let answer = app.user("alice").send_batch(&bodies).await;
        let data = answer.fails(207, "partial_failure").body["data"].clone();
        let expected = [
            "sent",
            "message_unconfirmed",
            "upstream_timeout",
            "upstream_timeout",
        ];
        assert_eq!(codes(&data), expected, "{dialect:?}");
        assert_eq!(app.sends().len(), 2, "{dialect:?}");
    }
}

#[tokio::test]
async fn a_lost_answer_whose_message_is_found_stops_nothing() {
    for dialect in [V2, V3] {
        let app = TestApp::start(dialect).await;
        app.group("g", "alice", &[]).await;
        let lost = Rule::new("/message/send", Fault::ResetAfter).containing("n-1");
        app.faults().add(lost.times(1));
        let bodies: Vec<_> = (0..4)
            .map(|n| numbered(2, "g", "hi", &format!("n-{n}")))
            .collect();
        let data = app.user("alice").send_batch(&bodies).await.ok();
        for (index, entry) in data.as_array().unwrap().iter().enumerate() {
            assert_eq!(entry["messageSeq"], index + 1, "{dialect:?}");
        }
    }
}

#[tokio::test]
async fn messages_before_a_hanging_one_are_reported_as_sent() {
    for dialect in [V2, V3] {
        let app = TestApp::with(dialect, |settings| {
            settings.server.request_timeout = Duration::from_secs(4);
            settings.wukongim.confirm_timeout = Duration::from_secs(2);
            settings.wukongim.timeout = Duration::from_secs(30);
        })
        .await;
        app.group("g", "alice", &[]).await;
        let stuck = Rule::new("/message/send", Fault::Hang);
        app.faults().add(stuck.containing("n-2"));
        let bodies: Vec<_> = (0..4)
            .map(|n| numbered(2, "g", "hi", &format!("n-{n}")))
            .collect();
        let answer = app.user("alice").send_batch(&bodies).await;
        let data = answer.fails(207, "partial_failure").body["data"].clone();
        let expected = ["sent", "sent", "message_unconfirmed", "message_unconfirmed"];
        assert_eq!(codes(&data), expected, "{dialect:?}");
    }
}

/// As a busy v2 does it, which handles two messages at once that come close to each other.
#[tokio::test]
async fn a_message_that_is_stored_late_is_not_overtaken() {
    let app = TestApp::start(V2).await;
    app.group("g", "alice", &[]).await;
    let late = Rule::new("/message/send", Fault::StoreLate(Duration::from_millis(15)))
        .containing("n-1")
        .times(1);
    app.faults().add(late);
    let bodies: Vec<_> = (0..3)
        .map(|n| numbered(2, "g", "hi", &format!("n-{n}")))
        .collect();
    let sent = app.user("alice").send_batch(&bodies).await.ok();
    let seqs: Vec<_> = (0..3).map(|n| sent[n]["messageSeq"].clone()).collect();
    assert_eq!(seqs, [1, 2, 3]);
}
