//! The application: what all handlers share, and the router with its layers in their order.
//!
//! From the outside in: `frame` (request id, deadline, panic, envelope of every failure, metrics, access log) → routing →
//! authentication on every route that is not listed as public → the handler's extractors (body limit, JSON, fields).

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt as _;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::time::Instant;

use crate::auth::{ImTokens, Verifier, VerifierError};
use crate::authorization::callback::{self, Callback};
use crate::authorization::{self, Authorization};
use crate::channels::{self, Channels, Watch};
use crate::config::{self, Settings};
use crate::domain::ChannelId;
use crate::error::{ApiError, Failure};
use crate::extract::Scope;
use crate::history::History;
use crate::messages::Messages;
use crate::response::{language, render};
use crate::routes::{self, Endpoint};
use crate::store::Store;
use crate::telemetry::{HttpLabels, Metrics};
use crate::wukongim::{Client, with_request_id};

/// What all handlers share; cheap to clone.
#[derive(Clone)]
pub struct App(Arc<Shared>);

struct Shared {
    settings: Settings,
    verifier: Verifier,
    im_tokens: ImTokens,
    client: Arc<Client>,
    store: Arc<Store>,
    authorization: Arc<Authorization>,
    messages: Arc<Messages>,
    history: History,
    channels: Channels,
    metrics: Arc<Metrics>,
}

/// Why the application cannot be put together.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The HTTP client for WuKongIM.
    #[error("cannot set up the upstream client: {0}")]
    Client(String),
    /// The HTTP client for the application's backend, or `authorization.callback_url` or `callback_secret` is missing.
    #[error("cannot set up the callback: {0}")]
    Callback(String),
    /// The keys for clients' tokens.
    #[error(transparent)]
    Verifier(#[from] VerifierError),
    /// Neither `im_token.secret` nor `auth.jwt_secret` is set.
    #[error("im_token.secret is needed where there is no auth.jwt_secret")]
    ImTokenSecret,
}

impl App {
    /// Puts the rooms together, on a runtime. WuKongIM is not called yet: the gateway starts while it is down. The keys of
    /// `auth.jwks_url` are being fetched from here on.
    pub fn new(settings: Settings, store: Arc<Store>) -> Result<Self, BuildError> {
        let metrics = Arc::new(Metrics::new());
        let client = Client::new(&settings.wukongim, metrics.clone())
            .map(Arc::new)
            .map_err(|error| BuildError::Client(error.to_string()))?;
        let im_tokens = ImTokens::new(&settings, client.clone(), store.clone());
        let im_tokens = im_tokens.ok_or(BuildError::ImTokenSecret)?;
        let mode = mode(&settings.authorization, &metrics)?;
        let rules = channels::Rules {
            group_members: settings.limits.group_members,
            open: matches!(mode, authorization::Mode::Open),
            members_may_invite: settings.authorization.members_may_invite,
            callback: match &mode {
                authorization::Mode::Callback(callback) => Some(callback.clone()),
                _ => None,
            },
        };
        let authorization = Arc::new(Authorization::new(
            client.clone(),
            store.clone(),
            authorization::Rules {
                mode,
                cache_ttl: settings.authorization.cache_ttl,
                cache_members: settings.authorization.cache_members,
            },
            metrics.clone(),
        ));
        let messages = Arc::new(Messages::new(
            client.clone(),
            authorization.clone(),
            &settings.wukongim,
            &metrics,
        ));
        let history = History::new(
            client.clone(),
            authorization.clone(),
            messages.clone(),
            &settings.limits,
        );
        let watch = authorization.clone();
        let channels = Channels::new(client.clone(), store.clone(), watch, rules);
        let verifier = Verifier::new(&settings.auth, settings.limits.id_bytes, metrics.clone())?;
        Ok(Self(Arc::new(Shared {
            settings,
            verifier,
            im_tokens,
            client,
            store,
            authorization,
            messages,
            history,
            channels,
            metrics,
        })))
    }

    /// The configuration in force.
    pub fn settings(&self) -> &Settings {
        &self.0.settings
    }

    /// Checks JWTs.
    pub fn verifier(&self) -> &Verifier {
        &self.0.verifier
    }

    /// Gives out and revokes connect tokens.
    pub fn im_tokens(&self) -> &ImTokens {
        &self.0.im_tokens
    }

    /// WuKongIM.
    pub fn client(&self) -> &Client {
        &self.0.client
    }

    /// Owners, names and tombstones.
    pub fn store(&self) -> &Store {
        &self.0.store
    }

    /// Who may read and send.
    pub fn authorization(&self) -> &Authorization {
        &self.0.authorization
    }

    /// Sending.
    pub fn messages(&self) -> &Arc<Messages> {
        &self.0.messages
    }

    /// Reading.
    pub fn history(&self) -> &History {
        &self.0.history
    }

    /// Groups and their subscribers.
    pub fn channels(&self) -> &Channels {
        &self.0.channels
    }

    /// The metrics registry.
    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// The public API with all its layers.
    pub fn router(&self) -> Router {
        self.framed(routes::router(self))
    }

    /// Any routes behind the outermost layer: how tests show what becomes of a handler that panics, since none here does.
    pub fn framed(&self, routes: Router<Self>) -> Router {
        routes
            .layer(from_fn_with_state(self.clone(), frame))
            .with_state(self.clone())
    }
}

