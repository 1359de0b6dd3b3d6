//! What admins do for others is written, whatever becomes of it.

use std::time::Duration;

use dev_upstream::{Dialect, Fault};
use serde_json::{Value, json};

use crate::support::marked::Fixture;
use crate::support::messages::with;

#[tokio::test(flavor = "multi_thread")]
async fn each_action_that_needs_the_admin_right_writes_one_audit_line() {
    let fixture = Fixture::start(Dialect::V2, &[]).await;
    let ask = async |token: &str, path: &str, body: &Value| {
        let request = fixture.gateway.post_json(token, path, body);
        let request = request.header("x-request-id", "r-1");
        request.send().await.unwrap().status().as_u16()
    };
    let (alice, root) = (&fixture.alice, &fixture.root);
    let group = |id: &str| json!({"channelId": id, "channelType": 2, "subscribers": ["bob"]});
    let of_g = |field: &str, uid: &str| json!({"channelId": "g", "channelType": 2, field: [uid]});
    let message = |from: &str, to: &str| json!({"channelId": to, "channelType": 1, "payload": "eA==", "fromUid": from});
    let group_message = with(message("carol", "g"), &json!({"channelType": 2}));
    let (batch, bobs) = (
        json!([
            message("alice", "bob"),
            group_message,
            message("root", "bob")
        ]),
        json!({"uid": "bob"}),
    );
    for (token, path, body, status) in [
        // By being nobody special, or for himself: no line.
        (alice, "/channel/create", group("g"), 200),
        (alice, "/message/send", message("alice", "bob"), 200),
        (alice, "/message/send", message("bob", "bob"), 403),
        (alice, "/channel/subscriber/add", group("g"), 200),
        (root, "/message/send", message("root", "bob"), 200),
        (root, "/channel/create", group("his"), 200),
        (root, "/channel/subscriber/add", group("his"), 200),
        (root, "/channel/delete", group("his"), 200),
        (
            root,
            "/channel/subscriber/remove",
            of_g("subscribers", "root"),
            200,
        ),
        // By being an admin.
        (root, "/message/send", message("alice", "bob"), 200),
        (root, "/message/send", group_message.clone(), 403),
        (root, "/message/sendbatch", batch, 207),
        (root, "/channel/subscriber/remove", group("g"), 200),
        (
            root,
            "/channel/subscriber/remove",
            of_g("subscribers", "alice"),
            409,
        ),
        (root, "/channel/manager/add", of_g("uids", "bob"), 200),
        (root, "/channel/delete", group("g"), 200),
        (alice, "/token/revoke", bobs.clone(), 403),
        (root, "/token/revoke", json!({}), 200),
        (root, "/token/revoke", bobs, 200),
    ] {
        assert_eq!(ask(token, path, &body).await, status, "{path} {body}");
    }
    let log = fixture.end().await;
    let lines = log.iter().filter(|line| line["message"] == "audit");
    let mut lines: Vec<String> = lines
        .map(|line| {
            assert_eq!(line["level"], "INFO");
            assert_eq!(line["request.id"], "r-1");
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
    let gateway = &fixture.gateway;
    let request = gateway.post_json(&fixture.root, "/message/send", &body);
    let sending = tokio::spawn(request.send());
    while fixture.upstream.calls_to("/message/send").is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    sending.abort();
    fixture.upstream.faults().release("sending");
    let line = fixture.gateway.wait_for_line("audit");
    assert_eq!(line["audit.outcome"], "done", "{line}");
    fixture.end().await;
}
