//! Everybody who takes part, and what spans say.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::routing::post;
use bytes::Bytes;
use dev_upstream::{Call, Dialect};
use http::StatusCode;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode as SpanStatus;
use parking_lot::Mutex;
use prost::Message as _;

use crate::support::TestApp;
use crate::support::messages::{message, until};
use crate::support::served::listen;

pub use opentelemetry_proto::tonic::trace::v1::Span;

/// A client's patience that ends before an answer that never comes.
pub const SOON: Duration = Duration::from_millis(300);

pub struct Fixture {
    pub app: TestApp,
    collector: Arc<Collector>,
}

#[derive(Default)]
struct Collector {
    documents: Mutex<Vec<Bytes>>,
    fails: AtomicBool,
}

async fn collect(State(collector): State<Arc<Collector>>, body: Bytes) -> StatusCode {
    if collector.fails.load(Ordering::Relaxed) {
        return StatusCode::SERVICE_UNAVAILABLE;
    }
    collector.documents.lock().push(body);
    StatusCode::OK
}

impl Fixture {
    /// A gateway that sends the spans of `ratio` of the traces that begin there.
    pub async fn start(dialect: Dialect, ratio: f64) -> Self {
        Self::behind_proxies(dialect, ratio, &[]).await
    }

    /// The same, which trusts these addresses.
    pub async fn behind_proxies(dialect: Dialect, ratio: f64, proxies: &[&str]) -> Self {
        let collector = Arc::<Collector>::default();
        let (listener, otlp_endpoint) = listen().await;
        let router = Router::new()
            .route("/v1/traces", post(collect))
            .with_state(collector.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });

        let proxies: Vec<_> = proxies.iter().map(|range| range.parse().unwrap()).collect();
        let app = TestApp::with(dialect, move |settings| {
            settings.telemetry.otlp_endpoint = Some(otlp_endpoint.parse().unwrap());
            settings.telemetry.sample_ratio = ratio;
            settings.server.trusted_proxies = proxies;
        });
        Self {
            app: app.await,
            collector,
        }
    }

    pub fn collector_fails(&self) {
        self.collector.fails.store(true, Ordering::Relaxed);
    }

    /// A message of alice's.
    pub fn send(&self, peer: &str, text: &str) -> reqwest::RequestBuilder {
        let alice = self.app.user("alice");
        alice.posting("/message/send", message(1, peer, text).to_string())
    }

    /// Waits until no request is worked on.
    pub async fn is_idle(&self) {
        until(|| self.app.app.requests_in_flight() == 0).await;
    }

    /// All spans, sent to the last one. No more are made after this.
    pub async fn exported(&self) -> Vec<Span> {
        self.app.app.spans.end().await;
        let documents = self.collector.documents.lock();
        let documents = documents
            .iter()
            .map(|bytes| ExportTraceServiceRequest::decode(bytes.clone()).unwrap());
        let resources = documents.flat_map(|document| document.resource_spans);
        let scopes = resources.flat_map(|resource| {
            let named = resource.resource.unwrap().attributes;
            let name = named.iter().find(|named| named.key == "service.name");
            assert!(format!("{name:?}").contains("wukongim-gateway"), "{name:?}");
            resource.scope_spans
        });
        scopes.flat_map(|scope| scope.spans).collect()
    }

    /// What the collector got, as far as it is text.
    pub fn documents(&self) -> String {
        let documents = self.collector.documents.lock();
        let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
        documents.iter().map(text).collect()
    }
}

/// What WuKongIM was told in `traceparent`.
#[derive(Debug)]
pub struct TraceEnd {
    pub trace: String,
    pub span: String,
    pub sampled: bool,
}

impl TraceEnd {
    #[track_caller]
    pub fn of(call: &Call) -> Self {
        let told = call.traceparent.as_deref().unwrap();
        let [version, trace, span, flags] = told.split('-').collect::<Vec<_>>()[..] else {
            panic!("{told}")
        };
        assert_eq!(version, "00");
        Self {
            trace: trace.to_owned(),
            span: span.to_owned(),
            sampled: flags == "01",
        }
    }
}

pub fn hex(bytes: &[u8]) -> String {
    let text = |text: String, byte| text + format!("{byte:02x}").as_str();
    bytes.iter().fold(String::new(), text)
}

fn value<'a>(span: &'a Span, key: &str) -> Option<&'a Any> {
    let found = span.attributes.iter().find(|named| named.key == key)?;
    found.value.as_ref()?.value.as_ref()
}

pub fn text<'a>(span: &'a Span, key: &str) -> Option<&'a str> {
    match value(span, key)? {
        Any::StringValue(text) => Some(text),
        other => panic!("{other:?}"),
    }
}

pub fn number(span: &Span, key: &str) -> Option<i64> {
    match value(span, key)? {
        Any::IntValue(number) => Some(*number),
        other => panic!("{other:?}"),
    }
}

pub fn is_error(span: &Span) -> bool {
    let status = span.status.as_ref();
    status.is_some_and(|status| status.code == SpanStatus::Error as i32)
}

/// The one span of a request.
#[track_caller]
pub fn server_span(spans: &[Span]) -> &Span {
    let mut of_requests = spans
        .iter()
        .filter(|span| span.kind == SpanKind::Server as i32);
    let one = of_requests.next().expect("a request's span");
    assert!(of_requests.next().is_none());
    one
}

pub fn client_spans(spans: &[Span]) -> Vec<&Span> {
    let of_calls = |span: &&Span| span.kind == SpanKind::Client as i32;
    spans.iter().filter(of_calls).collect()
}
