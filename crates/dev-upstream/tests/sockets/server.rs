//! A started upstream and calls to its API.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use dev_upstream::{DevUpstream, Dialect, Options};
use serde_json::{Value, json};

pub(crate) const DIALECTS: [Dialect; 2] = [Dialect::V2, Dialect::V3];

pub(crate) async fn start(dialect: Dialect) -> DevUpstream {
    start_with(Options::new(dialect)).await
}

pub(crate) async fn start_with(options: Options) -> DevUpstream {
    DevUpstream::start(options).await.expect("starts")
}

/// Asks the server itself, whatever proxy the environment names.
fn client() -> reqwest::Client {
    #[expect(
        clippy::disallowed_methods,
        reason = "the gateway's own client is not for here"
    )]
    let builder = reqwest::Client::builder();
    let builder = builder.no_proxy().timeout(Duration::from_secs(30));
    builder.build().expect("client")
}

/// A call that must be answered with 200.
pub(crate) async fn post(server: &DevUpstream, path: &str, body: Value) -> Value {
    let url = format!("{}{path}", server.url());
    json_of(client().post(url).body(body.to_string())).await
}

/// A call that must be answered with 200.
pub(crate) async fn get(server: &DevUpstream, path: &str) -> Value {
    let url = format!("{}{path}", server.url());
    json_of(client().get(url)).await
}

async fn json_of(request: reqwest::RequestBuilder) -> Value {
    let answer = request.send().await.expect("an answer");
    assert_eq!(answer.status(), 200);
    let text = answer.text().await.expect("a body");
    serde_json::from_str(&text).expect("json")
}

pub(crate) async fn create(server: &DevUpstream, group: &str, members: &[&str]) {
    let body = json!({ "channel_id": group, "channel_type": 2, "subscribers": members });
    post(server, "/channel", body).await;
}

/// Sends a text over the API, with a red dot.
pub(crate) async fn api_send(
    server: &DevUpstream,
    from: &str,
    to: &str,
    channel_type: u8,
    text: &str,
) -> Value {
    let body = json!({
        "from_uid": from, "channel_id": to, "channel_type": channel_type,
        "payload": STANDARD.encode(text), "header": { "red_dot": 1 },
    });
    post(server, "/message/send", body).await
}

/// The rows of `/user/onlinestatus`.
pub(crate) async fn online(server: &DevUpstream, uid: &str) -> usize {
    let rows = post(server, "/user/onlinestatus", json!([uid])).await;
    rows.as_array().expect("rows").len()
}

/// Waits for a condition, with a generous bound.
pub(crate) async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waited = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(20), waited).await;
    waited.unwrap_or_else(|_| panic!("never: {what}"));
}
