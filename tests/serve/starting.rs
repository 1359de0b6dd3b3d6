//! Starting: without WuKongIM, and not at all where that is the better answer.

use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use dev_upstream::{DevUpstream, Dialect, Options};
use serde_json::{Value, json};

use crate::support::answer::shows;
use crate::support::process::{
    Gateway, TIMEOUT_BOUND, answer, becomes, command, run, token, usual,
};
use crate::support::served::own_loopback;

#[tokio::test(flavor = "multi_thread")]
async fn it_serves_while_wukongim_is_down_and_recovers_alone() {
    for (dialect, index) in [(Dialect::V2, 4), (Dialect::V3, 5)] {
        let mut options = Options::new(dialect);
        options.listen = own_loopback(index);
        let upstream = DevUpstream::start(options).await.unwrap();
        upstream.stop().await;
        let gateway = Gateway::before(&upstream, &[]);
        let alice = token("alice");

        let info = gateway.get("/system/info").bearer_auth(&alice);
        for (request, member, text) in [
            (gateway.get("/health"), "/data/status", "unhealthy"),
            (gateway.send(&alice, "hi"), "/code", "upstream_unavailable"),
            (info, "/message", "获取系统信息失败"),
        ] {
            let (status, told) = answer(request).await;
            assert_eq!(status, 503, "{told}");
            assert_eq!(told.pointer(member), Some(&text.into()), "{told}");
        }
        let (status, _) = answer(gateway.get("/system/info")).await;
        assert_eq!(status, 401, "who calls is asked first");
        let live = gateway.ops("/livez").send().await;
        assert_eq!(live.unwrap().status(), 200);
        becomes(503, || gateway.ops("/readyz")).await;

        upstream.restart().await.unwrap();
        becomes(200, || gateway.get("/health")).await;
        becomes(200, || gateway.ops("/readyz")).await;
        let sent = becomes(200, || gateway.send(&alice, "hi")).await;
        assert_eq!(sent["data"]["messageSeq"], 1, "{sent}");
    }
}

/// WuKongIM is replaced by its other generation: the gateway ends, and its next process uses the other one.
async fn is_replaced(index: u8, old: Dialect, new: Dialect) {
    let mut options = Options::new(old);
    options.listen = own_loopback(index);
    let upstream = DevUpstream::start(options).await.unwrap();
    let mut gateway = Gateway::before(&upstream, &[]);
    let alice = token("alice");
    becomes(200, || gateway.send(&alice, "hi")).await;

    upstream.restart_as(new).await.unwrap();
    let ready = || gateway.ops("/readyz");
    let told = becomes(503, ready).await;
    let deadline = Instant::now() + TIMEOUT_BOUND;
    let reasons = loop {
        let (_, told) = answer(ready()).await;
        if told["reasons"][0] == "every wukongim node is of another generation" {
            break told["reasons"].clone();
        }
        assert!(Instant::now() < deadline, "{told}");
    };
    let found = if new == Dialect::V3 { "v3" } else { "v2" };
    let named = format!("wukongim node n1 is of another generation: {found}");
    assert_eq!(reasons[1], named, "{told}");
    let (status, _) = answer(gateway.send(&alice, "no")).await;
    assert_eq!(status, 503);
    let began = Instant::now();
    let code = tokio::task::spawn_blocking(move || {
        let code = gateway.wait().code();
        (code, gateway)
    });
    let (code, gateway) = code.await.unwrap();
    assert_eq!(code, Some(70));
    let took = began.elapsed();
    assert!(took > Duration::from_secs(25), "{took:?}");
    let stderr = gateway.stderr();
    assert!(stderr.ends_with("start again to use it\n"), "{stderr}");
    let lines = stderr.lines();
    let mut lines = lines.filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let is_named = lines.any(|line| line["level"] == "ERROR" && line["node"] == "n1");
    assert!(is_named, "{stderr}");
    assert!(upstream.state().messages_between("alice", "bob").is_empty());

    let gateway = Gateway::before(&upstream, &[]);
    becomes(200, || gateway.send(&alice, "hi again")).await;
    let stored = upstream.state().messages_between("alice", "bob");
    assert_eq!(&*stored[0].client_msg_no, "hi again");
}

#[tokio::test(flavor = "multi_thread")]
async fn when_wukongim_became_the_other_generation_it_exits_with_70() {
    tokio::join!(
        is_replaced(6, Dialect::V2, Dialect::V3),
        is_replaced(7, Dialect::V3, Dialect::V2)
    );
}

#[test]
fn an_address_that_is_taken_is_69() {
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = held.local_addr().unwrap().to_string();
    for (key, name) in [
        ("GATEWAY__SERVER__LISTEN", "server.listen"),
        ("GATEWAY__SERVER__OPS_LISTEN", "server.ops_listen"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let mut env = usual();
        env.retain(|(other, _)| *other != key);
        env.push((key, &taken));
        let (code, stdout, stderr) = run(folder.path(), &[], &env);
        assert_eq!((code, &*stdout), (69, ""), "{stderr}");
        let said = format!("error: cannot bind {name} {taken}: ");
        assert!(stderr.contains(&said), "{stderr}");
    }
}

#[test]
fn a_store_that_another_process_has_is_69_and_the_first_serves_on() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", folder.path().join("gateway.db").display());
    let mut env = usual();
    env.push(("GATEWAY__STORE__URL", &url));
    let mut first = Gateway::start(&[], &env);
    let (code, stdout, stderr) = run(folder.path(), &[], &env);
    assert_eq!((code, &*stdout), (69, ""), "{stderr}");
    assert!(stderr.contains("locked by another process"), "{stderr}");
    // The lock ends with the process, however it ends.
    first.signal("KILL");
    first.wait();
    drop(Gateway::start(&[], &env));
}

