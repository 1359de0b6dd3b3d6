//! One operation on a key at a time, and not too many that wait for it. Remembers only keys that somebody holds or waits for.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;

/// Operations on one key that wait or run at the most.
const MAX_PER_KEY: usize = 512;

type Locks<K> = Mutex<HashMap<K, Arc<tokio::sync::Mutex<()>>>>;

/// A lock for each key.
pub struct KeyedLocks<K: Hash + Eq + Clone> {
    locks: Arc<Locks<K>>,
}

/// The key is its holder's until this is dropped.
pub struct KeyGuard<K: Hash + Eq + Clone> {
    // Released before the entry is given up: fields are dropped in this order.
    _held: OwnedMutexGuard<()>,
    _entry: Entry<K>,
}

/// A share of a key's entry, given up when its future is dropped too.
struct Entry<K: Hash + Eq + Clone> {
    locks: Arc<Locks<K>>,
    key: K,
    lock: Option<Arc<tokio::sync::Mutex<()>>>,
}

impl<K: Hash + Eq + Clone> Default for KeyedLocks<K> {
    fn default() -> Self {
        Self {
            locks: Arc::default(),
        }
    }
}

impl<K: Hash + Eq + Clone> KeyedLocks<K> {
    /// Waits, first come first served, until nobody else holds the key; `None` where 512 hold it or wait for it already.
    pub async fn lock(&self, key: &K) -> Option<KeyGuard<K>> {
        let entry = self.entry(key)?;
        let lock = entry.lock.clone()?;
        let held = lock.lock_owned().await;
        Some(KeyGuard {
            _held: held,
            _entry: entry,
        })
    }

    fn entry(&self, key: &K) -> Option<Entry<K>> {
        let mut locks = self.locks.lock();
        let lock = locks.entry(key.clone()).or_default();
        // The map has one clone, and each operation two: its entry's, and the one it waits with or holds.
        if Arc::strong_count(lock) > 2 * MAX_PER_KEY {
            return None;
        }
        Some(Entry {
            locks: self.locks.clone(),
            key: key.clone(),
            lock: Some(lock.clone()),
        })
    }
}

impl<K: Hash + Eq + Clone> Drop for Entry<K> {
    fn drop(&mut self) {
        let mut locks = self.locks.lock();
        self.lock = None;
        // Clones are only made under the map's lock, so the map's own one being the last means that nobody is left.
        if locks
            .get(&self.key)
            .is_some_and(|lock| Arc::strong_count(lock) == 1)
        {
            locks.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// A future that has begun to wait.
    fn waits<F: Future>(future: F) -> std::pin::Pin<Box<F>> {
        let mut future = Box::pin(future);
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(future.as_mut().poll(&mut context).is_pending());
        future
    }

    #[tokio::test]
    async fn one_at_a_time_and_nothing_is_remembered() {
        let locks = KeyedLocks::default();
        let first = locks.lock(&"g").await.unwrap();
        let other = locks.lock(&"h").await.unwrap();
        let waited = tokio::time::timeout(Duration::from_millis(20), locks.lock(&"g")).await;
        assert!(waited.is_err());
        assert_eq!(locks.locks.lock().len(), 2);
        drop(first);
        drop(locks.lock(&"g").await);
        drop(other);
        assert!(locks.locks.lock().is_empty());
    }

    #[tokio::test]
    async fn so_many_and_no_more_wait_for_one_key() {
        let locks = KeyedLocks::default();
        let first = locks.lock(&"g").await.unwrap();
        let mut waiting: Vec<_> = (1..MAX_PER_KEY).map(|_| waits(locks.lock(&"g"))).collect();
        assert!(locks.lock(&"g").await.is_none());
        assert!(locks.lock(&"h").await.is_some());
        waiting.pop();
        drop(waits(locks.lock(&"g")));
        drop((first, waiting));
        assert!(locks.lock(&"g").await.is_some());
        assert!(locks.locks.lock().is_empty());
    }
}
