//! Whatever happens, at the most talkative level: nothing the process writes or answers holds a secret, a token, a payload or the
//! address of what it calls.

use std::collections::BTreeSet;

use dev_upstream::{Dialect, Fault};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::support::database::{self, Database};
use crate::support::keys::{ED_ONE, key_set};
use crate::support::marked::{Fixture, MARK, TEXT};
use crate::support::process::{run, usual};

fn count(log: &[Value], message: &str) -> usize {
    log.iter().filter(|line| line["message"] == message).count()
}

/// A gateway's whole life, in good and in bad times.
async fn live(dialect: Dialect) {
    let mut fixture = Fixture::start(dialect, &[]).await;
    let (alice, root) = (fixture.alice.clone(), fixture.root.clone());
    fixture.use_everything("alice", &alice).await;
    fixture.use_everything("root", &root).await;
    fixture.misuse_everything().await;
    fixture.talk_nonsense().await;
    let told = fixture.gateway.post("/token").bearer_auth(&fixture.alice);
    let told = fixture.ask("/token", told).await;
    let im_token = told["data"]["token"].as_str().unwrap().to_owned();
    fixture.secrets.push(im_token);
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
        fixture.upstream.faults().always("/", fault);
        fixture.use_everything(name, &root).await;
        fixture.upstream.faults().clear();
    }
    fixture.break_the_store().await;
    fixture.use_everything("no-store", &root).await;
    fixture.upstream.stop().await;
    fixture.use_everything("down", &root).await;
    let log = fixture.end().await;
    let codes = log.iter().filter_map(|line| line["error.code"].as_str());
    let codes: BTreeSet<_> = codes.collect();
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
    let mut fixture = Fixture::start(Dialect::V2, &more).await;
    let port = address.rsplit(':').next().unwrap();
    fixture.secrets.push(format!(":{port}"));
    for token in [fixture.alice.clone(), fixture.root.clone()] {
        fixture.use_everything("callback", &token).await;
    }
    let answers = fixture.answers.clone();
    let log = fixture.end().await;
    let causes = log.iter().filter_map(|line| line["error.cause"].as_str());
    let causes: Vec<_> = causes.collect();
    for cause in [
        "refused by the callback: toldby the backend",
        "the callback's answer is malformed",
    ] {
        assert!(causes.contains(&cause), "{causes:?}");
    }
    let is_revealed = |(_, text): &(String, String)| text.contains("by the backend");
    assert!(!answers.iter().any(is_revealed));
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
async fn the_issuers_address_is_never_revealed() {
    const LOADED: &str = "signing keys loaded";
    const NO_KEYS: &str = "keys_unavailable";
    const BROKEN: &str = "signing keys cannot be fetched; known keys stay valid";
    let keys = key_set(&[ED_ONE.jwk(Some("marked-kid"))]);
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = closed.local_addr().unwrap().to_string();
    drop(closed);
    let claims = json!({"sub": "alice", "exp": 4_102_444_800_u64});
    let known = ED_ONE.sign(Some("marked-kid"), &claims);
    let strange = ED_ONE.sign(Some("marked-strange-kid"), &claims);
    for (address, said, code) in [
        (issuer("200 OK", keys).await, LOADED, "token_invalid"),
        (
            issuer("200 OK", "marked nonsense".into()).await,
            BROKEN,
            NO_KEYS,
        ),
        (issuer("500 marked", "marked".into()).await, BROKEN, NO_KEYS),
        (issuer("302 Found", "marked".into()).await, BROKEN, NO_KEYS),
        (nobody, BROKEN, NO_KEYS),
    ] {
        let url = format!("http://marked-user:marked-pw@{address}/marked-path?key=marked-query");
        let more = [("GATEWAY__AUTH__JWKS_URL", url.as_str())];
        let mut fixture = Fixture::start(Dialect::V2, &more).await;
        let port = address.rsplit(':').next().unwrap();
        fixture.secrets.push(format!(":{port}"));
        for token in [&known, &strange] {
            fixture.secrets.push(token.clone());
            fixture.get("issuer", "/config", token).await;
        }
        let log = fixture.end().await;
        assert_eq!(count(&log, said), 1, "{log:?}");
        let told = |line: &Value| line["error.code"] == code;
        assert!(log.iter().any(told), "{code}: {log:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_database_is_not_named_in_errors() {
    let folder = tempfile::tempdir().unwrap();
    let url = "postgres://marked-user:marked-pw@127.0.0.9:1/marked-db";
    let misspelt = format!("{url}?sslmode=marked");
    let mut env = usual();
    env.push(("GATEWAY__STORE__URL", &misspelt));
    let (code, stdout, stderr) = run(folder.path(), &[], &env);
    assert_eq!((code, &*stdout), (64, ""), "{stderr}");
    assert!(!stderr.contains(MARK), "{stderr}");

    let more = [("GATEWAY__STORE__URL", url)];
    let mut fixture = Fixture::start(Dialect::V2, &more).await;
    fixture.secrets.push("127.0.0.9".to_owned());
    let root = fixture.root.clone();
    fixture.use_everything("no-database", &root).await;
    let log = fixture.end().await;
    let told = "store not reached yet: serving without it and trying again";
    assert_eq!(count(&log, told), 1, "{log:?}");
    let refused = |line: &Value| line["error.code"] == "store_unavailable";
    assert!(log.iter().any(refused), "{log:?}");
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
    let mut fixture = Fixture::start(Dialect::V2, &more).await;
    let (alice, root) = (fixture.alice.clone(), fixture.root.clone());
    fixture.use_everything("alice", &alice).await;
    database.shut_role_out().await;
    for when in ["shut", "out"] {
        fixture.use_everything(when, &root).await;
    }
    let log = fixture.end().await;
    let causes = log.iter().filter_map(|line| line["error.cause"].as_str());
    let causes: Vec<_> = causes.collect();
    let told = "the store is unavailable: PostgreSQL answers SQLSTATE 28000 (login refused)";
    assert!(causes.contains(&told), "{causes:?}");
}
