//! Sends every request to WuKongIM: headers, deadline, size limits, metrics. Knows nothing of what the calls mean.

use std::borrow::Cow;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use url::Url;

use super::load::now_us;
use super::node::Node;
use crate::context::{self, ByteBudget, Reservation};
use crate::per_worker::PerWorker;
use crate::telemetry::{CallSpan, Metrics};
use crate::wukongim::Error;

tokio::task_local! {
    /// Whether calls use a new connection.
    static NEW_CONNECTION: bool;
}

/// Runs `work`, whose calls use new connections if `is_new`.
pub(crate) fn new_connection_if<F: Future>(
    is_new: bool,
    work: F,
) -> impl Future<Output = F::Output> {
    NEW_CONNECTION.scope(is_new, work)
}

/// Runs the call, and after a broken connection once more on a new one: all pooled connections may have died together. Only for reads.
pub(crate) async fn retry_once<T, F: Future<Output = Result<T, Error>>>(
    ask: impl Fn() -> F,
) -> Result<T, Error> {
    match ask().await {
        Err(Error::Lost) => new_connection_if(true, ask()).await,
        outcome => outcome,
    }
}

/// A call cancelled after this time counts as the node's failure if the node answered nothing meanwhile.
const UNRESPONSIVE_AFTER: Duration = Duration::from_millis(250);
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TOKEN: HeaderName = HeaderName::from_static("token");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// One request to one node.
#[derive(Clone)]
pub(crate) struct Call {
    /// The label in metrics and errors, such as `message_send`.
    pub(crate) name: &'static str,
    pub(crate) method: Method,
    /// Path and query, encoded.
    pub(crate) path: Cow<'static, str>,
    pub(crate) body: Option<Vec<u8>>,
    /// The largest answer accepted, in bytes.
    pub(crate) max_bytes: usize,
}

/// Limit of answers that hold only a few fields.
const DEFAULT_MAX_BYTES: usize = 256 * 1024;

impl Call {
    pub(crate) fn get(name: &'static str, path: impl Into<Cow<'static, str>>) -> Self {
        Self {
            name,
            method: Method::GET,
            path: path.into(),
            body: None,
            max_bytes: DEFAULT_MAX_BYTES,
        }
    }

    /// A POST of `body`, which is one of this module's wire types: serializing those cannot fail.
    pub(crate) fn post(
        name: &'static str,
        path: impl Into<Cow<'static, str>>,
        body: &impl serde::Serialize,
    ) -> Self {
        let body = serde_json::to_vec(body).unwrap_or_default();
        Self {
            method: Method::POST,
            body: Some(body),
            ..Self::get(name, path)
        }
    }

    pub(crate) fn max_bytes(mut self, max_bytes: usize) -> Self {
        self.max_bytes = max_bytes;
        self
    }
}

/// An HTTP answer, whole and within its size limit.
pub(crate) struct Answer {
    pub(crate) call: &'static str,
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
    /// Whether the body claims to be JSON; unknown paths answer `404 page not found` as text on both generations.
    pub(crate) is_json: bool,
    /// Reserves the body's bytes.
    pub(crate) reservation: Arc<Reservation>,
}

impl Answer {
    /// The body as JSON of type `T`.
    pub(crate) fn json<'a, T: serde::Deserialize<'a>>(&'a self) -> Result<T, Error> {
        serde_json::from_slice(&self.body).map_err(|_| Error::Decode(self.call))
    }
}

/// The HTTP client and what every call shares.
pub(crate) struct Transport {
    /// A connection is driven by the runtime that opened it, so each worker has its own client.
    pooled: PerWorker<reqwest::Client>,
    /// A client without connection pool.
    unpooled: PerWorker<reqwest::Client>,
    /// Time limit of one call, connecting included.
    pub(crate) timeout: Duration,
    /// v2's manager token, sent as `token`.
    token: Option<HeaderValue>,
    pub(crate) metrics: Arc<Metrics>,
    /// Where answers are counted.
    pub(crate) byte_budget: Arc<ByteBudget>,
    /// The manager port's name in metrics.
    manager: Arc<str>,
}

