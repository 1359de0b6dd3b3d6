//! What is said of one message.

use dev_upstream::{EPOCH_MS, StoredMessage};

use crate::support::prelude::*;

/// The only message of this answer.
#[track_caller]
fn only(data: &Value) -> Value {
    assert_eq!(data.as_array().map(Vec::len), Some(1), "{data}");
    data[0].clone()
}

#[tokio::test]
async fn a_message_has_the_fields_of_the_reference_and_its_client_msg_no() {
    for app in TestApp::both().await {
        let body = json!({
            "channelId": "bob", "channelType": 1, "payload": "eyJ0eXBlIjoxfQ==", "clientMsgNo": "n-1"
        });
        let sent = app.user("alice").post("/message/send", &body).await.ok();
        let stored = app.state().messages_between("alice", "bob");
        assert_eq!(sent["messageId"], stored[0].message_id.to_string());
        for (reader, peer) in [("alice", "bob"), ("bob", "alice")] {
            let read = only(&app.user(reader).sync(PERSON, peer, "").await.ok());
            let timestamp = read["timestamp"].as_u64().expect("a number");
            let expected = json!({
                "messageId": sent["messageId"], "messageSeq": 1, "channelId": peer, "channelType": 1,
                "fromUid": "alice", "payload": "eyJ0eXBlIjoxfQ==", "timestamp": timestamp,
                "clientMsgNo": "n-1",
            });
            assert_eq!(read, expected, "{reader}");
        }
    }
}

#[tokio::test]
async fn timestamps_are_milliseconds_of_upstreams_seconds_or_of_the_id() {
    for app in TestApp::both().await {
        seeds::group(&app, "g", &["alice"]);
        // 2024-01-15T10:00:00.123Z in the id, another time in the message.
        let id_ms = 1_705_312_800_123_i64;
        for timestamp in [1_700_000_000, 0] {
            app.state().store_message(StoredMessage {
                channel_id: "g".into(),
                channel_type: GROUP,
                from_uid: "alice".into(),
                payload: b"x".to_vec(),
                timestamp: Some(timestamp),
                message_id: Some(((id_ms - EPOCH_MS) << 22) | i64::from(timestamp % 7)),
                ..StoredMessage::default()
            });
        }
        let read = app.user("alice").sync(GROUP, "g", "").await.ok();
        assert_eq!(read[0]["timestamp"], 1_700_000_000_000_u64);
        assert_eq!(read[1]["timestamp"], id_ms);
    }
}

#[tokio::test]
async fn a_message_sent_now_is_dated_now() {
    for app in TestApp::both().await {
        let now_ms = || {
            let since = std::time::UNIX_EPOCH.elapsed().expect("a clock");
            u64::try_from(since.as_millis()).expect("a time")
        };
        let before = now_ms();
        app.user("alice").send_to_person("bob", "now").await.ok();
        let after = now_ms();
        let read = only(&app.user("bob").sync(PERSON, "alice", "").await.ok());
        let timestamp = read["timestamp"].as_u64().expect("a number");
        // v2 keeps whole seconds.
        let range = before / 1000 * 1000..=after;
        assert!(range.contains(&timestamp), "{timestamp} in {range:?}");
    }
}

#[tokio::test]
async fn a_message_id_is_text_to_its_last_digit() {
    for app in TestApp::both().await {
        seeds::group(&app, "g", &["alice"]);
        app.state().store_message(StoredMessage {
            channel_id: "g".into(),
            channel_type: GROUP,
            from_uid: "alice".into(),
            payload: b"x".to_vec(),
            message_id: Some(i64::MAX - 2),
            ..StoredMessage::default()
        });
        let read = only(&app.user("alice").sync(GROUP, "g", "").await.ok());
        assert_eq!(read["messageId"], "9223372036854775805");
    }
}

#[tokio::test]
async fn a_message_of_the_system_is_from_the_system() {
    for app in TestApp::both().await {
        seeds::group(&app, "g", &["alice"]);
        seeds::message(&app, GROUP, "g", "____system", b"welcome");
        let read = only(&app.user("alice").sync(GROUP, "g", "").await.ok());
        assert_eq!(read["fromUid"], "____system");
        assert_eq!(read["channelId"], "g");
    }
}

#[tokio::test]
async fn a_note_to_oneself_is_a_conversation_of_its_own() {
    let app = TestApp::start(V2).await;
    let alice = app.user("alice");
    alice.send_to_person("alice", "do not forget").await.ok();
    let read = only(&alice.sync(PERSON, "alice", "").await.ok());
    assert_eq!(read["channelId"], "alice");
    assert_eq!(read["fromUid"], "alice");
    assert_eq!(read["messageSeq"], 1);
    for (reader, peer) in [("bob", "alice"), ("alice", "bob"), ("bob", "bob")] {
        let others = app.user(reader).sync(PERSON, peer, "").await;
        assert_eq!(seeds::page(others), (vec![], false), "{reader} {peer}");
    }
}

#[tokio::test]
async fn on_v3_a_note_to_oneself_from_elsewhere_is_never_read() {
    let app = TestApp::start(V3).await;
    seeds::message(&app, PERSON, "alice", "alice", b"by socket");
    let read = app.user("alice").sync(PERSON, "alice", "").await;
    assert_eq!(seeds::page(read), (vec![], false));
}

#[tokio::test]
async fn an_id_of_any_script_comes_back_as_it_was_written() {
    for app in TestApp::both().await {
        let (uid, peer, group) = ("用户一", "Ünïcødé+=:", "群聊.1~'\"<>");
        app.user(uid).send_to_person(peer, "你好").await.ok();
        let encoded = |text: &str| {
            let mut query = url::form_urlencoded::Serializer::new(String::new());
            query.append_pair("channelId", text);
            query.finish()
        };
        for (reader, other) in [(uid, peer), (peer, uid)] {
            let path = format!("/message/sync?channelType=1&{}", encoded(other));
            let read = only(&app.user(reader).get(&path).await.ok());
            assert_eq!(read["channelId"], other);
            assert_eq!(read["fromUid"], uid);
        }
        app.group(group, uid, &[peer]).await;
        app.user(peer).send_to_group(group, "大家好").await.ok();
        let path = format!("/message/sync?channelType=2&{}", encoded(group));
        let read = only(&app.user(uid).get(&path).await.ok());
        assert_eq!(read["channelId"], group);
        assert_eq!(read["fromUid"], peer);
    }
}
