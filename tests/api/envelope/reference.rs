//! The reference to the letter: its request examples and its response shapes, on both generations.

use super::endpoints::all;
use crate::support::prelude::*;

/// The types in a value: `{a: string, b: [{c: number}]}`.
fn shape(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(_) => "boolean".into(),
        Value::Number(number) if number.is_u64() => "number".into(),
        Value::Number(_) => "fraction".into(),
        Value::String(_) => "string".into(),
        Value::Array(entries) => {
            let mut shapes: Vec<_> = entries.iter().map(shape).collect();
            shapes.dedup();
            format!("[{}]", shapes.join(", "))
        }
        Value::Object(members) => {
            let members: Vec<_> = members
                .iter()
                .map(|(name, value)| format!("{name}: {}", shape(value)))
                .collect();
            format!("{{{}}}", members.join(", "))
        }
    }
}

/// A whole success and nothing else in the envelope.
#[track_caller]
fn told(answer: &Answer) -> String {
    assert_eq!(answer.status, 200, "{answer:#?}");
    assert_eq!(answer.header("content-type"), "application/json");
    shape(&answer.body)
}

#[tokio::test]
async fn the_response_of_each_endpoint_has_the_references_shape() {
    for app in TestApp::both().await {
        let alice = app.user("alice");
        let message = json!({"channelId": "bob", "channelType": 1, "payload": payload("a")});
        let batch = json!([message, message]);
        let group = json!({"channelId": "g", "channelType": 2, "name": "群组名称", "avatar": "https://example.com/avatar.jpg"});
        let shapes = [
            told(&alice.get("/config").await),
            told(&alice.post_nothing("/token").await),
            told(&alice.post("/message/send", &message).await),
            told(&alice.post("/message/sendbatch", &batch).await),
            told(&alice.sync(1, "bob", "").await),
            told(&alice.post("/channel/create", &group).await),
            told(&alice.add("g", &["bob"]).await),
            told(&alice.remove("g", &["bob"]).await),
            told(&alice.delete_group("g").await),
            told(&app.anon().get("/health").await),
            told(&alice.get("/system/info").await),
        ];
        insta::allow_duplicates! {
            insta::assert_snapshot!(shapes.join("\n"), @"
            {data: {apiUrl: string, limits: {batch: number, clientMsgNoBytes: number, groupMembers: number, idBytes: number, payloadBytes: number, subscribers: number, syncMax: number}, managerUrl: string, tcpAddr: string, uid: string, wsUrl: string, wssUrl: string}, success: boolean}
            {data: {deviceFlag: number, token: string, uid: string}, success: boolean}
            {data: {clientMsgNo: string, messageId: string, messageSeq: number, timestamp: number}, success: boolean}
            {data: [{clientMsgNo: string, messageId: string, messageSeq: number, timestamp: number}], success: boolean}
            {data: [{channelId: string, channelType: number, clientMsgNo: string, fromUid: string, messageId: string, messageSeq: number, payload: string, timestamp: number}], success: boolean}
            {data: {avatar: string, channelId: string, channelType: number, name: string}, success: boolean}
            {data: {added: number}, success: boolean}
            {data: {removed: number}, success: boolean}
            {data: {channelId: string}, success: boolean}
            {data: {status: string, timestamp: string}, success: boolean}
            {data: {connections: number, gatewayVersion: string, uptime: number, version: string}, success: boolean}
            ");
        }
    }
}

#[tokio::test]
async fn the_responses_say_what_the_references_examples_say() {
    for app in TestApp::both().await {
        let (alice, bob) = (app.user("alice"), app.user("bob"));
        let group = json!({"channelId": "channel-xxx", "channelType": 2, "name": "群组名称", "avatar": "https://example.com/avatar.jpg"});
        assert_eq!(alice.post("/channel/create", &group).await.ok(), group);
        let five = ["u1", "u2", "u3", "u4", "u5"];
        assert_eq!(
            alice.add("channel-xxx", &five).await.ok(),
            json!({"added": 5})
        );
        assert_eq!(
            alice.remove("channel-xxx", &five).await.ok(),
            json!({"removed": 5})
        );
        assert_eq!(
            alice.delete_group("channel-xxx").await.ok(),
            json!({"channelId": "channel-xxx"})
        );
        let sent = bob.send_to_person("alice", "hi").await.ok();
        let read = alice.sync(1, "bob", "").await.ok();
        assert_eq!(read[0]["messageId"], sent["messageId"]);
        assert_eq!(read[0]["messageSeq"], sent["messageSeq"]);
        assert_eq!(read[0]["channelId"], "bob");
        assert_eq!(read[0]["channelType"], 1);
        assert_eq!(read[0]["fromUid"], "bob");
        assert_eq!(read[0]["payload"], payload("hi"));
        let timestamp = read[0]["timestamp"].as_u64().unwrap();
        assert!(
            (1_600_000_000_000..10_000_000_000_000).contains(&timestamp),
            "milliseconds: {read}"
        );
    }
}

#[tokio::test]
async fn the_word_string_in_the_references_requests_is_a_type_and_no_value() {
    for app in TestApp::both().await {
        let alice = app.user("alice");
        let message = json!({"channelId": "string", "channelType": 1, "payload": "string", "clientMsgNo": "string"});
        for (path, body, fields) in [
            ("/message/send", message.clone(), ["payload"]),
            ("/message/sendbatch", json!([message]), ["[0].payload"]),
            (
                "/channel/create",
                json!({"channelId": "string", "channelType": 2, "name": "string", "avatar": "string"}),
                ["avatar"],
            ),
        ] {
            let answer = alice.post(path, &body).await.fails(400, "invalid_request");
            assert_eq!(answer.bad_fields(), fields, "{path}");
        }
        app.nothing_was_written();
        // As texts these are ids like any other.
        alice.create_group("string").await.ok();
        let subscribers =
            json!({"channelId": "string", "channelType": 2, "subscribers": ["string"]});
        let added = alice.post("/channel/subscriber/add", &subscribers).await;
        assert_eq!(added.ok()["added"], 1);
        let removed = alice.post("/channel/subscriber/remove", &subscribers).await;
        assert_eq!(removed.ok()["removed"], 1);
        let group = json!({"channelId": "string", "channelType": 2});
        alice.post("/channel/delete", &group).await.ok();
    }
}

#[tokio::test]
async fn a_success_has_no_message_and_a_failure_no_data() {
    for app in TestApp::both_with_group(&[]).await {
        for endpoint in all() {
            let good = endpoint.call(&app.user("alice")).await;
            let keys = |answer: &Answer| -> Vec<String> {
                answer.body.as_object().unwrap().keys().cloned().collect()
            };
            if good.status == 200 {
                assert_eq!(keys(&good), ["data", "success"], "{good:#?}");
            } else {
                // The group is gone by now.
                assert_eq!(good.status, 404, "{good:#?}");
            }
            if endpoint.is_public() {
                continue;
            }
            let refused = endpoint.call(&app.anon()).await;
            let expected = ["code", "message", "requestId", "success"];
            assert_eq!(keys(&refused), expected, "{refused:#?}");
        }
    }
}
