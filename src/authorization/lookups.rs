//! A bounded cache in front of look-ups that take a call: one look-up for many who wait, none kept across a change. Knows
//! nothing of what the facts mean.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter};
use tokio::sync::watch;

use crate::telemetry::Metrics;
use crate::wukongim::begun_by_this_request;

/// What an entry weighs beside its memberships: key, times and the table's own share, in units of one membership (8 bytes).
const ENTRY_WEIGHT: u64 = 16;
/// Few shards: a group heavier than one shard is never kept, so each must hold the largest group that is worth keeping.
const SHARDS: usize = 4;
/// Counters of changes. More of them only make it rarer that a change of one group costs another one a look-up.
const STRIPES: usize = 4096;

/// Something that is looked up and kept.
pub(super) trait Fact: Clone + Send + Sync + 'static {
    /// How many memberships it holds.
    fn memberships(&self) -> usize;
    /// Whether it will be true for ever.
    fn is_final(&self) -> bool {
        false
    }
}

/// What a look-up is about.
pub(super) trait Subject: Hash + Eq + Clone + Send + Sync + 'static {
    /// The id whose changes make the looked-up fact doubtful; different questions about one id share it.
    fn changes_with(&self) -> &str;
}

#[derive(Clone)]
struct Entry<V> {
    value: V,
    /// The subject's version when the look-up began.
    version: u64,
    /// `None`: for ever.
    until: Option<Instant>,
}

#[derive(Clone)]
struct ByMemberships;

impl<K, V: Fact> Weighter<K, Entry<V>> for ByMemberships {
    fn weight(&self, _key: &K, entry: &Entry<V>) -> u64 {
        ENTRY_WEIGHT + entry.value.memberships() as u64
    }
}

/// How often ids changed. A fixed number of counters, each shared by all ids with its hash, so that the memory is bounded: a
/// change of another id with the same counter looks like a change of this one, which costs a look-up and is never wrong.
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

/// A look-up that is under way.
struct Flight<V, E> {
    version: u64,
    outcome: watch::Receiver<Outcome<V, E>>,
}

/// The look-ups of one kind of fact.
pub(super) struct Lookups<K, V, E> {
    /// The label in metrics.
    name: &'static str,
    /// For how long an answer is believed, counted from the moment its look-up began.
    ttl: Duration,
    entries: Cache<K, Entry<V>, ByMemberships>,
    /// As many as there are look-ups under way.
    flights: Mutex<HashMap<K, Flight<V, E>>>,
    versions: Versions,
    /// What a look-up that ended without an answer (it panicked, or the runtime ends) is told as.
    lost: E,
    metrics: Arc<Metrics>,
}