#[test]
fn a_store_that_cannot_be_opened_is_69() {
    let folder = tempfile::tempdir().unwrap();
    let no_database = "this is no database, and long enough to be read as one".repeat(50);
    std::fs::write(folder.path().join("text.db"), no_database).unwrap();
    let text = format!("sqlite://{}", folder.path().join("text.db").display());
    for url in [&*text, "sqlite:///proc/nothing/gateway.db"] {
        let mut env = usual();
        env.push(("GATEWAY__STORE__URL", url));
        let (code, stdout, stderr) = run(folder.path(), &[], &env);
        assert_eq!((code, &*stdout), (69, ""), "{url}: {stderr}");
        shows(&stderr, "error: cannot open the store: ");
    }
}

#[test]
fn a_start_that_hangs_is_ended_by_a_signal_at_once() {
    for signal in ["TERM", "INT", "HUP"] {
        // A database that takes connections and never answers.
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("postgres://u@{}/d", silent.local_addr().unwrap());
        let mut env = usual();
        env.push(("GATEWAY__STORE__URL", &url));
        // As long as a test may take.
        env.push(("GATEWAY__STORE__TIMEOUT", "1m"));
        let folder = tempfile::tempdir().unwrap();
        let mut starting = command(folder.path(), &[], &env);
        let child = starting.stderr(Stdio::piped()).spawn().unwrap();
        let asked = silent.accept().unwrap();
        let began = Instant::now();
        let sent = Command::new("kill")
            .args(["-s", signal, &child.id().to_string()])
            .status();
        assert!(sent.unwrap().success());
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(0), "{signal}: {stderr}");
        assert!(began.elapsed() < TIMEOUT_BOUND / 2, "{:?}", began.elapsed());
        shows(&stderr, "stop signal received while starting");
        drop(asked);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_are_sent_while_postgresql_is_not_up_yet() {
    let mut gateway =
        Gateway::embedded(&[("GATEWAY__STORE__URL", "postgres://u:hunter2@127.0.0.1:1/d")]);
    let alice = token("alice");
    let ready = becomes(200, || gateway.ops("/readyz")).await;
    assert_eq!(ready, json!({"ready": true, "degraded": ["store"]}));
    let (status, sent) = answer(gateway.send(&alice, "hi")).await;
    assert_eq!(status, 200, "{sent}");
    let body = json!({"channelId": "g", "channelType": 2});
    let create = gateway.post_json(&alice, "/channel/create", &body);
    let (status, told) = answer(create).await;
    assert_eq!((status, &told["code"]), (503, &"store_unavailable".into()));
    let warning = "store not reached yet: serving without it and trying again";
    let warned = gateway.wait_for_line(warning);
    assert_eq!(warned["error"], "no connection: connection refused");
    gateway.ends();
    assert!(!gateway.stderr().contains("hunter2"));
}

#[test]
fn without_ca_certificates_http_works_and_https_is_an_error() {
    let mut env = usual();
    env.push(("SSL_CERT_FILE", "/nowhere"));
    drop(Gateway::start(&["--embedded"], &env));
    env.push(("WUKONGIM_API_URL", "http://a:1,https://b:1"));
    let folder = tempfile::tempdir().unwrap();
    for args in [["serve"], ["check-config"]] {
        let (code, stdout, stderr) = run(folder.path(), &args, &env);
        assert_eq!((code, &*stdout), (64, ""), "{stderr}");
        let said = "WUKONGIM_API_URL: wukongim.api_urls: https needs CA certificates";
        assert!(stderr.contains(said), "{stderr}");
    }
}

#[test]
fn bad_configuration_is_64_before_anything_is_opened() {
    let folder = tempfile::tempdir().unwrap();
    let mut env = usual();
    env.push(("GATEWAY__SERVER__REQUEST_TIMEOUT", "soon"));
    env.push(("GATEWAY__NOTHING__AT_ALL", "1"));
    let (code, stdout, stderr) = run(folder.path(), &["serve"], &env);
    assert_eq!((code, &*stdout), (64, ""), "{stderr}");
    for said in [
        "GATEWAY__SERVER__REQUEST_TIMEOUT",
        "GATEWAY__NOTHING__AT_ALL",
        "problems (2)",
    ] {
        assert!(stderr.contains(said), "{said}: {stderr}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    let (code, _, stderr) = run(folder.path(), &[], &usual()[1..]);
    assert_eq!(code, 64, "{stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_healthcheck_calls_this_gateway() {
    let upstream = DevUpstream::start(Options::new(Dialect::V2)).await.unwrap();
    let gateway = Gateway::before(&upstream, &[]);
    let folder = tempfile::tempdir().unwrap();
    let check = |path: &str| {
        let url = format!("{}{path}", gateway.ops);
        run(folder.path(), &["healthcheck", &url], &[]).0
    };
    let as_configured = || {
        let ops = gateway.ops.strip_prefix("http://").unwrap();
        let env = [("GATEWAY__SERVER__OPS_LISTEN", ops)];
        run(folder.path(), &["healthcheck"], &env).0
    };
    becomes(200, || gateway.ops("/readyz")).await;
    let checks = || [check("/livez"), check("/readyz"), as_configured()];
    assert_eq!(checks(), [0, 0, 0]);
    assert_eq!(check("/nothing"), 1);
    upstream.stop().await;
    let not_ready = becomes(503, || gateway.ops("/readyz")).await;
    assert_eq!(not_ready["ready"], Value::Bool(false));
    assert_eq!(checks(), [0, 1, 1]);
}
