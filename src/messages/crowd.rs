//! How many sends to one channel are under way: no channel may hold all the places the gateway has while its node hangs or it is
//! written to too fast. Knows nothing of what is sent.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use prometheus_client::metrics::counter::Counter;

use crate::domain::ConversationKey;

/// Sends, or batches, to one channel at the same time: a quarter of the requests that the gateway works on by default.
const MOST: u32 = 512;
/// Channels that share one of these by chance share its places, too.
const SLOTS: usize = 4096;

/// See the module.
pub(super) struct Crowd {
    slots: Box<[AtomicU32]>,
    hasher: RandomState,
    refusals: Counter,
}

/// A place among the sends to one channel, until it is dropped.
pub(super) struct Place(Arc<Crowd>, usize);

impl Crowd {
    /// Nobody is there. Refusals are counted in `refusals`.
    pub(super) fn new(refusals: Counter) -> Arc<Self> {
        Arc::new(Self {
            slots: (0..SLOTS).map(|_| AtomicU32::new(0)).collect(),
            hasher: RandomState::new(),
            refusals,
        })
    }

    /// A place, unless all of the channel's are taken.
    pub(super) fn enter(self: &Arc<Self>, conversation: &ConversationKey) -> Option<Place> {
        let hash = self.hasher.hash_one(conversation);
        let slot = usize::try_from(hash % SLOTS as u64).unwrap_or(0);
        // Counted before it is looked at, so that two who come together cannot both be the last.
        let place = Place(self.clone(), slot);
        if self.slots[slot].fetch_add(1, Relaxed) < MOST {
            return Some(place);
        }
        self.refusals.inc();
        None
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.slots[self.1].fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Channel, ChannelId, Uid};

    #[test]
    fn a_channel_that_is_full_takes_no_place_of_another() {
        let key = |id: &str| {
            let channel = Channel::Group(ChannelId::parse(id, 9).unwrap());
            ConversationKey::of(&Uid::parse("a", 9).unwrap(), &channel)
        };
        let crowd = Crowd::new(Counter::default());
        let mut places: Vec<Place> = (0..MOST)
            .map(|_| crowd.enter(&key("hot")).unwrap())
            .collect();
        assert!(crowd.enter(&key("hot")).is_none());
        assert_eq!(crowd.refusals.get(), 1);
        // One of them at the most shares the hot one's places.
        let others = ["a", "b", "c"].map(|id| crowd.enter(&key(id)).is_some());
        assert!(others.iter().filter(|entered| **entered).count() >= 2);
        places.pop();
        assert!(crowd.enter(&key("hot")).is_some());
    }
}
