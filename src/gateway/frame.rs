//! The outermost layer: request id, CORS, load shedding, deadline, panics, envelope of every failure, metrics, access log. One function
//! instead of a stack of middlewares, since the steps depend on each other's results.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::header::{ALLOW, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use http_body::Body as _;
use tokio::time::Instant;
use tower::Service;

use super::cors::Cors;
use crate::config;
use crate::context::{RequestContext, UnwrittenBytes};
use crate::http::envelope::{language, render};
use crate::http::errors::{ApiError, Failure};
use crate::http::extract::RequestState;
use crate::routes::{self, Endpoint};
use crate::state::App;
use crate::telemetry::{ACCESS_LOG, HttpLabels};

/// The largest accepted head, in bytes of its names and values. The listener reads up to twice that, so that a larger one can be answered.
const MAX_HEAD_BYTES: usize = 32 * 1024;

/// From this size on, an answer's bytes stay reserved until it has been written.
const LARGE_ANSWER_BYTES: u64 = 16 * 1024;

/// One connection may have at most 1/16 of `server.max_buffered` unwritten.
const CONNECTION_SHARE_DIVISOR: usize = 16;

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Routes behind the outermost layer. Wraps the router instead of being a layer of it, which would box and clone every route once more.
#[derive(Clone)]
pub struct Framed {
    app: App,
    cors: Option<Arc<Cors>>,
    routes: Router,
}

impl Framed {
    /// The public API with all its layers.
    pub fn api(app: &App) -> Self {
        Self::new(app, routes::router(app))
    }

    /// Any routes behind the outermost layer; lets tests add a handler that panics.
    pub fn new(app: &App, routes: Router<App>) -> Self {
        Self {
            app: app.clone(),
            cors: Cors::new(&app.settings.cors).map(Arc::new),
            routes: routes.with_state(app.clone()),
        }
    }
}

impl Service<Request> for Framed {
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let Self { app, cors, routes } = self.clone();
        Box::pin(async move { Ok(frame(&app, cors.as_deref(), request, routes).await) })
    }
}

/// Every outcome of the inner layers (a refusal, a panic, a timeout) becomes an envelope with a request id.
async fn frame(
    app: &App,
    cors: Option<&Cors>,
    mut request: Request,
    mut routes: Router,
) -> Response {
    let started = Instant::now();
    let metrics = &app.metrics;
    let method = method_label(request.method());
    let endpoint = Endpoint::found_at(request.uri().path());
    let request_id = request_id(request.headers());
    let active = ActiveRequest::new(app, method, endpoint.route, started, &request_id);
    let lang = language(request.headers());
    let timeout = app.settings.server.request_timeout;
    let deadline = deadline(started, timeout);
    let state = Arc::new(RequestState::new(app.limits.clone(), endpoint.cost));
    let reservation = Arc::new(app.byte_budget.new_reservation());
    let peer = request.extensions().get().copied();
    app.limits.warn_unknown_proxy(peer, request.headers());
    let (trace, span) = app.spans.begin(
        request.headers(),
        || app.limits.is_trusted_proxy(peer),
        method,
        endpoint.route,
        &request_id,
    );
    let unwritten = request.extensions().get::<Arc<UnwrittenBytes>>().cloned();
    let is_get = request.method() == Method::GET;
    let origin = cors.map(|cors| cors.allow(request.headers()));

    let preflight = cors.and_then(|cors| cors.preflight(&request));
    let mut response = if let Some(preflight) = preflight {
        preflight
    } else if let Some(failure) = refuse(
        app,
        &active,
        endpoint,
        request.headers(),
        unwritten.as_deref(),
    ) {
        failure.into_response()
    } else {
        request.extensions_mut().insert(state.clone());
        let context = RequestContext {
            id: request_id.clone(),
            trace,
            reservation: Some(reservation.clone()),
            deadline: Some(deadline.into_std()),
        };
        let run = async move { routes.call(request).await };
        work(&state, deadline, context.scope(run)).await
    };
    // Several requests may have started together. Only reads are refused here: a write must report its result.
    let size = response.body().size_hint().lower();
    if let (true, true, Some(unwritten)) = (is_get, size >= LARGE_ANSWER_BYTES, &unwritten)
        && let Err(failure) = check_unwritten_room(app, unwritten, size)
    {
        response = failure.into_response();
    }

    let failure = response.extensions_mut().remove::<Failure>();
    if let Some(failure) = &failure {
        let id = request_id.to_str().unwrap_or_default();
        let allow = response.headers_mut().remove(ALLOW);
        response = render(failure, lang, endpoint.failure, id);
        // The router's header for a wrong method.
        if let Some(allow) = allow {
            response.headers_mut().insert(ALLOW, allow);
        }
    }
    if let Some(balance) = state.balance() {
        app.limits.write_headers(balance, response.headers_mut());
    }
    if let (Some(cors), Some(origin)) = (cors, origin) {
        cors.add_headers(origin, response.headers_mut());
    }
    if response.body().size_hint().lower() >= LARGE_ANSWER_BYTES {
        // The listener releases it when the answer has been written.
        response.extensions_mut().insert(reservation);
    }
    response
        .headers_mut()
        .insert(X_REQUEST_ID, request_id.clone());
    let status = response.status();
    let duration = started.elapsed();
    let labels = active.answered_with(status.as_u16());
    metrics.request_answered(&labels, duration.as_secs_f64());
    let code = failure.as_ref().map(|failure| failure.error.code());
    if let Some(code) = code {
        metrics.request_failed(labels.route, code);
    }
    span.end(labels.status, code);
    if is_logged(&app.settings.log, status, duration) {
        log(&labels, status, duration, &request_id, failure.as_ref());
    }
    response
}

