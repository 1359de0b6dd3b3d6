//! The keys an issuer publishes: fetched at the start, on time, and when somebody asks for a key that is not known. One task makes
//! every fetch, so there is never more than one under way, nor more than one in [`GAP`]. Knows no token.

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

use super::keys::PublicKey;
use crate::config::Algorithm;
use crate::telemetry::Metrics;

pub(super) use fetch::HttpSource;

/// The least time from the end of one fetch to the start of the next, whoever asks.
pub(super) const GAP: Duration = Duration::from_secs(10);
/// The longest one fetch may take.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// Some editors and servers put it before a text.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
/// How many callers may wait for a fetch. Each of them holds one of the gateway's places for requests, and anybody can make up the
/// name of a key.
const WAITERS: usize = 64;

/// Why a fetch brought no keys. Never with the address: it may hold a password.
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
    #[error("answer is no JSON Web Key Set")]
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

/// Where the document comes from.
pub(super) trait Source: Send + Sync + 'static {
    /// Fetches it once.
    fn fetch(&self) -> impl Future<Output = Result<Bytes, FetchError>> + Send;
}

/// The keys of one document.
#[derive(Default)]
pub(super) struct Published {
    pub(super) keys: Vec<PublicKey>,
    /// Another number for other keys.
    pub(super) version: u64,
    document: Bytes,
}

/// What is known at a moment.
#[derive(Clone, Default)]
struct State {
    published: Arc<Published>,
    /// Whether a fetch ever brought a key.
    ever_loaded: bool,
    /// Fetches that have ended.
    fetches: u64,
    /// When the last one ended and what came of it.
    last: Option<(Instant, Result<(), FetchError>)>,
}

/// No key can be told to be unknown now: none was ever loaded, the last fetch failed, or too many wait for the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unavailable;

/// The published keys, kept up to date for as long as this lives.
pub(super) struct Jwks {
    state: watch::Receiver<State>,
    asked: Arc<Notify>,
    places: Semaphore,
}

impl Jwks {
    /// Begins to fetch, in a task of its own: to be called on a runtime. A key that `source` has dropped is gone from here within
    /// `refresh`, while `source` answers. Of the keys' algorithms only the `taken` ones count, where any are listed.
    pub(super) fn start(
        source: impl Source,
        refresh: Duration,
        taken: Vec<Algorithm>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let (sender, state) = watch::channel(State::default());
        let asked = Arc::new(Notify::new());
        let fetching = keep_fetching(source, refresh, taken, sender, asked.clone(), metrics);
        tokio::spawn(fetching);
        Self {
            state,
            asked,
            places: Semaphore::new(WAITERS),
        }
    }

    /// The keys as they are known now, without waiting.
    pub(super) fn published(&self) -> Arc<Published> {
        self.state.borrow().published.clone()
    }

    /// Whether a key was ever loaded.
    pub(super) fn ever_loaded(&self) -> bool {
        self.state.borrow().ever_loaded
    }

    /// Whether [`Jwks::refreshed`] would find none, without waiting for any.
    pub(super) fn is_unavailable(&self) -> bool {
        let now = self.state.borrow();
        if now.is_fresh() {
            now.told().is_err()
        } else {
            self.places.available_permits() == 0
        }
    }

    /// For a key that [`Jwks::published`] does not have: the keys after the fetch that is under way, or after a new one unless
    /// the last ended less than [`GAP`] ago. Of those who come at once [`WAITERS`] wait, each `until` then; the others are told at
    /// once that there are none.
    pub(super) async fn refreshed(&self, until: Instant) -> Result<Arc<Published>, Unavailable> {
        let mut state = self.state.clone();
        let seen = {
            let now = state.borrow_and_update();
            if now.is_fresh() {
                return now.told();
            }
            now.fetches
        };
        let _place = self.places.try_acquire().map_err(|_| Unavailable)?;
        self.asked.notify_one();
        let fetched = state.wait_for(|state| state.fetches > seen);
        let now = tokio::time::timeout_at(until, fetched).await;
        now.map_err(|_| Unavailable)?
            .map_err(|_| Unavailable)?
            .told()
    }
}

