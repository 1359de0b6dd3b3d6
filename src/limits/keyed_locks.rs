//! A lock per key. Keeps only locks that are held or awaited; who waits is bounded by the callers.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;

/// A lock for each key.
pub struct KeyedLocks<K>(Mutex<HashMap<K, Weak<tokio::sync::Mutex<()>>>>);

impl<K> Default for KeyedLocks<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Hash + Eq + Clone> KeyedLocks<K> {
    /// Acquires the key's lock in FIFO order.
    pub async fn lock(&self, key: &K) -> OwnedMutexGuard<()> {
        let lock = {
            let mut locks = self.0.lock();
            locks.retain(|_, lock| lock.strong_count() > 0);
            let known = locks.get(key).and_then(Weak::upgrade);
            known.unwrap_or_else(|| {
                let lock = Arc::default();
                locks.insert(key.clone(), Arc::downgrade(&lock));
                lock
            })
        };
        lock.lock_owned().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn a_key_is_locked_by_one_operation_and_unused_locks_are_removed() {
        let locks = KeyedLocks::default();
        let first = locks.lock(&"g").await;
        let other = locks.lock(&"h").await;
        let waited = tokio::time::timeout(Duration::from_millis(20), locks.lock(&"g")).await;
        assert!(waited.is_err());
        assert_eq!(locks.0.lock().len(), 2);
        drop(first);
        drop(locks.lock(&"g").await);
        drop(other);
        drop(locks.lock(&"i").await);
        assert_eq!(locks.0.lock().len(), 1, "the others are unused");
    }
}
