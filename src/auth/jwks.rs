//! The keys that an issuer publishes: fetched at startup, periodically, and when a token names an unknown key. A single task makes all
//! fetches, so they never overlap and are at least [`MIN_REFRESH_GAP`] apart. Does not know tokens.

mod fetch;
#[cfg(test)]
pub(super) mod tests;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::Instant;

use super::keys::VerifyingKey;
use crate::config::Algorithm;
use crate::telemetry::Metrics;

pub(super) use fetch::HttpSource;

/// Minimum time from the end of one fetch to the start of the next.
pub(super) const MIN_REFRESH_GAP: Duration = Duration::from_secs(10);
/// Time limit of one fetch.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// Some editors and servers write it before a text.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
/// How many requests may wait for a fetch. Each of them counts against `max_in_flight`, and any client can make up a key id.
const MAX_WAITERS: usize = 64;

/// Why a fetch failed. Never contains the address, which may hold a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum FetchError {
    #[error("no connection")]
    Connect,
    #[error("no whole answer")]
    Lost,
    #[error("no answer in time")]
    Timeout,
    #[error("status {0}")]
    Status(u16),
    #[error("answer larger than {0} bytes")]
    TooLarge(usize),
    #[error("answer is not a JSON Web Key Set")]
    Decode,
    #[error("answer has no usable key")]
    NoKey,
}

impl FetchError {
    /// The name in metrics.
    fn outcome(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Lost => "lost",
            Self::Timeout => "timeout",
            Self::Status(_) => "status",
            Self::TooLarge(_) => "too_large",
            Self::Decode => "decode",
            Self::NoKey => "no_key",
        }
    }
}

/// The source of the key document.
pub(super) trait Source: Send + Sync + 'static {
    /// Fetches it once.
    fn fetch(&self) -> impl Future<Output = Result<Bytes, FetchError>> + Send;
}

/// The keys of one document.
#[derive(Default)]
pub(super) struct Published {
    pub(super) keys: Vec<VerifyingKey>,
    /// Increases whenever the keys change.
    pub(super) version: u64,
    document: Bytes,
}

/// The state of the keys.
#[derive(Clone, Default)]
struct State {
    published: Arc<Published>,
    /// The number of completed fetches.
    fetches: u64,
    /// When the last one ended, and its result.
    last: Option<(Instant, Result<(), FetchError>)>,
}

/// The current keys are not available: none was ever loaded, the last fetch failed, or too many requests wait for the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unavailable;

/// The published keys, updated as long as this value lives.
pub(super) struct Jwks {
    state: watch::Receiver<State>,
    refresh_wanted: Arc<Notify>,
    permits: Semaphore,
}

impl Jwks {
    /// Starts the fetching task; requires a runtime. A key that `source` no longer publishes is removed within `refresh`, while `source`
    /// answers. Only algorithms in `allowed_algorithms` are used, if that is not empty.
    pub(super) fn start(
        source: impl Source,
        refresh: Duration,
        allowed_algorithms: Vec<Algorithm>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let (sender, state) = watch::channel(State::default());
        let refresh_wanted = Arc::new(Notify::new());
        let wanted = refresh_wanted.clone();
        tokio::spawn(async move {
            loop {
                let started = Instant::now();
                let fetched = tokio::time::timeout(FETCH_TIMEOUT, source.fetch()).await;
                let document = fetched.unwrap_or(Err(FetchError::Timeout));
                let previous = sender.borrow().clone();
                let outcome = document
                    .and_then(|document| read(document, &previous.published, &allowed_algorithms));
                report(&previous, &outcome, &metrics);
                let ended = Instant::now();
                let mut next = ended + MIN_REFRESH_GAP;
                if outcome.is_ok() {
                    // Early enough that the next answer arrives within `refresh`.
                    next = next.max(started + refresh.saturating_sub(FETCH_TIMEOUT));
                }
                sender.send_modify(|state| {
                    state.fetches += 1;
                    let outcome = outcome.map(|published| state.published = published);
                    state.last = Some((ended, outcome));
                });
                // A request from before the end of this fetch is satisfied by it.
                let is_due = || ended.elapsed() >= MIN_REFRESH_GAP;
                loop {
                    tokio::select! {
                        () = tokio::time::sleep_until(next) => break,
                        () = wanted.notified() => if is_due() { break },
                        () = sender.closed() => return,
                    }
                }
            }
        });
        Self {
            state,
            refresh_wanted,
            permits: Semaphore::new(MAX_WAITERS),
        }
    }