impl State {
    /// Whether it is too early to fetch again.
    fn is_fresh(&self) -> bool {
        self.last.is_some_and(|(ended, _)| ended.elapsed() < GAP)
    }

    fn told(&self) -> Result<Arc<Published>, Unavailable> {
        let succeeded = self.last.is_some_and(|(_, outcome)| outcome.is_ok());
        if self.ever_loaded && succeeded {
            Ok(self.published.clone())
        } else {
            Err(Unavailable)
        }
    }
}

/// Fetches until nobody holds the keys any more.
async fn keep_fetching(
    source: impl Source,
    refresh: Duration,
    taken: Vec<Algorithm>,
    sender: watch::Sender<State>,
    asked: Arc<Notify>,
    metrics: Arc<Metrics>,
) {
    loop {
        let started = Instant::now();
        let fetched = tokio::time::timeout(FETCH_TIMEOUT, source.fetch()).await;
        let outcome = fetched.unwrap_or(Err(FetchError::Timeout));
        let before = sender.borrow().clone();
        let outcome = outcome.and_then(|document| read(document, &before.published, &taken));
        let ended = Instant::now();
        report(&before, &outcome);
        let outside = &metrics.outside;
        outside.keys_fetched(
            outcome
                .as_ref()
                .map_or_else(|error| error.outcome(), |_| "ok"),
        );
        if let Ok(published) = &outcome {
            let keys = i64::try_from(published.keys.len());
            outside.keys.set(keys.unwrap_or(i64::MAX));
        }
        let next = match &outcome {
            // So early that the next answer is here in time.
            Ok(_) => (ended + GAP).max(started + refresh.saturating_sub(FETCH_TIMEOUT)),
            Err(_) => ended + GAP,
        };
        sender.send_modify(|state| {
            state.fetches += 1;
            state.last = Some((ended, outcome.as_ref().map(|_| ()).map_err(|error| *error)));
            if let Ok(published) = outcome {
                state.ever_loaded = true;
                state.published = published;
            }
        });
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(next) => break,
                // A wish from before this fetch ended is fulfilled by it.
                () = asked.notified() => if ended.elapsed() >= GAP { break },
                () = sender.closed() => return,
            }
        }
    }
}

/// The keys of a document; the same ones where it is the same. Keys that are not understood, or are for something else, are left out.
///
/// # Errors
/// Also where no key is left: an issuer that has lost its keys for a moment must not log everybody out.
fn read(
    document: Bytes,
    before: &Arc<Published>,
    taken: &[Algorithm],
) -> Result<Arc<Published>, FetchError> {
    #[derive(Deserialize)]
    struct Document {
        keys: Vec<serde_json::Value>,
    }
    if document == before.document && !before.keys.is_empty() {
        return Ok(before.clone());
    }
    let json = document.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&document);
    let Document { keys } = serde_json::from_slice(json).map_err(|_| FetchError::Decode)?;
    let found = keys.len();
    let keys: Vec<_> = keys
        .iter()
        .filter_map(|key| PublicKey::from_jwk(key, taken).ok())
        .collect();
    if keys.is_empty() {
        return Err(FetchError::NoKey);
    }
    tracing::info!(found, usable = keys.len(), "signing keys loaded");
    Ok(Arc::new(Published {
        keys,
        version: before.version + 1,
        document,
    }))
}

/// One line when fetching begins to fail, one when it works again.
fn report(before: &State, outcome: &Result<Arc<Published>, FetchError>) {
    let failed_before = before.last.is_some_and(|(_, outcome)| outcome.is_err());
    match outcome {
        Err(error) if !failed_before => {
            tracing::warn!(%error, "signing keys cannot be fetched; those known stay good");
        }
        Err(error) => tracing::debug!(%error, "signing keys cannot be fetched yet"),
        Ok(_) if failed_before => tracing::info!("signing keys can be fetched again"),
        Ok(_) => {}
    }
}
