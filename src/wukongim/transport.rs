//! The one private way a request reaches WuKongIM: headers, deadline, size limits, metrics. Knows nothing of what calls mean.

use std::borrow::Cow;
use std::future::Future;
use std::sync::{Arc, Once};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Method, StatusCode};

use super::Error;
use super::nodes::Node;
use super::under_way::UnderWay;
use crate::cores::PerCore;
use crate::memory::{Memory, Share};
use crate::telemetry::{CallSpan, Metrics, Trace};

tokio::task_local! {
    static REQUEST: Request;
    /// Whether calls go out on a connection of their own.
    static NEW_CONNECTION: bool;
}

/// Runs `work`, whose calls go out on new connections where `new` says so.
pub(super) fn on_new_connection<F: Future>(new: bool, work: F) -> impl Future<Output = F::Output> {
    NEW_CONNECTION.scope(new, work)
}

/// Asks, and where the connection broke once more on a new one: a kept connection may have been dead for long, and all that are kept
/// with it. For what changes nothing.
pub(super) async fn once_more<T, F: Future<Output = Result<T, Error>>>(
    ask: impl Fn() -> F,
) -> Result<T, Error> {
    match ask().await {
        Err(Error::Lost) => on_new_connection(true, ask()).await,
        outcome => outcome,
    }
}

/// The client's request that calls are made for.
#[derive(Clone)]
struct Request {
    id: HeaderValue,
    trace: Option<Arc<Trace>>,
    /// Holds the answers for as long as the request lives; `None` in a task that works for others, too.
    held: Option<Arc<Share>>,
    /// When it must have been answered.
    deadline: Option<Instant>,
}

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Runs `work` so that every call it makes carries `request_id` as `x-request-id`.
pub async fn with_request_id<F: Future>(request_id: HeaderValue, work: F) -> F::Output {
    let request = Request {
        id: request_id,
        trace: None,
        held: None,
        deadline: None,
    };
    REQUEST.scope(request, work).await
}

/// [`with_request_id`] for the request's own task: its calls belong to `trace`, the answers are counted as its own, a page for which
/// there is no room is refused, and no call is made a second time after `deadline`.
pub async fn with_request<F: Future>(
    request_id: HeaderValue,
    trace: Option<Arc<Trace>>,
    held: Arc<Share>,
    deadline: Instant,
    work: F,
) -> F::Output {
    let request = Request {
        id: request_id,
        trace,
        held: Some(held),
        deadline: Some(deadline),
    };
    REQUEST.scope(request, work).await
}

/// Runs `work` as part of the request that the running code works on, for what is handed to another task and may outlive it: same
/// id, and what the request holds stays counted until `work` is done.
pub fn in_this_request<F: Future>(work: F) -> impl Future<Output = F::Output> {
    let request = REQUEST.try_with(Clone::clone).ok();
    async move {
        match request {
            Some(request) => REQUEST.scope(request, work).await,
            None => work.await,
        }
    }
}

/// Runs `work` in the name of the request that the running code works on, for a task that works for others, too: same id and trace,
/// but what it gets is not that request's, nor is the deadline.
pub fn begun_by_this_request<F: Future>(work: F) -> impl Future<Output = F::Output> {
    let request = REQUEST.try_with(|request| Request {
        held: None,
        deadline: None,
        ..request.clone()
    });
    async move {
        match request {
            Ok(request) => REQUEST.scope(request, work).await,
            Err(_) => work.await,
        }
    }
}

/// A span for a call that begins now, in the trace of the request that the running code works on.
pub(super) fn begin_span(call: &'static str, node: &str) -> CallSpan {
    let span = REQUEST.try_with(|request| {
        let trace = request.trace.as_ref()?;
        Some(trace.begin_call(call, node))
    });
    span.ok().flatten().unwrap_or_default()
}

fn current_share() -> Option<Arc<Share>> {
    REQUEST.try_with(|request| request.held.clone()).ok()?
}

/// When the request that the running code works on must have been answered, where it works on one.
pub fn current_deadline() -> Option<Instant> {
    REQUEST.try_with(|request| request.deadline).ok()?
}

/// The id that [`with_request_id`] set around the running code.
pub fn current_request_id() -> Option<HeaderValue> {
    REQUEST.try_with(|request| request.id.clone()).ok()
}

/// One request to one node.
pub(super) struct Call {
    /// The label in metrics and errors, such as `message_send`.
    pub(super) name: &'static str,
    pub(super) method: Method,
    /// Path and query, encoded.
    pub(super) path: Cow<'static, str>,
    pub(super) body: Option<Vec<u8>>,
    /// The largest answer taken, in bytes.
    pub(super) max_bytes: usize,
}

/// The largest answer of calls that answer a few fields.
const SMALL: usize = 256 * 1024;

impl Call {
    pub(super) fn get(name: &'static str, path: impl Into<Cow<'static, str>>) -> Self {
        Self {
            name,
            method: Method::GET,
            path: path.into(),
            body: None,
            max_bytes: SMALL,
        }
    }

    /// A POST of `body`, which is one of this room's own wire types: serializing those cannot fail.
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
            max_bytes: SMALL,
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
    /// Counts the body where no request does.
    pub(super) _held: Option<Share>,
}