/// The deadline of a request that began then; leaves a hundredth of its time for sending the answer.
fn deadline(started: Instant, timeout: Duration) -> Instant {
    started + timeout.mul_f64(0.99)
}

/// Why a request is refused before any work, if it is.
fn refuse(
    app: &App,
    active: &ActiveRequest<'_>,
    endpoint: &Endpoint,
    headers: &HeaderMap,
    unwritten: Option<&UnwrittenBytes>,
) -> Option<Failure> {
    let head: usize = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len())
        .sum();
    if head > MAX_HEAD_BYTES {
        return Some(ApiError::HeadersTooLarge.into());
    }
    if endpoint.is_exempt() {
        return None;
    }
    if active.others >= app.settings.server.max_in_flight {
        app.metrics.limited("in_flight");
        return Some(Failure::from(ApiError::Overloaded).because("max_in_flight requests run"));
    }
    if let Err(full) = app.byte_budget.check_room() {
        return Some(full.into());
    }
    unwritten.and_then(|unwritten| check_unwritten_room(app, unwritten, 1).err())
}

/// Whether a connection may have so many more unwritten bytes. A single answer is always allowed.
fn check_unwritten_room(app: &App, unwritten: &UnwrittenBytes, more: u64) -> Result<(), Failure> {
    let most = app.settings.server.max_buffered / CONNECTION_SHARE_DIVISOR;
    let waiting = unwritten.0.load(Ordering::Relaxed);
    if waiting == 0 || waiting as u64 + more <= most as u64 {
        return Ok(());
    }
    app.metrics.limited("unwritten");
    Err(Failure::retry_later(
        "a sixteenth of max_buffered waits on this connection to be fetched",
    ))
}

/// The inner layers' answer, or that of a panic or timeout.
async fn work(
    state: &RequestState,
    deadline: Instant,
    run: impl Future<Output = Result<Response, Infallible>>,
) -> Response {
    let work = AssertUnwindSafe(run).catch_unwind();
    match tokio::time::timeout_at(deadline, work).await {
        Ok(Ok(Ok(response))) => response,
        Ok(Err(_panic)) => Failure::from(ApiError::Internal)
            .because("a handler panicked")
            .into_response(),
        Err(_) if state.reading_body.load(Ordering::Relaxed) => {
            ApiError::RequestTimeout.into_response()
        }
        Err(_) => Failure::from(ApiError::UpstreamTimeout)
            .because("request_timeout passed")
            .into_response(),
    }
}

/// Whether a request is logged: all failures and slow requests, and a sample of the others.
fn is_logged(settings: &config::Log, status: StatusCode, duration: Duration) -> bool {
    let ratio = settings.sample_ratio;
    status >= StatusCode::BAD_REQUEST
        || duration >= settings.slow
        || ratio >= 1.0
        || fastrand::f64() < ratio
}

