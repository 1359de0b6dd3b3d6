//! Which group ids were deleted, by the store. Does not know the upstream. While the store is unavailable, ids count as not deleted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;

use super::fact_cache::{CacheKey, Fact, FactCache};
use crate::domain::ChannelId;
use crate::store::{Store, StoreError};
use crate::telemetry::Metrics;

/// The pause between two probes of a store that failed. Until one succeeds, no request waits for the store.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
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
    fn is_final(&self) -> bool {
        self.0
    }
}

type Query = dyn Fn(ChannelId) -> BoxFuture<'static, Result<bool, StoreError>> + Send + Sync;

/// The store's tombstones.
pub(super) struct Tombstones {
    facts: Arc<FactCache<ChannelId, Deleted, ()>>,
    store: Arc<GuardedStore>,
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
        Self::with_query(Box::new(query), ttl, entries, metrics)
    }

    fn with_query(query: Box<Query>, ttl: Duration, entries: usize, metrics: Arc<Metrics>) -> Self {
        let is_open = false.into();
        Self {
            facts: FactCache::new("tombstones", ttl, entries, (), metrics),
            store: Arc::new(GuardedStore { query, is_open }),
        }
    }

    /// As [`FactCache::size`].
    pub(super) fn size(&self) -> (&'static str, usize) {
        self.facts.size()
    }

    /// Whether the group was deleted; also `false` while the store is unavailable, so that membership alone decides.
    pub(super) async fn is_deleted(&self, group: &ChannelId) -> bool {
        if self.store.is_open.load(Ordering::Relaxed) && self.facts.cached(group).is_none() {
            return false;
        }
        let look_up = || Arc::clone(&self.store).is_deleted(group.clone());
        matches!(self.facts.get(group, look_up).await, Ok(Deleted(true)))
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
        self.facts.invalidate(group.as_str());
    }
}

/// The store behind a circuit breaker.
struct GuardedStore {
    /// Queries the store whether an id was deleted.
    query: Box<Query>,
    is_open: AtomicBool,
}

impl GuardedStore {
    async fn is_deleted(self: Arc<Self>, group: ChannelId) -> Result<Deleted, ()> {
        let answer = (self.query)(group.clone()).await;
        answer.map(Deleted).map_err(|error| {
            if !self.is_open.swap(true, Ordering::Relaxed) {
                tokio::spawn(self.probe(group, error));
            }
        })
    }

    /// Closes the breaker when the store answers again.
    async fn probe(self: Arc<Self>, group: ChannelId, mut error: StoreError) {
        let mut logged: Option<Instant> = None;
        loop {
            if logged.is_none_or(|logged| logged.elapsed() >= LOG_INTERVAL) {
                logged = Some(Instant::now());
                tracing::warn!(%error, "deleted channels cannot be looked up; only membership is checked");
            }
            tokio::time::sleep(PROBE_INTERVAL).await;
            match (self.query)(group.clone()).await {
                Ok(_) => break,
                Err(next) => error = next,
            }
        }
        self.is_open.store(false, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    const HANG: Duration = Duration::from_secs(2);

    fn group(id: usize) -> ChannelId {
        ChannelId::parse(&format!("g{id}"), 99).unwrap()
    }

    /// Tombstones over a store that hangs while the flag is set, and the number of its queries.
    fn over_a_scripted_store() -> (Tombstones, Arc<AtomicBool>, Arc<AtomicUsize>) {
        let (hangs, asked) = (
            Arc::new(AtomicBool::new(true)),
            Arc::<AtomicUsize>::default(),
        );
        let (hanging, queries) = (hangs.clone(), asked.clone());
        let query = move |_: ChannelId| -> BoxFuture<'static, _> {
            queries.fetch_add(1, Ordering::SeqCst);
            let hangs = hanging.load(Ordering::SeqCst);
            Box::pin(async move {
                if hangs {
                    // The store's own deadline.
                    tokio::time::sleep(HANG).await;
                    return Err(StoreError::Unavailable("no answer in time".into()));
                }
                Ok(true)
            })
        };
        let (ttl, metrics) = (Duration::from_mins(5), Arc::new(Metrics::new()));
        let tombstones = Tombstones::with_query(Box::new(query), ttl, 1000, metrics);
        (tombstones, hangs, asked)
    }

    #[tokio::test]
    async fn a_hanging_store_delays_only_the_requests_that_find_it_out() {
        let (tombstones, hangs, asked) = over_a_scripted_store();
        // The breaker is still closed: this call waits for the store's own deadline.
        assert!(!tombstones.is_deleted(&group(0)).await);
        // Longer than a probe takes to begin, so that requests meet one in progress as well.
        let began = Instant::now();
        let mut slowest = Duration::ZERO;
        while began.elapsed() < PROBE_INTERVAL + HANG / 2 {
            for id in 0..100 {
                let began = Instant::now();
                assert!(!tombstones.is_deleted(&group(id)).await);
                slowest = slowest.max(began.elapsed());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(slowest < HANG / 2, "{slowest:?}");
        assert_eq!(asked.load(Ordering::SeqCst), 2, "one probe");
        // It recovers by itself.
        hangs.store(false, Ordering::SeqCst);
        while !tombstones.is_deleted(&group(7)).await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(tombstones.is_deleted(&group(8)).await);
    }
}
