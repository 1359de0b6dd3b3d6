//! Sends every request to WuKongIM: headers, deadline, size limits, metrics. Knows nothing of what the calls mean.

use std::borrow::Cow;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Method, StatusCode};

use super::Error;
use super::in_flight_call::InFlightCall;
use super::node::Node;
use crate::context::{self, ByteBudget, Reservation};
use crate::per_worker::PerWorker;
use crate::telemetry::{CallSpan, Metrics};

tokio::task_local! {
    /// Whether calls use a new connection.
    static NEW_CONNECTION: bool;
}

/// Runs `work`; its calls use new connections if `new` is set.
pub(super) fn on_new_connection<F: Future>(new: bool, work: F) -> impl Future<Output = F::Output> {
    NEW_CONNECTION.scope(new, work)
}

/// Runs the call, and after a broken connection once more on a new one: all pooled connections may have died together. Only for reads.
pub(super) async fn retry_once<T, F: Future<Output = Result<T, Error>>>(
    ask: impl Fn() -> F,
) -> Result<T, Error> {
    match ask().await {
        Err(Error::Lost) => on_new_connection(true, ask()).await,
        outcome => outcome,
    }
}

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Starts a span for a call, in the current request's trace.
pub(super) fn start_span(call: &'static str, node: &str) -> CallSpan {
    let span = context::current(|request| Some(request.trace.as_ref()?.begin_call(call, node)));
    span.flatten().unwrap_or_default()
}

/// One request to one node.
pub(super) struct Call {
    /// The label in metrics and errors, such as `message_send`.
    pub(super) name: &'static str,
    pub(super) method: Method,
    /// Path and query, encoded.
    pub(super) path: Cow<'static, str>,
    pub(super) body: Option<Vec<u8>>,
    /// The largest answer accepted, in bytes.
    pub(super) max_bytes: usize,
}

/// Limit of answers that hold only a few fields.
const DEFAULT_MAX_BYTES: usize = 256 * 1024;

impl Call {
    pub(super) fn get(name: &'static str, path: impl Into<Cow<'static, str>>) -> Self {
        Self {
            name,
            method: Method::GET,
            path: path.into(),
            body: None,
            max_bytes: DEFAULT_MAX_BYTES,
        }
    }

    /// A POST of `body`, which is one of this module's wire types: serializing those cannot fail.
    pub(super) fn post(
        name: &'static str,
        path: impl Into<Cow<'static, str>>,
        body: &impl serde::Serialize,
    ) -> Self {
        let body = serde_json::to_vec(body).unwrap_or_default();
        Self {
            name,
            method: Method::POST,
            path: path.into(),
            body: Some(body),
            max_bytes: DEFAULT_MAX_BYTES,
        }
    }

    pub(super) fn max_bytes(mut self, max_bytes: usize) -> Self {
        self.max_bytes = max_bytes;
        self
    }
}

/// An HTTP answer, whole and within its size limit.
pub(super) struct Answer {
    pub(super) call: &'static str,
    pub(super) status: StatusCode,
    pub(super) body: Bytes,
    /// Whether the body claims to be JSON; unknown paths answer `404 page not found` as text on both generations.
    pub(super) is_json: bool,
    /// Reserves the body's bytes where no request does.
    pub(super) _reservation: Option<Reservation>,
}

impl Answer {
    /// The body as JSON of type `T`.
    pub(super) fn json<'a, T: serde::Deserialize<'a>>(&'a self) -> Result<T, Error> {
        serde_json::from_slice(&self.body).map_err(|_| Error::Decode(self.call))
    }
}

/// The HTTP client and what every call shares.
pub(super) struct Transport {
    /// A connection is driven by the runtime that opened it, so each worker has its own client.
    http: PerWorker<reqwest::Client>,
    /// A client without connection pool.
    fresh: PerWorker<reqwest::Client>,
    /// Time limit of one call, connecting included.
    pub(super) timeout: Duration,
    /// v2's manager token, sent as `token`.
    token: Option<HeaderValue>,
    pub(super) metrics: Arc<Metrics>,
    /// Where answers are counted.
    pub(super) byte_budget: Arc<ByteBudget>,
    /// The manager port's name in metrics.
    manager: Arc<str>,
}

impl Transport {
    /// `client` returns the builder of each worker's client.
    pub(super) fn new(
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
        let (kept, fresh) = (build.clone(), build);
        Ok(Self {
            http: PerWorker::new(kept(256)?, cores, move || kept(256).ok()),
            fresh: PerWorker::new(fresh(0)?, cores, move || fresh(0).ok()),
            timeout,
            token,
            metrics,
            byte_budget,
            manager: "manager".into(),
        })
    }

    /// Carries out one call on one node, within the call's deadline.
    pub(super) async fn call(&self, node: &Node, call: Call) -> Result<Answer, Error> {
        let mut request = request(&call.method, node.url(&call.path)?, call.body);
        if let Some(token) = &self.token {
            request.headers_mut().insert("token", token.clone());
        }
        let in_flight = InFlightCall::begin(self, node, call.name);
        in_flight.span.put_into(request.headers_mut());
        let result = self
            .exchange_in_time(call.name, request, call.max_bytes)
            .await;
        match &result {
            // Only a success confirms the node: a proxy may answer with errors while WuKongIM is being replaced.
            Ok(answer) if answer.status.is_success() => node.record_answer(),
            // Another generation may answer at this address next.
            Err(Error::Connect | Error::Lost) => node.forget_generation(),
            _ => {}
        }
        in_flight.end(&result);
        result
    }

