//! Which group ids were deleted, by the store. Does not know the upstream. While the store is unavailable, ids count as not deleted.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use parking_lot::Mutex;

use super::fact_cache::{CacheKey, Fact, FactCache};
use crate::domain::ChannelId;
use crate::store::{Store, StoreError};
use crate::telemetry::Metrics;

/// How long a request waits for the store, so that a slow store does not delay messages. The lookup itself continues.
const LOOKUP_TIMEOUT: Duration = Duration::from_millis(500);
/// After a failure the breaker stays open for this time, then lets one probe at a time through until the store answers.
const OPEN_DURATION: Duration = Duration::from_secs(1);
/// How often an ongoing outage is logged.
const LOG_INTERVAL: Duration = Duration::from_secs(30);

impl CacheKey for ChannelId {
    fn invalidation_id(&self) -> &str {
        self.as_str()
    }
}

/// Whether an id was deleted. Ids are never reused, so `true` is cached without expiry and `false` with the usual TTL.
#[derive(Debug, Clone, Copy)]
struct Deleted(bool);

impl Fact for Deleted {
    fn memberships(&self) -> usize {
        0
    }

    fn is_final(&self) -> bool {
        self.0
    }
}

/// The store did not answer.
#[derive(Debug, Clone, Copy)]
struct Unknown;

type Query = dyn Fn(ChannelId) -> BoxFuture<'static, Result<bool, StoreError>> + Send + Sync;

/// The store's tombstones.
pub(super) struct Tombstones {
    /// Queries the store whether an id was deleted.
    query: Arc<Query>,
    facts: Arc<FactCache<ChannelId, Deleted, Unknown>>,
    breaker: Arc<StoreBreaker>,
}

impl Tombstones {
    pub(super) fn new(
        store: Arc<Store>,
        ttl: Duration,
        entries: usize,
        metrics: Arc<Metrics>,
    ) -> Self {
        let query = move |group: ChannelId| -> BoxFuture<'static, _> {
            let store = Arc::clone(&store);
            Box::pin(async move {
                let record = store.channel(&group).await?;
                Ok(record.is_some_and(|record| record.is_deleted()))
            })
        };
        Self::with_query(Arc::new(query), ttl, entries, metrics)
    }

    fn with_query(query: Arc<Query>, ttl: Duration, entries: usize, metrics: Arc<Metrics>) -> Self {
        Self {
            query,
            facts: FactCache::new("tombstones", ttl, entries, Unknown, metrics),
            breaker: Arc::default(),
        }
    }

    /// As [`FactCache::size`].
    pub(super) fn size(&self) -> (&'static str, usize) {
        self.facts.size()
    }

    /// Whether the group was deleted; also `false` while the store is unavailable, so that membership alone decides.
    pub(super) async fn is_deleted(&self, group: &ChannelId) -> bool {
        let mut _probe = None;
        if self.facts.cached(group).is_none() {
            match self.breaker.try_pass() {
                Pass::Allowed => {}
                Pass::Probe(probe) => _probe = Some(probe),
                Pass::Refused => return false,
            }
        }
        let deleted = self.facts.get(group, || {
            let (asked, breaker) = ((self.query)(group.clone()), Arc::clone(&self.breaker));
            async move {
                match asked.await {
                    Ok(deleted) => {
                        breaker.record_success();
                        Ok(Deleted(deleted))
                    }
                    Err(error) => {
                        breaker.record_failure(&error);
                        Err(Unknown)
                    }
                }
            }
        });
        match tokio::time::timeout(LOOKUP_TIMEOUT, deleted).await {
            Ok(deleted) => matches!(deleted, Ok(Deleted(true))),
            Err(late) => {
                self.breaker.record_failure(&late);
                false
            }
        }
    }

    /// Whether the cache has the group as deleted.
    pub(super) fn is_known_deleted(&self, group: &ChannelId) -> bool {
        matches!(self.facts.cached(group), Some(Deleted(true)))
    }

    /// The group has just been deleted.
    pub(super) fn add(&self, group: &ChannelId) {
        self.facts.set(group, Deleted(true));
    }

    /// The group may have been deleted just now: a cached "not deleted" is discarded.
    pub(super) fn invalidate(&self, group: &ChannelId) {
        self.facts.invalidate(group);
    }
}

/// A circuit breaker for the store.
#[derive(Default)]
struct StoreBreaker(Mutex<BreakerState>);

#[derive(Default)]
struct BreakerState {
    /// The last failure; `None` while the breaker is closed.
    failed: Option<Instant>,
    logged: Option<Instant>,
    probing: bool,
}