impl Transport {
    /// `client` returns the builder of each worker's client.
    pub(crate) fn new(
        client: impl Fn() -> reqwest::ClientBuilder + Send + Sync + 'static,
        timeout: Duration,
        token: Option<HeaderValue>,
        cores: usize,
        metrics: Arc<Metrics>,
        byte_budget: Arc<ByteBudget>,
    ) -> Result<Self, reqwest::Error> {
        // Only the connect timeout is reqwest's: one deadline around the whole call is cheaper (measured: 3.6 µs a request).
        let client = Arc::new(client);
        let build = move |idle| {
            client()
                .tcp_nodelay(true)
                .pool_max_idle_per_host(idle)
                .pool_idle_timeout(Duration::from_secs(30))
                .build()
        };
        let (pooled, unpooled) = (build.clone(), build);
        Ok(Self {
            pooled: PerWorker::new(pooled(256)?, cores, move || pooled(256).ok()),
            unpooled: PerWorker::new(unpooled(0)?, cores, move || unpooled(0).ok()),
            timeout,
            token,
            metrics,
            byte_budget,
            manager: "manager".into(),
        })
    }

    /// Whether calls carry v2's manager token.
    pub(crate) fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// Carries out one call on one node, within the call's time limit.
    pub(crate) async fn call(&self, node: &Node, call: Call) -> Result<Answer, Error> {
        let url = node.url(&call.path)?;
        let token = self.token.as_ref().map(|token| (TOKEN, token));
        let measured = Measured::begin(self, &node.name, Some(node), call.name);
        let result = self.measured(measured, url, call, token).await;
        match &result {
            // Only a success confirms the node: a proxy may answer with errors while WuKongIM is being replaced.
            Ok(answer) if answer.status.is_success() => node.record_success_time(),
            // Another generation may answer at this address next.
            Err(Error::Connect | Error::Lost) => node.forget_generation(),
            _ => {}
        }
        result
    }

    /// Carries out a call to v3's manager port, with a bearer token. Its outcome says nothing about a node's health.
    pub(crate) async fn call_manager(
        &self,
        url: Url,
        call: Call,
        bearer: Option<&HeaderValue>,
    ) -> Result<Answer, Error> {
        let bearer = bearer.map(|bearer| (AUTHORIZATION, bearer));
        let measured = Measured::begin(self, &self.manager, None, call.name);
        self.measured(measured, url, call, bearer).await
    }

    async fn measured(
        &self,
        mut measured: Measured<'_>,
        url: Url,
        call: Call,
        credentials: Option<(HeaderName, &HeaderValue)>,
    ) -> Result<Answer, Error> {
        let mut request = reqwest::Request::new(call.method, url);
        let headers = request.headers_mut();
        if call.body.is_some() {
            headers.insert(CONTENT_TYPE, JSON);
        }
        if let Some((name, value)) = credentials {
            headers.insert(name, value.clone());
        }
        // Outside of a request there is no id to send.
        context::current(|request| {
            headers.insert(X_REQUEST_ID, request.id.clone());
            if let Some(trace) = &request.trace {
                trace.put_into(headers);
            }
        });
        measured.span.put_into(headers);
        *request.body_mut() = call.body.map(reqwest::Body::from);
        let exchange = self.exchange(call.name, request, call.max_bytes);
        let result = tokio::time::timeout(self.timeout, exchange).await;
        let result = result.unwrap_or(Err(Error::Timeout));
        measured.outcome = match &result {
            Ok(answer) if answer.status.is_success() => "ok",
            Ok(_) => "refused",
            Err(error) => error.outcome(),
        };
        measured.is_answered =
            !matches!(result, Err(Error::Connect | Error::Timeout | Error::Lost));
        result
    }

