//! Whatever happens, at the most talkative level: nothing the process writes or answers holds a secret, a token, a payload or the
//! address of what it calls.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sqlx::Connection as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use wukongim_gateway::embedded::{Dialect, Embedded, Fault, Options};

use crate::database::{self, Database};
use crate::gateway::{Gateway, SECRET, client, command, run, token, usual};
use crate::keys::{ED_ONE, key_set};

/// Every secret, password, path and payload of these tests begins so.
const MARK: &str = "marked";
const TEXT: &str = "marked-payload-that-nobody-may-log";

/// A gateway, what it stands on, and all it has answered.
pub struct House {
    pub gateway: Gateway,
    pub upstream: Embedded,
    folder: tempfile::TempDir,
    pub alice: String,
    pub root: String,
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
    pub async fn start(dialect: Dialect, more: &[(&str, &str)]) -> Self {
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

    async fn post(&mut self, name: &str, path: &str, token: &str, body: String) {
        let request = self.gateway.post(path).bearer_auth(token);
        let request = request.header("content-type", "application/json");
        self.ask(&format!("{name} {path}"), request.body(body))
            .await;
    }

    async fn get(&mut self, name: &str, path: &str, token: &str) {
        let request = self.gateway.get(path).bearer_auth(token);
        self.ask(&format!("{name} {path}"), request).await;
    }

    /// Every endpoint with good input, an admin also for others.
    async fn use_everything(&mut self, when: &str, token: &str) {
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
            ("/token", &json!({"deviceFlag": 0})),
            ("/token/revoke", &json!({"uid": "bob"})),
        ] {
            self.post(when, path, token, body.to_string()).await;
        }
        let sync = format!("/message/sync?channelType=2&channelId={group}");
        let info = format!("/channel/info?channelType=2&channelId={group}");
        for path in [
            "/config",
            "/health",
            "/system/info",
            "/message/sync?channelType=1&channelId=bob",
            &sync,
            &info,
        ] {
            self.get(when, path, token).await;
        }
        for path in ["/channel/subscriber/remove", "/channel/delete"] {
            self.post(when, path, token, members.to_string()).await;
        }
    }

