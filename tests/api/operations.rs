//! The operations port: `/livez`, `/readyz`, `/metrics`, `/version`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use tokio::net::TcpListener;
use tokio::sync::watch;
use wukongim_gateway::gateway::{Readiness, ops_router};

use crate::support::database;
use crate::support::prelude::*;
use crate::support::served::{SECRET, own_loopback};

/// The operations port of a gateway.
pub struct Ops {
    base: String,
    draining: Arc<AtomicBool>,
    _stop: watch::Sender<bool>,
}

impl Ops {
    pub async fn of(app: &TestApp) -> Self {
        let draining = Arc::new(AtomicBool::new(false));
        let router = ops_router(Readiness::new(app.app.clone(), draining.clone()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let (stop, stopped) = watch::channel(false);
        tokio::spawn(wukongim_gateway::gateway::run(listener, router, stopped));
        Self {
            base,
            draining,
            _stop: stop,
        }
    }

    pub async fn get(&self, path: &str) -> (u16, String) {
        let client = wukongim_gateway::http_client::client().build().unwrap();
        let answer = client.get(format!("{}{path}", self.base));
        let answer = answer.send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    pub async fn ready(&self) -> (u16, Value) {
        let (status, text) = self.get("/readyz").await;
        (status, serde_json::from_str(&text).unwrap())
    }

    /// Asks until the answer is this one: an answer about WuKongIM is believed for a second.
    pub async fn becomes(&self, status: u16, report: Value) {
        let deadline = Instant::now() + Duration::from_secs(10);
        let expected = (status, report);
        loop {
            let told = self.ready().await;
            if told == expected {
                return;
            }
            assert!(Instant::now() < deadline, "{told:?}, not {expected:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// `/metrics` in the format that such a scraper gets: content type and text.
    pub async fn metrics_for(&self, accept: &str) -> (String, String) {
        let client = wukongim_gateway::http_client::client().build().unwrap();
        let request = client.get(format!("{}/metrics", self.base));
        let answer = request.header("accept", accept).send().await.unwrap();
        let kind = answer.headers()["content-type"]
            .to_str()
            .unwrap()
            .to_owned();
        (kind, answer.text().await.unwrap())
    }

    /// The sample with this name and labels, as a number.
    pub async fn metric(&self, name_and_labels: &str) -> Option<f64> {
        let (_, text) = self.get("/metrics").await;
        text.lines()
            .find_map(|line| line.strip_prefix(name_and_labels)?.strip_prefix(' '))
            .map(|number| number.parse().unwrap())
    }
}

#[tokio::test]
async fn it_lives_whatever_happens() {
    let app = TestApp::start(V2).await;
    let ops = Ops::of(&app).await;
    assert_eq!(ops.get("/livez").await.0, 200);
    app.upstream.stop().await;
    ops.draining.store(true, Ordering::Relaxed);
    assert_eq!(ops.get("/livez").await.0, 200);
}

#[tokio::test]
async fn it_is_ready_while_a_node_answers_and_says_why_not() {
    for dialect in [V2, V3] {
        let builder = TestApp::builder()
            .upstream(dialect)
            .options(|options| options.listen = own_loopback(3));
        let app = builder.start().await;
        let ops = Ops::of(&app).await;
        assert_eq!(ops.ready().await, (200, json!({"ready": true})));
        app.upstream.stop().await;
        let down = json!({"ready": false, "reasons": ["no wukongim node answers"]});
        ops.becomes(503, down).await;
        app.upstream.restart().await.unwrap();
        ops.becomes(200, json!({"ready": true})).await;
        ops.draining.store(true, Ordering::Relaxed);
        let draining = json!({"ready": false, "reasons": ["draining"]});
        assert_eq!(ops.ready().await, (503, draining));
        app.upstream.stop().await;
        let both = json!({"ready": false, "reasons": ["draining", "no wukongim node answers"]});
        ops.becomes(503, both).await;
    }
}

#[tokio::test]
async fn one_node_of_two_is_enough() {
    let second = DevUpstream::start(Options::new(V2)).await.unwrap();
    let url = second.url().parse().unwrap();
    let app = TestApp::with(V2, move |settings| settings.wukongim.api_urls.push(url)).await;
    let ops = Ops::of(&app).await;
    app.upstream.stop().await;
    assert_eq!(ops.ready().await, (200, json!({"ready": true})));
    app.user("alice").send_to_person("bob", "hi").await.ok();
    second.stop().await;
    let down = json!({"ready": false, "reasons": ["no wukongim node answers"]});
    ops.becomes(503, down).await;
}

#[tokio::test]
async fn a_store_that_is_down_only_degrades() {
    for kind in database::kinds() {
        let app = TestApp::builder().database(kind).await.start().await;
        let ops = Ops::of(&app).await;
        assert_eq!(ops.ready().await, (200, json!({"ready": true})));
        app.database().hide_tables().await;
        let degraded = json!({"ready": true, "degraded": ["store"]});
        ops.becomes(200, degraded).await;
        app.database().show_tables().await;
        ops.becomes(200, json!({"ready": true})).await;
    }
}

#[tokio::test]
async fn the_store_is_pinged_at_most_once_a_second() {
    let app = TestApp::start(V2).await;
    let ops = Ops::of(&app).await;
    let started = Instant::now();
    let asked = futures_util::future::join_all((0..100).map(|_| ops.ready())).await;
    assert!(
        asked
            .iter()
            .all(|told| *told == (200, json!({"ready": true})))
    );
    let pings = r#"gateway_store_requests_total{call="ping",outcome="ok"}"#;
    let counted = ops.metric(pings).await.unwrap();
    // One ping reads and writes.
    let most = 2 * (1 + started.elapsed().as_secs());
    assert!(
        counted >= 2.0 && counted <= f64::from(u32::try_from(most).unwrap()),
        "{counted}"
    );
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(ops.ready().await.0, 200);
    assert!(ops.metric(pings).await.unwrap() > counted);
}

#[tokio::test]
async fn readiness_reports_a_missing_or_wrong_manager_token() {
    for (token, reason) in [
        (
            None,
            Some("wukongim asks for a manager token, and wukongim.manager_token is not set"),
        ),
        (
            Some("wrong"),
            Some("wukongim refuses wukongim.manager_token"),
        ),
        (Some("right"), None),
    ] {
        // Of two nodes one answers nothing: it says less than the one that refuses.
        for second in [false, true] {
            let app = TestApp::builder()
                .options(|options| options.manager_token = Some("right".into()))
                .config(move |settings| {
                    settings.wukongim.manager_token = token.map(|token| token.to_owned().into());
                    if second {
                        let nobody = "http://127.0.0.1:1".parse().unwrap();
                        settings.wukongim.api_urls.push(nobody);
                    }
                })
                .start()
                .await;
            let told = Ops::of(&app).await.ready().await;
            match reason {
                Some(reason) => {
                    assert_eq!(told, (503, json!({"ready": false, "reasons": [reason]})));
                }
                None => assert_eq!(told, (200, json!({"ready": true}))),
            }
        }
    }
}

#[tokio::test]
async fn node_health_is_exported_without_traffic() {
    for dialect in [V2, V3] {
        let builder = TestApp::builder()
            .upstream(dialect)
            .options(|options| options.listen = own_loopback(6));
        let app = builder.nodes(2).start().await;
        let ops = Ops::of(&app).await;
        let up = async || {
            app.app.client.probe_all().await;
            let of = async |node| {
                let name = format!("gateway_upstream_up{{node=\"{node}\"}}");
                ops.metric(&name).await.unwrap()
            };
            (of("n1").await, of("n2").await)
        };
        assert_eq!(up().await, (1.0, 1.0));
        app.upstream.stop().await;
        assert_eq!(up().await, (0.0, 1.0));
        let hangs = dev_upstream::Fault::Hold("held".into());
        app.others[0].faults().always("/", hangs);
        assert_eq!(up().await, (0.0, 0.0));
        app.others[0].faults().clear();
        app.others[0].faults().release("held");
        app.upstream.restart().await.unwrap();
        assert_eq!(up().await, (1.0, 1.0));
    }
}

#[tokio::test]
async fn a_store_whose_disk_is_full_degrades_although_it_can_be_read() {
    for kind in database::kinds() {
        let app = TestApp::builder().database(kind).await.start().await;
        let ops = Ops::of(&app).await;
        app.group("g", "alice", &["bob"]).await;
        let alice = app.user("alice");
        app.database().fill_disk().await;
        let degraded = json!({"ready": true, "degraded": ["store"]});
        ops.becomes(200, degraded).await;
        failure(503, "store_unavailable").is(alice.create_group("new").await);
        failure(503, "store_unavailable").is(alice.post_nothing("/token/revoke").await);
        alice.send_to_group("g", "hi").await.ok();
        alice.post_nothing("/token").await.ok();
        app.database().free_disk().await;
        ops.becomes(200, json!({"ready": true})).await;
        alice.create_group("new").await.ok();
    }
}

#[tokio::test]
async fn the_version_is_the_binarys() {
    let app = TestApp::start(V2).await;
    let (status, text) = Ops::of(&app).await.get("/version").await;
    assert_eq!(status, 200);
    let expected = json!({"name": "wukongim-gateway", "version": env!("CARGO_PKG_VERSION")});
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), expected);
}

#[tokio::test]
async fn the_metrics_have_the_names_people_hold() {
    for app in TestApp::both().await {
        let ops = Ops::of(&app).await;
        app.group("g", "alice", &["bob"]).await;
        app.user("alice").send_to_group("g", "hi").await.ok();
        app.user("bob").sync(2, "g", "").await.ok();
        app.anon().get("/config").await.fails(401, "token_missing");
        let send = r#"method="POST",route="/api/v1/im/message/send""#;
        for (name, count) in [
            (format!("gateway_http_requests_total{{{send},status=\"200\"}}"), 1.0),
            (r#"gateway_http_requests_total{method="GET",route="/api/v1/im/config",status="401"}"#.into(), 1.0),
            (format!("gateway_http_request_duration_seconds_count{{{send}}}"), 1.0),
            (r#"gateway_upstream_requests_total{node="n1",call="message_send",outcome="ok"}"#.into(), 1.0),
            (r#"gateway_upstream_request_duration_seconds_count{call="message_send"}"#.into(), 1.0),
            (format!("gateway_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION")), 1.0),
            // Nothing runs now.
            ("gateway_http_requests_in_flight".into(), 0.0),
        ] {
            assert_eq!(ops.metric(&name).await, Some(count), "{name}");
        }
        let confirmed = ops
            .metric("gateway_message_confirm_seconds_count")
            .await
            .unwrap();
        let looks = ops
            .metric("gateway_message_confirm_looks_total")
            .await
            .unwrap();
        if app.dialect == V2 {
            assert!(confirmed >= 1.0 && looks >= 1.0, "{confirmed} {looks}");
        } else {
            assert_eq!(
                (confirmed, looks),
                (0.0, 0.0),
                "v3 answers with the real seq"
            );
        }
        let (_, text) = ops.get("/metrics").await;
        shows(&text, "gateway_cache_lookups_total{cache=\"");
        for name in [
            "gateway_foreign_messages_dropped",
            "gateway_idempotency_forgotten",
        ] {
            assert!(text.contains(&format!("# TYPE {name} counter")), "{text}");
        }
    }
}

#[tokio::test]
async fn a_request_counts_as_in_flight_until_it_is_answered() {
    let app = TestApp::start(V2).await;
    let ops = Ops::of(&app).await;
    let fault = dev_upstream::Fault::Hold("held".into());
    app.faults().always("/user/token", fault);
    let alice = app.user("alice");
    let held = async {
        app.faults().wait_held("held", 1).await;
        let counted = ops.metric("gateway_http_requests_in_flight").await;
        app.faults().release("held");
        counted
    };
    let (answer, counted) = tokio::join!(alice.post_nothing("/token"), held);
    answer.ok();
    assert_eq!(counted, Some(1.0));
    assert_eq!(
        ops.metric("gateway_http_requests_in_flight").await,
        Some(0.0)
    );
}

#[tokio::test]
async fn a_request_whose_client_hangs_up_is_counted_as_such() {
    let app = TestApp::start(V2).await;
    let ops = Ops::of(&app).await;
    let fault = dev_upstream::Fault::Hold("held".into());
    app.faults().always("/user/token", fault);
    let alice = app.user("alice");
    tokio::select! {
        answer = alice.post_nothing("/token") => panic!("answered: {answer:?}"),
        () = app.faults().wait_held("held", 1) => {}
    }
    let counted =
        r#"gateway_http_requests_total{method="POST",route="/api/v1/im/token",status="499"}"#;
    let deadline = Instant::now() + Duration::from_secs(10);
    while ops.metric(counted).await != Some(1.0) {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let running = ops.metric("gateway_http_requests_in_flight").await;
    assert_eq!(running, Some(0.0));
}

#[tokio::test]
async fn labels_are_bounded_and_nothing_shows_a_secret() {
    let app = TestApp::start(V2).await;
    let ops = Ops::of(&app).await;
    let alice = app.user("alice-marked");
    for index in 0..20 {
        alice
            .get(&format!("/marked-path-{index}"))
            .await
            .fails(404, "not_found");
        let request = alice.request(&format!("MARKED{index}"), "/config");
        assert_eq!(request.send().await.unwrap().status(), 405);
        let peer = format!("marked-peer-{index}");
        alice.send_to_person(&peer, "marked-text").await.ok();
        alice
            .create_group(&format!("marked-group-{index}"))
            .await
            .ok();
    }
    let unknown = r#"gateway_http_requests_total{method="GET",route="unknown",status="404"}"#;
    assert_eq!(ops.metric(unknown).await, Some(20.0));
    let other =
        r#"gateway_http_requests_total{method="other",route="/api/v1/im/config",status="405"}"#;
    assert_eq!(ops.metric(other).await, Some(20.0));
    let address = app.upstream.url();
    let port = address.rsplit(':').next().unwrap();
    for path in ["/metrics", "/readyz", "/version", "/livez"] {
        let (_, text) = ops.get(path).await;
        let lower = text.to_lowercase();
        for word in ["marked", SECRET, "127.0.0.1", &format!(":{port}"), "bearer"] {
            assert!(!lower.contains(word), "{path} shows {word}:\n{text}");
        }
    }
}

#[tokio::test]
async fn the_two_ports_do_not_share_paths() {
    let app = TestApp::start(V3).await;
    let ops = Ops::of(&app).await;
    for path in ["/api/v1/im/health", "/", "/debug", "/config"] {
        assert_eq!(ops.get(path).await.0, 404, "{path}");
    }
    let client = wukongim_gateway::http_client::client().build().unwrap();
    for path in ["/livez", "/readyz", "/metrics", "/version"] {
        let answer = client.get(format!("{}{path}", app.base));
        let answer = answer.send().await.unwrap();
        assert_eq!(answer.status(), 404, "{path}");
    }
}

#[tokio::test]
async fn metrics_are_served_in_the_older_format_on_request() {
    let app = TestApp::start(V2).await;
    app.user("alice").send_to_person("bob", "hi").await.ok();
    let ops = Ops::of(&app).await;
    // As Prometheus asks.
    let prometheus =
        "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
    let (kind, open) = ops.metrics_for(prometheus).await;
    assert!(
        kind.starts_with("application/openmetrics-text; version=1.0.0"),
        "{kind}"
    );
    let (kind, text) = ops
        .metrics_for("text/plain;version=0.0.4;q=1,*/*;q=0.1")
        .await;
    assert_eq!(kind, "text/plain; version=0.0.4; charset=utf-8");
    let names = |text: &str| -> Vec<String> {
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        let names = samples.map(|line| line.rsplit_once(' ').unwrap().0.to_owned());
        names.collect()
    };
    assert_eq!(names(&open), names(&text));
    assert!(open.ends_with("# EOF\n") && !text.contains("# EOF"));
    // Each sample belongs to the metric described before it, by the rules of that format.
    let mut metric = ("", "");
    for line in text.lines() {
        if let Some(described) = line.strip_prefix("# TYPE ") {
            metric = described.split_once(' ').unwrap();
            assert!(
                matches!(metric.1, "counter" | "gauge" | "histogram"),
                "{line}"
            );
        } else if !line.starts_with('#') {
            let name = line.split(['{', ' ']).next().unwrap();
            let suffix = name
                .strip_prefix(metric.0)
                .unwrap_or_else(|| panic!("{line}"));
            let is_of_histogram = matches!(suffix, "_bucket" | "_sum" | "_count");
            assert!(
                suffix.is_empty() != (metric.1 == "histogram" && is_of_histogram),
                "{line}"
            );
        }
    }
}
