//! A bounded cache in front of remote lookups: concurrent callers share one lookup, and none is cached across a change. Knows nothing of
//! what the facts mean.

#[cfg(test)]
mod tests;

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::{BuildHasher, Hash};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use parking_lot::Mutex;
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter};
use tokio::sync::watch;

use crate::context::inherit_identity;
use crate::telemetry::Metrics;

/// Weight of an entry without its memberships: key, times and the table's overhead, in units of one membership (8 bytes).
const ENTRY_WEIGHT: u64 = 16;
/// Few shards: an entry heavier than one shard is never cached, so each shard must fit the largest group worth caching.
const SHARDS: usize = 4;
/// Version counters. More of them only make it rarer that a change of one group invalidates another one.
const STRIPES: usize = 4096;

/// A value that is looked up and cached.
pub(crate) trait Fact: Clone + Send + Sync + 'static {
    /// The number of memberships in it.
    fn memberships(&self) -> usize {
        0
    }
    /// Whether it can never change.
    fn is_final(&self) -> bool {
        false
    }
}

/// The key of a fact.
pub(crate) trait CacheKey: Hash + Eq + Clone + Send + Sync + 'static {
    /// The id whose changes invalidate the fact; all keys about one id share it.
    fn invalidation_id(&self) -> &str;
}

#[derive(Clone)]
struct Entry<V> {
    value: V,
    /// The key's version when the lookup began.
    version: u64,
    /// `None` for no expiry.
    until: Option<Instant>,
}

#[derive(Clone)]
struct MembershipWeight;

impl<K, V: Fact> Weighter<K, Entry<V>> for MembershipWeight {
    fn weight(&self, _key: &K, entry: &Entry<V>) -> u64 {
        ENTRY_WEIGHT + entry.value.memberships() as u64
    }
}

/// Version counters of ids. Their number is fixed to bound the memory, so ids share them by hash: a change of another id with the same
/// counter costs an extra lookup, but is never wrong.
struct Versions {
    stripes: Box<[AtomicU64]>,
    hasher: DefaultHashBuilder,
}

impl Versions {
    fn of(&self, id: &str) -> &AtomicU64 {
        let hash = usize::try_from(self.hasher.hash_one(id) % STRIPES as u64).unwrap_or(0);
        &self.stripes[hash]
    }
}

type Outcome<V, E> = Option<Result<V, E>>;

/// A lookup in progress.
struct Flight<V, E> {
    version: u64,
    outcome: watch::Receiver<Outcome<V, E>>,
}

/// The cache of one kind of fact.
pub(crate) struct FactCache<K, V, E> {
    /// The label in metrics.
    name: &'static str,
    /// How long a fact is cached, counted from the start of its lookup.
    ttl: Duration,
    entries: Cache<K, Entry<V>, MembershipWeight>,
    /// The lookups in progress.
    flights: Mutex<HashMap<K, Flight<V, E>>>,
    versions: Versions,
    /// The error of a lookup that ended without an answer (a panic, or the runtime's shutdown).
    lost: E,
    metrics: Arc<Metrics>,
}

