//! What is written: one JSON line a request, and never a secret.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dev_upstream::{DevUpstream, Dialect, Fault, Options};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::marked::admin_token;
use crate::support::process::{Gateway, SECRET, answer, token, usual};

const MANAGER_TOKEN: &str = "marked-manager-token";
const IM_SECRET: &str = "marked-im-token-secret-of-32-bytes";
const TEXT: &str = "marked-payload-that-nobody-may-log";

/// Every kind of request, with marked secrets in every place a client or WuKongIM can put one: their ids and statuses, and the IM
/// token that was given out.
async fn walk(
    gateway: &Gateway,
    upstream: &DevUpstream,
    alice: &str,
) -> (Vec<(String, u16)>, String) {
    let mut asked = Vec::new();
    let mut ask = async |name: &str, request: reqwest::RequestBuilder| {
        let (status, body) = answer(request.header("x-request-id", name)).await;
        asked.push((name.to_owned(), status));
        body
    };
    let post = |body: String| {
        let request = gateway.post_json(alice, "/message/send", &Value::Null);
        request.body(body)
    };
    ask("send", gateway.send(alice, TEXT)).await;
    let told = ask("token", gateway.post("/token").bearer_auth(alice)).await;
    let im_token = told["data"]["token"].as_str().unwrap().to_owned();
    let sync = "/message/sync?channelId=bob&channelType=1";
    ask("sync", gateway.get(sync).bearer_auth(alice)).await;
    ask("health", gateway.get("/health")).await;
    ask("nobody", gateway.get("/config")).await;
    let junk = gateway.get("/config").bearer_auth("marked-junk-token");
    ask("junk", junk).await;
    let in_query = format!("/config?token={alice}");
    ask("in-query", gateway.get(&in_query)).await;
    ask("unknown", gateway.get("/marked-path?marked=query")).await;
    let bad = json!({"channelId": "marked channel", "channelType": "marked", "payload": TEXT, "marked": TEXT});
    ask("bad", post(bad.to_string())).await;
    ask("broken", post(format!("{{\"a\":{TEXT}"))).await;
    let words = format!(r#"{{"msg":"marked-words {TEXT}","status":400}}"#);
    for (name, fault) in [
        ("refused", Fault::Status(400, words.clone())),
        ("error", Fault::Status(500, words)),
        ("garbage", Fault::Garbage),
        ("reset", Fault::Reset),
    ] {
        upstream.faults().always("/", fault);
        ask(name, gateway.send(alice, &format!("{TEXT} {name}"))).await;
        upstream.faults().clear();
    }
    upstream.stop().await;
    ask("down", gateway.send(alice, &format!("{TEXT} down"))).await;
    (asked, im_token)
}

/// The id and the status of a request's line, which must have all that belongs to one.
#[track_caller]
fn told_by(line: &Value) -> (String, u16) {
    for field in [
        "timestamp",
        "level",
        "http.method",
        "http.route",
        "duration_ms",
    ] {
        assert!(line.get(field).is_some(), "{field}: {line}");
    }
    let status = line["http.status"].as_u64().unwrap();
    let level = match status {
        500.. => "ERROR",
        400.. => "WARN",
        _ => "INFO",
    };
    assert_eq!(line["level"], level, "{line}");
    assert_eq!(line.get("error.code").is_some(), status >= 400, "{line}");
    let id = line["request.id"].as_str().unwrap().to_owned();
    (id, u16::try_from(status).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_request_is_one_line_and_no_secret_is_ever_written() {
    for dialect in [Dialect::V2, Dialect::V3] {
        let mut options = Options::new(dialect);
        if dialect == Dialect::V2 {
            options.manager_token = Some(MANAGER_TOKEN.into());
        }
        let upstream = DevUpstream::start(options).await.unwrap();
        let host = upstream.url().strip_prefix("http://").unwrap().to_owned();
        let url = format!("http://marked-user:marked-password@{host}");
        let mut env = usual();
        env.push(("WUKONGIM_API_URL", &url));
        env.push(("GATEWAY__WUKONGIM__MANAGER_TOKEN", MANAGER_TOKEN));
        env.push(("GATEWAY__IM_TOKEN__SECRET", IM_SECRET));
        env.push(("GATEWAY__LOG__LEVEL", "trace"));
        env.push(("GATEWAY__STORE__URL", "sqlite://marked-store.db"));
        env.push(("GATEWAY__WUKONGIM__CONFIRM_TIMEOUT", "200ms"));
        let mut gateway = Gateway::start(&[], &env);
        let alice = token("alice");
        let (asked, im_token) = walk(&gateway, &upstream, &alice).await;
        for path in ["/livez", "/readyz", "/metrics", "/version"] {
            let answer = gateway.ops(path).send().await.unwrap();
            let text = answer.text().await.unwrap();
            assert!(!text.contains("marked"), "{path}");
        }
        gateway.ends();

        assert!(asked.contains(&("send".to_owned(), 200)), "{asked:?}");
        assert!(asked.contains(&("sync".to_owned(), 200)), "{asked:?}");
        let log = gateway.log();
        let requests = log.iter().filter(|line| line["message"] == "request");
        assert_eq!(requests.map(told_by).collect::<Vec<_>>(), asked);
        // Though the v3 was lost and found several times.
        let warnings = log.iter().filter(|line| {
            let text = line["message"].as_str().unwrap_or_default();
            text.contains("checks no connect token")
        });
        assert_eq!(warnings.count(), usize::from(dialect == Dialect::V3));
        let port = host.rsplit(':').next().unwrap();
        for secret in [
            SECRET,
            MANAGER_TOKEN,
            IM_SECRET,
            TEXT,
            "marked",
            &alice,
            alice.rsplit('.').next().unwrap(),
            &im_token,
            &STANDARD.encode(TEXT),
            // Nodes are named by their place.
            &format!(":{port}"),
        ] {
            for (name, text) in [("stdout", gateway.stdout()), ("stderr", gateway.stderr())] {
                let index = text.lines().find(|line| line.contains(secret));
                assert_eq!(index, None, "{secret} on {name}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_whose_client_hangs_up_has_its_line_too() {
    let upstream = DevUpstream::start(Options::new(Dialect::V2)).await.unwrap();
    let mut gateway = Gateway::before(&upstream, &[]);
    let fault = Fault::Hold("held".into());
    upstream.faults().always("/user/token", fault);
    let request = gateway.post("/token").bearer_auth(token("alice"));
    let request = request.header("x-request-id", "gone");
    tokio::select! {
        answer = answer(request) => panic!("answered: {answer:?}"),
        () = upstream.faults().wait_held("held", 1) => {}
    }
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    let line = loop {
        let log = gateway.log();
        let line = log.iter().find(|line| line["request.id"] == "gone");
        if let Some(line) = line {
            break line.clone();
        }
        assert!(std::time::Instant::now() < deadline);
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    };
    assert_eq!(told_by(&line), ("gone".to_owned(), 499));
    gateway.signal("TERM");
    gateway.wait();
}

#[test]
fn text_is_written_where_it_is_asked_for_and_quiet_where_it_is_quiet() {
    let folder = tempfile::tempdir().unwrap();
    let mut env = usual();
    env.push(("GATEWAY__LOG__FORMAT", "text"));
    env.push(("GATEWAY__STORE__URL", "sqlite:///proc/nothing/gateway.db"));
    env.push(("WUKONGIM_WS_URL", "ws://im:5200"));
    let (_, _, text) = crate::support::process::run(folder.path(), &[], &env);
    assert!(text.contains(" WARN public.ws_url"), "{text}");
    assert!(!text.contains('{') && !text.contains('\u{1b}'), "{text}");
    env.push(("GATEWAY__LOG__LEVEL", "error"));
    let (_, _, text) = crate::support::process::run(folder.path(), &[], &env);
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.starts_with("error: cannot open the store: "), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_requests_line_waits_for_no_other_line() {
    let mut gateway = Gateway::embedded(&[]);
    let (status, _) = answer(gateway.get("/health").header("x-request-id", "r-1")).await;
    assert_eq!(status, 200);
    let line = gateway.wait_for_line("request");
    assert_eq!(line["request.id"], "r-1");
    assert_eq!(line["level"], "INFO");
}

/// The ids of the requests that have a line.
fn logged(mut gateway: Gateway) -> Vec<String> {
    gateway.ends();
    let log = gateway.log();
    let requests = log.iter().filter(|line| line["message"] == "request");
    let id = |line: &Value| line["request.id"].as_str().unwrap().to_owned();
    requests.map(id).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn of_good_requests_a_sample_has_a_line() {
    let gateway = Gateway::embedded(&[
        ("GATEWAY__LOG__SAMPLE_RATIO", "0.5"),
        ("GATEWAY__LOG__SLOW", "1h"),
    ]);
    for index in 0..100 {
        let request = gateway.get("/health").header("x-request-id", index);
        assert_eq!(answer(request).await.0, 200);
    }
    let logged = logged(gateway);
    assert!((1..100).contains(&logged.len()), "{logged:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_and_slow_requests_always_have_their_line() {
    let upstream = DevUpstream::start(Options::new(Dialect::V2)).await.unwrap();
    for (slow, expected) in [("1h", vec!["nobody"]), ("20ms", vec!["nobody", "held"])] {
        let more = [
            ("GATEWAY__LOG__SAMPLE_RATIO", "0"),
            ("GATEWAY__LOG__SLOW", slow),
        ];
        let gateway = Gateway::before(&upstream, &more);
        let nobody = gateway.get("/config").header("x-request-id", "nobody");
        assert_eq!(answer(nobody).await.0, 401);
        // What was released once is never held again.
        let name = format!("until it took {slow}");
        let fault = Fault::Hold(name.clone());
        upstream.faults().always("/user/token", fault);
        let alice = token("alice");
        let held = gateway.post("/token").bearer_auth(&alice);
        let release = async {
            upstream.faults().wait_held(&name, 1).await;
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            upstream.faults().release(&name);
        };
        let held = answer(held.header("x-request-id", "held"));
        assert_eq!(tokio::join!(held, release).0.0, 200);
        assert_eq!(logged(gateway), expected);
        upstream.faults().clear();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_with_too_many_connections_is_told_once_and_not_for_each() {
    let mut gateway = Gateway::embedded(&[("GATEWAY__SERVER__MAX_CONNECTIONS_PER_ADDRESS", "2")]);
    let address = gateway.api.strip_prefix("http://").unwrap().to_owned();
    let (mut connections, mut statuses) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        let mut connection = TcpStream::connect(&address).await.unwrap();
        let request = b"GET /api/v1/im/health HTTP/1.1\r\nhost: h\r\n\r\n";
        connection.write_all(request).await.unwrap();
        let mut answer = [0; 12];
        connection.read_exact(&mut answer).await.unwrap();
        statuses.push(String::from_utf8_lossy(&answer[9..]).into_owned());
        connections.push(connection);
    }
    assert_eq!(statuses, ["200", "200", "503", "503", "503"]);
    drop(connections);
    gateway.ends();
    let log = gateway.log();
    let told = log
        .iter()
        .filter(|line| line["client.address"] == "127.0.0.1");
    assert_eq!(told.count(), 1, "{log:#?}");
}

/// More requests than lines are queued and fit into a pipe.
const MANY_REQUESTS: usize = 12_000;

/// Many requests over one connection, each of which is answered.
async fn flood(gateway: &Gateway) {
    let address = gateway.api.strip_prefix("http://").unwrap();
    let (mut from, mut to) = TcpStream::connect(address).await.unwrap().into_split();
    let asking = async move {
        let request = "GET /nothing HTTP/1.1\r\nhost: h\r\n\r\n";
        let all = request.repeat(MANY_REQUESTS - 1);
        to.write_all(all.as_bytes()).await.unwrap();
        let last = b"GET /nothing HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n";
        to.write_all(last).await.unwrap();
        to
    };
    let mut answers = String::new();
    let (read, _to) = tokio::join!(from.read_to_string(&mut answers), asking);
    read.unwrap();
    assert_eq!(answers.matches("HTTP/1.1 4").count(), MANY_REQUESTS);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_nobody_reads_the_log_requests_are_answered_and_only_their_lines_are_dropped() {
    let mut gateway = Gateway::embedded(&[]);
    gateway.stall_stderr(true);
    flood(&gateway).await;
    let (status, sent) = answer(gateway.send(&token("alice"), "hi")).await;
    assert_eq!(status, 200, "{sent}");
    let as_alice =
        json!({"channelId": "bob", "channelType": 1, "payload": "eA==", "fromUid": "alice"});
    let request = gateway.post_json(&admin_token(), "/message/send", &as_alice);
    let (status, sent) = answer(request).await;
    assert_eq!(status, 200, "{sent}");
    let (_, metrics) = answer(gateway.ops("/metrics")).await;
    let dropped = |kind: &str| {
        let name = format!("gateway_log_lines_dropped_total{{kind=\"{kind}\"}} ");
        let mut lines = metrics.as_str().unwrap().lines();
        let count = lines.find_map(|line| line.strip_prefix(&name));
        count.unwrap().parse::<usize>().unwrap()
    };
    assert!(dropped("request") > 0, "they were all queued");
    assert_eq!(dropped("other"), 0);

    gateway.stall_stderr(false);
    let line = gateway.wait_for_line("audit");
    assert_eq!(line["audit.acts_for"], "alice", "{line}");
    gateway.ends();
    let log = gateway.log();
    // Not the last one: the lines of requests have a thread of their own, which may still be writing what had waited.
    assert!(log.iter().any(|line| line["message"] == "stopped"));
    let requests = log.iter().filter(|line| line["message"] == "request");
    assert_eq!(requests.count() + dropped("request"), MANY_REQUESTS + 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_nobody_reads_does_not_hold_up_the_end() {
    let mut gateway = Gateway::embedded(&[]);
    gateway.stall_stderr(true);
    flood(&gateway).await;
    gateway.ends();
}
