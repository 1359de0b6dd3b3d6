//! A map behind many small locks, and counts in one. The keys are keyed hashes, so that clients cannot construct keys that share an entry.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

/// Number of locks, so that cores rarely contend.
pub(super) const SHARDS: usize = 64;

/// Values by the hash of their key.
pub(super) type Shard<V> = HashMap<u64, V, foldhash::fast::RandomState>;

/// Values by key.
pub(super) struct ShardedMap<V> {
    shards: [Mutex<Shard<V>>; SHARDS],
    hasher: RandomState,
}

impl<V> Default for ShardedMap<V> {
    fn default() -> Self {
        Self {
            shards: std::array::from_fn(|_| Mutex::default()),
            hasher: RandomState::new(),
        }
    }
}

impl<V> ShardedMap<V> {
    /// The key's hash, and the locked part of the map that has its value.
    pub(super) fn lock(&self, key: impl Hash) -> (u64, MutexGuard<'_, Shard<V>>) {
        let hash = self.hasher.hash_one(key);
        (hash, self.lock_hashed(hash))
    }

    fn lock_hashed(&self, hash: u64) -> MutexGuard<'_, Shard<V>> {
        self.shards[(hash >> 32) as usize % SHARDS].lock()
    }

    /// Removes all other values and frees their memory.
    pub(super) fn retain(&self, keep: impl Fn(&V) -> bool) {
        for shard in &self.shards {
            let mut shard = shard.lock();
            shard.retain(|_, value| keep(value));
            if shard.capacity() > 4 * shard.len() {
                shard.shrink_to_fit();
            }
        }
    }

    /// The number of values.
    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    /// How many values fit into the memory it has.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        let shards = self.shards.iter();
        shards.map(|shard| shard.lock().capacity()).sum()
    }
}

/// Counts by key; keeps only keys with a count.
#[derive(Default)]
pub(super) struct Counts(ShardedMap<usize>);

/// One of a key's count, until it is dropped.
pub struct Permit {
    counts: Arc<Counts>,
    hash: u64,
}

impl Counts {
    /// A permit, unless the key has `max` already.
    pub(super) fn try_acquire(self: &Arc<Self>, key: impl Hash, max: usize) -> Option<Permit> {
        let (hash, mut shard) = self.0.lock(key);
        let count = shard.entry(hash).or_default();
        if *count >= max {
            return None;
        }
        *count += 1;
        let counts = self.clone();
        Some(Permit { counts, hash })
    }

    /// The number of keys.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut shard = self.counts.0.lock_hashed(self.hash);
        if let Some(count) = shard.get_mut(&self.hash) {
            *count -= 1;
            if *count == 0 {
                shard.remove(&self.hash);
            }
        }
    }
}
