//! Finds the channel that owns the log under a v2 storage key. v2 assigns a key's log to the first channel that accesses it, even by a read
//! (2.2.0 to 2.2.5, seen), and drops the messages of other channels with the same key. Keys are hashes of ids that users choose, so the
//! gateway checks a key before it accesses it, usually once per channel and process.

use std::hash::{BuildHasher, RandomState};

use quick_cache::sync::Cache;

use super::call::{Node, Policy};
use super::dialect::v2;
use super::{Client, Error};
use crate::domain::{Channel, ChannelId, ChannelType, Uid};

/// Maximum cached channels, about 50 bytes each.
const CACHE_CAPACITY: usize = 100_000;

/// What is known about a channel's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum LogObservation {
    /// A log exists under its key, so a read creates none.
    Exists,
    /// The log belongs to the channel itself.
    Own,
}

/// The cache of observations. A key that was unused, or another channel's, is not cached because that may change.
pub(super) struct LogObservations {
    seen: Cache<u128, LogObservation>,
    hashers: [RandomState; 2],
}

impl Default for LogObservations {
    fn default() -> Self {
        Self {
            seen: Cache::new(CACHE_CAPACITY),
            hashers: [RandomState::new(), RandomState::new()],
        }
    }
}

/// One channel's cache entry.
#[derive(Clone, Copy)]
pub(super) struct Entry<'a> {
    logs: &'a LogObservations,
    key: u128,
    pub(super) seen: Option<LogObservation>,
}

impl LogObservations {
    /// The entry of `channel`, as addressed by `user`.
    pub(super) fn entry(&self, user: &Uid, channel: &Channel) -> Entry<'_> {
        let (user, id) = (user.as_str(), channel.id());
        let ends = match channel {
            Channel::Group(_) => (None, id),
            Channel::Person(_) if user <= id => (Some(user), id),
            Channel::Person(_) => (Some(id), user),
        };
        let [high, low] = [0, 1].map(|half: usize| u128::from(self.hashers[half].hash_one(ends)));
        let key = high << 64 | low;
        let seen = self.seen.get(&key);
        Entry {
            logs: self,
            key,
            seen,
        }
    }
}

impl Entry<'_> {
    /// Stores the observation if it is stronger than the known one.
    pub(super) fn record(&self, seen: LogObservation) {
        if self.seen < Some(seen) {
            self.logs.seen.insert(self.key, seen);
        }
    }
}

impl Client {
    /// v2: whether the channel is known to own the log under its key.
    pub fn owns_log(&self, sender: &Uid, channel: &Channel) -> bool {
        self.logs.entry(sender, channel).seen == Some(LogObservation::Own)
    }

    /// v2: whether another channel owns the log under this key, so that messages would never be stored. `false` where the server cannot
    /// answer this call; messages are then sent as usual.
    ///
    /// # Errors
    /// Where no v2 node answers.
    pub async fn log_is_foreign(&self, sender: &Uid, channel: &Channel) -> Result<bool, Error> {
        let id = v2::stored_id(sender, channel.borrowed());
        let owner = self.log_owner(&id, channel.channel_type()).await?;
        if owner == Owner::Itself {
            self.logs.entry(sender, channel).record(LogObservation::Own);
        }
        Ok(owner == Owner::Another)
    }

    /// v2: whether there is no log under this channel's key, so that a read would create one. `false` where that is unknown.
    pub(super) async fn has_no_log(
        &self,
        node: &Node,
        reader: &Uid,
        channel: &Channel,
    ) -> Result<bool, Error> {
        let (id, channel_type) = (
            v2::stored_id(reader, channel.borrowed()),
            channel.channel_type(),
        );
        match v2::max_message_seq(node, channel_type, &id).await {
            Ok(None) => Ok(true),
            // On a single node this is an empty log, or a v2.0.10, where reads create no logs. In a cluster it may also mean that there is
            // no log.
            Ok(Some(0))
                if self
                    .topology()
                    .await
                    .is_ok_and(|topology| topology.is_multi_node()) =>
            {
                Ok(self.log_owner(&id, channel_type).await? == Owner::Nobody)
            }
            Err(error) if !error.is_unexpected() => Err(error),
            Ok(Some(_)) | Err(_) => Ok(false),
        }
    }

    /// v2: whether another channel owns the log under a group's key. Call it before the group is written.
    pub(super) async fn group_log_is_foreign(&self, group: &ChannelId) -> Result<bool, Error> {
        let owner = self.log_owner(group.as_str(), ChannelType::Group).await?;
        Ok(owner == Owner::Another)
    }

    /// The owner of the log under this channel's key. In a cluster only the leader of the id's slot knows; other nodes forward the query to
    /// the node it names (seen).
    async fn log_owner(&self, stored_id: &str, channel_type: ChannelType) -> Result<Owner, Error> {
        let leader = match self.topology().await {
            Ok(topology) => topology.slot_leader(stored_id),
            Err(_) => None,
        };
        let owner = self.on_node(Policy::read("log_owner"), |node| {
            v2::log_owner(node, channel_type, stored_id, leader)
        });
        match owner.await {
            Ok(None) => Ok(Owner::Nobody),
            Ok(Some(owner)) if owner == stored_id => Ok(Owner::Itself),
            Ok(Some(_)) => Ok(Owner::Another),
            Err(error) if error.is_unexpected() => Ok(Owner::Unknown),
            Err(error) => Err(error),
        }
    }
}

/// The owner of the log under a channel's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    Itself,
    Another,
    Nobody,
    /// v2 did not tell.
    Unknown,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_users_of_a_pair_share_an_entry() {
        let logs = LogObservations::default();
        let [a, b] = ["a", "b"].map(|uid| Uid::parse(uid, 9).unwrap());
        let to = |peer: &Uid| Channel::Person(peer.clone());
        logs.entry(&a, &to(&b)).record(LogObservation::Own);
        assert_eq!(logs.entry(&b, &to(&a)).seen, Some(LogObservation::Own));
        assert_eq!(logs.entry(&a, &to(&a)).seen, None);
        let group = Channel::Group(ChannelId::parse("b", 9).unwrap());
        assert_eq!(logs.entry(&a, &group).seen, None);
        logs.entry(&a, &group).record(LogObservation::Exists);
        assert_eq!(
            logs.entry(&b, &group).seen,
            Some(LogObservation::Exists),
            "whoever asks"
        );
    }

    #[test]
    fn an_observation_never_gets_weaker() {
        let logs = LogObservations::default();
        let a = Uid::parse("a", 9).unwrap();
        let entry = || logs.entry(&a, &Channel::Person(a.clone()));
        entry().record(LogObservation::Exists);
        entry().record(LogObservation::Own);
        entry().record(LogObservation::Exists);
        assert_eq!(entry().seen, Some(LogObservation::Own));
    }
}
