//! Whatever happens, at the most talkative level: nothing the process writes or answers holds a secret, a token, a payload or the
//! address of what it calls. And what admins do for others is written.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sqlx::Connection as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use wukongim_gateway::embedded::{Dialect, Embedded, Fault, Options};

use crate::gateway::{Gateway, SECRET, client, command, token, usual};

/// Every secret, password, path and payload of these tests begins so.
const MARK: &str = "marked";
const TEXT: &str = "marked-payload-that-nobody-may-log";

/// A gateway, what it stands on, and all it has answered.
struct House {
    gateway: Gateway,
    upstream: Embedded,
    folder: tempfile::TempDir,
    alice: String,
    root: String,
    /// Name and text of the answers that show no user his own token or messages.
    answers: Vec<(String, String)>,
    /// Tokens and addresses.
    secrets: Vec<String>,
}

fn admin_token() -> String {
    let folder = tempfile::tempdir().unwrap();
    let args = ["token", "--uid", "root", "--admin"];
    let output = command(folder.path(), &args, &[("JWT_SECRET", SECRET)]).output();
    let text = String::from_utf8(output.unwrap().stdout).unwrap();
    text.trim().to_owned()
}

impl House {
    async fn start(dialect: Dialect, more: &[(&str, &str)]) -> Self {
        let mut options = Options::new(dialect);
        match dialect {
            Dialect::V2 => options.manager_token = Some("marked-manager-token".into()),
            Dialect::V3 => options.manager = Some(("boss".into(), "marked-manager-pass".into())),
        }
        let upstream = Embedded::start(options).await.unwrap();
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
            ("GATEWAY__WUKONGIM__CONFIRM_TIMEOUT", "200ms"),
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

    async fn ask(&mut self, name: &str, request: reqwest::RequestBuilder) -> Value {
        let response = request.send().await.unwrap();
        let status = response.status();
        let headers = format!("{:?}", response.headers());
        let text = response.text().await.unwrap();
        // Users are given their own tokens and messages.
        if !status.is_success() || !(name.contains("/token") || name.contains("/sync")) {
            let answer = format!("{status} {headers} {text}");
            self.answers.push((name.to_owned(), answer));
        }
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }

    /// Every endpoint with good and with bad input, as a user and as an admin who acts for others.
    async fn use_everything(&mut self, when: &str) {
        let payload = STANDARD.encode(format!("{TEXT} {when}"));
        let message = |id: &str, kind: u8| json!({"channelId": id, "channelType": kind, "payload": payload, "clientMsgNo": format!("{when} {id}")});
        let group =
            json!({"channelId": "g", "channelType": 2, "name": "n", "subscribers": ["bob"]});
        let mut as_bob = message("g", 2);
        as_bob["fromUid"] = json!("bob");
        let bad = json!({"channelId": "marked id", "channelType": "marked", "payload": TEXT, "marked": TEXT, "subscribers": [TEXT], "name": 7, "deviceFlag": "marked"});
        let posts = [
            ("/channel/create", group.clone()),
            ("/channel/subscriber/add", group.clone()),
            ("/message/send", message("bob", 1)),
            ("/message/send", message("g", 2)),
            ("/message/send", as_bob.clone()),
            (
                "/message/sendbatch",
                json!([message("bob", 1), as_bob, message("nowhere", 2)]),
            ),
            ("/token", json!({"deviceFlag": 0})),
            ("/channel/subscriber/remove", group.clone()),
        ];
        let gets = [
            "/config",
            "/health",
            "/system/info",
            "/message/sync?channelId=bob&channelType=1",
            "/message/sync?channelId=g&channelType=2",
            "/message/sync?channelId=marked%20id&marked=marked&channelType=marked",
        ];
        for token in [self.alice.clone(), self.root.clone()] {
            for (path, body) in &posts {
                for body in [body.to_string(), bad.to_string(), format!("{{\"a\":{TEXT}")] {
                    let request = self.gateway.post(path).bearer_auth(&token);
                    let request = request.header("content-type", "application/json");
                    self.ask(&format!("{when} {path}"), request.body(body))
                        .await;
                }
            }
            for path in gets {
                let request = self.gateway.get(path).bearer_auth(&token);
                self.ask(&format!("{when} {path}"), request).await;
            }
        }
        let junk = self.gateway.get("/config").bearer_auth("marked.junk.token");
        self.ask("junk", junk).await;
        let in_query = format!("/config?token={}", self.alice);
        let request = self.gateway.get(&in_query);
        self.ask("in query", request).await;
        let request = self.gateway.get("/marked-path?marked=marked");
        self.ask("unknown", request).await;
    }

    /// What is no HTTP, and what is too much of it.
    async fn talk_nonsense(&self) {
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

    async fn break_the_store(&self) {
        sqlx::any::install_default_drivers();
        let url = format!("sqlite://{}/marked-store.db", self.folder.path().display());
        let mut connection = sqlx::AnyConnection::connect(&url).await.unwrap();
        sqlx::query("DROP TABLE channels")
            .execute(&mut connection)
            .await
            .unwrap();
    }

    /// Asserts that no secret is anywhere, and gives the log.
    async fn end(mut self) -> Vec<Value> {
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
                let place = text.lines().find(|line| line.contains(secret.as_str()));
                assert_eq!(place, None, "{secret} in {name}");
            }
        }
        self.gateway.log()
    }
}

