//! A gateway that is used and misused in many ways, with a marker in all secrets; at the end the marker must appear nowhere.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dev_upstream::{DevUpstream, Dialect, Options};
use serde_json::{Value, json};
use sqlx::Connection as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::process::{Gateway, SECRET, client, command, token, usual};

/// Every secret, password, path and payload of these tests begins so.
pub const MARK: &str = "marked";
pub const TEXT: &str = "marked-payload-that-nobody-may-log";

/// A gateway, what it stands on, and all it has answered.
pub struct Fixture {
    pub gateway: Gateway,
    pub upstream: DevUpstream,
    folder: tempfile::TempDir,
    pub alice: String,
    pub root: String,
    /// Name and text of the answers that show no user his own token or messages.
    pub answers: Vec<(String, String)>,
    /// Tokens and addresses.
    pub secrets: Vec<String>,
}

pub fn admin_token() -> String {
    let folder = tempfile::tempdir().unwrap();
    let args = ["token", "--uid", "root", "--admin"];
    let output = command(folder.path(), &args, &[("JWT_SECRET", SECRET)]).output();
    let text = String::from_utf8(output.unwrap().stdout).unwrap();
    text.trim().to_owned()
}

impl Fixture {
    pub async fn start(dialect: Dialect, more: &[(&str, &str)]) -> Self {
        let mut options = Options::new(dialect);
        match dialect {
            Dialect::V2 => options.manager_token = Some("marked-manager-token".into()),
            Dialect::V3 => options.manager = Some(("boss".into(), "marked-manager-pass".into())),
        }
        let upstream = DevUpstream::start(options).await.unwrap();
        let with_user = |url: &str| url.replace("http://", "http://marked-user:marked-pw@");
        let url = with_user(&upstream.url());
        let manager = upstream.manager_url().map(|url| with_user(&url));
        let folder = tempfile::tempdir().unwrap();
        let store = format!("sqlite://{}/marked-store.db", folder.path().display());
        let mut env = usual();
        env.extend([
            ("WUKONGIM_API_URL", url.as_str()),
            ("GATEWAY__WUKONGIM__MANAGER_TOKEN", "marked-manager-token"),
            (
                "GATEWAY__IM_TOKEN__SECRET",
                "marked-im-token-secret-of-32-bytes",
            ),
            (
                "GATEWAY__AUTH__JWT_PREVIOUS_SECRETS",
                "marked-previous-secret-of-32-bytes",
            ),
            ("GATEWAY__LOG__LEVEL", "trace"),
            ("GATEWAY__STORE__URL", &store),
            ("GATEWAY__WUKONGIM__TIMEOUT", "500ms"),
            ("GATEWAY__WUKONGIM__CONFIRM_TIMEOUT", "100ms"),
            ("GATEWAY__AUTHORIZATION__CACHE_TTL", "0s"),
        ]);
        if let Some(manager) = &manager {
            env.extend([
                ("GATEWAY__WUKONGIM__MANAGER_URL", manager.as_str()),
                ("GATEWAY__WUKONGIM__MANAGER_USERNAME", "boss"),
                ("GATEWAY__WUKONGIM__MANAGER_PASSWORD", "marked-manager-pass"),
            ]);
        }
        env.extend(more);
        let mut addresses = vec![upstream.url()];
        addresses.extend(upstream.manager_url());
        let port = |url: &String| format!(":{}", url.rsplit(':').next().unwrap());
        let (alice, root) = (token("alice"), admin_token());
        let mut secrets: Vec<String> = addresses.iter().map(port).collect();
        for token in [&alice, &root] {
            secrets.push(token.clone());
            secrets.extend(token.split('.').skip(1).map(str::to_owned));
        }
        secrets.extend([MARK, SECRET, &STANDARD.encode(TEXT)].map(str::to_owned));
        Self {
            gateway: Gateway::start(&[], &env),
            upstream,
            folder,
            alice,
            root,
            answers: Vec::new(),
            secrets,
        }
    }

    pub async fn ask(&mut self, name: &str, request: reqwest::RequestBuilder) -> Value {
        let response = request.send().await.unwrap();
        let status = response.status();
        let headers = format!("{:?}", response.headers());
        let text = response.text().await.unwrap();
        // Users are given their own tokens and messages.
        if !status.is_success()
            || !(["/token", "/sync", "/list"]
                .iter()
                .any(|own| name.contains(own)))
        {
            let answer = format!("{status} {headers} {text}");
            self.answers.push((name.to_owned(), answer));
        }
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }

    pub async fn post(&mut self, name: &str, path: &str, token: &str, body: String) {
        let request = self.gateway.post(path).bearer_auth(token);
        let request = request.header("content-type", "application/json");
        self.ask(&format!("{name} {path}"), request.body(body))
            .await;
    }

    pub async fn get(&mut self, name: &str, path: &str, token: &str) {
        let request = self.gateway.get(path).bearer_auth(token);
        self.ask(&format!("{name} {path}"), request).await;
    }

