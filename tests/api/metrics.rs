//! Whether what happens is counted, and under the names of docs/METRICS.md.

use std::collections::HashSet;

use tokio::net::TcpStream;

use crate::operations::Ops;
use crate::support::database;
use crate::support::issuer::Issuer;
use crate::support::keys::ED_ONE;
use crate::support::prelude::*;

#[track_caller]
fn counted(app: &TestApp, expected: &[(&str, f64)]) {
    for (name, number) in expected {
        assert_eq!(app.metric(name), Some(*number), "{name}");
    }
}

#[tokio::test]
async fn the_operations_port_shows_nothing_that_is_not_documented() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/METRICS.md");
    let document = std::fs::read_to_string(path).unwrap();
    let rows = document.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| `")?.split(" | ");
        let name = cells.next()?.trim_end_matches('`');
        // The exposition's own name of a family is that without what its samples end with.
        let family = match cells.next()? {
            "counter" => name.strip_suffix("_total")?,
            "info" => name.strip_suffix("_info")?,
            _ => name,
        };
        Some(family.to_owned())
    });
    let documented: HashSet<String> = rows.collect();
    let app = TestApp::with_group(V2, &[]).await;
    app.user("alice").send_to_group("g", "hi").await.ok();
    let (_, text) = Ops::of(&app).await.get("/metrics").await;
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let mut shown = 0;
    for family in types.map(|line| line.split(' ').next().unwrap()) {
        assert!(documented.contains(family), "{family}");
        shown += 1;
    }
    assert!(shown > 30, "{shown}");
    assert!(text.ends_with("# EOF\n"));
}