impl Answer {
    /// The body as JSON of type `T`.
    pub(super) fn json<'a, T: serde::Deserialize<'a>>(&'a self) -> Result<T, Error> {
        serde_json::from_slice(&self.body).map_err(|_| Error::Decode(self.call))
    }
}

/// The HTTP client and what every call shares.
pub(super) struct Transport {
    /// A connection is driven by the runtime that opened it: each core has its own.
    http: PerCore<reqwest::Client>,
    /// Keeps no connection.
    fresh: PerCore<reqwest::Client>,
    /// One call's time, connecting included.
    pub(super) timeout: Duration,
    /// v2's manager token, sent as `token`.
    token: Option<HeaderValue>,
    pub(super) metrics: Arc<Metrics>,
    /// Where answers are counted.
    pub(super) memory: Arc<Memory>,
    /// What the manager port is called in metrics.
    manager: Arc<str>,
    /// Says once what a v3 does not guard.
    v3_warning: Once,
}

impl Transport {
    /// `client` begins a client of each core.
    pub(super) fn new(
        client: impl Fn() -> reqwest::ClientBuilder + Send + Sync + 'static,
        timeout: Duration,
        token: Option<HeaderValue>,
        cores: usize,
        metrics: Arc<Metrics>,
        memory: Arc<Memory>,
    ) -> Result<Self, reqwest::Error> {
        // No reqwest timeouts but the connector's: one deadline around the whole call is cheaper (measured in an experiment: 3.6 µs
        // a request).
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
            http: PerCore::new(kept(256)?, cores, move || kept(256).ok()),
            fresh: PerCore::new(fresh(0)?, cores, move || fresh(0).ok()),
            timeout,
            token,
            metrics,
            memory,
            manager: "manager".into(),
            v3_warning: Once::new(),
        })
    }

    /// A node is v3, found or configured: warns of it, the first time.
    pub(super) fn v3_found(&self) {
        self.v3_warning.call_once(|| {
            tracing::warn!(
                "wukongim v3 checks no connect token: anybody who reaches its ports 5100 and 5200 connects as anybody"
            );
        });
    }

    /// Carries out one call on one node, within the call's deadline.
    pub(super) async fn call(&self, node: &Node, call: Call) -> Result<Answer, Error> {
        let mut request = request(&call.method, node.url(&call.path)?, call.body);
        if let Some(token) = &self.token {
            request.headers_mut().insert("token", token.clone());
        }
        let under_way = UnderWay::begin(self, node, call.name);
        under_way.span.put_into(request.headers_mut());
        let result = self.finish(call.name, request, call.max_bytes).await;
        match &result {
            // Only a success: a proxy in front of it goes on answering errors while WuKongIM itself is exchanged.
            Ok(answer) if answer.status.is_success() => node.heard(),
            // Whatever answers at this address next may be another WuKongIM.
            Err(Error::Connect | Error::Lost) => node.forget_generation(),
            _ => {}
        }
        under_way.end(&result);
        result
    }

    /// Carries out a call to v3's manager port, with a bearer token. It is no node: what becomes of the call says nothing of one.
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
        let mut span = begin_span(call.name, &self.manager);
        span.put_into(request.headers_mut());
        let started = Instant::now();
        let result = self.finish(call.name, request, call.max_bytes).await;
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

    async fn finish(
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
        let counter = Counter::new(&self.memory, max_bytes);
        let body = body_of(&mut response, max_bytes, &counter).await?;
        Ok(Answer {
            call: name,
            status,
            body,
            is_json,
            _held: counter.own,
        })
    }
}

/// A request with the headers that all have.
fn request(method: &Method, url: url::Url, body: Option<Vec<u8>>) -> reqwest::Request {
    let mut request = reqwest::Request::new(method.clone(), url);
    let headers = request.headers_mut();
    if body.is_some() {
        headers.insert(CONTENT_TYPE, JSON);
    }
    // Outside of any request there is nothing to tell.
    let _ = REQUEST.try_with(|request| {
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

/// The whole body. Most come in one piece, which is passed on without a copy.
async fn body_of(
    response: &mut reqwest::Response,
    max_bytes: usize,
    counter: &Counter,
) -> Result<Bytes, Error> {
    let mut first = Bytes::new();
    let mut body = BytesMut::new();
    let mut length = 0;
    while let Some(chunk) = response.chunk().await.map_err(|error| classify(&error))? {
        length += chunk.len();
        if length > max_bytes {
            return Err(Error::TooLarge { max_bytes });
        }
        counter.count(chunk.len())?;
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

/// Counts the bytes of one answer as they come.
struct Counter {
    request: Option<Arc<Share>>,
    own: Option<Share>,
    /// Few bytes are taken always: after a call that changes something its answer must be known.
    always: bool,
}

impl Counter {
    fn new(memory: &Arc<Memory>, max_bytes: usize) -> Self {
        let request = current_share();
        Self {
            own: request.is_none().then(|| memory.share()),
            always: max_bytes <= SMALL || request.is_none(),
            request,
        }
    }

    fn count(&self, bytes: usize) -> Result<(), Error> {
        let Some(share) = self.request.as_deref().or(self.own.as_ref()) else {
            return Ok(());
        };
        if self.always {
            share.grow_anyway(bytes);
            return Ok(());
        }
        share.grow(bytes).map_err(Error::NoRoom)
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