    /// Every endpoint with good input, an admin also for others.
    pub async fn use_everything(&mut self, when: &str, token: &str) {
        let group = format!("g-{when}");
        let payload = STANDARD.encode(TEXT);
        let message =
            |id: &str, kind: u8| json!({"channelId": id, "channelType": kind, "payload": payload});
        let members = json!({"channelId": group, "channelType": 2, "subscribers": ["bob"]});
        let managers = json!({"channelId": group, "channelType": 2, "uids": ["bob"]});
        let owner = json!({"channelId": group, "channelType": 2, "uid": "bob"});
        let mut as_bob = message(&group, 2);
        as_bob["fromUid"] = json!("bob");
        let batch = json!([message("bob", 1), as_bob, message("nowhere", 2)]);
        for (path, body) in [
            ("/channel/create", &members),
            ("/channel/subscriber/add", &members),
            ("/message/send", &message("bob", 1)),
            ("/message/send", &message(&group, 2)),
            ("/message/send", &as_bob),
            ("/message/sendbatch", &batch),
            ("/channel/manager/add", &managers),
            ("/channel/manager/remove", &managers),
            ("/channel/owner", &owner),
            ("/conversation/read", &message(&group, 2)),
            ("/conversation/delete", &message("bob", 1)),
            ("/token", &json!({"deviceFlag": 0})),
            ("/token/revoke", &json!({"uid": "bob"})),
        ] {
            self.post(when, path, token, body.to_string()).await;
        }
        let sync = format!("/message/sync?channelType=2&channelId={group}");
        let info = format!("/channel/info?channelType=2&channelId={group}");
        let members_of = format!("/channel/subscribers?channelType=2&channelId={group}");
        for path in [
            "/config",
            "/health",
            "/system/info",
            "/message/sync?channelType=1&channelId=bob",
            "/conversation/list",
            &sync,
            &info,
            &members_of,
        ] {
            self.get(when, path, token).await;
        }
        for path in ["/channel/subscriber/remove", "/channel/delete"] {
            self.post(when, path, token, members.to_string()).await;
        }
    }

    /// Every endpoint with bad input, tokens where none belong, paths that are none.
    pub async fn misuse_everything(&mut self) {
        let alice = self.alice.clone();
        let bad = json!({"channelId": "marked id", "channelType": "marked", "payload": TEXT, "marked": TEXT, "subscribers": [TEXT], "name": 7, "deviceFlag": "marked", "fromUid": "marked uid", "uid": "marked uid", "uids": [TEXT]});
        for path in [
            "/channel/create",
            "/channel/delete",
            "/channel/subscriber/add",
            "/channel/subscriber/remove",
            "/message/send",
            "/message/sendbatch",
            "/channel/manager/add",
            "/channel/manager/remove",
            "/channel/owner",
            "/conversation/read",
            "/conversation/delete",
            "/token",
            "/token/revoke",
            "/marked-path",
        ] {
            for body in [
                bad.to_string(),
                format!("[{bad}]"),
                format!("{{\"a\":{TEXT}"),
            ] {
                self.post("bad", path, &alice, body).await;
            }
        }
        let in_query = format!("/config?token={alice}");
        for path in [
            "/message/sync?channelId=marked%20id&marked=marked&channelType=marked",
            "/channel/info?channelId=marked%20id&marked=marked&channelType=marked",
            "/channel/subscribers?channelId=marked%20id&marked=marked&channelType=marked&cursor=marked",
            "/conversation/list?limit=marked&cursor=marked",
            "/marked-path?marked=marked",
            &in_query,
        ] {
            self.get("bad", path, &alice).await;
        }
        self.get("junk", "/config", "marked.junk.token").await;
    }

    /// What is no HTTP, and what is too much of it.
    pub async fn talk_nonsense(&self) {
        let address = self.gateway.api.strip_prefix("http://").unwrap();
        let long = format!(
            "GET / HTTP/1.1\r\nmarked: {}\r\n\r\n",
            "marked".repeat(200_000)
        );
        for text in [
            "marked nonsense\r\n\r\n",
            "GET /marked HTTP/1.1\r\nmarked\u{0}: marked\r\n\r\n",
            "POST /api/v1/im/token HTTP/1.1\r\nhost: marked\r\ncontent-length: marked\r\n\r\n",
            &long,
        ] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            // It may have hung up already.
            let _ = stream.write_all(text.as_bytes()).await;
            let _ = stream.shutdown().await;
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer).await;
            assert!(!String::from_utf8_lossy(&answer).contains(MARK));
        }
    }

    pub async fn break_the_store(&self) {
        sqlx::any::install_default_drivers();
        let url = format!("sqlite://{}/marked-store.db", self.folder.path().display());
        let mut connection = sqlx::AnyConnection::connect(&url).await.unwrap();
        sqlx::query("DROP TABLE channels")
            .execute(&mut connection)
            .await
            .unwrap();
    }

    /// Asserts that no secret is anywhere, and gives the log.
    pub async fn end(mut self) -> Vec<Value> {
        for path in ["/livez", "/readyz", "/metrics", "/version"] {
            let request = client().get(format!("{}{path}", self.gateway.ops));
            self.ask(path, request).await;
        }
        self.gateway.signal("TERM");
        assert_eq!(self.gateway.wait().code(), Some(0));
        let written = [
            ("stdout".to_owned(), self.gateway.stdout()),
            ("stderr".to_owned(), self.gateway.stderr()),
        ];
        for secret in &self.secrets {
            for (name, text) in written.iter().chain(&self.answers) {
                let index = text.lines().find(|line| line.contains(secret.as_str()));
                assert_eq!(index, None, "{secret} in {name}");
            }
        }
        self.gateway.log()
    }
}
