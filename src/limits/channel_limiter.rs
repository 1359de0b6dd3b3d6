//! Limits the requests in progress for one channel, so that a channel whose node hangs, or which is very busy, cannot use up the gateway's
//! capacity. Knows nothing of what the requests do.

use std::sync::Arc;

use prometheus_client::metrics::counter::Counter;

use super::sharded_map::Counts;
pub use super::sharded_map::Permit;
use crate::domain::ConversationKey;

/// Concurrent requests for one channel, those that wait for its lock included; a batch counts once for each of its channels. A quarter
/// of the gateway's default limit.
const MAX_PER_CHANNEL: usize = 512;

/// Counts requests in progress by channel and refuses those above the limit.
pub struct ChannelLimiter {
    counts: Arc<Counts>,
    refusals: Counter,
}

impl ChannelLimiter {
    /// Creates an empty limiter. Refusals are counted in `refusals`.
    pub fn new(refusals: Counter) -> Arc<Self> {
        let counts = Arc::default();
        Arc::new(Self { counts, refusals })
    }

    /// A permit, unless the channel has [`MAX_PER_CHANNEL`] already. Acquire it before any lookup, since a lookup may hang too.
    pub fn try_acquire(&self, conversation: &ConversationKey) -> Option<Permit> {
        let permit = self.counts.try_acquire(conversation, MAX_PER_CHANNEL);
        if permit.is_none() {
            self.refusals.inc();
        }
        permit
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Channel, ChannelId, Uid};
    use crate::limits::sharded_map::SHARDS;

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
        // Enough channels that some share a lock with the full one.
        for other in 0..10 * SHARDS {
            assert!(limiter.try_acquire(&key(&other.to_string())).is_some());
        }
        permits.pop();
        assert!(limiter.try_acquire(&key("hot")).is_some());
        drop(permits);
        assert_eq!(limiter.counts.len(), 0, "idle channels are not kept");
    }
}
