//! `GET /system/info` and `GET /health`.

use std::time::Instant;

use crate::support::prelude::*;
use crate::support::served::own_loopback;

#[tokio::test]
async fn system_info_is_returned_on_both_generations() {
    for app in TestApp::both().await {
        for uid in ["a", "b", "c"] {
            app.state().connect(uid, 1);
        }
        let told = app.user("alice").get("/system/info").await.ok();
        assert_eq!(told["version"], "unknown");
        assert_eq!(told["connections"], 3);
        assert!(told["uptime"].is_u64(), "{told}");
        assert_eq!(told["gatewayVersion"], env!("CARGO_PKG_VERSION"));
        app.nothing_was_written();
    }
}

#[tokio::test]
async fn version_and_uptime_of_v2_come_from_its_words() {
    for (uptime, seconds) in [
        ("42s", 42),
        ("1m20s", 80),
        ("3h0m5s", 10_805),
        ("1y2d3h4m5s", 365 * 86_400 + 2 * 86_400 + 3 * 3600 + 245),
    ] {
        let varz =
            format!(r#"{{"version":"v2.2.5-20260422","uptime":"{uptime}","connections":1000}}"#);
        let app = TestApp::start(V2).await;
        app.faults().always("/varz", Fault::Status(200, varz));
        let told = app.user("alice").get("/system/info").await.ok();
        assert_eq!(told["version"], "v2.2.5-20260422");
        assert_eq!(told["uptime"], seconds);
        assert_eq!(told["connections"], 1000);
    }
    let garbled = r#"{"version":"v2","uptime":"soon","connections":1}"#;
    let app = TestApp::start(V2).await;
    app.always("/varz", Fault::Status(200, garbled.into()));
    let answer = app.user("alice").get("/system/info").await;
    answer.fails(502, "upstream_error").says("获取系统信息失败");
}

#[tokio::test]
async fn uptime_of_v3_comes_from_its_metrics_and_connections_may_be_unknown() {
    let app = TestApp::start(V3).await;
    let started = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs() - 86_400;
    let metrics = format!("# HELP x y\nprocess_start_time_seconds {started}e+00\n");
    app.faults().always("/metrics", Fault::Status(200, metrics));
    // Switched off.
    app.always("/top/v1/snapshot", Fault::Status(404, "{}".into()));
    let told = app.user("alice").get("/system/info").await.ok();
    let uptime = told["uptime"].as_u64().unwrap();
    assert!((86_400..86_400 + 600).contains(&uptime), "{told}");
    assert_eq!(told["connections"], 0);
}

#[tokio::test]
async fn several_nodes_are_summed_and_one_that_is_down_is_left_out() {
    for dialect in [V2, V3] {
        let second = DevUpstream::start(Options::new(dialect)).await.unwrap();
        let url = second.url().parse().unwrap();
        let app = TestApp::with(dialect, move |settings| {
            settings.wukongim.api_urls.push(url);
        })
        .await;
        app.state().connect("a", 1);
        for uid in ["b", "c"] {
            second.state().connect(uid, 1);
        }
        // What was told is believed for a second, and a node that was not found is looked for again a moment later.
        let becomes = async |connections: u64| {
            let deadline = Instant::now() + Duration::from_secs(10);
            while {
                let answer = app.user("alice").get("/system/info").await;
                answer.status != 200 || answer.body["data"]["connections"] != connections
            } {
                assert!(Instant::now() < deadline, "{connections}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        becomes(3).await;
        second.stop().await;
        becomes(1).await;
        second.restart().await.unwrap();
        app.upstream.stop().await;
        becomes(2).await;
        second.stop().await;
        tokio::time::sleep(Duration::from_millis(1050)).await;
        failure(503, "upstream_unavailable").is(app.user("alice").get("/system/info").await);
    }
}

#[tokio::test]
async fn a_hundred_concurrent_requests_cause_one_query_of_system_info() {
    for (dialect, path) in [(V2, "/varz"), (V3, "/metrics")] {
        let app = TestApp::start(dialect).await;
        app.user("alice").post_nothing("/token").await.ok();
        app.add_fault(Rule::new(path, Fault::Hold("info".into())));
        let alice = app.user("alice");
        let asked = (0..100).map(|_| alice.get("/system/info"));
        let release = async {
            app.faults().wait_held("info", 1).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
            app.faults().release("info");
        };
        let started = Instant::now();
        let (answers, ()) = tokio::join!(futures_util::future::join_all(asked), release);
        all_ok(answers);
        let most = 1 + usize::try_from(started.elapsed().as_secs()).unwrap();
        let rounds = app.calls_to(path).len();
        assert!((1..=most).contains(&rounds), "{rounds} rounds");
    }
}

/// `2024-01-15T10:30:00Z`, and not far from now.
#[track_caller]
fn is_a_timestamp(answer: &Answer) {
    let text = answer.body["data"]["timestamp"]
        .as_str()
        .unwrap_or_default();
    let shape: String = text
        .chars()
        .map(|c| if c.is_ascii_digit() { '0' } else { c })
        .collect();
    assert_eq!(shape, "0000-00-00T00:00:00Z", "{answer:#?}");
    let told = humantime::parse_rfc3339(text).unwrap();
    let off = match told.elapsed() {
        Ok(past) => past,
        Err(future) => future.duration(),
    };
    assert!(off < Duration::from_mins(2), "{answer:#?}");
}

#[tokio::test]
async fn health_says_healthy_or_unhealthy_with_the_same_data() {
    for dialect in [V2, V3] {
        let app = TestApp::start(dialect).await;
        let answer = app.anon().get("/health").await;
        is_a_timestamp(&answer);
        assert_eq!(answer.ok()["status"], "healthy");

        let app = TestApp::start(dialect).await;
        app.upstream.stop().await;
        let answer = app.anon().get("/health").await;
        is_a_timestamp(&answer);
        let answer = answer.fails(503, "upstream_unavailable");
        assert_eq!(answer.body["data"]["status"], "unhealthy");
        answer.says("服务不可用");
        answer.has("retry-after", "1");
    }
}

#[tokio::test]
async fn health_tells_the_truth_two_seconds_later_both_ways() {
    tokio::join!(truth_of_health(V2), truth_of_health(V3));
}

async fn truth_of_health(dialect: Dialect) {
    let builder = TestApp::builder()
        .upstream(dialect)
        .options(|options| options.listen = own_loopback(if dialect == V2 { 1 } else { 2 }));
    let app = builder.start().await;
    let status = async || {
        tokio::time::sleep(Duration::from_secs(2)).await;
        app.anon().get("/health").await.status
    };
    assert_eq!(app.anon().get("/health").await.status, 200);
    app.upstream.stop().await;
    assert_eq!(status().await, 503);
    app.upstream.restart().await.unwrap();
    assert_eq!(status().await, 200);
    // Up, and unwell.
    let probe = if app.dialect == V2 {
        "/health"
    } else {
        "/readyz"
    };
    let unwell = r#"{"status":"error","ready":false}"#;
    app.always(probe, Fault::Status(500, unwell.into()));
    assert_eq!(status().await, 503);
    app.faults().clear();
    assert_eq!(status().await, 200);
    // Up, and saying nothing.
    app.faults().always("/", Fault::Hang);
    assert_eq!(status().await, 503);
}

#[tokio::test]
async fn a_hundred_concurrent_requests_cause_one_probe_a_second() {
    for dialect in [V2, V3] {
        let probe = if dialect == V2 { "/health" } else { "/readyz" };
        let app = TestApp::start(dialect).await;
        // The generation is found first, by probes of its own.
        app.user("alice").post_nothing("/token").await.ok();
        for fault in [None, Some(Fault::Status(503, "{}".into()))] {
            if let Some(fault) = fault {
                app.faults().always(probe, fault);
                tokio::time::sleep(Duration::from_millis(1100)).await;
            }
            app.clear_calls();
            let started = Instant::now();
            for _ in 0..3 {
                let (base, anonymous) = (
                    &app.base,
                    wukongim_gateway::http_client::client().build().unwrap(),
                );
                let asked = (0..100).map(|_| {
                    let request = anonymous.get(format!("{base}/api/v1/im/health"));
                    async move { request.send().await.unwrap().status() }
                });
                let statuses = futures_util::future::join_all(asked).await;
                assert!(
                    statuses.iter().all(|status| *status == statuses[0]),
                    "{statuses:?}"
                );
            }
            let probes = app.calls_to(probe).len();
            let most = 1 + usize::try_from(started.elapsed().as_secs()).unwrap();
            assert!(
                (1..=most).contains(&probes),
                "{probes} probes, {most} allowed"
            );
        }
    }
}

#[tokio::test]
async fn a_probe_continues_when_its_caller_disconnects() {
    let app = TestApp::start(V2).await;
    app.user("alice").post_nothing("/token").await.ok();
    app.clear_calls();
    app.always("/health", Fault::HoldAnswer("probe".into()));
    let first = app.anon();
    tokio::select! {
        answer = first.get("/health") => panic!("answered: {answer:?}"),
        () = app.faults().wait_held("probe", 1) => {}
    }
    // The gateway notices that the connection is gone, and whoever asks now joins the probe that is under way.
    until(|| app.app.requests_in_flight() == 0).await;
    let second = app.anon();
    let release = async {
        until(|| app.app.requests_in_flight() == 1).await;
        app.faults().release("probe");
    };
    let (answer, ()) = tokio::join!(second.get("/health"), release);
    assert_eq!(answer.ok()["status"], "healthy");
    assert_eq!(app.calls_to("/health").len(), 1);
}
