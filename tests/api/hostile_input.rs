//! Bad input: a clear 4xx that names the field, and not one call upstream.

mod bodies;
mod deadly;
mod names;
mod query;
mod shapes;

use crate::support::prelude::*;

/// A field of a JSON body: where it is sent, its name in the details, and a body that is fine but for the value in the place of `?`.
struct Field {
    path: &'static str,
    name: &'static str,
    body: &'static str,
}

/// The fields of a table that has one a line.
fn fields(table: &'static str) -> impl Iterator<Item = Field> {
    table.trim().lines().map(|line| {
        let (path, field) = line.split_once(' ').expect("a path");
        let (name, body) = field.split_once(' ').expect("a name");
        Field { path, name, body }
    })
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
const IDS: &str = r#"
/message/send channelId {"channelId":?,"channelType":1,"payload":"eA=="}
/message/send channelId {"channelId":?,"channelType":2,"payload":"eA=="}
/message/send fromUid {"channelId":"bob","channelType":1,"payload":"eA==","fromUid":?}
/message/sendbatch [1].channelId [{"channelId":"bob","channelType":1,"payload":"eA=="},{"channelId":?,"channelType":1,"payload":"eA=="}]
/message/sendbatch [0].fromUid [{"channelId":"bob","channelType":1,"payload":"eA==","fromUid":?},{"channelId":"bob","channelType":1,"payload":"eA=="}]
/channel/create channelId {"channelId":?,"channelType":2}
/channel/delete channelId {"channelId":?,"channelType":2}
/channel/subscriber/add channelId {"channelId":?,"channelType":2,"subscribers":["bob"]}
/channel/subscriber/add subscribers[1] {"channelId":"g","channelType":2,"subscribers":["carol",?,"dave"]}
/channel/subscriber/remove channelId {"channelId":?,"channelType":2,"subscribers":["bob"]}
/channel/subscriber/remove subscribers[0] {"channelId":"g","channelType":2,"subscribers":[?]}
"#;

const CLIENT_MSG_NOS: &str = r#"
/message/send clientMsgNo {"channelId":"bob","channelType":1,"payload":"eA==","clientMsgNo":?}
/message/sendbatch [0].clientMsgNo [{"channelId":"bob","channelType":1,"payload":"eA==","clientMsgNo":?}]
"#;

const PAYLOADS: &str = r#"
/message/send payload {"channelId":"bob","channelType":1,"payload":?}
/message/sendbatch [0].payload [{"channelId":"bob","channelType":1,"payload":?}]
"#;

impl Field {
    /// Asserts that this field alone is refused with this value, also to an admin.
    async fn refuses(&self, app: &TestApp, value: &Value) {
        let body = self.body.replace('?', &value.to_string());
        let answer = app.admin().post_text(self.path, body).await;
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