    /// The current keys, without waiting.
    pub(super) fn published(&self) -> Arc<Published> {
        self.state.borrow().published.clone()
    }

    /// Whether a key was ever loaded.
    pub(super) fn ever_loaded(&self) -> bool {
        !self.state.borrow().published.keys.is_empty()
    }

    /// Whether [`Jwks::refreshed`] would fail without waiting.
    pub(super) fn is_unavailable(&self) -> bool {
        let now = self.state.borrow();
        if now.is_fresh() {
            now.current().is_err()
        } else {
            self.permits.available_permits() == 0
        }
    }

    /// For a key that [`Jwks::published`] lacks: the keys after the fetch in progress, or after a new one unless the last ended less than
    /// [`MIN_REFRESH_GAP`] ago. At most [`MAX_WAITERS`] callers wait, each `until` then; further ones get [`Unavailable`] at once.
    pub(super) async fn refreshed(&self, until: Instant) -> Result<Arc<Published>, Unavailable> {
        let mut state = self.state.clone();
        let seen = {
            let now = state.borrow_and_update();
            if now.is_fresh() {
                return now.current();
            }
            now.fetches
        };
        let _permit = self.permits.try_acquire().map_err(|_| Unavailable)?;
        self.refresh_wanted.notify_one();
        let fetched = state.wait_for(|state| state.fetches > seen);
        match tokio::time::timeout_at(until, fetched).await {
            Ok(Ok(now)) => now.current(),
            Ok(Err(_)) | Err(_) => Err(Unavailable),
        }
    }
}

impl State {
    /// Whether the last fetch is too recent to fetch again.
    fn is_fresh(&self) -> bool {
        self.last
            .is_some_and(|(ended, _)| ended.elapsed() < MIN_REFRESH_GAP)
    }

    fn current(&self) -> Result<Arc<Published>, Unavailable> {
        match self.last {
            Some((_, Ok(()))) => Ok(self.published.clone()),
            Some((_, Err(_))) | None => Err(Unavailable),
        }
    }
}

/// The keys of a document; the previous ones if it is unchanged. Unsupported keys and keys for other uses are skipped.
///
/// # Errors
/// Also where no usable key is left: a temporary loss of the issuer's keys must not log out all users.
fn read(
    document: Bytes,
    previous: &Arc<Published>,
    allowed_algorithms: &[Algorithm],
) -> Result<Arc<Published>, FetchError> {
    #[derive(Deserialize)]
    struct Document {
        keys: Vec<serde_json::Value>,
    }
    if document == previous.document && !previous.keys.is_empty() {
        return Ok(previous.clone());
    }
    let json = document.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&document);
    let Document { keys } = serde_json::from_slice(json).map_err(|_| FetchError::Decode)?;
    let found = keys.len();
    let keys: Vec<_> = keys
        .iter()
        .filter_map(|key| VerifyingKey::from_jwk(key, allowed_algorithms).ok())
        .collect();
    if keys.is_empty() {
        return Err(FetchError::NoKey);
    }
    tracing::info!(found, usable = keys.len(), "signing keys loaded");
    Ok(Arc::new(Published {
        keys,
        version: previous.version + 1,
        document,
    }))
}

/// Counts a fetch, and logs one line when fetching starts to fail, and one when it recovers.
fn report(previous: &State, outcome: &Result<Arc<Published>, FetchError>, metrics: &Metrics) {
    let external = &metrics.external;
    match outcome {
        Err(error) => external.keys_fetched(error.outcome()),
        Ok(published) => {
            external.keys_fetched("ok");
            let keys = i64::try_from(published.keys.len());
            external.keys.set(keys.unwrap_or(i64::MAX));
        }
    }
    let failed_previously = previous.last.is_some_and(|(_, outcome)| outcome.is_err());
    match outcome {
        Err(error) if !failed_previously => {
            tracing::warn!(%error, "signing keys cannot be fetched; known keys stay valid");
        }
        Err(error) => tracing::debug!(%error, "signing keys cannot be fetched yet"),
        Ok(_) if failed_previously => tracing::info!("signing keys can be fetched again"),
        Ok(_) => {}
    }
}
