//! The servers named by the environment, and calls to them that go past the gateway.

use std::time::Duration;

use serde_json::{Value, json};

/// What is told apart in the tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    V2,
    V3,
    /// v3 with its manager port known to the gateway, which then tells true counts.
    V3Manager,
}

/// One WuKongIM, and how the gateway is told of it: never its generation.
#[derive(Debug, Clone)]
pub struct Server {
    pub kind: Kind,
    pub urls: Vec<String>,
    pub manager_token: Option<String>,
    /// Address, user name and password of v3's manager port.
    pub manager: Option<(String, String, String)>,
}

/// The servers to run against: a test that was asked for and has none fails.
pub fn each_server() -> Vec<Server> {
    let mut servers = Vec::new();
    if let Some(urls) = variable("WUKONGIM_V2_URL") {
        servers.push(Server {
            kind: Kind::V2,
            urls: split(&urls),
            manager_token: variable("WUKONGIM_V2_MANAGER_TOKEN"),
            manager: None,
        });
    }
    if let Some(urls) = variable("WUKONGIM_V3_URL") {
        let v3 = Server {
            kind: Kind::V3,
            urls: split(&urls),
            manager_token: None,
            manager: None,
        };
        if let Some(url) = variable("WUKONGIM_V3_MANAGER_URL") {
            let [username, password] = ["USERNAME", "PASSWORD"]
                .map(|name| variable(&format!("WUKONGIM_V3_MANAGER_{name}")).unwrap_or_default());
            servers.push(Server {
                kind: Kind::V3Manager,
                manager: Some((url, username, password)),
                ..v3.clone()
            });
        }
        servers.push(v3);
    }
    assert!(
        !servers.is_empty(),
        "neither WUKONGIM_V2_URL nor WUKONGIM_V3_URL is set"
    );
    servers
}

#[expect(
    clippy::disallowed_methods,
    reason = "says where a real server is; nothing of the gateway's own configuration"
)]
pub fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn split(urls: &str) -> Vec<String> {
    urls.split(',').map(|url| url.trim().to_owned()).collect()
}

impl Server {
    pub fn is_v2(&self) -> bool {
        self.kind == Kind::V2
    }

    /// Whether it has several nodes. A v2 cluster passes a message on to its channel's leader in a task of its own, so messages
    /// sent one right after the other may be stored in another order; and it loses payloads of more than 32,767 bytes on that way
    /// (answered 200 with an id, then `forwardToLeader: encode failed`).
    pub fn is_cluster(&self) -> bool {
        self.urls.len() > 1
    }

    /// Posts to the server itself, past the gateway; the answer must be 200.
    pub async fn post(&self, path: &str, body: &Value) -> Value {
        let (status, answer) = self.call("POST", path, Some(body)).await;
        assert_eq!(status, 200, "{path} {body}: {answer}");
        serde_json::from_str(&answer).unwrap_or(Value::Null)
    }

    /// Gets from the server itself, past the gateway; the answer must be 200.
    pub async fn get(&self, path: &str) -> Value {
        let (status, answer) = self.call("GET", path, None).await;
        assert_eq!(status, 200, "{path}: {answer}");
        serde_json::from_str(&answer).unwrap_or(Value::Null)
    }

    /// One call to the first node, past the gateway.
    pub async fn call(&self, method: &str, path: &str, body: Option<&Value>) -> (u16, String) {
        let http = wukongim_gateway::http_client::client()
            .no_proxy()
            .timeout(Duration::from_secs(20))
            .build()
            .unwrap();
        let mut request = http.request(
            method.parse().unwrap(),
            format!("{}{path}", self.urls[0].trim_end_matches('/')),
        );
        if let Some(token) = &self.manager_token {
            request = request.header("token", token);
        }
        if let Some(body) = body {
            request = request
                .header("content-type", "application/json")
                .body(body.to_string());
        }
        let response = request.send().await.expect("the server answers");
        (response.status().as_u16(), response.text().await.unwrap())
    }

    /// Puts `uids` on the denylist of a group (2) or a person (1).
    pub async fn deny(&self, channel_type: u8, id: &str, uids: &[&str]) {
        let body = json!({"channel_id": id, "channel_type": channel_type, "uids": uids});
        self.post("/channel/blacklist_add", &body).await;
    }

    /// Sets the ban of a group (2) or, on v2, a user (1).
    pub async fn ban(&self, channel_type: u8, id: &str) {
        let body = json!({"channel_id": id, "channel_type": channel_type, "ban": 1});
        self.post("/channel/info", &body).await;
    }

    /// A message that some other client of WuKongIM sends.
    pub async fn send(&self, from: &str, group: &str, client_msg_no: &str, payload: &str) {
        let body = json!({
            "header": {"red_dot": 1}, "from_uid": from, "channel_id": group, "channel_type": 2,
            "client_msg_no": client_msg_no, "payload": payload,
        });
        self.post("/message/send", &body).await;
    }

    #[track_caller]
    fn is_alive_says(&self, status: u16, answer: &str) {
        assert_eq!(status, 200, "{:?} is not alive: {answer}", self.urls);
    }

    /// Asserts that the server is there.
    pub async fn is_alive(&self) {
        let path = if self.is_v2() { "/health" } else { "/healthz" };
        let (status, answer) = self.call("GET", path, None).await;
        self.is_alive_says(status, &answer);
    }
}