/// One line per request, including its error.
fn log(
    labels: &HttpLabels,
    status: StatusCode,
    duration: Duration,
    id: &HeaderValue,
    failure: Option<&Failure>,
) {
    let code = failure.map(|failure| failure.error.code());
    let cause = failure.and_then(|failure| failure.cause.as_deref());
    let fields: Vec<&str> = failure
        .map(|failure| {
            failure
                .details
                .iter()
                .map(|detail| &*detail.field)
                .collect()
        })
        .unwrap_or_default();
    let fields = (!fields.is_empty()).then(|| fields.join(","));
    let id = id.to_str().unwrap_or_default();
    let duration_ms = milliseconds(duration);
    let HttpLabels {
        method,
        route,
        status: number,
    } = labels;
    macro_rules! line {
        ($level:ident) => {
            tracing::event!(
                target: ACCESS_LOG,
                tracing::Level::$level,
                request.id = id,
                http.method = method,
                http.route = route,
                http.status = number,
                duration_ms,
                error.code = code,
                error.cause = cause,
                error.fields = fields,
                "request"
            )
        };
    }
    if status.is_server_error() {
        line!(ERROR);
    } else if status.is_client_error() {
        line!(WARN);
    } else {
        line!(INFO);
    }
}

/// Rounded to microseconds, so that the text has at most three decimals.
fn milliseconds(duration: Duration) -> f64 {
    let us = u32::try_from(duration.as_micros()).unwrap_or(u32::MAX);
    f64::from(us) / 1000.0
}

/// The client's request id where it is valid, else a new one.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    let given = headers.get(X_REQUEST_ID).filter(|value| {
        let bytes = value.as_bytes();
        let allowed =
            |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        (1..=128).contains(&bytes.len()) && bytes.iter().all(allowed)
    });
    given.cloned().unwrap_or_else(|| {
        let mut buffer = uuid::Uuid::encode_buffer();
        let text = uuid::Uuid::new_v4().simple().encode_lower(&mut buffer);
        HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static("none"))
    })
}

fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        Method::PATCH => "PATCH",
        Method::CONNECT => "CONNECT",
        Method::TRACE => "TRACE",
        _ => "other",
    }
}

/// A request in progress. If it is dropped without an answer, as when the client disconnects, it writes the request's log line itself.
struct ActiveRequest<'a> {
    app: &'a App,
    labels: HttpLabels,
    started: Instant,
    request_id: HeaderValue,
    answered: bool,
    /// How many other requests were in progress when it arrived.
    others: usize,
}

/// The status recorded for a request whose client disconnected before the answer.
const CLIENT_CLOSED_STATUS: u16 = 499;
/// The code recorded with it; never sent to a client.
const CLIENT_CLOSED_CODE: &str = "client_closed_request";

impl<'a> ActiveRequest<'a> {
    fn new(
        app: &'a App,
        method: &'static str,
        route: &'static str,
        started: Instant,
        request_id: &HeaderValue,
    ) -> Self {
        let others = app.in_flight.fetch_add(1, Ordering::Relaxed);
        let labels = HttpLabels {
            method,
            route,
            status: CLIENT_CLOSED_STATUS,
        };
        Self {
            app,
            labels,
            started,
            request_id: request_id.clone(),
            answered: false,
            others,
        }
    }

    /// Ends it with this status.
    fn answered_with(mut self, status: u16) -> HttpLabels {
        self.answered = true;
        HttpLabels {
            status,
            ..self.labels.clone()
        }
    }
}

impl Drop for ActiveRequest<'_> {
    fn drop(&mut self) {
        self.app.in_flight.fetch_sub(1, Ordering::Relaxed);
        if self.answered {
            return;
        }
        let duration = self.started.elapsed();
        let metrics = &self.app.metrics;
        metrics.request_answered(&self.labels, duration.as_secs_f64());
        metrics.request_failed(self.labels.route, CLIENT_CLOSED_CODE);
        tracing::event!(
            target: ACCESS_LOG,
            tracing::Level::WARN,
            request.id = self.request_id.to_str().unwrap_or_default(),
            http.method = self.labels.method,
            http.route = self.labels.route,
            http.status = self.labels.status,
            duration_ms = milliseconds(duration),
            error.code = CLIENT_CLOSED_CODE,
            error.cause = "the connection closed before the answer",
            "request"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_given_up_early_enough_for_its_answer_to_be_in_time() {
        let (started, second) = (Instant::now(), Duration::from_secs(1));
        assert_eq!(deadline(started, 10 * second) - started, second * 99 / 10);
        assert_eq!(deadline(started, second / 10) - started, second * 99 / 1000);
    }

    #[test]
    fn a_duration_is_rounded_to_microseconds() {
        for (nanos, text) in [
            (416_469_999, "416.469"),
            (1_100_000, "1.1"),
            (999, "0"),
            (3_600_000_000_000, "3600000"),
        ] {
            let text_of = milliseconds(Duration::from_nanos(nanos)).to_string();
            assert_eq!(text_of, text);
        }
    }
}
