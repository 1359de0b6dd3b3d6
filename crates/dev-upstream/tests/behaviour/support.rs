//! A started upstream and a client for it.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use dev_upstream::{DevUpstream, Dialect, Options};
use serde_json::{Value, json};

/// An upstream under test.
pub(crate) struct Upstream {
    pub(crate) server: DevUpstream,
    client: reqwest::Client,
}

/// An answer, read to its end.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) content_type: String,
    pub(crate) body: String,
}

impl Answer {
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body)
            .unwrap_or_else(|error| panic!("no json ({error}): {self:?}"))
    }

    #[track_caller]
    pub(crate) fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{self:?}");
        self.json()
    }

    /// The error text of a 400 in v2's shape.
    #[track_caller]
    pub(crate) fn refusal(&self) -> String {
        assert_eq!(self.status, 400, "{self:?}");
        let body = self.json();
        assert_eq!(body["status"], 400, "{body}");
        body["msg"].as_str().expect("msg").to_owned()
    }
}

/// Asks the server itself, whatever proxy the environment names.
pub(crate) fn client() -> reqwest::Client {
    #[expect(
        clippy::disallowed_methods,
        reason = "the gateway's own client is not for here"
    )]
    let builder = reqwest::Client::builder();
    let builder = builder.no_proxy().timeout(Duration::from_secs(30));
    builder.build().expect("client")
}

impl Upstream {
    pub(crate) async fn start(options: Options) -> Self {
        let server = DevUpstream::start(options).await.expect("starts");
        let client = client();
        Self { server, client }
    }

    /// Messages are visible at once, so that a test need not wait.
    pub(crate) async fn v2() -> Self {
        Self::start(Options {
            visible_after: Duration::ZERO,
            ..Options::new(Dialect::V2)
        })
        .await
    }

    pub(crate) async fn v3() -> Self {
        Self::start(Options::new(Dialect::V3)).await
    }

    pub(crate) async fn call(
        &self,
        method: &str,
        url: &str,
        headers: &[(&str, &str)],
        body: Option<String>,
    ) -> Result<Answer, reqwest::Error> {
        let method = reqwest::Method::from_bytes(method.as_bytes()).expect("method");
        let mut request = self.client.request(method, url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request
                .header("content-type", "application/json")
                .body(body);
        }
        let response = request.send().await?;
        let content_type = response.headers().get("content-type");
        Ok(Answer {
            status: response.status().as_u16(),
            content_type: content_type.map_or_else(String::new, |value| {
                value.to_str().expect("ascii").to_owned()
            }),
            body: response.text().await?,
        })
    }

    pub(crate) async fn try_post(
        &self,
        path: &str,
        body: &Value,
    ) -> Result<Answer, reqwest::Error> {
        let url = format!("{}{path}", self.server.url());
        self.call("POST", &url, &[], Some(body.to_string())).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.try_post(path, &body).await.expect("an answer")
    }

    pub(crate) async fn try_get(&self, path: &str) -> Result<Answer, reqwest::Error> {
        let url = format!("{}{path}", self.server.url());
        self.call("GET", &url, &[], None).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.try_get(path).await.expect("an answer")
    }

    pub(crate) async fn create(&self, group: &str, members: &[&str]) {
        let body = json!({ "channel_id": group, "channel_type": 2, "subscribers": members });
        self.post("/channel", body).await.ok();
    }

    pub(crate) async fn send(&self, from: &str, to: &str, channel_type: u8, text: &str) -> Answer {
        self.post("/message/send", message(from, to, channel_type, text))
            .await
    }

    /// A page from the start, upwards.
    pub(crate) async fn sync(&self, login: &str, channel: &str, channel_type: u8) -> Answer {
        let body = json!({
            "login_uid": login, "channel_id": channel, "channel_type": channel_type,
            "start_message_seq": 1, "end_message_seq": 0, "limit": 100, "pull_mode": 1,
        });
        self.post("/channel/messagesync", body).await
    }

    /// The texts a reader sees.
    pub(crate) async fn texts(&self, login: &str, channel: &str, channel_type: u8) -> Vec<String> {
        let page = self.sync(login, channel, channel_type).await.ok();
        let messages = page["messages"].as_array().expect("messages").clone();
        messages.iter().map(text).collect()
    }
}

pub(crate) fn message(from: &str, to: &str, channel_type: u8, text: &str) -> Value {
    json!({
        "from_uid": from, "channel_id": to, "channel_type": channel_type,
        "payload": STANDARD.encode(text),
    })
}

pub(crate) fn text(message: &Value) -> String {
    let payload = message["payload"].as_str().expect("payload");
    String::from_utf8(STANDARD.decode(payload).expect("base64")).expect("utf-8")
}