impl<K, V, E> FactCache<K, V, E>
where
    K: CacheKey,
    V: Fact,
    E: Clone + Send + Sync + 'static,
{
    /// Caches at most `memberships` memberships (and entries, each counted as sixteen) for `ttl`.
    pub(crate) fn new(
        name: &'static str,
        ttl: Duration,
        memberships: usize,
        lost: E,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        let capacity = memberships as u64;
        // `build` fails only for missing options, and all are set here.
        let entries = match OptionsBuilder::new()
            .shards(SHARDS)
            .estimated_items_capacity(memberships / 32)
            .weight_capacity(capacity)
            .build()
        {
            Ok(options) => Cache::with_options(
                options,
                MembershipWeight,
                DefaultHashBuilder::default(),
                DefaultLifecycle::default(),
            ),
            Err(_) => Cache::with_weighter(memberships / 32, capacity, MembershipWeight),
        };
        Arc::new(Self {
            name,
            ttl,
            entries,
            flights: Mutex::default(),
            versions: Versions {
                stripes: (0..STRIPES).map(|_| AtomicU64::new(0)).collect(),
                hasher: DefaultHashBuilder::default(),
            },
            lost,
            metrics,
        })
    }

    /// The fact for `key`: cached, or of the lookup in progress, or of a new one by `look_up`.
    ///
    /// The lookup runs in its own task, with the request id of the caller that started it, so a caller that disconnects does not cancel it
    /// for the others. Its failure is returned to all waiting callers and is not cached.
    pub(crate) async fn get<F>(
        self: &Arc<Self>,
        key: &K,
        look_up: impl FnOnce() -> F,
    ) -> Result<V, E>
    where
        F: Future<Output = Result<V, E>> + Send + 'static,
    {
        let cached = self.cached(key);
        self.metrics.cache_looked_up(self.name, cached.is_some());
        if let Some(value) = cached {
            return Ok(value);
        }
        let mut outcome = self.join_or_start(key, look_up);
        match outcome.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone().unwrap_or_else(|| Err(self.lost.clone())),
            Err(_) => Err(self.lost.clone()),
        }
    }

    /// The facts for the keys with these texts, which are their own invalidation ids, in the same order: cached ones, and for the others those
    /// of one lookup, which gets their keys and returns as many facts in the same order. Nothing is cached where it fails. It is not shared
    /// with other callers, and ends with this one. `None` where `key` makes no key of a text.
    pub(crate) async fn get_all<F>(
        &self,
        texts: &[&str],
        key: impl Fn(&str) -> Option<K>,
        look_up: impl AsyncFnOnce(&[K]) -> Result<Vec<V>, F>,
    ) -> Result<Vec<Option<V>>, F>
    where
        K: Borrow<str>,
    {
        let now = Instant::now();
        let cached = |text: &&str| self.valid(self.entries.get(*text)?, text, now);
        let mut all: Vec<Option<V>> = texts.iter().map(cached).collect();
        let hits = all.iter().flatten().count() as u64;
        let misses = texts.len() as u64 - hits;
        self.metrics.cache_lookups(self.name, true, hits);
        self.metrics.cache_lookups(self.name, false, misses);
        let missing = (0..).zip(texts).zip(&all);
        let missing = missing.filter(|(_, cached)| cached.is_none());
        let missing = missing.filter_map(|((index, text), _)| Some((index, key(text)?)));
        let (indices, keys): (Vec<usize>, Vec<K>) = missing.unzip();
        if !keys.is_empty() {
            let versions: Vec<u64> = keys.iter().map(|key| self.version(key)).collect();
            let found = look_up(&keys).await?;
            for (((index, key), version), value) in
                indices.into_iter().zip(&keys).zip(versions).zip(found)
            {
                if self.version(key) == version {
                    self.store(key, value.clone(), version, now);
                }
                all[index] = Some(value);
            }
        }
        Ok(all)
    }

    /// Its label in metrics, and the number of cached facts.
    pub(crate) fn size(&self) -> (&'static str, usize) {
        (self.name, self.entries.len())
    }

    /// The fact for `key` where it is cached and still valid.
    pub(super) fn cached(&self, key: &K) -> Option<V> {
        let entry = self.entries.get(key)?;
        self.valid(entry, key.invalidation_id(), Instant::now())
    }

    /// The fact of an entry, where that is still valid for the id.
    fn valid(&self, entry: Entry<V>, id: &str, now: Instant) -> Option<V> {
        let is_current = |until| now < until && entry.version == self.version_of(id);
        entry.until.is_none_or(is_current).then_some(entry.value)
    }

    /// Invalidates all facts with this id: those of lookups that ended or began before this call are not used for later callers. Final facts
    /// stay.
    pub(crate) fn invalidate(&self, id: &str) {
        self.versions.of(id).fetch_add(1, Ordering::SeqCst);
    }

    /// Stores `value` as the fact for `key`, without a lookup.
    pub(super) fn set(&self, key: &K, value: V) {
        self.invalidate(key.invalidation_id());
        self.store(key, value, self.version(key), Instant::now());
    }

    fn version(&self, key: &K) -> u64 {
        self.version_of(key.invalidation_id())
    }

    /// A version that changes with every change of this id.
    pub(super) fn version_of(&self, id: &str) -> u64 {
        self.versions.of(id).load(Ordering::SeqCst)
    }

    fn store(&self, key: &K, value: V, version: u64, began: Instant) {
        let until = (!value.is_final()).then(|| began + self.ttl);
        let entry = Entry {
            value,
            version,
            until,
        };
        self.entries.insert(key.clone(), entry);
    }

    fn join_or_start<F>(
        self: &Arc<Self>,
        key: &K,
        look_up: impl FnOnce() -> F,
    ) -> watch::Receiver<Outcome<V, E>>
    where
        F: Future<Output = Result<V, E>> + Send + 'static,
    {
        let mut flights = self.flights.lock();
        // A lookup may have ended between the first check and the lock.
        if let Some(value) = self.cached(key) {
            return watch::channel(Some(Ok(value))).1;
        }
        let version = self.version(key);
        if let Some(flight) = flights.get(key)
            && flight.version == version
        {
            return flight.outcome.clone();
        }
        let look_up = AssertUnwindSafe(look_up()).catch_unwind();
        let (sender, outcome) = watch::channel(None);
        let waiting = outcome.clone();
        let flight = Flight { version, outcome };
        // A lookup that began before a change serves only the callers that wait for it already.
        flights.insert(key.clone(), flight);
        drop(flights);
        let (cache, key) = (Arc::clone(self), key.clone());
        tokio::spawn(inherit_identity(async move {
            let began = Instant::now();
            let result = look_up.await;
            let result = result.unwrap_or_else(|_| Err(cache.lost.clone()));
            // A fact is not cached if its id changed meanwhile. A change right after this check does no harm, since the entry carries its
            // version.
            if let Ok(value) = &result
                && cache.version(&key) == version
            {
                cache.store(&key, value.clone(), version, began);
            }
            // Removed first, so that a failure reaches only the callers that waited for it. One that began after a change stays.
            let mut flights = cache.flights.lock();
            if flights
                .get(&key)
                .is_some_and(|flight| flight.version == version)
            {
                flights.remove(&key);
            }
            drop(flights);
            sender.send_replace(Some(result));
        }));
        waiting
    }
}
