//! Limits the requests in progress for one channel, so that a channel whose node hangs, or which is very busy, cannot use up the gateway's
//! capacity. Knows nothing of what the requests do.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;

use crate::domain::ConversationKey;

/// Concurrent requests for one channel, those that wait for its lock included; a batch counts once for each of its channels. A quarter of the gateway's default limit.
const MAX_PER_CHANNEL: u32 = 512;
/// Number of locks, so that cores rarely contend.
const SHARDS: usize = 64;

/// Counts by a keyed hash of the channel, so that clients cannot construct collisions. Holds only channels with a request in progress.
type Shard = Mutex<HashMap<u64, u32, foldhash::fast::RandomState>>;

/// Counts requests in progress by channel and refuses those above the limit.
pub struct ChannelLimiter {
    shards: Box<[Shard]>,
    hasher: RandomState,
    refusals: Counter,
}

/// The right to work on one request for a channel; released when it is dropped.
pub struct Permit {
    limiter: Arc<ChannelLimiter>,
    hash: u64,
}

impl ChannelLimiter {
    /// Creates an empty limiter. Refusals are counted in `refusals`.
    pub fn new(refusals: Counter) -> Arc<Self> {
        Arc::new(Self {
            shards: (0..SHARDS).map(|_| Shard::default()).collect(),
            hasher: RandomState::new(),
            refusals,
        })
    }

    /// A permit, unless the channel has [`MAX_PER_CHANNEL`] already. Acquire it before any lookup, since a lookup may hang too.
    pub fn try_acquire(self: &Arc<Self>, conversation: &ConversationKey) -> Option<Permit> {
        let hash = self.hasher.hash_one(conversation);
        let mut shard = self.shard(hash).lock();
        let count = shard.entry(hash).or_default();
        if *count >= MAX_PER_CHANNEL {
            self.refusals.inc();
            return None;
        }
        *count += 1;
        let limiter = self.clone();
        Some(Permit { limiter, hash })
    }

    fn shard(&self, hash: u64) -> &Shard {
        let shard = usize::try_from(hash % SHARDS as u64).unwrap_or(0);
        &self.shards[shard]
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut shard = self.limiter.shard(self.hash).lock();
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
    fn a_full_channel_does_not_limit_another() {
        let key = |id: &str| {
            let channel = Channel::Group(ChannelId::parse(id, 9).unwrap());
            ConversationKey::of(&Uid::parse("a", 9).unwrap(), &channel)
        };
        let limiter = ChannelLimiter::new(Counter::default());
        let mut permits: Vec<Permit> = (0..MAX_PER_CHANNEL)
            .map(|_| limiter.try_acquire(&key("hot")).unwrap())
            .collect();
        assert!(limiter.try_acquire(&key("hot")).is_none());
        assert_eq!(limiter.refusals.get(), 1);
        // Enough channels that some share a shard with the full one.
        for other in 0..10 * SHARDS {
            assert!(limiter.try_acquire(&key(&other.to_string())).is_some());
        }
        permits.pop();
        assert!(limiter.try_acquire(&key("hot")).is_some());
        drop(permits);
        let in_use = |shard: &Shard| !shard.lock().is_empty();
        assert!(
            !limiter.shards.iter().any(in_use),
            "counts of idle channels are removed"
        );
    }
}