impl<K, V, E> Lookups<K, V, E>
where
    K: Subject,
    V: Fact,
    E: Clone + Send + Sync + 'static,
{
    /// Keeps at most `memberships` memberships (and entries, each counted as sixteen) for `ttl`.
    pub(super) fn new(
        name: &'static str,
        ttl: Duration,
        memberships: usize,
        lost: E,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        let capacity = memberships as u64;
        // All that `build` could miss is set here.
        let entries = match OptionsBuilder::new()
            .shards(SHARDS)
            .estimated_items_capacity(memberships / 32)
            .weight_capacity(capacity)
            .build()
        {
            Ok(options) => Cache::with_options(
                options,
                ByMemberships,
                DefaultHashBuilder::default(),
                DefaultLifecycle::default(),
            ),
            Err(_) => Cache::with_weighter(memberships / 32, capacity, ByMemberships),
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

    /// The fact about `key`: kept, or of a look-up that is under way, or of the new one that `look_up` makes.
    ///
    /// The look-up runs on its own task, with the request id of the caller who began it: a caller who goes away takes no
    /// answer from the others. Its failure is told to all who wait and is not kept.
    pub(super) async fn get<F>(
        self: &Arc<Self>,
        key: &K,
        look_up: impl FnOnce() -> F,
    ) -> Result<V, E>
    where
        F: Future<Output = Result<V, E>> + Send + 'static,
    {
        let kept = self.kept(key);
        self.metrics.cache_looked_up(self.name, kept.is_some());
        if let Some(value) = kept {
            return Ok(value);
        }
        let mut outcome = match self.join_or_begin(key, look_up) {
            Ok(value) => return Ok(value),
            Err(outcome) => outcome,
        };
        match outcome.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone().unwrap_or_else(|| Err(self.lost.clone())),
            Err(_) => Err(self.lost.clone()),
        }
    }

    /// Its label in metrics, and how many facts are kept.
    pub(super) fn size(&self) -> (&'static str, usize) {
        (self.name, self.entries.len())
    }

    /// The fact about `key` where it is kept and still believed.
    pub(super) fn kept(&self, key: &K) -> Option<V> {
        let Entry {
            value,
            version,
            until,
        } = self.entries.get(key)?;
        let believed = match until {
            Some(until) => Instant::now() < until && version == self.version(key),
            None => true,
        };
        believed.then_some(value)
    }

    /// What was looked up about `key` until now, or is being looked up, is not served to anybody who asks after this call; nor
    /// is what the other keys about the same id have. What is true for ever stays.
    pub(super) fn changed(&self, key: &K) {
        // Before the removal: whoever finds the entry in between sees that it is of an older version.
        self.versions
            .of(key.changes_with())
            .fetch_add(1, Ordering::SeqCst);
        self.entries.remove_if(key, |entry| entry.until.is_some());
    }

    /// As [`Self::changed`] for every key about this id, without giving up their room.
    pub(super) fn all_changed(&self, id: &str) {
        self.versions.of(id).fetch_add(1, Ordering::SeqCst);
    }

    /// Takes `value` as the fact about `key` from now on, without a look-up.
    pub(super) fn set(&self, key: &K, value: V) {
        self.changed(key);
        self.keep(key, value, self.version(key), Instant::now());
    }

    fn version(&self, key: &K) -> u64 {
        self.version_of(key.changes_with())
    }

    /// A number that is another one after each change of this id.
    pub(super) fn version_of(&self, id: &str) -> u64 {
        self.versions.of(id).load(Ordering::SeqCst)
    }

    fn keep(&self, key: &K, value: V, version: u64, began: Instant) {
        let until = (!value.is_final()).then(|| began + self.ttl);
        let entry = Entry {
            value,
            version,
            until,
        };
        self.entries.insert(key.clone(), entry);
    }

    fn join_or_begin<F>(
        self: &Arc<Self>,
        key: &K,
        look_up: impl FnOnce() -> F,
    ) -> Result<V, watch::Receiver<Outcome<V, E>>>
    where
        F: Future<Output = Result<V, E>> + Send + 'static,
    {
        let mut flights = self.flights.lock();
        // A look-up may have ended between the first glance and the lock.
        if let Some(value) = self.kept(key) {
            return Ok(value);
        }
        let version = self.version(key);
        if let Some(flight) = flights.get(key)
            && flight.version == version
        {
            return Err(flight.outcome.clone());
        }
        let (sender, outcome) = watch::channel(None);
        let flight = Flight {
            version,
            outcome: outcome.clone(),
        };
        // One that began before a change stays with those who waited for it already.
        flights.insert(key.clone(), flight);
        drop(flights);
        let landing = Landing {
            lookups: Arc::clone(self),
            key: key.clone(),
            sender,
        };
        let work = landing.carry(look_up(), version);
        tokio::spawn(begun_by_this_request(work));
        Err(outcome)
    }
}

/// The end of a look-up: takes it off the list of those under way, however it ends.
struct Landing<K: Subject, V: Fact, E: Clone + Send + Sync + 'static> {
    lookups: Arc<Lookups<K, V, E>>,
    key: K,
    sender: watch::Sender<Outcome<V, E>>,
}

impl<K: Subject, V: Fact, E: Clone + Send + Sync + 'static> Landing<K, V, E> {
    async fn carry(self, look_up: impl Future<Output = Result<V, E>>, version: u64) {
        let began = Instant::now();
        let result = look_up.await;
        // A change in between makes the answer useless to others. One right after this check does no harm either: the entry
        // bears the version it is of.
        if let Ok(value) = &result
            && self.lookups.version(&self.key) == version
        {
            self.lookups.keep(&self.key, value.clone(), version, began);
        }
        // First off the list: a failure is told to those who waited for it and to nobody else.
        self.take_off();
        self.sender.send_replace(Some(result));
    }

    fn take_off(&self) {
        let mut flights = self.lookups.flights.lock();
        if let Some(flight) = flights.get(&self.key)
            && flight.outcome.same_channel(&self.sender.subscribe())
        {
            flights.remove(&self.key);
        }
    }
}

impl<K: Subject, V: Fact, E: Clone + Send + Sync + 'static> Drop for Landing<K, V, E> {
    fn drop(&mut self) {
        self.take_off();
    }
}
