//! Bad input: a clear 4xx that names the field, and not one call upstream.

mod bodies;
mod deadly;
mod names;
mod query;
mod shapes;

use serde_json::{Value, json};

use crate::support::TestApp;
use crate::support::actors::payload;
use crate::support::answer::Answer;

/// A field of a JSON body: where it is sent, a body that is fine but for `value`, and its name in the details.
struct Field {
    path: &'static str,
    body: fn(Value) -> Value,
    name: &'static str,
}

const fn field(path: &'static str, name: &'static str, body: fn(Value) -> Value) -> Field {
    Field { path, body, name }
}

fn message(with: &str, value: Value) -> Value {
    let mut body = json!({"channelId": "bob", "channelType": 1, "payload": payload("x")});
    body[with] = value;
    body
}

fn in_group(with: &str, value: Value) -> Value {
    let mut body = json!({"channelId": "g", "channelType": 2, "subscribers": ["bob"]});
    body[with] = value;
    body
}

/// Every field of a body that is a uid or a channel id.
const IDS: [Field; 11] = [
    field("/message/send", "channelId", |id| message("channelId", id)),
    field(
        "/message/send",
        "channelId",
        |id| json!({"channelId": id, "channelType": 2, "payload": payload("x")}),
    ),
    field("/message/send", "fromUid", |id| message("fromUid", id)),
    field("/message/sendbatch", "[1].channelId", |id| {
        json!([message("clientMsgNo", json!("n")), message("channelId", id)])
    }),
    field("/message/sendbatch", "[0].fromUid", |id| {
        json!([message("fromUid", id), message("clientMsgNo", json!("n"))])
    }),
    field("/channel/create", "channelId", |id| {
        in_group("channelId", id)
    }),
    field("/channel/delete", "channelId", |id| {
        in_group("channelId", id)
    }),
    field("/channel/subscriber/add", "channelId", |id| {
        in_group("channelId", id)
    }),
    field("/channel/subscriber/add", "subscribers[1]", |id| {
        in_group("subscribers", json!(["carol", id, "dave"]))
    }),
    field("/channel/subscriber/remove", "channelId", |id| {
        in_group("channelId", id)
    }),
    field("/channel/subscriber/remove", "subscribers[0]", |id| {
        in_group("subscribers", json!([id]))
    }),
];

const CLIENT_MSG_NOS: [Field; 2] = [
    field("/message/send", "clientMsgNo", |no| {
        message("clientMsgNo", no)
    }),
    field("/message/sendbatch", "[0].clientMsgNo", |no| {
        json!([message("clientMsgNo", no)])
    }),
];

const PAYLOADS: [Field; 2] = [
    field("/message/send", "payload", |payload| {
        message("payload", payload)
    }),
    field("/message/sendbatch", "[0].payload", |payload| {
        json!([message("payload", payload)])
    }),
];

impl Field {
    /// Asserts that this field alone is refused with this value, also to an admin.
    async fn refuses(&self, app: &TestApp, value: &Value) {
        let answer = app
            .admin()
            .post(self.path, &(self.body)(value.clone()))
            .await;
        // A long value would drown the reason.
        let shown: String = value.to_string().chars().take(60).collect();
        assert_eq!(answer.status, 400, "{} {shown}: {answer:#?}", self.path);
        names(answer, &[self.name]);
    }
}

/// Asserts a 400 that names exactly these fields, with a sentence each and not one piece of what was sent.
#[track_caller]
fn names(answer: Answer, fields: &[impl AsRef<str>]) {
    let answer = answer.fails(400, "invalid_request");
    let fields: Vec<_> = fields.iter().map(AsRef::as_ref).collect();
    assert_eq!(answer.bad_fields(), fields, "{answer:#?}");
    for detail in answer.body["details"].as_array().expect("details") {
        let message = detail["message"].as_str().unwrap_or_default();
        assert!(!message.is_empty() && message.len() < 100, "{answer:#?}");
    }
}

/// Asserts that WuKongIM got no call at all and lives.
#[track_caller]
fn untouched(app: &TestApp) {
    let calls = app.upstream.calls();
    assert!(calls.is_empty(), "{calls:#?}");
    assert!(!app.upstream.killed());
}

/// A good message as text, with something more in front of its fields.
fn with(more: &str) -> String {
    format!(
        r#"{{{more}"channelId":"bob","channelType":1,"payload":"{}"}}"#,
        payload("x")
    )
}

/// The rows of tests/tables/`name`.jsonl.
fn table<T: serde::de::DeserializeOwned>(name: &str) -> Vec<T> {
    let path = format!("{}/tests/tables/{name}.jsonl", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).expect("a table");
    let rows = text.lines().map(serde_json::from_str);
    rows.collect::<Result<_, _>>().expect("rows")
}
