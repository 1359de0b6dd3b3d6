//! Traces, with the feature `otel`: a gateway, WuKongIM (built in) and a collector in this process.

#![allow(clippy::unwrap_used, missing_docs, unreachable_pub, reason = "tests")]

mod fixture;
#[path = "../support/mod.rs"]
mod support;

use dev_upstream::{Dialect, Fault};
use serde_json::json;

use self::fixture::{Fixture, TraceEnd, client_spans, hex, number, server_span, text};
use crate::support::actors::{FAR, sign};
use crate::support::served::SECRET;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

#[tokio::test]
async fn a_trace_is_continued_through_the_gateway_to_wukongim() {
    for dialect in [Dialect::V2, Dialect::V3] {
        let fixture = Fixture::behind_proxies(dialect, 0.0, &["127.0.0.1"]).await;
        let mut answer = fixture.send("bob", "marked-text");
        answer = answer
            .header("traceparent", format!("00-{TRACE}-{PARENT}-01"))
            .header("tracestate", "vendor=1")
            .header("x-request-id", "req-7");
        assert_eq!(answer.send().await.unwrap().status(), 200);
        let spans = fixture.exported().await;
        assert!(spans.iter().all(|span| hex(&span.trace_id) == TRACE));

        let server = server_span(&spans);
        assert_eq!(server.name, "POST /api/v1/im/message/send");
        assert_eq!(hex(&server.parent_span_id), PARENT);
        assert!(server.end_time_unix_nano > server.start_time_unix_nano);
        assert_eq!(text(server, "http.route"), Some("/api/v1/im/message/send"));
        assert_eq!(text(server, "http.request.method"), Some("POST"));
        assert_eq!(number(server, "http.response.status_code"), Some(200));
        assert_eq!(text(server, "request.id"), Some("req-7"));

        // Each call that WuKongIM got is a span below that of the request, and WuKongIM was told its name.
        let calls = fixture.app.upstream.calls();
        let clients = client_spans(&spans);
        assert!(!calls.is_empty());
        assert_eq!(calls.len(), clients.len(), "{calls:#?} {clients:#?}");
        for call in &calls {
            let told = TraceEnd::of(call);
            assert_eq!((told.trace.as_str(), told.sampled), (TRACE, true));
            assert_eq!(call.tracestate.as_deref(), Some("vendor=1"));
            let span = clients.iter().find(|span| hex(&span.span_id) == told.span);
            let span = span.unwrap_or_else(|| panic!("no span of {call:?}"));
            assert_eq!(span.parent_span_id, server.span_id);
            assert_eq!(text(span, "wukongim.node"), Some("n1"));
            assert_eq!(text(span, "wukongim.call"), Some(&*span.name));
            // What it is is asked as well, and may be refused.
            assert!(text(span, "wukongim.outcome").is_some());
        }
        let mut sends = clients.iter().filter(|span| span.name == "message_send");
        let send = sends.next().unwrap();
        assert_eq!(text(send, "wukongim.outcome"), Some("ok"));
        assert!(sends.next().is_none());
    }
}

#[tokio::test]
async fn a_trace_begins_here_for_the_part_that_is_to_be_sampled() {
    for (ratio, is_sent) in [(1.0, true), (0.0, false)] {
        let fixture = Fixture::start(Dialect::V2, ratio).await;
        let answer = fixture.send("bob", "hi").send().await.unwrap();
        assert_eq!(answer.status(), 200);
        let calls = fixture.app.upstream.calls();
        let ends: Vec<TraceEnd> = calls.iter().map(TraceEnd::of).collect();
        assert!(ends.iter().all(|end| end.sampled == is_sent), "{ends:?}");
        assert!(ends.iter().all(|end| end.trace == ends[0].trace));
        let spans = fixture.exported().await;
        if is_sent {
            let server = server_span(&spans);
            assert_eq!(hex(&server.trace_id), ends[0].trace);
            assert!(server.parent_span_id.is_empty());
        } else {
            assert!(spans.is_empty(), "{spans:#?}");
        }
    }
}

#[tokio::test]
async fn a_trusted_proxy_decides_whether_the_trace_it_began_is_sent() {
    for (ratio, flags, is_sent) in [(1.0, "00", false), (0.0, "01", true)] {
        let fixture = Fixture::behind_proxies(Dialect::V2, ratio, &["127.0.0.1"]).await;
        let request = fixture.send("bob", "hi");
        let request = request.header("traceparent", format!("00-{TRACE}-{PARENT}-{flags}"));
        assert_eq!(request.send().await.unwrap().status(), 200);
        is_continued(&fixture, is_sent).await;
    }
}

