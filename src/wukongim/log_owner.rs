//! Whose log lies under a v2 key, and whether one does. v2 gives a key's log to the channel that touches it first, be it by a read
//! (2.2.0 to 2.2.5, seen), and never stores what another channel with an equal key sends; keys are hashes of ids that users choose. So
//! the gateway asks before it touches a key, once a channel and process in the usual case.

use std::hash::{BuildHasher, RandomState};

use quick_cache::sync::Cache;

use super::nodes::Node;
use super::plan::Plan;
use super::trip::on_node;
use super::{Client, Error, Generation, v2};
use crate::domain::{Channel, ChannelId, ChannelType, Uid};

/// Channels of which it is remembered what was seen of their logs, some 50 bytes each.
const CHANNELS: usize = 100_000;

/// What was seen of a channel's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Seen {
    /// There is one under its key: a read creates nothing.
    Exists,
    /// It is the channel's own.
    Own,
}

/// What is remembered. Nothing of a key that was free or another channel's: that may change.
pub(super) struct SeenLogs {
    seen: Cache<u128, Seen>,
    hashers: [RandomState; 2],
}

impl Default for SeenLogs {
    fn default() -> Self {
        Self {
            seen: Cache::new(CHANNELS),
            hashers: [RandomState::new(), RandomState::new()],
        }
    }
}

/// One channel's place among the remembered ones.
#[derive(Clone, Copy)]
pub(super) struct Entry<'a> {
    logs: &'a SeenLogs,
    key: u128,
    pub(super) seen: Option<Seen>,
}

impl SeenLogs {
    /// What was seen of `channel`, as `user` names it.
    pub(super) fn look(&self, user: &Uid, channel: &Channel) -> Entry<'_> {
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
    /// Remembers what was seen, where it says more than what was known.
    pub(super) fn note(&self, seen: Seen) {
        if self.seen < Some(seen) {
            self.logs.seen.insert(self.key, seen);
        }
    }
}

impl Client {
    /// v2: whether the log under this channel's key was seen to be its own.
    pub fn owns_its_log(&self, sender: &Uid, channel: &Channel) -> bool {
        self.logs.look(sender, channel).seen == Some(Seen::Own)
    }

    /// v2: whether the log under this channel's key is another channel's, so that nothing sent to it would ever be stored. What
    /// cannot be said is no: a server that answers this call with anything else is sent to as ever.
    ///
    /// # Errors
    /// Where no v2 answers at all.
    pub async fn log_is_foreign(&self, sender: &Uid, channel: &Channel) -> Result<bool, Error> {
        let id = v2::stored_id(sender, channel);
        let owner = self.log_owner(&id, channel.channel_type()).await?;
        if owner == Owner::Itself {
            self.logs.look(sender, channel).note(Seen::Own);
        }
        Ok(owner == Owner::Another)
    }

    /// v2: whether nothing lies under this channel's key, so that a read would create a log there. What cannot be said is no.
    pub(super) async fn has_no_log(
        &self,
        node: &Node,
        reader: &Uid,
        channel: &Channel,
    ) -> Result<bool, Error> {
        let (id, channel_type) = (v2::stored_id(reader, channel), channel.channel_type());
        match v2::max_message_seq(&self.transport, node, channel_type, &id).await {
            Ok(None) => Ok(true),
            // On a single node there is an empty log, or it is a v2.0.10, where a read creates none. In a cluster it may mean as well
            // that there is none.
            Ok(Some(0)) if self.cluster().await.is_ok_and(|known| known.has_several()) => {
                Ok(self.log_owner(&id, channel_type).await? == Owner::Nobody)
            }
            Err(error) if !error.is_unexpected() => Err(error),
            Ok(Some(_)) | Err(_) => Ok(false),
        }
    }

    /// v2: whether the log under a group's id is another channel's; nothing may have been written there yet.
    pub(super) async fn group_log_is_foreign(&self, group: &ChannelId) -> Result<bool, Error> {
        let owner = self.log_owner(group.as_str(), ChannelType::Group).await?;
        Ok(owner == Owner::Another)
    }

    /// Whose log lies under this channel's key. Of a cluster's nodes the leader of the id's slot alone says it; another one passes the
    /// question on to the node that it is told (seen).
    async fn log_owner(&self, stored_id: &str, channel_type: ChannelType) -> Result<Owner, Error> {
        let leader = match self.cluster().await {
            Ok(cluster) => cluster.slot_leader(stored_id),
            Err(_) => None,
        };
        let plan = Plan {
            wanted: Some(Generation::V2),
            ..Plan::read("log_owner")
        };
        let owner = on_node!(self, plan, |node, _v2| v2::log_owner(
            &self.transport,
            node,
            channel_type,
            stored_id,
            leader
        ));
        match owner {
            Ok(None) => Ok(Owner::Nobody),
            Ok(Some(owner)) if owner == stored_id => Ok(Owner::Itself),
            Ok(Some(_)) => Ok(Owner::Another),
            Err(error) if error.is_unexpected() => Ok(Owner::Unknown),
            Err(error) => Err(error),
        }
    }
}

/// Whose log lies under a channel's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    Itself,
    Another,
    Nobody,
    /// v2 did not say.
    Unknown,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_of_a_pair_share_what_is_known_and_no_other_channel_does() {
        let logs = SeenLogs::default();
        let [a, b] = ["a", "b"].map(|uid| Uid::parse(uid, 9).unwrap());
        let to = |peer: &Uid| Channel::Person(peer.clone());
        logs.look(&a, &to(&b)).note(Seen::Own);
        assert_eq!(logs.look(&b, &to(&a)).seen, Some(Seen::Own));
        assert_eq!(logs.look(&a, &to(&a)).seen, None);
        let group = Channel::Group(ChannelId::parse("b", 9).unwrap());
        assert_eq!(logs.look(&a, &group).seen, None);
        logs.look(&a, &group).note(Seen::Exists);
        assert_eq!(
            logs.look(&b, &group).seen,
            Some(Seen::Exists),
            "whoever asks"
        );
    }

    #[test]
    fn what_is_known_is_never_less_than_before() {
        let logs = SeenLogs::default();
        let a = Uid::parse("a", 9).unwrap();
        let entry = || logs.look(&a, &Channel::Person(a.clone()));
        entry().note(Seen::Exists);
        entry().note(Seen::Own);
        entry().note(Seen::Exists);
        assert_eq!(entry().seen, Some(Seen::Own));
    }
}
