//! The state shared by all handlers: all modules, built from the settings. Knows no route and no listener.

mod gauges;
mod sockets;

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::extract::FromRef;
use tokio::time::timeout;

use crate::auth::{Cursors, ImTokens, Verifier, VerifierError};
use crate::authorization::callback::Callback;
use crate::authorization::{self, Authorization};
use crate::channels::{self, Channels, OnChange, SubscriberRules, Subscribers};
use crate::config::{self, Settings};
use crate::context::{ByteBudget, Full};
use crate::conversations::Conversations;
use crate::history::History;
use crate::http::authenticate::Authenticator;
use crate::limits::channel_limiter::ChannelLimiter;
use crate::limits::{Limits, Time};
use crate::messages::Messages;
use crate::per_worker;
use crate::store::Store;
use crate::telemetry::{Metrics, Spans};
use crate::wukongim::{Client, SAFE_PAYLOAD_BYTES};

/// How long to wait for WuKongIM's payload limit.
const PAYLOAD_LIMIT_TIMEOUT: Duration = Duration::from_millis(500);

pub use sockets::{EndSignal, Registration, Sockets};

/// The state shared by all handlers; cheap to clone.
#[derive(Clone)]
pub struct App(Arc<AppState>);

/// What an [`App`] shares.
pub struct AppState {
    /// The configuration in force.
    pub settings: Arc<Settings>,
    /// Checks JWTs.
    pub verifier: Arc<Verifier>,
    /// Issues and revokes connect tokens.
    pub im_tokens: Arc<ImTokens>,
    /// The client for WuKongIM.
    pub client: Arc<Client>,
    /// Owners, names and tombstones.
    pub store: Arc<Store>,
    /// Who may read and send.
    pub authorization: Arc<Authorization>,
    /// Sending.
    pub messages: Arc<Messages>,
    /// Reading.
    pub history: History,
    /// Users' lists of conversations.
    pub conversations: Arc<Conversations>,
    /// Makes and reads the cursors of lists.
    pub cursors: Cursors,
    /// Groups and their subscribers.
    pub channels: Channels,
    /// The members of groups.
    pub subscribers: Arc<Subscribers>,
    /// The rate limits of users and addresses.
    pub limits: Arc<Limits>,
    /// The open sockets.
    pub sockets: Arc<Sockets>,
    /// Counts the requests being worked on.
    pub in_flight: AtomicUsize,
    /// The limit of concurrent requests per channel.
    pub channel_limiter: Arc<ChannelLimiter>,
    /// The byte budget of request bodies and upstream answers.
    pub byte_budget: Arc<ByteBudget>,
    /// Starts the spans of requests.
    pub spans: Spans,
    /// The metrics registry.
    pub metrics: Arc<Metrics>,
}

