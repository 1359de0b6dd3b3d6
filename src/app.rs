//! The application: what all handlers share, and the router with its layers in their order.
//!
//! From the outside in: `frame` (request id, CORS, shedding, deadline, panic, envelope of every failure, metrics, access log) →
//! routing → authentication and the user's limit on every route that is not listed as public → the handler's extractors (body limit,
//! JSON, fields, and the limit again where the content decides what a call costs).

mod cors;
mod frame;
mod levels;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use futures_util::future::BoxFuture;
use http::HeaderMap;

use crate::auth::{ImTokens, Verifier, VerifierError};
use crate::authorization::callback::{self, Callback};
use crate::authorization::{self, Authorization};
use crate::channels::{self, Channels, Watch};
use crate::config::{self, Settings};
use crate::cores;
use crate::crowd::Crowd;
use crate::domain::{ChannelId, Uid};
use crate::history::History;
use crate::limits::{Limits, Time};
use crate::memory::Memory;
use crate::messages::Messages;
use crate::routes;
use crate::store::Store;
use crate::telemetry::{Metrics, Spans};
use crate::wukongim::Client;

use self::cors::Cors;
pub use self::frame::Framed;

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
    limits: Limits,
    in_flight: AtomicUsize,
    crowd: Arc<Crowd>,
    memory: Arc<Memory>,
    cors: Option<Cors>,
    spans: Spans,
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
        Self::with_time(settings, store, &Time::running())
    }

    /// [`App::new`] with limits that go by this clock, for tests.
    pub fn with_time(
        settings: Settings,
        store: Arc<Store>,
        time: &Time,
    ) -> Result<Self, BuildError> {
        let metrics = Arc::new(Metrics::with_store(store.meters()));
        let memory = Memory::new(settings.server.max_buffered, metrics.refusals("buffered"));
        let cores = cores::count(settings.server.worker_threads);
        let wukongim = &settings.wukongim;
        let client = Client::on_cores(wukongim, cores, metrics.clone(), memory.clone())
            .map(Arc::new)
            .map_err(|error| BuildError::Client(error.to_string()))?;
        let im_tokens = ImTokens::new(&settings, client.clone(), store.clone());
        let im_tokens = im_tokens.ok_or(BuildError::ImTokenSecret)?;
        let mode = mode(&settings.authorization, &metrics)?;
        let rules = channels::Rules {
            group_members: settings.limits.group_members,
            open: matches!(mode, authorization::Mode::Open),
            group_ids: settings.limits.group_ids,
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
        let crowd = Crowd::new(metrics.refusals("channel"));
        let messages = Arc::new(Messages::new(
            client.clone(),
            authorization.clone(),
            crowd.clone(),
            &settings.wukongim,
            &metrics,
        ));
        let history = History::new(
            client.clone(),
            authorization.clone(),
            messages.clone(),
            crowd.clone(),
            &settings.limits,
        );
        let watch = authorization.clone();
        let channels = Channels::new(client.clone(), store.clone(), watch, rules);
        let verifier = Verifier::new(&settings.auth, settings.limits.id_bytes, metrics.clone())?;
        let cors = Cors::new(&settings.cors);
        let limits = Limits::new(&settings, time, metrics.clone());
        let spans = Spans::new(&settings.telemetry)
            .map_err(|error| BuildError::Client(error.without_url().to_string()))?;
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
            limits,
            in_flight: AtomicUsize::new(0),
            crowd,
            memory,
            cors,
            spans,
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

    /// How much users and addresses may ask for.
    pub fn limits(&self) -> &Limits {
        &self.0.limits
    }

    fn in_flight(&self) -> &AtomicUsize {
        &self.0.in_flight
    }

    /// How many requests are being worked on.
    pub fn requests_in_flight(&self) -> usize {
        self.in_flight().load(Ordering::Relaxed)
    }

    /// How much is under way in each channel.
    pub fn crowd(&self) -> &Arc<Crowd> {
        &self.0.crowd
    }

    /// What bodies and upstream answers hold.
    pub fn memory(&self) -> &Arc<Memory> {
        &self.0.memory
    }

    /// What is said to browsers; `None` where nothing is.
    fn cors(&self) -> Option<&Cors> {
        self.0.cors.as_ref()
    }

    /// Whether [`App::mark_refusal`] needs to know the request's `Origin`.
    pub fn refusal_needs_origin(&self) -> bool {
        self.cors().is_some_and(Cors::depends_on_origin)
    }

    /// Puts the CORS headers on the refusal of a connection, of whose request at most the headers `asked` are known.
    pub fn mark_refusal(&self, asked: &HeaderMap, headers: &mut HeaderMap) {
        if let Some(cors) = self.cors() {
            cors.mark(cors.allow_refused(asked), headers);
        }
    }

    /// Where requests' spans begin.
    pub fn spans(&self) -> &Spans {
        &self.0.spans
    }

    /// The metrics registry.
    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// The public API with all its layers.
    pub fn service(&self) -> Framed {
        self.framed(routes::router(self))
    }

    /// Any routes behind the outermost layer: how tests show what becomes of a handler that panics, since none here does.
    pub fn framed(&self, routes: Router<Self>) -> Framed {
        Framed::new(self.clone(), routes.with_state(self.clone()))
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

    fn is_outsider<'a>(&'a self, uid: &'a Uid, group: &'a ChannelId) -> BoxFuture<'a, bool> {
        Box::pin(Self::is_outsider(self, uid, group))
    }
}
