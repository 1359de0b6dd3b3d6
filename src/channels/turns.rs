//! One operation on a channel at a time, and not too many that wait for it. Remembers only channels that somebody works on or waits
//! for.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;

use crate::domain::ChannelId;

/// Operations on one channel that wait or run at the most.
const MOST: usize = 512;

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
    /// Waits, first come first served, until nobody else works on the channel; `None` where too many do that already.
    pub(super) async fn wait_for(&self, id: &ChannelId) -> Option<Turn> {
        let place = self.place(id)?;
        let lock = place.lock.clone()?;
        let held = lock.lock_owned().await;
        Some(Turn {
            _held: held,
            _place: place,
        })
    }

    fn place(&self, id: &ChannelId) -> Option<Place> {
        let mut locks = self.locks.lock();
        let lock = locks.entry(id.clone()).or_default();
        // The map has one, and each of the others two: for its place, and to wait with or to hold.
        if Arc::strong_count(lock) > 2 * MOST {
            return None;
        }
        Some(Place {
            locks: self.locks.clone(),
            id: id.clone(),
            lock: Some(lock.clone()),
        })
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

    /// A future that has begun to wait.
    fn waits<F: Future>(future: F) -> std::pin::Pin<Box<F>> {
        let mut future = Box::pin(future);
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(future.as_mut().poll(&mut context).is_pending());
        future
    }

    #[tokio::test]
    async fn one_at_a_time_and_nothing_is_remembered() {
        let turns = Turns::default();
        let first = turns.wait_for(&id("g")).await.unwrap();
        let other = turns.wait_for(&id("h")).await.unwrap();
        let waited =
            tokio::time::timeout(Duration::from_millis(20), turns.wait_for(&id("g"))).await;
        assert!(waited.is_err());
        assert_eq!(turns.locks.lock().len(), 2);
        drop(first);
        drop(turns.wait_for(&id("g")).await);
        drop(other);
        assert!(turns.locks.lock().is_empty());
    }

    #[tokio::test]
    async fn so_many_and_no_more_wait_for_one_channel() {
        let turns = Turns::default();
        let group = id("g");
        let first = turns.wait_for(&group).await.unwrap();
        let mut waiting: Vec<_> = (1..MOST).map(|_| waits(turns.wait_for(&group))).collect();
        assert!(turns.wait_for(&group).await.is_none());
        assert!(turns.wait_for(&id("h")).await.is_some());
        waiting.pop();
        drop(waits(turns.wait_for(&group)));
        drop((first, waiting));
        assert!(turns.wait_for(&group).await.is_some());
        assert!(turns.locks.lock().is_empty());
    }
}