#[tokio::test]
async fn untrusted_traces_are_sampled_by_the_ratio() {
    // The lowest id is one that a ratio of ids would always pick.
    for trace in [TRACE, "00000000000000000000000000000001"] {
        for (ratio, flags, is_sent) in [(1.0, "00", true), (0.0, "01", false)] {
            let fixture = Fixture::start(Dialect::V2, ratio).await;
            let request = fixture.send("bob", "hi");
            let request = request.header("traceparent", format!("00-{trace}-{PARENT}-{flags}"));
            assert_eq!(request.send().await.unwrap().status(), 200);
            let ends: Vec<_> = fixture
                .app
                .upstream
                .calls()
                .iter()
                .map(TraceEnd::of)
                .collect();
            assert!(
                ends.iter()
                    .all(|end| end.trace == trace && end.sampled == is_sent)
            );
            assert_eq!(!fixture.exported().await.is_empty(), is_sent);
        }
    }
    let fixture = Fixture::start(Dialect::V2, 0.2).await;
    for _ in 0..200 {
        let request = fixture.app.user("alice").request("GET", "/config");
        let request = request.header("traceparent", format!("00-{TRACE}-{PARENT}-01"));
        assert_eq!(request.send().await.unwrap().status(), 200);
    }
    let picked = fixture.exported().await;
    let picked = picked
        .iter()
        .filter(|span| hex(&span.parent_span_id) == PARENT)
        .count();
    // Beyond this in one of a billion runs.
    assert!((10..=80).contains(&picked), "{picked}");
}

/// Asserts that the gateway is between the trace's parent and WuKongIM, and that both were told whether it is sent.
async fn is_continued(fixture: &Fixture, is_sent: bool) {
    for call in fixture.app.upstream.calls() {
        let end = TraceEnd::of(&call);
        assert_eq!((end.trace.as_str(), end.sampled), (TRACE, is_sent));
        assert_ne!(end.span, PARENT, "the gateway is between them");
    }
    assert_eq!(!fixture.exported().await.is_empty(), is_sent);
}

#[tokio::test]
async fn failures_are_reported_without_private_data() {
    let fixture = Fixture::start(Dialect::V2, 1.0).await;
    fixture
        .app
        .anon()
        .get("/config")
        .await
        .fails(401, "token_missing");
    let fault = Fault::Status(500, json!({"msg": "marked-words"}).to_string());
    fixture.app.upstream.faults().always("/message/send", fault);
    let failed = fixture
        .send("marked-peer", "marked-text")
        .send()
        .await
        .unwrap();
    assert!(failed.status().is_server_error());
    fixture.app.upstream.faults().clear();
    let faults = fixture.app.upstream.faults();
    faults.always("/channel/max_message_seq", Fault::Hang);
    let sync = fixture.app.user("alice");
    let sync = sync.request("GET", "/message/sync?channelId=bob&channelType=1");
    let gone = sync.timeout(fixture::SOON).send().await;
    assert!(gone.is_err(), "{gone:?}");
    fixture.is_idle().await;

    let spans = fixture.exported().await;
    let of = |status: i64| {
        let mut spans = spans.iter();
        let is_it =
            |span: &&fixture::Span| number(span, "http.response.status_code") == Some(status);
        spans.find(is_it).unwrap_or_else(|| panic!("{status}"))
    };
    assert_eq!(text(of(401), "error.type"), Some("token_missing"));
    assert!(!fixture::is_error(of(401)), "the client's own");
    assert!(fixture::is_error(of(failed_status(&spans))));
    assert_eq!(text(of(499), "error.type"), Some("client_closed_request"));
    let calls = client_spans(&spans);
    let send = calls.iter().find(|span| span.name == "message_send");
    assert_eq!(text(send.unwrap(), "wukongim.outcome"), Some("refused"));
    let is_given_up = |span: &&fixture::Span| text(span, "wukongim.outcome") == Some("cancelled");
    let given_up: Vec<_> = calls.into_iter().filter(is_given_up).collect();
    assert_eq!(given_up.len(), 1);
    assert_eq!(given_up[0].name, "max_message_seq");

    let seen = fixture.documents();
    let token = sign(&json!({"sub": "alice", "exp": FAR}));
    for secret in ["marked", "alice", SECRET, &token, "127.0.0.1"] {
        assert!(!seen.contains(secret), "{secret}");
    }
}

fn failed_status(spans: &[fixture::Span]) -> i64 {
    let statuses = spans
        .iter()
        .filter_map(|span| number(span, "http.response.status_code"));
    statuses.filter(|status| *status >= 500).max().unwrap()
}

#[tokio::test]
async fn a_collector_that_is_down_affects_no_request() {
    let fixture = Fixture::start(Dialect::V2, 1.0).await;
    fixture.collector_fails();
    assert_eq!(
        fixture.send("bob", "hi").send().await.unwrap().status(),
        200
    );
    fixture.app.app.spans.end().await;
    // The end of the tracing is not the end of the serving.
    assert_eq!(
        fixture.send("bob", "ho").send().await.unwrap().status(),
        200
    );
}