/// Why the application cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The HTTP client for WuKongIM cannot be built.
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
    /// Builds all modules; requires a runtime. Does not call WuKongIM, so the gateway starts while it is down. Starts to fetch the keys of
    /// `auth.jwks_url`.
    pub fn new(settings: Settings, store: Arc<Store>) -> Result<Self, BuildError> {
        Self::with_time(settings, store, &Time::running())
    }

    /// [`App::new`] with this clock for the rate limits, for tests.
    pub fn with_time(
        settings: Settings,
        store: Arc<Store>,
        time: &Time,
    ) -> Result<Self, BuildError> {
        let metrics = Arc::new(Metrics::with_store(store.meters()));
        let (max_buffered, refusals) = (settings.server.max_buffered, metrics.refusals("buffered"));
        let byte_budget = ByteBudget::new(Full::All, max_buffered, refusals);
        let cores = per_worker::count(settings.server.worker_threads);
        let wukongim = &settings.wukongim;
        let client = Client::with_workers(wukongim, cores, metrics.clone(), byte_budget.clone())
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
        let channel_limiter = ChannelLimiter::new(metrics.refusals("channel"));
        let messages = Arc::new(Messages::new(
            client.clone(),
            authorization.clone(),
            channel_limiter.clone(),
            &settings.wukongim,
            &metrics,
        ));
        let history = History::new(
            client.clone(),
            authorization.clone(),
            messages.clone(),
            channel_limiter.clone(),
            &settings.limits,
        );
        let conversations = Arc::new(Conversations::new(
            client.clone(),
            authorization.clone(),
            channel_limiter.clone(),
            &settings.limits,
            metrics.clone(),
        ));
        let cursors = Cursors::new(&settings).ok_or(BuildError::ImTokenSecret)?;
        let subscribers = Subscribers::new(
            client.clone(),
            store.clone(),
            authorization.clone(),
            channel_limiter.clone(),
            subscriber_rules(&settings),
            metrics.clone(),
        );
        let facts = authorization.clone();
        let channels = Channels::new(
            client.clone(),
            store.clone(),
            channel_limiter.clone(),
            rules,
            on_change(&authorization, &conversations, &subscribers),
            Box::new(move |uid, group| {
                let facts = facts.clone();
                Box::pin(async move { facts.is_known_non_member(&uid, &group).await })
            }),
        );
        let verifier = Verifier::new(&settings.auth, settings.limits.id_bytes, metrics.clone())?;
        let limits = Limits::new(&settings, time, &metrics);
        let spans = Spans::new(&settings.telemetry)
            .map_err(|error| BuildError::Client(error.without_url().to_string()))?;
        Ok(Self(Arc::new(AppState {
            sockets: Sockets::new(&settings.socket),
            settings: Arc::new(settings),
            verifier: Arc::new(verifier),
            im_tokens,
            client,
            store,
            authorization,
            messages,
            history,
            conversations,
            cursors,
            channels,
            subscribers,
            limits: Arc::new(limits),
            in_flight: AtomicUsize::new(0),
            channel_limiter,
            byte_budget,
            spans,
            metrics,
        })))
    }

    /// The largest payload in bytes, decoded: `limits.payload`, or less where this WuKongIM takes no more or is not known to. Waits for
    /// that at most half a second, and only where `limits.payload` is larger than [`SAFE_PAYLOAD_BYTES`].
    pub async fn payload_limit(&self) -> usize {
        let configured = self.settings.limits.payload;
        if configured <= SAFE_PAYLOAD_BYTES {
            return configured;
        }
        let upstream = timeout(PAYLOAD_LIMIT_TIMEOUT, self.client.payload_limit()).await;
        let upstream = upstream.map_or(SAFE_PAYLOAD_BYTES, |it| it.unwrap_or(SAFE_PAYLOAD_BYTES));
        configured.min(upstream)
    }

    /// How many requests are being worked on.
    pub fn requests_in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }
}

impl Deref for App {
    type Target = AppState;

    fn deref(&self) -> &AppState {
        &self.0
    }
}

impl FromRef<App> for Arc<Settings> {
    fn from_ref(app: &App) -> Self {
        app.settings.clone()
    }
}

impl FromRef<App> for Authenticator {
    fn from_ref(app: &App) -> Self {
        Self {
            verifier: app.verifier.clone(),
            limits: app.limits.clone(),
        }
    }
}

fn subscriber_rules(settings: &Settings) -> SubscriberRules {
    SubscriberRules {
        mode: settings.authorization.mode,
        visible: settings.channels.members_visible,
        cache_ttl: settings.authorization.cache_ttl,
        cache_members: settings.authorization.cache_members,
    }
}

/// Tells every cache of a change of a group.
fn on_change(
    authorization: &Arc<Authorization>,
    conversations: &Arc<Conversations>,
    subscribers: &Arc<Subscribers>,
) -> Box<OnChange> {
    let (facts, walks) = (authorization.clone(), conversations.clone());
    let directories = subscribers.clone();
    Box::new(move |group, is_deleted| {
        walks.group_changed(group);
        directories.group_changed(group);
        if is_deleted {
            facts.group_deleted(group);
        } else {
            facts.group_changed(group);
        }
    })
}

/// The authorization mode, with the callback client where it needs one.
fn mode(
    settings: &config::Authorization,
    metrics: &Arc<Metrics>,
) -> Result<authorization::Mode, BuildError> {
    match settings.mode {
        config::Mode::Members => Ok(authorization::Mode::Members),
        config::Mode::Open => Ok(authorization::Mode::Open),
        config::Mode::Callback => {
            let callback = Callback::new(settings, metrics);
            let callback = callback.map_err(|error| BuildError::Callback(error.to_string()))?;
            let missing = "authorization.callback_url and callback_secret are needed";
            let callback = callback.ok_or_else(|| BuildError::Callback(missing.to_owned()))?;
            Ok(authorization::Mode::Callback(Arc::new(callback)))
        }
    }
}