fn count(log: &[Value], message: &str) -> usize {
    log.iter().filter(|line| line["message"] == message).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_written_or_answered_holds_what_is_secret() {
    for dialect in [Dialect::V2, Dialect::V3] {
        let mut house = House::start(dialect, &[]).await;
        house.use_everything("well").await;
        let told = house.gateway.post("/token").bearer_auth(&house.alice);
        let told = house.ask("/token", told).await;
        house
            .secrets
            .push(told["data"]["token"].as_str().unwrap().to_owned());
        house.talk_nonsense().await;
        let words = format!(r#"{{"msg":"marked {TEXT}","error":"marked","status":400}}"#);
        for (name, fault) in [
            ("refused", Fault::Status(400, words.clone())),
            ("error", Fault::Status(500, words.clone())),
            ("unauthorized", Fault::Status(401, words.clone())),
            ("soft", Fault::Status(200, words)),
            ("garbage", Fault::Garbage),
            ("half", Fault::HalfAnswer),
            ("reset", Fault::Reset),
        ] {
            house.upstream.faults().always("/", fault);
            house.use_everything(name).await;
            house.upstream.faults().clear();
        }
        house.break_the_store().await;
        house.use_everything("no store").await;
        house.upstream.stop().await;
        house.use_everything("down").await;
        let log = house.end().await;
        assert!(count(&log, "request") > 500, "{}", count(&log, "request"));
        assert!(count(&log, "upstream call failed") > 0, "trace is on");
        assert!(count(&log, "audit") > 0);
    }
}

/// A backend for mode `callback` that says no with its reason, or nonsense.
async fn backend() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut asked = 0;
        while let Ok((mut stream, _)) = listener.accept().await {
            asked += 1;
            let mut question = [0; 4096];
            let _ = stream.read(&mut question).await;
            let body = match asked % 3 {
                0 => r#"{"allow":false,"reason":"told\r\nby the backend"}"#,
                1 => r#"{"allow":true}"#,
                _ => "marked nonsense",
            };
            let length = body.len();
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
            );
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    address.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_callback_leaves_its_reason_and_nothing_else() {
    let address = backend().await;
    let url = format!("http://marked-user:marked-pw@{address}/marked-path");
    let more = [
        ("GATEWAY__AUTHORIZATION__MODE", "callback"),
        ("GATEWAY__AUTHORIZATION__CALLBACK_URL", url.as_str()),
        (
            "GATEWAY__AUTHORIZATION__CALLBACK_SECRET",
            "marked-callback-secret-of-32-bytes",
        ),
    ];
    let mut house = House::start(Dialect::V2, &more).await;
    let port = address.rsplit(':').next().unwrap();
    house.secrets.push(format!(":{port}"));
    house.use_everything("one").await;
    house.use_everything("two").await;
    let answers = house.answers.clone();
    let log = house.end().await;
    let causes: Vec<_> = log
        .iter()
        .filter_map(|line| line["error.cause"].as_str())
        .collect();
    assert!(
        causes.contains(&"refused by the callback: toldby the backend"),
        "{causes:?}"
    );
    assert!(
        causes.contains(&"the callback's answer is malformed"),
        "{causes:?}"
    );
    assert!(
        answers
            .iter()
            .all(|(_, text)| !text.contains("by the backend"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_admin_leaves_one_line_for_each_thing_he_does_by_being_one() {
    let house = House::start(Dialect::V2, &[]).await;
    let ask = async |token: &str, path: &str, body: Value| {
        let request = house
            .gateway
            .post(path)
            .bearer_auth(token)
            .header("x-request-id", "r-1");
        let request = request
            .header("content-type", "application/json")
            .body(body.to_string());
        request.send().await.unwrap().status().as_u16()
    };
    let (alice, root) = (&house.alice, &house.root);
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
    assert_eq!(ask(root, "/channel/delete", group("g")).await, 200);
    let log = house.end().await;
    let lines: Vec<String> = log
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
            "root null channel.delete g 2 done",
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn hanging_up_is_no_way_round_the_audit() {
    let patient = [("GATEWAY__WUKONGIM__TIMEOUT", "9s")];
    let mut house = House::start(Dialect::V2, &patient).await;
    house.upstream.faults().always("/message/send", Fault::Hang);
    let body = json!({"channelId": "bob", "channelType": 1, "payload": "eA==", "fromUid": "alice"});
    let request = house.gateway.post("/message/send").bearer_auth(&house.root);
    let request = request.header("content-type", "application/json");
    let sending = tokio::spawn(request.body(body.to_string()).send());
    while house.upstream.calls_to("/message/send").is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    sending.abort();
    let line = house.gateway.wait_for_line("audit");
    assert_eq!(line["audit.outcome"], "interrupted", "{line}");
    house.end().await;
}
