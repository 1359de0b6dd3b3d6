//! Everybody who takes part, and what spans say.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::routing::post;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use dev_upstream::{Call, DevUpstream, Dialect, Options};
use http::StatusCode;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode as SpanStatus;
use parking_lot::Mutex;
use prost::Message as _;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;
use wukongim_gateway::config::{Settings, StoreUrl};
use wukongim_gateway::state::App;
use wukongim_gateway::store::Store;
use wukongim_gateway::{cli, gateway, http_client};

pub use opentelemetry_proto::tonic::trace::v1::Span;

pub const SECRET: &str = "a-secret-for-tests-that-is-long-enough";
/// A client's patience that ends before an answer that never comes.
pub const SOON: Duration = Duration::from_millis(300);

pub struct Fixture {
    pub upstream: DevUpstream,
    pub app: App,
    pub client: reqwest::Client,
    pub api: String,
    pub token: String,
    collector: Arc<Collector>,
    _stop: watch::Sender<bool>,
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

async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    (listener, url)
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

        let mut options = Options::new(dialect);
        options.visible_after = Duration::ZERO;
        let upstream = DevUpstream::start(options).await.unwrap();
        let mut settings = Settings::builtin(&SECRET.to_owned().into()).unwrap();
        settings.store.url = StoreUrl::SqliteMemory;
        settings.wukongim.api_urls = vec![upstream.url().parse().unwrap()];
        settings.telemetry.otlp_endpoint = Some(otlp_endpoint.parse().unwrap());
        settings.telemetry.sample_ratio = ratio;
        let proxies = proxies.iter().map(|range| range.parse().unwrap());
        settings.server.trusted_proxies = proxies.collect();
        settings.limits.burst = 1000;
        let token = cli::token(&settings.auth, "alice", false, Duration::from_mins(5)).unwrap();
        let store = Store::open("sqlite::memory:", 1, Duration::from_secs(5)).await;
        let app = App::new(settings, Arc::new(store.unwrap())).unwrap();
        let (listener, api) = listen().await;
        let (stop, stopped) = watch::channel(false);
        tokio::spawn(gateway::run_api(listener, app.clone(), stopped));
        Self {
            upstream,
            app,
            client: http_client::client().build().unwrap(),
            api: format!("{api}/api/v1/im"),
            token,
            collector,
            _stop: stop,
        }
    }

    pub fn collector_fails(&self) {
        self.collector.fails.store(true, Ordering::Relaxed);
    }

    fn post(&self, path: &str) -> reqwest::RequestBuilder {
        let request = self.client.post(format!("{}{path}", self.api));
        request.bearer_auth(&self.token)
    }

    pub fn get(&self, path: &str) -> reqwest::RequestBuilder {
        let request = self.client.get(format!("{}{path}", self.api));
        request.bearer_auth(&self.token)
    }

    /// A message of alice's.
    pub fn send(&self, peer: &str, text: &str) -> reqwest::RequestBuilder {
        let payload = STANDARD.encode(text);
        let body = json!({"channelId": peer, "channelType": 1, "payload": payload});
        let request = self.post("/message/send");
        request
            .header("content-type", "application/json")
            .body(body.to_string())
    }

    /// Waits until no request is worked on.
    pub async fn is_idle(&self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.app.requests_in_flight() > 0 {
            assert!(Instant::now() < deadline);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// All spans, sent to the last one. No more are made after this.
    pub async fn exported(&self) -> Vec<Span> {
        self.app.spans().end().await;
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
