//! `POST /message/send`: answers, senders, and upstream calls.

use std::time::{SystemTime, UNIX_EPOCH};

use dev_upstream::EPOCH_MS;

use crate::support::messages::seqs;
use crate::support::prelude::*;

#[tokio::test]
async fn a_sent_message_is_answered_with_its_real_seq_and_can_be_read() {
    for app in TestApp::both().await {
        let alice = app.user("alice");
        for seq in 1..=3 {
            let body = numbered(1, "bob", "hi", &format!("n-{seq}"));
            let sent = alice.send(&body).await.ok();
            assert_eq!(sent["messageSeq"], seq, "{sent}");
            assert_eq!(sent["clientMsgNo"], body["clientMsgNo"]);
        }
        let read = app.user("bob").sync(1, "alice", "").await.ok();
        assert_eq!(seqs(&read), [1, 2, 3]);
        assert_eq!(read[0]["channelId"], "alice");
        assert_eq!(read[0]["fromUid"], "alice");
        assert_eq!(read[0]["payload"], payload("hi"));
    }
}

#[tokio::test]
async fn the_answer_is_what_the_upstream_stored() {
    let now_ms = || {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        u64::try_from(now.as_millis()).unwrap()
    };
    for app in TestApp::both_with_group(&["bob"]).await {
        app.chatter("g", 6);
        let before = now_ms();
        let body = numbered(2, "g", "hi", "n-1");
        let sent = app.user("bob").send(&body).await.ok();
        let messages = app.state().messages(2, "g");
        let own = messages.last().unwrap();
        let id_ms = ((own.message_id >> 22) + EPOCH_MS).unsigned_abs();
        assert!((before..=now_ms()).contains(&id_ms), "{id_ms}");
        let expected = json!({
            "messageId": own.message_id.to_string(), "messageSeq": 7, "clientMsgNo": "n-1",
            "timestamp": id_ms,
        });
        assert_eq!(sent, expected);
        assert_eq!((&*own.from_uid, own.message_seq), ("bob", 7));
    }
}

#[tokio::test]
async fn without_a_client_msg_no_each_message_gets_a_new_one() {
    for app in TestApp::both_with_group(&[]).await {
        let mut numbers = Vec::new();
        for extra in [json!({}), json!({"clientMsgNo": null, "fromUid": null})] {
            let mut body = message(2, "g", "same text");
            let members = body.as_object_mut().unwrap();
            members.extend(extra.as_object().unwrap().clone());
            let sent = app.user("alice").send(&body).await.ok();
            numbers.push(sent["clientMsgNo"].as_str().unwrap().to_owned());
        }
        assert_ne!(numbers[0], numbers[1]);
        let stored: Vec<_> = app
            .stored_in("g")
            .into_iter()
            .map(|(_, number, _)| number)
            .collect();
        assert_eq!(stored, numbers);
        assert!(numbers.iter().all(|number| !number.is_empty()));
    }
}

#[tokio::test]
async fn number_and_payload_are_passed_on_byte_for_byte() {
    for app in TestApp::both().await {
        // Escapes, several scripts, base64 with `+`, `/` and padding; not JSON inside.
        for (number, payload) in [
            ("é \"q\" \\ 群/#@&?%", "+/+/"),
            ("😀", "AP8="),
            (" x ", "/w=="),
        ] {
            let body = json!({"channelId": "bob", "channelType": 1, "payload": payload, "clientMsgNo": number});
            let sent = app.user("alice").send(&body).await.ok();
            assert_eq!(sent["clientMsgNo"], number);
            let stored = app.state().messages_between("alice", "bob");
            let last = stored.last().unwrap();
            let kept = (&*last.client_msg_no, &*last.payload);
            assert_eq!(kept, (number, payload));
        }
    }
}

