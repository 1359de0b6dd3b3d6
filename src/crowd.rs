//! How many requests about one channel are under way: none may hold all the places the gateway has while its node hangs or too many
//! write or read there. Knows nothing of what they do.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;

use crate::domain::ConversationKey;

/// Requests about one channel at the same time, a batch for each of its channels: a quarter of those that the gateway works on by
/// default.
const MOST: u32 = 512;
/// Locks, so that cores seldom wait for each other.
const SHARDS: usize = 64;

/// How many there are by a hash of the channel that nobody can foretell; only of those where somebody is.
type Shard = Mutex<HashMap<u64, u32, foldhash::fast::RandomState>>;

/// See the module.
pub struct Crowd {
    shards: Box<[Shard]>,
    hasher: RandomState,
    refusals: Counter,
}

/// A place among the requests about one channel, until it is dropped.
pub struct Place {
    crowd: Arc<Crowd>,
    hash: u64,
}

impl Crowd {
    /// Nobody is there. Refusals are counted in `refusals`.
    pub fn new(refusals: Counter) -> Arc<Self> {
        Arc::new(Self {
            shards: (0..SHARDS).map(|_| Shard::default()).collect(),
            hasher: RandomState::new(),
            refusals,
        })
    }

    /// A place, unless all of the channel's are taken. To be asked for before anything is looked up, since that may hang, too.
    pub fn enter(self: &Arc<Self>, conversation: &ConversationKey) -> Option<Place> {
        let hash = self.hasher.hash_one(conversation);
        let mut shard = self.shard(hash).lock();
        let count = shard.entry(hash).or_default();
        if *count >= MOST {
            self.refusals.inc();
            return None;
        }
        *count += 1;
        let crowd = self.clone();
        Some(Place { crowd, hash })
    }

    fn shard(&self, hash: u64) -> &Shard {
        let place = usize::try_from(hash % SHARDS as u64).unwrap_or(0);
        &self.shards[place]
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut shard = self.crowd.shard(self.hash).lock();
        if let Some(count) = shard.get_mut(&self.hash) {
            *count -= 1;
            if *count == 0 {
                shard.remove(&self.hash);
            }
        }
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
        // Enough others for some to share a lock with it.
        for other in 0..10 * SHARDS {
            assert!(crowd.enter(&key(&other.to_string())).is_some());
        }
        places.pop();
        assert!(crowd.enter(&key("hot")).is_some());
        drop(places);
        let left = |shard: &Shard| !shard.lock().is_empty();
        assert!(!crowd.shards.iter().any(left), "nothing is remembered");
    }
}