/// Whether a request may query the store.
enum Pass<'a> {
    /// The breaker is closed.
    Allowed,
    /// This request alone, as a probe.
    Probe(Probe<'a>),
    /// The breaker is open.
    Refused,
}

struct Probe<'a>(&'a StoreBreaker);

impl Drop for Probe<'_> {
    fn drop(&mut self) {
        self.0.0.lock().probing = false;
    }
}

impl StoreBreaker {
    fn try_pass(&self) -> Pass<'_> {
        let mut state = self.0.lock();
        match state.failed {
            None => Pass::Allowed,
            Some(failed) if state.probing || failed.elapsed() < OPEN_DURATION => Pass::Refused,
            Some(_) => {
                state.probing = true;
                Pass::Probe(Probe(self))
            }
        }
    }

    fn record_success(&self) {
        self.0.lock().failed = None;
    }

    fn record_failure(&self, error: &dyn std::error::Error) {
        let now = Instant::now();
        let mut state = self.0.lock();
        state.failed = Some(now);
        if state
            .logged
            .is_none_or(|logged| logged.elapsed() >= LOG_INTERVAL)
        {
            state.logged = Some(now);
            drop(state);
            tracing::warn!(%error, "deleted channels cannot be looked up; only membership is checked");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    const TTL: Duration = Duration::from_mins(5);

    fn group(id: usize) -> ChannelId {
        ChannelId::parse(&format!("g{id}"), 99).unwrap()
    }

    /// Tombstones over a store that hangs while the flag is set, and the number of its queries.
    fn over_a_scripted_store() -> (Tombstones, Arc<Mutex<bool>>, Arc<AtomicUsize>) {
        let (hangs, asked) = (Arc::new(Mutex::new(true)), Arc::new(AtomicUsize::new(0)));
        let query = {
            let (hangs, asked) = (hangs.clone(), asked.clone());
            move |_: ChannelId| -> BoxFuture<'static, _> {
                asked.fetch_add(1, Ordering::SeqCst);
                let hangs = *hangs.lock();
                Box::pin(async move {
                    if hangs {
                        // The store's own deadline.
                        tokio::time::sleep(Duration::from_secs(2)).await;
                        return Err(StoreError::Unavailable("no answer in time".into()));
                    }
                    Ok(true)
                })
            }
        };
        let tombstones =
            Tombstones::with_query(Arc::new(query), TTL, 1000, Arc::new(Metrics::new()));
        (tombstones, hangs, asked)
    }

    #[tokio::test]
    async fn a_hanging_store_delays_one_request_at_a_time_and_briefly() {
        let (tombstones, hangs, asked) = over_a_scripted_store();
        // The breaker is still closed: this call waits, but not until the store's own deadline.
        let began = Instant::now();
        assert!(!tombstones.is_deleted(&group(0)).await);
        assert!(began.elapsed() < Duration::from_secs(2));
        for id in 0..100 {
            assert!(!tombstones.is_deleted(&group(id)).await);
        }
        assert_eq!(
            asked.load(Ordering::SeqCst),
            1,
            "the others are answered at once"
        );
        tokio::time::sleep(OPEN_DURATION).await;
        // One request probes; concurrent ones do not wait for it, not even for the same group.
        let ids: Vec<ChannelId> = (0..100).map(|id| group(1 + id % 2)).collect();
        let all = ids.iter().map(|id| tombstones.is_deleted(id));
        let answers = futures_util::future::join_all(all).await;
        assert!(answers.iter().all(|deleted| !deleted));
        assert_eq!(asked.load(Ordering::SeqCst), 2);
        // It recovers by itself.
        *hangs.lock() = false;
        tokio::time::sleep(OPEN_DURATION).await;
        assert!(tombstones.is_deleted(&group(7)).await);
        assert!(tombstones.is_deleted(&group(8)).await);
    }

    #[tokio::test]
    async fn a_cancelled_probe_lets_the_next_request_probe() {
        let breaker = StoreBreaker::default();
        breaker.record_failure(&StoreError::Unavailable("down".into()));
        assert!(matches!(breaker.try_pass(), Pass::Refused));
        tokio::time::sleep(OPEN_DURATION).await;
        let probe = breaker.try_pass();
        assert!(matches!(probe, Pass::Probe(_)));
        assert!(matches!(breaker.try_pass(), Pass::Refused));
        drop(probe);
        assert!(matches!(breaker.try_pass(), Pass::Probe(_)));
        breaker.record_success();
        assert!(matches!(breaker.try_pass(), Pass::Allowed));
    }
}
