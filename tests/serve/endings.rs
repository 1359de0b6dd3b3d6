//! Shutdown: running requests finish, no new connections are accepted, and a second signal ends it at once.

use std::time::{Duration, Instant};

use dev_upstream::{DevUpstream, Dialect, Fault, Options};
use serde_json::json;
use sqlx::Connection as _;

use crate::support::answer::shows;
use crate::support::process::{Gateway, TIMEOUT_BOUND, answer, token, usual};

async fn upstream() -> DevUpstream {
    DevUpstream::start(Options::new(Dialect::V2)).await.unwrap()
}

/// Calls to this path are held from now on, as `held`.
fn hold(upstream: &DevUpstream, path: &str) {
    upstream.faults().always(path, Fault::Hold("held".into()));
}

/// Whether a connection to the API is refused, within a while.
async fn refuses(gateway: &Gateway) {
    let deadline = Instant::now() + TIMEOUT_BOUND;
    let address = gateway.api.strip_prefix("http://").unwrap();
    while tokio::net::TcpStream::connect(address).await.is_ok() {
        assert!(Instant::now() < deadline, "it still takes connections");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_runs_is_finished_and_the_exit_code_is_0() {
    for signal in ["TERM", "INT", "HUP"] {
        let upstream = upstream().await;
        let more = [
            ("GATEWAY__SERVER__REQUEST_TIMEOUT", "5m"),
            ("GATEWAY__WUKONGIM__TIMEOUT", "5m"),
            ("GATEWAY__SERVER__DRAIN_TIMEOUT", "5m"),
        ];
        let mut gateway = Gateway::before(&upstream, &more);
        hold(&upstream, "/message/send");
        let running = tokio::spawn(answer(gateway.send(&token("alice"), "hi")));
        upstream.faults().wait_held("held", 1).await;

        gateway.signal(signal);
        refuses(&gateway).await;
        // Not ready, and still telling so.
        let ready = gateway.ops("/readyz").send().await.unwrap();
        assert_eq!(ready.status(), 503);
        assert!(ready.text().await.unwrap().contains("draining"));
        assert!(!running.is_finished());

        upstream.faults().release("held");
        let (status, sent) = running.await.unwrap();
        assert_eq!(status, 200, "{sent}");
        assert_eq!(sent["data"]["messageSeq"], 1, "{sent}");
        gateway.has_ended();
        let log = gateway.log();
        assert_eq!(log.last().unwrap()["message"], "stopped", "{log:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ignored_sighup_stays_ignored() {
    let mut gateway = Gateway::ignoring("HUP", &usual());
    gateway.signal("HUP");
    gateway.signal("TERM");
    gateway.wait_for_line("stop signal received, draining");
    gateway.has_ended();
    let stderr = gateway.stderr();
    // A second signal would have ended it at once.
    assert!(!stderr.contains("second stop signal"), "{stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clean_shutdown_leaves_all_data_in_one_file() {
    let kept = tempfile::tempdir().unwrap();
    let file = kept.path().join("gateway.db");
    let url = format!("sqlite://{}", file.display());
    let mut env = usual();
    env.push(("GATEWAY__STORE__URL", &url));
    for round in 0..3 {
        let mut gateway = Gateway::start(&["--embedded"], &env);
        let alice = token("alice");
        let creates = (0..8).map(|number| {
            let group = json!({"channelId": format!("g{round}-{number}"), "channelType": 2});
            answer(gateway.post_json(&alice, "/channel/create", &group))
        });
        for (status, told) in futures_util::future::join_all(creates).await {
            assert_eq!(status, 200, "{told}");
        }
        gateway.ends();
        let mut names: Vec<_> = std::fs::read_dir(kept.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["gateway.db", "gateway.db.lock"]);
        sqlx::any::install_default_drivers();
        let mut alone = sqlx::AnyConnection::connect(&url).await.unwrap();
        let groups = sqlx::query("SELECT id FROM channels")
            .fetch_all(&mut alone)
            .await;
        assert_eq!(groups.unwrap().len(), 8 * (round + 1));
        alone.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_it_at_once() {
    let upstream = upstream().await;
    // Far longer than the test's patience.
    let more = [
        ("GATEWAY__SERVER__REQUEST_TIMEOUT", "1h"),
        ("GATEWAY__SERVER__DRAIN_TIMEOUT", "1h"),
        ("GATEWAY__WUKONGIM__TIMEOUT", "10m"),
    ];
    let mut gateway = Gateway::before(&upstream, &more);
    hold(&upstream, "/message/send");
    let running = tokio::spawn(gateway.send(&token("alice"), "hi").send());
    upstream.faults().wait_held("held", 1).await;
    gateway.signal("TERM");
    gateway.wait_for_line("stop signal received, draining");
    gateway.ends();
    assert!(running.await.unwrap().is_err(), "its connection was cut");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delete_that_nobody_waits_for_is_finished() {
    let upstream = upstream().await;
    let more = [
        ("GATEWAY__SERVER__REQUEST_TIMEOUT", "300ms"),
        ("GATEWAY__WUKONGIM__TIMEOUT", "10m"),
        ("GATEWAY__SERVER__DRAIN_TIMEOUT", "5m"),
    ];
    let mut gateway = Gateway::before(&upstream, &more);
    let alice = token("alice");
    let group = json!({"channelId": "g", "channelType": 2});
    let create = gateway.post_json(&alice, "/channel/create", &group);
    let (status, created) = answer(create).await;
    assert_eq!(status, 200, "{created}");
    hold(&upstream, "/channel/subscriber_remove_all");
    let delete = gateway.post_json(&alice, "/channel/delete", &group);
    let (status, deleted) = answer(delete).await;
    assert_eq!(status, 504, "{deleted}");
    upstream.faults().wait_held("held", 1).await;
    gateway.signal("TERM");
    gateway.wait_for_line("stop signal received, draining");
    refuses(&gateway).await;
    upstream.faults().release("held");
    gateway.has_ended();
    assert!(upstream.state().members("g").is_empty());
    assert!(upstream.state().flags(2, "g").unwrap().disband);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_ends_when_its_time_is_over() {
    let upstream = upstream().await;
    let more = [
        ("GATEWAY__SERVER__REQUEST_TIMEOUT", "1h"),
        ("GATEWAY__WUKONGIM__TIMEOUT", "10m"),
        ("GATEWAY__SERVER__DRAIN_TIMEOUT", "300ms"),
    ];
    let mut gateway = Gateway::before(&upstream, &more);
    hold(&upstream, "/message/send");
    let running = tokio::spawn(gateway.send(&token("alice"), "hi").send());
    upstream.faults().wait_held("held", 1).await;
    gateway.ends();
    assert!(running.await.unwrap().is_err(), "its connection was cut");
    shows(&gateway.stderr(), "drain_timeout passed");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_serves_on_for_the_shutdown_delay_while_saying_not_ready() {
    let upstream = upstream().await;
    // Ended by a second signal, not waited for.
    let more = [("GATEWAY__SERVER__SHUTDOWN_DELAY", "10m")];
    let mut gateway = Gateway::before(&upstream, &more);
    gateway.signal("TERM");
    gateway.wait_for_line("stop signal received, draining");
    let ready = gateway.ops("/readyz").send().await.unwrap();
    assert_eq!(ready.status(), 503);
    let (status, sent) = answer(gateway.send(&token("alice"), "hi")).await;
    assert_eq!(status, 200, "{sent}");
    gateway.signal("INT");
    gateway.has_ended();
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_do_not_hold_up_the_end() {
    let upstream = upstream().await;
    let mut gateway = Gateway::before(&upstream, &[("GATEWAY__SERVER__DRAIN_TIMEOUT", "1h")]);
    let keeping = wukongim_gateway::http_client::client().build().unwrap();
    let health = format!("{}/api/v1/im/health", gateway.api);
    assert_eq!(keeping.get(health).send().await.unwrap().status(), 200);
    gateway.ends();
}