    /// Every endpoint with bad input, tokens where none belong, paths that are none.
    async fn misuse_everything(&mut self) {
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
            "/marked-path?marked=marked",
            &in_query,
        ] {
            self.get("bad", path, &alice).await;
        }
        self.get("junk", "/config", "marked.junk.token").await;
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

/// A gateway's whole life, in good and in bad times.
async fn live(dialect: Dialect) {
    let mut house = House::start(dialect, &[]).await;
    let (alice, root) = (house.alice.clone(), house.root.clone());
    house.use_everything("alice", &alice).await;
    house.use_everything("root", &root).await;
    house.misuse_everything().await;
    house.talk_nonsense().await;
    let told = house.gateway.post("/token").bearer_auth(&house.alice);
    let told = house.ask("/token", told).await;
    let im_token = told["data"]["token"].as_str().unwrap().to_owned();
    house.secrets.push(im_token);
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
        house.use_everything(name, &root).await;
        house.upstream.faults().clear();
    }
    house.break_the_store().await;
    house.use_everything("no-store", &root).await;
    house.upstream.stop().await;
    house.use_everything("down", &root).await;
    let log = house.end().await;
    let codes: BTreeSet<_> = log
        .iter()
        .filter_map(|line| line["error.code"].as_str())
        .collect();
    for code in [
        "invalid_request",
        "token_invalid",
        "not_found",
        "upstream_error",
        "upstream_unavailable",
        "store_unavailable",
    ] {
        assert!(codes.contains(code), "{codes:?}");
    }
    assert!(count(&log, "upstream call failed") > 0, "trace is on");
    assert!(count(&log, "audit") > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_written_or_answered_on_v2_holds_what_is_secret() {
    live(Dialect::V2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_written_or_answered_on_v3_holds_what_is_secret() {
    live(Dialect::V3).await;
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
    for token in [house.alice.clone(), house.root.clone()] {
        house.use_everything("callback", &token).await;
    }
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

/// An issuer that gives this answer to whoever asks for its keys.
async fn issuer(status: &str, body: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let length = body.len();
    let answer = format!(
        "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nlocation: /marked-elsewhere\r\nconnection: close\r\n\r\n{body}"
    );
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut question = [0; 4096];
            let _ = stream.read(&mut question).await;
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    address.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_issuers_address_is_told_to_nobody_whatever_it_answers() {
    const BROKEN: &str = "signing keys cannot be fetched; those known stay good";
    let keys = key_set(&[ED_ONE.jwk(Some("marked-kid"))]);
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = closed.local_addr().unwrap().to_string();
    drop(closed);
    let claims = json!({"sub": "alice", "exp": 4_102_444_800_u64});
    let known = ED_ONE.sign(Some("marked-kid"), &claims);
    let strange = ED_ONE.sign(Some("marked-strange-kid"), &claims);
    for (address, said, code) in [
        (
            issuer("200 OK", keys).await,
            "signing keys loaded",
            "token_invalid",
        ),
        (
            issuer("200 OK", "marked nonsense".into()).await,
            BROKEN,
            "keys_unavailable",
        ),
        (
            issuer("500 marked", "marked".into()).await,
            BROKEN,
            "keys_unavailable",
        ),
        (
            issuer("302 Found", "marked".into()).await,
            BROKEN,
            "keys_unavailable",
        ),
        (nobody, BROKEN, "keys_unavailable"),
    ] {
        let url = format!("http://marked-user:marked-pw@{address}/marked-path?key=marked-query");
        let more = [("GATEWAY__AUTH__JWKS_URL", url.as_str())];
        let mut house = House::start(Dialect::V2, &more).await;
        let port = address.rsplit(':').next().unwrap();
        house.secrets.push(format!(":{port}"));
        for token in [&known, &strange] {
            house.secrets.push(token.clone());
            house.get("issuer", "/config", token).await;
        }
        let log = house.end().await;
        assert_eq!(count(&log, said), 1, "{log:?}");
        let told = |line: &Value| line["error.code"] == code;
        assert!(log.iter().any(told), "{code}: {log:?}");
    }
}

#[test]
fn a_database_that_cannot_be_reached_is_named_nowhere() {
    let folder = tempfile::tempdir().unwrap();
    for rest in ["127.0.0.1:1/marked-db", "127.0.0.1:1/db?sslmode=marked"] {
        let url = format!("postgres://marked-user:marked-pw@{rest}");
        let mut env = usual();
        env.push(("GATEWAY__STORE__URL", &url));
        env.push(("GATEWAY__LOG__LEVEL", "trace"));
        let (code, stdout, stderr) = run(folder.path(), &[], &env);
        assert_eq!(code, 69, "{stderr}");
        assert!(stderr.contains("cannot open the store"), "{stderr}");
        for text in [stdout, stderr] {
            assert!(
                !text.contains(MARK) && !text.contains("127.0.0.1:1"),
                "{text}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_lets_the_gateway_in_no_more_is_named_nowhere() {
    if database::skips_postgres() {
        return;
    }
    let database = Database::new(database::Kind::Postgres).await;
    let url = database.as_role().await;
    let more = [
        ("GATEWAY__STORE__URL", url.as_str()),
        ("GATEWAY__STORE__MAX_CONNECTIONS", "2"),
    ];
    let mut house = House::start(Dialect::V2, &more).await;
    let (alice, root) = (house.alice.clone(), house.root.clone());
    house.use_everything("alice", &alice).await;
    database.shut_role_out().await;
    for when in ["shut", "out"] {
        house.use_everything(when, &root).await;
    }
    let log = house.end().await;
    let causes = log.iter().filter_map(|line| line["error.cause"].as_str());
    let told = "the store is unavailable: PostgreSQL answers SQLSTATE 28000";
    assert!(
        causes.clone().any(|cause| cause == told),
        "{:?}",
        causes.collect::<Vec<_>>()
    );
}