#[tokio::test]
async fn upstream_gets_exactly_these_fields_and_nothing_else_of_the_client() {
    for app in TestApp::both_with_group(&[]).await {
        let body = json!({
            "channelId": "g", "channelType": 2, "payload": payload("hi"), "clientMsgNo": "n-1",
            "device_id": "____device", "header": {"no_persist": 1, "sync_once": 1}, "from_uid": "mallory",
            "subscribers": ["mallory"], "expire": 1, "message_seq": 9, "channel_id": "other", "client_msg_no": "n-2",
        });
        app.user("alice").send(&body).await.ok();
        let sends = app.sends();
        assert_eq!(sends.len(), 1);
        let mut expected = json!({
            "from_uid": "alice", "channel_id": "g", "channel_type": 2,
            "payload": payload("hi"), "client_msg_no": "n-1",
        });
        // The gateway's own: a v2 in v3's place refuses the body for it, and a v3 in v2's for the other one.
        let mark = if app.dialect == V3 {
            "tag_key"
        } else {
            "device_id"
        };
        expected[mark] = json!(0);
        // v3's API knows no red dot.
        if app.dialect == V2 {
            expected["header"] = json!({"red_dot": 1});
        }
        assert_eq!(sends[0].body, expected);
        let stored = app.state().messages(2, "g");
        assert_eq!(stored[0].red_dot, app.dialect == V2);
    }
}

#[tokio::test]
async fn the_request_id_goes_upstream() {
    for app in TestApp::both().await {
        let alice = app.user("alice");
        let given = alice.posting("/message/send", message(1, "bob", "hi").to_string());
        let given = given.header("x-request-id", "trace-1.a_b");
        let answer = given.send().await.unwrap();
        assert_eq!(answer.headers()["x-request-id"], "trace-1.a_b");
        let made = alice.send_to_person("bob", "hi").await;
        let sent_on: Vec<_> = app
            .sends()
            .into_iter()
            .map(|call| call.request_id.unwrap())
            .collect();
        assert_eq!(sent_on, ["trace-1.a_b", made.header("x-request-id")]);
    }
}

#[tokio::test]
async fn on_v2_a_note_to_oneself_is_a_message_like_any_other() {
    let app = TestApp::start(V2).await;
    for seq in 1..=2 {
        let sent = app.user("alice").send_to_person("alice", "note").await.ok();
        assert_eq!(sent["messageSeq"], seq);
    }
}

#[tokio::test]
async fn v3_never_gets_a_note_to_oneself() {
    let app = TestApp::start(V3).await;
    let note = app.user("alice").send_to_person("alice", "note").await;
    note.names(&["channelId"]);

    let notes = ["bob", "alice", "carl", "alice"].map(|id| message(1, id, "x"));
    let refused = failure(400, "invalid_request").is(app.user("alice").send_batch(&notes).await);
    assert_eq!(refused.bad_fields(), ["[1].channelId", "[3].channelId"]);

    // An admin's message in somebody's name is that user's.
    let body = as_user("alice", message(1, "alice", "z"));
    failure(400, "invalid_request").is(app.admin().send(&body).await);
    let batch = [message(1, "bob", "y"), body];
    let refused = app.admin().send_batch(&batch).await;
    refused.names(&["[1].channelId"]);
    assert!(app.calls_to("/message/send").is_empty());
}

#[tokio::test]
async fn sixteen_clients_in_one_channel_get_gapless_increasing_seqs() {
    for app in TestApp::both().await {
        let members: Vec<_> = (0..16).map(|n| format!("u{n}")).collect();
        let others: Vec<_> = members.iter().map(String::as_str).collect();
        app.group("g", "owner", &others).await;
        let user = |uid: &str| app.user(uid);
        let clients = members.iter().map(|uid| async move {
            let mut own = Vec::new();
            for n in 0..8 {
                let body = numbered(2, "g", uid, &format!("{uid}-{n}"));
                own.push(user(uid).send(&body).await.ok());
            }
            own
        });
        let mut told = Vec::new();
        for own in join_all(clients).await {
            let own = Value::from(own);
            let increasing = seqs(&own);
            assert!(increasing.is_sorted_by(|a, b| a < b), "{increasing:?}");
            for (sent, seq) in own.as_array().unwrap().iter().zip(increasing) {
                let id = sent["messageId"].as_str().unwrap().to_owned();
                told.push((seq, id, sent["clientMsgNo"].clone()));
            }
        }
        told.sort_by_key(|(seq, ..)| *seq);
        let stored = app.state().messages(2, "g").into_iter().map(|own| {
            let (id, number) = (own.message_id.to_string(), json!(*own.client_msg_no));
            (own.message_seq, id, number)
        });
        let stored: Vec<_> = stored.collect();
        assert_eq!(told, stored);
        assert!(stored.iter().map(|(seq, ..)| *seq).eq(1..=128));
    }
}
