//! What admins do for others is written, whatever becomes of it.

use std::time::Duration;

use dev_upstream::{Dialect, Fault};
use serde_json::{Value, json};

use crate::support::marked::Fixture;

#[tokio::test(flavor = "multi_thread")]
async fn each_action_that_needs_the_admin_right_writes_one_audit_line() {
    let fixture = Fixture::start(Dialect::V2, &[]).await;
    let ask = async |token: &str, path: &str, body: Value| {
        let request = fixture
            .gateway
            .post(path)
            .bearer_auth(token)
            .header("x-request-id", "r-1");
        let request = request
            .header("content-type", "application/json")
            .body(body.to_string());
        request.send().await.unwrap().status().as_u16()
    };
    let (alice, root) = (&fixture.alice, &fixture.root);
    let group = |id: &str| json!({"channelId": id, "channelType": 2, "subscribers": ["bob"]});
    let message = |from: &str, to: &str| json!({"channelId": to, "channelType": 1, "payload": "eA==", "fromUid": from});
    // By being nobody special, or for himself: no line.
    assert_eq!(ask(alice, "/channel/create", group("g")).await, 200);
    assert_eq!(
        ask(alice, "/message/send", message("alice", "bob")).await,
        200
    );
    assert_eq!(
        ask(alice, "/message/send", message("bob", "bob")).await,
        403
    );
    assert_eq!(ask(alice, "/channel/subscriber/add", group("g")).await, 200);
    assert_eq!(
        ask(root, "/message/send", message("root", "bob")).await,
        200
    );
    assert_eq!(ask(root, "/channel/create", group("his")).await, 200);
    assert_eq!(
        ask(root, "/channel/subscriber/add", group("his")).await,
        200
    );
    assert_eq!(ask(root, "/channel/delete", group("his")).await, 200);
    let himself = json!({"channelId": "g", "channelType": 2, "subscribers": ["root"]});
    assert_eq!(ask(root, "/channel/subscriber/remove", himself).await, 200);
    // By being an admin.
    assert_eq!(
        ask(root, "/message/send", message("alice", "bob")).await,
        200
    );
    let mut denied = message("carol", "g");
    denied["channelType"] = json!(2);
    assert_eq!(ask(root, "/message/send", denied.clone()).await, 403);
    let batch = json!([message("alice", "bob"), denied, message("root", "bob")]);
    assert_eq!(ask(root, "/message/sendbatch", batch).await, 207);
    assert_eq!(
        ask(root, "/channel/subscriber/remove", group("g")).await,
        200
    );
    let owner = json!({"channelId": "g", "channelType": 2, "subscribers": ["alice"]});
    assert_eq!(ask(root, "/channel/subscriber/remove", owner).await, 409);
    let managers = json!({"channelId": "g", "channelType": 2, "uids": ["bob"]});
    assert_eq!(ask(root, "/channel/manager/add", managers).await, 200);
    assert_eq!(ask(root, "/channel/delete", group("g")).await, 200);
    let bobs = json!({"uid": "bob"});
    assert_eq!(ask(alice, "/token/revoke", bobs.clone()).await, 403);
    assert_eq!(ask(root, "/token/revoke", json!({})).await, 200);
    assert_eq!(ask(root, "/token/revoke", bobs).await, 200);
    let log = fixture.end().await;
    let mut lines: Vec<String> = log
        .iter()
        .filter(|line| line["message"] == "audit")
        .map(|line| {
            assert_eq!(
                (&line["level"], &line["request.id"]),
                (&json!("INFO"), &json!("r-1"))
            );
            let text = |name: &str| match &line[name] {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            let names = [
                "audit.actor",
                "audit.acts_for",
                "audit.action",
                "channel.id",
                "channel.kind",
                "audit.outcome",
            ];
            names.map(text).join(" ")
        })
        .collect();
    // A batch's messages to several channels are sent in parallel.
    lines[2..4].sort();
    let denied = "root carol message.send g 2 not a subscriber of the group";
    assert_eq!(
        lines,
        [
            "root alice message.send bob 1 done",
            denied,
            "root alice message.send bob 1 done",
            denied,
            "root null subscriber.remove g 2 done",
            "root null subscriber.remove g 2 the owner cannot leave",
            "root null manager.add g 2 done",
            "root null channel.delete g 2 done",
            "root bob token.revoke null null done",
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn hanging_up_is_no_way_round_the_audit() {
    let patient = [
        ("GATEWAY__WUKONGIM__TIMEOUT", "9s"),
        ("GATEWAY__WUKONGIM__CONFIRM_TIMEOUT", "9s"),
    ];
    let mut fixture = Fixture::start(Dialect::V2, &patient).await;
    let held = Fault::Hold("sending".to_owned());
    fixture.upstream.faults().always("/message/send", held);
    let body = json!({"channelId": "bob", "channelType": 1, "payload": "eA==", "fromUid": "alice"});
    let request = fixture
        .gateway
        .post("/message/send")
        .bearer_auth(&fixture.root);
    let request = request.header("content-type", "application/json");
    let sending = tokio::spawn(request.body(body.to_string()).send());
    while fixture.upstream.calls_to("/message/send").is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    sending.abort();
    fixture.upstream.faults().release("sending");
    let line = fixture.gateway.wait_for_line("audit");
    assert_eq!(line["audit.outcome"], "done", "{line}");
    fixture.end().await;
}
