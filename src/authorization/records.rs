//! What the store has of groups, cached: whether they were deleted, and how they are shown. Does not know the upstream. For permissions,
//! while the store is unavailable, groups count as not deleted.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;

use super::fact_cache::{CacheKey, Fact, FactCache};
use crate::domain::{ChannelId, caps};
use crate::store::{ChannelRecord, Store, StoreError};
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

/// What is cached of a group's record; the default where it has none.
#[derive(Debug, Clone, Default)]
pub struct GroupRecord {
    /// Whether the group was deleted. Ids are never reused, so `true` is cached without expiry, and everything else with the usual TTL.
    pub is_deleted: bool,
    /// Its name.
    pub name: Option<Arc<str>>,
    /// Its avatar, an http(s) URL.
    pub avatar: Option<Arc<str>>,
}

impl GroupRecord {
    fn of(record: ChannelRecord) -> Self {
        let (is_deleted, is_live) = (record.is_deleted(), record.is_live());
        // A deleted group is not shown, and who has only claimed an id does not name the group that exists under it.
        let shown = |text: Option<String>| text.filter(|_| is_live).map(Arc::from);
        Self {
            is_deleted,
            name: shown(record.name),
            avatar: shown(record.avatar),
        }
    }

    fn deleted() -> Self {
        Self {
            is_deleted: true,
            ..Self::default()
        }
    }
}

impl Fact for GroupRecord {
    fn memberships(&self) -> usize {
        let texts = [&self.name, &self.avatar].into_iter().flatten();
        texts.map(|text| text.len().div_ceil(8)).sum()
    }

    fn is_final(&self) -> bool {
        self.is_deleted
    }
}

type Query = dyn Fn(ChannelId) -> BoxFuture<'static, Result<GroupRecord, StoreError>> + Send + Sync;

/// The store's records of groups.
pub(super) struct Records {
    facts: Arc<FactCache<ChannelId, GroupRecord, ()>>,
    store: Arc<GuardedStore>,
}

impl Records {
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
                Ok(record.map(GroupRecord::of).unwrap_or_default())
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
        let look_up = || Arc::clone(&self.store).record(group.clone());
        let record = self.facts.get(group, look_up).await;
        record.is_ok_and(|record| record.is_deleted)
    }

    /// The records of these groups, in the same order; those that are not cached by one query.
    pub(super) async fn of_all(
        &self,
        store: &Store,
        groups: &[&str],
    ) -> Result<Vec<GroupRecord>, StoreError> {
        let look_up = async |missing: &[ChannelId]| {
            let records = store.channels(missing).await?;
            let records = records
                .into_iter()
                .map(|record| (record.id.clone(), GroupRecord::of(record)));
            let mut records: HashMap<ChannelId, GroupRecord> = records.collect();
            let records = missing
                .iter()
                .map(|group| records.remove(group).unwrap_or_default());
            Ok(records.collect())
        };
        let id = |group: &str| ChannelId::parse(group, caps::ID_BYTES).ok();
        let records = self.facts.get_all(groups, id, look_up).await?;
        Ok(records.into_iter().map(Option::unwrap_or_default).collect())
    }

    /// Whether the cache has the group as deleted.
    pub(super) fn is_known_deleted(&self, group: &ChannelId) -> bool {
        let record = self.facts.cached(group);
        record.is_some_and(|record| record.is_deleted)
    }

    /// The group has just been deleted.
    pub(super) fn add(&self, group: &ChannelId) {
        self.facts.set(group, GroupRecord::deleted());
    }

    /// The group may have been deleted or renamed just now: what is cached of it is discarded, unless it is deleted.
    pub(super) fn invalidate(&self, group: &ChannelId) {
        self.facts.invalidate(group.as_str());
    }
}

/// The store behind a circuit breaker.
struct GuardedStore {
    /// Queries the store for a group's record.
    query: Box<Query>,
    is_open: AtomicBool,
}

impl GuardedStore {
    async fn record(self: Arc<Self>, group: ChannelId) -> Result<GroupRecord, ()> {
        let answer = (self.query)(group.clone()).await;
        answer.map_err(|error| {
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

    /// Records over a store that hangs while the flag is set, and the number of its queries.
    fn over_a_scripted_store() -> (Records, Arc<AtomicBool>, Arc<AtomicUsize>) {
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
                Ok(GroupRecord::deleted())
            })
        };
        let (ttl, metrics) = (Duration::from_mins(5), Arc::new(Metrics::new()));
        let records = Records::with_query(Box::new(query), ttl, 1000, metrics);
        (records, hangs, asked)
    }

    #[tokio::test]
    async fn a_hanging_store_delays_only_the_requests_that_find_it_out() {
        let (records, hangs, asked) = over_a_scripted_store();
        // The breaker is still closed: this call waits for the store's own deadline.
        assert!(!records.is_deleted(&group(0)).await);
        // Longer than a probe takes to begin, so that requests meet one in progress as well.
        let began = Instant::now();
        let mut slowest = Duration::ZERO;
        while began.elapsed() < PROBE_INTERVAL + HANG / 2 {
            for id in 0..100 {
                let began = Instant::now();
                assert!(!records.is_deleted(&group(id)).await);
                slowest = slowest.max(began.elapsed());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(slowest < HANG / 2, "{slowest:?}");
        assert_eq!(asked.load(Ordering::SeqCst), 2, "one probe");
        // It recovers by itself.
        hangs.store(false, Ordering::SeqCst);
        while !records.is_deleted(&group(7)).await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(records.is_deleted(&group(8)).await);
    }
}