#[tokio::test]
async fn outcomes_of_messages_and_idempotency_lookups_are_counted() {
    let app = TestApp::with(V2, |settings| {
        settings.wukongim.confirm_timeout = Duration::from_millis(200);
    })
    .await;
    app.group("g", "alice", &[]).await;
    let alice = app.user("alice");
    alice.send(&numbered(2, "g", "one", "n")).await.ok();
    alice.send(&numbered(2, "g", "one", "n")).await.ok();
    failure(409, "message_conflict").is(alice.send(&numbered(2, "g", "other", "n")).await);
    failure(403, "not_a_member").is(app.user("bob").send_to_group("g", "hi").await);
    let batch = [message(2, "g", "two"), message(2, "g", "three")];
    alice.send_batch(&batch).await.ok();
    app.faults().once("/message/send", Fault::DropMessage);
    failure(504, "message_unconfirmed").is(alice.send(&numbered(2, "g", "lost", "l")).await);
    counted(
        &app,
        &[
            (r#"gateway_messages_total{outcome="sent"}"#, 4.0),
            (r#"gateway_messages_total{outcome="conflict"}"#, 1.0),
            (r#"gateway_messages_total{outcome="denied"}"#, 1.0),
            (r#"gateway_messages_total{outcome="unconfirmed"}"#, 1.0),
            (r#"gateway_messages_total{outcome="failed"}"#, 0.0),
            (
                r#"gateway_idempotency_lookups_total{outcome="repeated"}"#,
                1.0,
            ),
            (
                r#"gateway_idempotency_lookups_total{outcome="conflict"}"#,
                1.0,
            ),
            (r#"gateway_idempotency_lookups_total{outcome="new"}"#, 4.0),
            // "n", and "l", of which nothing is known; what has no number of its client's is forgotten.
            ("gateway_idempotency_entries", 2.0),
        ],
    );
    let send = "/api/v1/im/message/send";
    for code in ["message_conflict", "not_a_member", "message_unconfirmed"] {
        let name = format!("gateway_http_errors_total{{route=\"{send}\",code=\"{code}\"}}");
        assert_eq!(app.metric(&name), Some(1.0), "{name}");
    }
}

#[tokio::test]
async fn the_stores_answers_and_failures_are_counted_by_question() {
    for kind in database::kinds() {
        let app = TestApp::builder().database(kind).await.start().await;
        let alice = app.user("alice");
        alice.create_group("g").await.ok();
        let claims = |outcome: &str| {
            let name = "gateway_store_requests_total";
            app.metric(&format!("{name}{{call=\"claim\",outcome=\"{outcome}\"}}"))
        };
        assert_eq!((claims("ok"), claims("error")), (Some(1.0), None));
        app.database().hide_tables().await;
        failure(503, "store_unavailable").is(alice.create_group("h").await);
        // Whichever question was the first to fail.
        let text = app.app.metrics_text();
        let failed = |line: &str| {
            line.starts_with("gateway_store_requests_total{")
                && line.contains(r#"outcome="error"}"#)
        };
        assert!(text.lines().any(failed), "{text}");
        let took = r#"gateway_store_request_duration_seconds_count{call="claim"}"#;
        assert!(app.metric(took) >= Some(1.0));
        let of = |state: &str| {
            let name = "gateway_store_connections";
            app.metric(&format!("{name}{{state=\"{state}\"}}")).unwrap()
        };
        assert!(of("busy") + of("idle") >= 1.0);
        app.database().show_tables().await;
    }
}

#[tokio::test]
async fn the_backends_answers_are_counted_by_action() {
    let backend = Backend::start().await;
    let app = TestApp::with(V2, backend.decides()).await;
    let alice = app.user("alice");
    alice.send_to_person("bob", "hi").await.ok();
    backend.answers(|_| Reply::allow(false));
    failure(403, "forbidden").is(alice.create_group("g").await);
    backend.answers(|_| Reply::Body(500, String::new()));
    failure(503, "upstream_unavailable").is(alice.create_group("g").await);
    backend.answers(|_| Reply::Body(200, "yes".into()));
    failure(503, "upstream_unavailable").is(alice.create_group("g").await);
    for (action, outcome) in [
        ("message.send", "allowed"),
        ("channel.create", "refused"),
        ("channel.create", "status"),
        ("channel.create", "malformed"),
    ] {
        let labels = format!("{{action=\"{action}\",outcome=\"{outcome}\"}}");
        let name = format!("gateway_callback_requests_total{labels}");
        assert_eq!(app.metric(&name), Some(1.0), "{name}");
    }
    let took = "gateway_callback_request_duration_seconds_count";
    assert_eq!(app.metric(took), Some(4.0));
    assert_eq!(
        app.metric(r#"gateway_cache_entries{cache="callback"}"#),
        Some(1.0),
        "only what may be used again is kept"
    );
}

#[tokio::test]
async fn fetches_of_the_issuers_keys_are_counted() {
    let issuer = Issuer::start(&[ED_ONE.jwk(Some("one"))]).await;
    let down = Issuer::start(&[]).await;
    down.is_down();
    for (issuer, outcome, keys) in [(issuer, "ok", 1.0), (down, "status", 0.0)] {
        let url = issuer.url();
        let app = TestApp::with(V2, |settings| settings.auth.jwks_url = Some(url)).await;
        let name = format!("gateway_jwks_fetches_total{{outcome=\"{outcome}\"}}");
        until(|| app.metric(&name) == Some(1.0)).await;
        assert_eq!(app.metric("gateway_jwks_keys"), Some(keys));
    }
}

#[tokio::test]
async fn connections_are_counted_while_they_are_open() {
    let app = TestApp::start(V2).await;
    let address = app.base.strip_prefix("http://").unwrap().to_owned();
    let mut open = Vec::new();
    for _ in 0..3 {
        open.push(TcpStream::connect(&address).await.unwrap());
    }
    until(|| app.metric("gateway_connections") == Some(3.0)).await;
    drop(open);
    until(|| app.metric("gateway_connections") == Some(0.0)).await;
    assert_eq!(app.metric("gateway_connections_opened_total"), Some(3.0));
}

#[tokio::test]
async fn what_is_held_and_kept_shows_while_it_is() {
    let app = TestApp::start(V2).await;
    let alice = app.user("alice");
    let generation = r#"gateway_upstream_generation{node="n1"}"#;
    assert_eq!(app.metric(generation), Some(0.0), "nobody asked it yet");
    app.always("/message/send", Fault::Hold("held".into()));
    let body = message(1, "bob", "hi");
    let look = async {
        app.faults().wait_held("held", 1).await;
        let held = app.metric("gateway_buffered_bytes");
        app.faults().release("held");
        held
    };
    let (answer, held) = tokio::join!(alice.send(&body), look);
    answer.ok();
    assert!(held >= Some(10.0), "{held:?}");
    until(|| app.metric("gateway_buffered_bytes") == Some(0.0)).await;
    app.anon().get("/nowhere").await.fails(404, "not_found");
    counted(
        &app,
        &[
            (generation, 2.0),
            (r#"gateway_limiter_entries{kind="user"}"#, 1.0),
            (r#"gateway_limiter_entries{kind="address"}"#, 1.0),
        ],
    );
    let v3 = TestApp::start(V3).await;
    v3.user("alice").send_to_person("bob", "hi").await.ok();
    assert_eq!(v3.metric(generation), Some(3.0));
    failure(400, "invalid_request").is(v3.user("alice").post("/message/send", &json!({})).await);
}