    async fn exchange(
        &self,
        name: &'static str,
        request: reqwest::Request,
        max_bytes: usize,
    ) -> Result<Answer, Error> {
        let is_new = NEW_CONNECTION.try_with(|new| *new).unwrap_or(false);
        let client = if is_new { &self.unpooled } else { &self.pooled };
        let response = client.get().execute(request).await;
        let mut response = response.map_err(|error| classify(&error))?;
        let status = response.status();
        if status == StatusCode::UNAUTHORIZED {
            return Err(Error::Credentials);
        }
        let content_type = response.headers().get(CONTENT_TYPE);
        let is_json =
            content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/json"));
        let length = response.content_length();
        if length.is_some_and(|length| length > max_bytes as u64) {
            return Err(Error::TooLarge { max_bytes });
        }
        // Small answers are read even when the budget is used up: the outcome of a call that changes something must be known.
        let of_request = context::current(|request| request.reservation.clone()).flatten();
        let is_forced = max_bytes <= DEFAULT_MAX_BYTES || of_request.is_none();
        let reservation =
            of_request.unwrap_or_else(|| Arc::new(self.byte_budget.new_reservation()));
        // Most answers arrive as one chunk, which is not copied.
        let (mut chunks, mut length) = (Vec::new(), 0);
        while let Some(chunk) = response.chunk().await.map_err(|error| classify(&error))? {
            length += chunk.len();
            if length > max_bytes {
                return Err(Error::TooLarge { max_bytes });
            }
            if is_forced {
                reservation.force_reserve(chunk.len());
            } else {
                reservation
                    .try_reserve(chunk.len())
                    .map_err(Error::NoRoom)?;
            }
            chunks.push(chunk);
        }
        let body = match chunks.len() {
            0 | 1 => chunks.pop().unwrap_or_default(),
            _ => chunks.concat().into(),
        };
        Ok(Answer {
            call: name,
            status,
            body,
            is_json,
            reservation,
        })
    }
}

/// A call in flight: its share of the node's load, its span, and its metrics when it ends or is cancelled.
struct Measured<'a> {
    transport: &'a Transport,
    name: &'a Arc<str>,
    /// `None` for v3's manager port.
    node: Option<&'a Node>,
    call: &'static str,
    began_us: u64,
    outcome: &'static str,
    is_answered: bool,
    span: CallSpan,
}

impl<'a> Measured<'a> {
    fn begin(
        transport: &'a Transport,
        name: &'a Arc<str>,
        node: Option<&'a Node>,
        call: &'static str,
    ) -> Self {
        let began_us = now_us();
        if let Some(node) = node {
            node.load.begin(began_us);
            node.meters.in_flight.inc();
        }
        let span = context::current(|request| Some(request.trace.as_ref()?.begin_call(call, name)));
        Self {
            transport,
            name,
            node,
            call,
            began_us,
            outcome: "cancelled",
            is_answered: false,
            span: span.flatten().unwrap_or_default(),
        }
    }
}

impl Drop for Measured<'_> {
    fn drop(&mut self) {
        let (call, outcome, now) = (self.call, self.outcome, now_us());
        let took = Duration::from_micros(now.saturating_sub(self.began_us));
        self.span.end(outcome);
        if let Some(node) = self.node {
            // The caller dropped the call, which is normal. That the node answered no call in all this time is a failure.
            if outcome == "cancelled"
                && took >= UNRESPONSIVE_AFTER
                && node.load.is_silent_since(self.began_us)
            {
                node.ejection.record_failure(false);
            }
            node.load.end(self.began_us, now, self.is_answered);
            node.meters.in_flight.dec();
            node.meters.latency.set(node.load.latency().as_secs_f64());
        }
        let metrics = &self.transport.metrics;
        metrics.upstream_called(self.name, call, outcome, took.as_secs_f64());
        if !matches!(outcome, "ok" | "refused") {
            tracing::debug!(node = &**self.name, call, outcome, "upstream call failed");
        }
    }
}

/// Its only timeout is that of connecting.
fn classify(error: &reqwest::Error) -> Error {
    if error.is_connect() {
        Error::Connect
    } else {
        Error::Lost
    }
}
