//! One operation on a channel at a time. Remembers only channels that somebody works on or waits for.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;

use crate::domain::ChannelId;

type Locks = Mutex<HashMap<ChannelId, Arc<tokio::sync::Mutex<()>>>>;

/// Whose turn it is, channel by channel.
#[derive(Default)]
pub(super) struct Turns {
    locks: Arc<Locks>,
}

/// The channel is its holder's until this is dropped.
pub(super) struct Turn {
    // Given back before the place is given up: fields are dropped in this order.
    _held: OwnedMutexGuard<()>,
    _place: Place,
}

/// A place in a channel's queue, given up when its future is dropped too.
struct Place {
    locks: Arc<Locks>,
    id: ChannelId,
    lock: Option<Arc<tokio::sync::Mutex<()>>>,
}

impl Turns {
    /// Waits, first come first served, until nobody else works on the channel.
    pub(super) async fn wait_for(&self, id: &ChannelId) -> Turn {
        let lock = self.locks.lock().entry(id.clone()).or_default().clone();
        let place = Place {
            locks: self.locks.clone(),
            id: id.clone(),
            lock: Some(lock.clone()),
        };
        let held = lock.lock_owned().await;
        Turn {
            _held: held,
            _place: place,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut locks = self.locks.lock();
        self.lock = None;
        // Clones are only made under the map's lock, so the map's own one being the last means that nobody is left.
        if locks
            .get(&self.id)
            .is_some_and(|lock| Arc::strong_count(lock) == 1)
        {
            locks.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn id(text: &str) -> ChannelId {
        ChannelId::parse(text, 255).unwrap()
    }

    #[tokio::test]
    async fn one_at_a_time_and_nothing_is_remembered() {
        let turns = Turns::default();
        let first = turns.wait_for(&id("g")).await;
        let other = turns.wait_for(&id("h")).await;
        let waited =
            tokio::time::timeout(Duration::from_millis(20), turns.wait_for(&id("g"))).await;
        assert!(waited.is_err());
        assert_eq!(turns.locks.lock().len(), 2);
        drop(first);
        drop(turns.wait_for(&id("g")).await);
        drop(other);
        assert!(turns.locks.lock().is_empty());
    }
}