    /// Carries out a call to v3's manager port, with a bearer token. Its outcome says nothing about a node's health.
    pub(super) async fn call_manager(
        &self,
        url: url::Url,
        call: Call,
        bearer: Option<&HeaderValue>,
    ) -> Result<Answer, Error> {
        let mut request = request(&call.method, url, call.body);
        if let Some(bearer) = bearer {
            let headers = request.headers_mut();
            headers.insert(http::header::AUTHORIZATION, bearer.clone());
        }
        let mut span = start_span(call.name, &self.manager);
        span.put_into(request.headers_mut());
        let started = Instant::now();
        let result = self
            .exchange_in_time(call.name, request, call.max_bytes)
            .await;
        span.end(outcome(&result));
        self.count(
            &self.manager,
            call.name,
            outcome(&result),
            started.elapsed(),
        );
        result
    }

    pub(super) fn count(
        &self,
        node: &Arc<str>,
        call: &'static str,
        outcome: &'static str,
        took: Duration,
    ) {
        self.metrics
            .upstream_called(node, call, outcome, took.as_secs_f64());
        if !matches!(outcome, "ok" | "refused") {
            tracing::debug!(node = &**node, call, outcome, "upstream call failed");
        }
    }

    async fn exchange_in_time(
        &self,
        name: &'static str,
        request: reqwest::Request,
        max_bytes: usize,
    ) -> Result<Answer, Error> {
        let exchange = self.exchange(name, request, max_bytes);
        let result = tokio::time::timeout(self.timeout, exchange).await;
        result.unwrap_or(Err(Error::Timeout))
    }

    async fn exchange(
        &self,
        name: &'static str,
        request: reqwest::Request,
        max_bytes: usize,
    ) -> Result<Answer, Error> {
        let is_new = NEW_CONNECTION.try_with(|new| *new).unwrap_or(false);
        let http = if is_new { &self.fresh } else { &self.http };
        let response = http.get().execute(request).await;
        let mut response = response.map_err(|error| classify(&error))?;
        let status = response.status();
        if status == StatusCode::UNAUTHORIZED {
            return Err(Error::Credentials);
        }
        let is_json = response
            .headers()
            .get(CONTENT_TYPE)
            .is_some_and(|value| value.as_bytes().starts_with(b"application/json"));
        if response
            .content_length()
            .is_some_and(|length| length > max_bytes as u64)
        {
            return Err(Error::TooLarge { max_bytes });
        }
        let accounting = BodyAccounting::new(&self.byte_budget, max_bytes);
        let body = read_body(&mut response, max_bytes, &accounting).await?;
        Ok(Answer {
            call: name,
            status,
            body,
            is_json,
            _reservation: accounting.own,
        })
    }
}

/// A request with the common headers.
fn request(method: &Method, url: url::Url, body: Option<Vec<u8>>) -> reqwest::Request {
    let mut request = reqwest::Request::new(method.clone(), url);
    let headers = request.headers_mut();
    if body.is_some() {
        headers.insert(CONTENT_TYPE, JSON);
    }
    // Outside of a request there is no id to send.
    context::current(|request| {
        headers.insert(X_REQUEST_ID, request.id.clone());
        if let Some(trace) = &request.trace {
            trace.put_into(headers);
        }
    });
    *request.body_mut() = body.map(reqwest::Body::from);
    request
}

pub(super) fn outcome(result: &Result<Answer, Error>) -> &'static str {
    match result {
        Ok(answer) if answer.status.is_success() => "ok",
        Ok(_) => "refused",
        Err(error) => error.outcome(),
    }
}

/// The whole body. Most arrive as one chunk, which is returned without a copy.
async fn read_body(
    response: &mut reqwest::Response,
    max_bytes: usize,
    accounting: &BodyAccounting,
) -> Result<Bytes, Error> {
    let mut first = Bytes::new();
    let mut body = BytesMut::new();
    let mut length = 0;
    while let Some(chunk) = response.chunk().await.map_err(|error| classify(&error))? {
        length += chunk.len();
        if length > max_bytes {
            return Err(Error::TooLarge { max_bytes });
        }
        accounting.count(chunk.len())?;
        if first.is_empty() && body.is_empty() {
            first = chunk;
            continue;
        }
        if body.is_empty() {
            body.reserve(length);
            body.extend_from_slice(&first);
            first.clear();
        }
        body.extend_from_slice(&chunk);
    }
    Ok(if body.is_empty() {
        first
    } else {
        body.freeze()
    })
}

/// Reserves the bytes of one answer as they arrive.
struct BodyAccounting {
    request: Option<Arc<Reservation>>,
    own: Option<Reservation>,
    /// Small answers are read even when the budget is used up: the outcome of a call that changes something must be known.
    is_forced: bool,
}

impl BodyAccounting {
    fn new(byte_budget: &Arc<ByteBudget>, max_bytes: usize) -> Self {
        let request = context::current_reservation();
        Self {
            own: request.is_none().then(|| byte_budget.new_reservation()),
            is_forced: max_bytes <= DEFAULT_MAX_BYTES || request.is_none(),
            request,
        }
    }

    fn count(&self, bytes: usize) -> Result<(), Error> {
        let Some(reservation) = self.request.as_deref().or(self.own.as_ref()) else {
            return Ok(());
        };
        if self.is_forced {
            reservation.force_reserve(bytes);
            return Ok(());
        }
        reservation.try_reserve(bytes).map_err(Error::NoRoom)
    }
}

fn classify(error: &reqwest::Error) -> Error {
    if error.is_connect() {
        Error::Connect
    } else if error.is_timeout() {
        Error::Timeout
    } else {
        Error::Lost
    }
}
