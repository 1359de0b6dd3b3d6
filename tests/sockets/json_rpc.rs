//! JSON-RPC, which the gateway ends itself: WuKongIM v3 has none that works.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use crate::support::prelude::*;
use crate::support::socket::{Client, token};

fn text_of(payload: &Value) -> String {
    let bytes = BASE64_STANDARD.decode(payload.as_str().unwrap()).unwrap();
    let payload: Value = serde_json::from_slice(&bytes).unwrap();
    payload["content"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn both_protocols_talk_to_each_other() {
    for app in TestApp::both().await {
        app.group("g1", "alice", &["bob"]).await;
        let mut alice = Client::json_rpc(&app, "alice").await;
        let mut bob = Client::connected(&app, "bob").await;
        for (channel_type, id) in [(1, "bob"), (2, "g1")] {
            let sent = alice
                .call(
                    "send",
                    json!({"channelId": id, "channelType": channel_type, "payload": payload("hello"),
                        "clientMsgNo": "n1", "header": {"redDot": true, "noPersist": true}}),
                )
                .await;
            assert_eq!(sent["id"], "1");
            let result = &sent["result"];
            assert_eq!(
                (&result["reasonCode"], &result["messageSeq"]),
                (&json!(1), &json!(1))
            );
            assert!(result["messageId"].is_string(), "{sent}");
            assert_eq!(bob.text_from("alice").await, "hello");
            assert_eq!(
                bob.send(channel_type, if id == "g1" { "g1" } else { "alice" }, "yes")
                    .await
                    .reason,
                1
            );
            let got = alice.json().await;
            assert_eq!(got["method"], "recv");
            let params = &got["params"];
            assert_eq!(text_of(&params["payload"]), "yes");
            assert_eq!(
                (&params["fromUid"], &params["messageSeq"]),
                (&json!("bob"), &json!(2))
            );
            assert!(params["messageId"].is_string(), "{got}");
            let ack = json!({"jsonrpc": "2.0", "method": "recvack",
                "params": {"messageId": params["messageId"], "messageSeq": 2}});
            alice.text(&ack.to_string()).await;
        }
        assert_eq!(alice.call("ping", json!({})).await["id"], "1");
    }
}

#[tokio::test]
async fn a_refused_connect_is_an_error_and_never_a_result() {
    for app in TestApp::both().await {
        let good = token(&app, "alice", 1).await;
        for (params, code) in [
            (json!({"uid": "alice", "token": "x"}), 2),
            (json!({"uid": "bob", "token": good}), 2),
            (json!({"uid": "alice", "token": good, "deviceFlag": 0}), 2),
            (json!({"uid": "____manager", "token": good}), 2),
            (json!({"uid": "alice"}), -32602),
            (
                json!({"uid": "alice", "UID": "bob", "token": good, "uid ": "x", "device_flag": 1}),
                0,
            ),
        ] {
            let mut client = Client::open(&app).await;
            let answer = client.call("connect", params.clone()).await;
            if code == 0 {
                assert_eq!(answer["result"]["reasonCode"], 1, "{answer}");
                continue;
            }
            assert_eq!(answer["error"]["code"], code, "{params}: {answer}");
            assert!(answer.get("result").is_none());
            client.closed().await;
        }
    }
}

#[tokio::test]
async fn a_refused_send_is_a_result_with_its_reason() {
    for app in TestApp::both().await {
        let mut alice = Client::json_rpc(&app, "alice").await;
        app.upstream.sockets().clear();
        let long = "x".repeat(129);
        for (id, channel_type, number, body, reason) in [
            ("bob", 6, "n", payload("x"), 23),
            ("a@b", 1, "n", payload("x"), 16),
            ("bob", 1, long.as_str(), payload("x"), 9),
            ("bob", 1, "n", String::new(), 9),
        ] {
            let params = json!({"channelId": id, "channelType": channel_type, "clientMsgNo": number, "payload": body});
            let answer = alice.call("send", params).await;
            assert_eq!(
                answer["result"]["reasonCode"], reason,
                "{id} {channel_type} {number}"
            );
        }
        assert_eq!(app.upstream.sockets().frames(), []);
    }
}

#[tokio::test]
async fn what_is_no_request_is_an_error_and_closes_where_it_must() {
    let app = TestApp::start(V2).await;
    for (text, code, closes) in [
        ("{", -32700, true),
        ("{} {}", -32700, true),
        ("[]", -32600, true),
        (
            r#"{"jsonrpc":"2.0","id":"1","method":"ping","method":"send"}"#,
            -32600,
            true,
        ),
        (
            r#"{"jsonrpc":"2.0","id":"1","method":"send","params":{"channelId":"a","channelId":"b"}}"#,
            -32600,
            true,
        ),
        (
            r#"{"jsonrpc":"2.0","id":"1","method":"unknown"}"#,
            -32601,
            false,
        ),
        (
            r#"{"jsonrpc":"2.0","id":"1","method":"send","params":{"channelType":1}}"#,
            -32602,
            false,
        ),
        (
            r#"{"jsonrpc":"2.0","id":"1","method":"send","params":{"channelId":"b","channelType":1,"payload":"?"}}"#,
            -32602,
            false,
        ),
        (
            r#"{"jsonrpc":"2.0","id":"1","method":"recvack","params":{"messageId":"-1","messageSeq":1}}"#,
            -32602,
            false,
        ),
    ] {
        let mut client = Client::json_rpc(&app, "alice").await;
        client.text(text).await;
        assert_eq!(client.json().await["error"]["code"], code, "{text}");
        if closes {
            assert_eq!(client.closed().await, Some(1002), "{text}");
        } else {
            assert_eq!(client.call("ping", json!({})).await["id"], "1", "{text}");
        }
    }
    let mut client = Client::json_rpc(&app, "alice").await;
    let again = json!({"jsonrpc": "2.0", "id": "2", "method": "connect", "params": {"uid": "alice", "token": "x"}});
    client.text(&again.to_string()).await;
    assert_eq!(client.closed().await, Some(1002), "a second connect");
    let mut client = Client::json_rpc(&app, "alice").await;
    client.write(&[0x70]).await;
    assert_eq!(client.closed().await, Some(1003), "a binary message");
}

#[tokio::test]
async fn an_end_is_a_notification() {
    for app in TestApp::both().await {
        let mut alice = Client::json_rpc(&app, "alice").await;
        app.user("alice").post_nothing("/token/revoke").await.ok();
        let end = alice.json().await;
        assert_eq!(
            (&end["method"], &end["params"]["reasonCode"]),
            (&json!("disconnect"), &json!(12))
        );
        assert_eq!(alice.closed().await, Some(1008));
    }
}

#[tokio::test]
async fn a_message_by_rest_arrives_live() {
    for app in TestApp::both().await {
        let mut bob = Client::json_rpc(&app, "bob").await;
        app.user("alice")
            .send_to_person("bob", "by rest")
            .await
            .ok();
        assert_eq!(text_of(&bob.json().await["params"]["payload"]), "by rest");
    }
}
