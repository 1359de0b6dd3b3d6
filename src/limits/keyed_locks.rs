//! A lock per key with a bounded queue. Keeps only locks that are held or awaited.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;

/// Maximum operations on one key, waiting and running.
const MAX_PER_KEY: usize = 512;

type Locks<K> = Mutex<HashMap<K, Arc<tokio::sync::Mutex<()>>>>;

/// A lock for each key.
pub struct KeyedLocks<K: Hash + Eq + Clone> {
    locks: Arc<Locks<K>>,
}

/// Holds a key's lock until it is dropped.
pub struct KeyGuard<K: Hash + Eq + Clone> {
    // Fields are dropped in this order: the lock is released before the entry.
    _guard: OwnedMutexGuard<()>,
    _entry: Entry<K>,
}

/// A reference to a key's entry; released as well when the waiting future is dropped.
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
    /// Acquires the key's lock in FIFO order; `None` where [`MAX_PER_KEY`] operations hold or await it already.
    pub async fn lock(&self, key: &K) -> Option<KeyGuard<K>> {
        let entry = self.entry(key)?;
        let lock = entry.lock.clone()?;
        let guard = lock.lock_owned().await;
        Some(KeyGuard {
            _guard: guard,
            _entry: entry,
        })
    }

    fn entry(&self, key: &K) -> Option<Entry<K>> {
        let mut locks = self.locks.lock();
        let lock = locks.entry(key.clone()).or_default();
        // Counting references: the map has one, and each operation has two, one in its entry and one that waits for or holds the lock.
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
        // Clones are made only under the map's lock, so if only the map's own reference is left, the lock is unused.
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

    /// Polls a future once; it must be pending.
    fn poll_once<F: Future>(future: F) -> std::pin::Pin<Box<F>> {
        let mut future = Box::pin(future);
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(future.as_mut().poll(&mut context).is_pending());
        future
    }

    #[tokio::test]
    async fn a_key_is_locked_by_one_operation_and_unused_locks_are_removed() {
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
    async fn operations_waiting_for_one_key_are_bounded() {
        let locks = KeyedLocks::default();
        let first = locks.lock(&"g").await.unwrap();
        let mut queued: Vec<_> = (1..MAX_PER_KEY)
            .map(|_| poll_once(locks.lock(&"g")))
            .collect();
        assert!(locks.lock(&"g").await.is_none());
        assert!(locks.lock(&"h").await.is_some());
        queued.pop();
        drop(poll_once(locks.lock(&"g")));
        drop((first, queued));
        assert!(locks.lock(&"g").await.is_some());
        assert!(locks.locks.lock().is_empty());
    }
}