/// Whose word counts, with the way to ask the backend where it is its.
fn mode(
    settings: &config::Authorization,
    metrics: &Arc<Metrics>,
) -> Result<authorization::Mode, BuildError> {
    match settings.mode {
        config::Mode::Members => Ok(authorization::Mode::Members),
        config::Mode::Open => Ok(authorization::Mode::Open),
        config::Mode::Callback => {
            let (Some(url), Some(secret)) = (&settings.callback_url, &settings.callback_secret)
            else {
                let what = "authorization.callback_url and callback_secret are needed";
                return Err(BuildError::Callback(what.to_owned()));
            };
            let settings = callback::Settings {
                url: url.as_url().clone(),
                secret: secret.clone(),
                timeout: settings.callback_timeout,
                cache_ttl: settings.cache_ttl,
                cache_members: settings.cache_members,
            };
            let callback = Callback::new(settings, metrics.clone());
            let callback = callback.map_err(|error| BuildError::Callback(error.to_string()))?;
            Ok(authorization::Mode::Callback(Arc::new(callback)))
        }
    }
}

/// The channels room tells the authorization room what it changes; neither knows the other.
impl Watch for Authorization {
    fn group_changed(&self, group: &ChannelId) {
        Self::group_changed(self, group);
    }

    fn group_deleted(&self, group: &ChannelId) {
        Self::group_deleted(self, group);
    }
}

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The outermost layer. Whatever happens below – a refusal, a panic, a timeout – leaves as an envelope with a request id.
async fn frame(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let metrics = app.metrics();
    let method = method_label(request.method());
    let endpoint = Endpoint::of(
        request
            .extensions()
            .get::<MatchedPath>()
            .map(MatchedPath::as_str),
    );
    let request_id = request_id(request.headers());
    let in_flight = InFlight::new(metrics, method, endpoint.route, started, &request_id);
    let lang = language(request.headers());
    let timeout = app.settings().server.request_timeout;
    let scope = Arc::new(Scope {
        deadline: started + timeout,
        reading_body: AtomicBool::new(false),
    });
    request.extensions_mut().insert(scope.clone());

    let work = AssertUnwindSafe(next.run(request)).catch_unwind();
    let work = with_request_id(request_id.clone(), work);
    let mut response = match tokio::time::timeout_at(scope.deadline, work).await {
        Ok(Ok(response)) => response,
        Ok(Err(_panic)) => Failure::from(ApiError::Internal)
            .because("a handler panicked")
            .into_response(),
        Err(_) if scope.reading_body.load(Ordering::Relaxed) => {
            ApiError::RequestTimeout.into_response()
        }
        Err(_) => Failure::from(ApiError::UpstreamTimeout)
            .because("request_timeout passed")
            .into_response(),
    };

    let failure = response.extensions_mut().remove::<Failure>();
    if let Some(failure) = &failure {
        let id = request_id.to_str().unwrap_or_default();
        // `Allow` of a 405 is set outside of this layer, by the router.
        response = render(failure, lang, endpoint.failure, id);
    }
    response
        .headers_mut()
        .insert(X_REQUEST_ID, request_id.clone());
    let status = response.status();
    let duration = started.elapsed();
    let labels = in_flight.answered_with(status.as_u16());
    metrics.request_answered(&labels, duration.as_secs_f64());
    log(&labels, status, duration, &request_id, failure.as_ref());
    response
}

/// One line a request, the error in it once.
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
    let duration_ms = duration.as_secs_f64() * 1000.0;
    let HttpLabels {
        method,
        route,
        status: number,
    } = labels;
    macro_rules! line {
        ($level:ident) => {
            tracing::$level!(
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
        line!(error);
    } else if status.is_client_error() {
        line!(warn);
    } else {
        line!(info);
    }
}

/// The client's id where it is one, else a new one.
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

/// A request for as long as it is worked on. Dropped without an answer, which is what becomes of one whose client hangs up, it
/// writes the request's line itself.
struct InFlight<'a> {
    metrics: &'a Metrics,
    labels: HttpLabels,
    started: Instant,
    request_id: HeaderValue,
    answered: bool,
}

/// What a request counts as whose client was gone before the answer.
const HUNG_UP: u16 = 499;

impl<'a> InFlight<'a> {
    fn new(
        metrics: &'a Metrics,
        method: &'static str,
        route: &'static str,
        started: Instant,
        request_id: &HeaderValue,
    ) -> Self {
        metrics.in_flight.inc();
        let labels = HttpLabels {
            method,
            route,
            status: HUNG_UP,
        };
        Self {
            metrics,
            labels,
            started,
            request_id: request_id.clone(),
            answered: false,
        }
    }

    /// It is over, with this status.
    fn answered_with(mut self, status: u16) -> HttpLabels {
        self.answered = true;
        HttpLabels {
            status,
            ..self.labels.clone()
        }
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.metrics.in_flight.dec();
        if self.answered {
            return;
        }
        let duration = self.started.elapsed();
        self.metrics
            .request_answered(&self.labels, duration.as_secs_f64());
        tracing::warn!(
            request.id = self.request_id.to_str().unwrap_or_default(),
            http.method = self.labels.method,
            http.route = self.labels.route,
            http.status = self.labels.status,
            duration_ms = duration.as_secs_f64() * 1000.0,
            error.code = "client_closed_request",
            error.cause = "the connection closed before the answer",
            "request"
        );
    }
}
