//! Real servers, named by the environment: gateways in front of them, calls that go past the gateway, and ids that no other test or run
//! has.

use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use wukongim_gateway::config::Settings;
use wukongim_gateway::limits::Time;
use wukongim_gateway::store::Store;

use super::served::{Served, open_store, settings};

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
    /// Where its sockets are, if not where `/route` says.
    pub tcp_addrs: Vec<String>,
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
            tcp_addrs: tcp_addrs("WUKONGIM_V2_TCP"),
        });
    }
    if let Some(urls) = variable("WUKONGIM_V3_URL") {
        let v3 = Server {
            kind: Kind::V3,
            urls: split(&urls),
            manager_token: None,
            manager: None,
            tcp_addrs: tcp_addrs("WUKONGIM_V3_TCP"),
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

fn tcp_addrs(name: &str) -> Vec<String> {
    variable(name)
        .map(|addresses| split(&addresses))
        .unwrap_or_default()
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

/// A gateway in front of one real server.
pub struct TestApp(Served);

impl Deref for TestApp {
    type Target = Served;

    fn deref(&self) -> &Served {
        &self.0
    }
}

impl TestApp {
    /// The gateway as it is configured by default, without being told the generation.
    pub async fn start(server: &Server) -> Self {
        Self::start_with(server, |_| {}).await
    }

    /// A gateway that remembers no membership, for tests that change it past the gateway.
    pub async fn start_forgetful(server: &Server) -> Self {
        Self::start_with(server, |settings| {
            settings.authorization.cache_ttl = Duration::ZERO;
        })
        .await
    }

    pub async fn start_with(server: &Server, change: impl FnOnce(&mut Settings)) -> Self {
        Self::start_on(server, open_store("sqlite::memory:").await, change).await
    }

    /// A gateway with this store: one of several replicas.
    pub async fn start_on(
        server: &Server,
        store: Arc<Store>,
        change: impl FnOnce(&mut Settings),
    ) -> Self {
        // Shown by the test runner with a failure: which server it was.
        println!("{server:?}");
        let mut settings = settings();
        let wukongim = &mut settings.wukongim;
        let urls = server.urls.iter().map(|url| url.parse());
        wukongim.api_urls = urls.collect::<Result<_, _>>().expect("addresses");
        wukongim.manager_token = server.manager_token.clone().map(Into::into);
        wukongim.tcp_addrs.clone_from(&server.tcp_addrs);
        if let Some((url, username, password)) = server.manager.clone() {
            wukongim.manager_url = Some(url.parse().expect("an address"));
            wukongim.manager_username = Some(username);
            wukongim.manager_password = Some(password.into());
        }
        change(&mut settings);
        Self(Served::start(settings, store, Time::running()).await)
    }

    /// A new group of `owner` with these further subscribers.
    pub async fn group(&self, owner: &str, subscribers: &[&str]) -> String {
        let id = unique("群");
        self.user(owner).create_group(&id).await.ok();
        if !subscribers.is_empty() {
            self.user(owner).add(&id, subscribers).await.ok();
        }
        id
    }
}

/// An id that begins so and was never used before.
pub fn unique(name: &str) -> String {
    static RUN: LazyLock<u128> = LazyLock::new(|| {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .expect("the clock is past 1970")
            .as_millis()
    });
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{name}-{:x}-{:x}-{number}", *RUN, std::process::id())
}

/// As many new ids as there are names.
pub fn people<const N: usize>(names: [&str; N]) -> [String; N] {
    names.map(unique)
}
