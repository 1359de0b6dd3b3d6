//! Channels: a conversation with one user, or a group.

use std::fmt;

use super::{ChannelId, Uid};

/// The channel types of the gateway's API; WuKongIM has more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChannelType {
    /// Type 1: a conversation of two users.
    Person,
    /// Type 2: a group.
    Group,
}

impl ChannelType {
    /// The number on the wire: 1 or 2.
    pub fn number(self) -> u8 {
        match self {
            Self::Person => 1,
            Self::Group => 2,
        }
    }

    /// The type with this number, if the API has it.
    pub fn from_number(number: u64) -> Option<Self> {
        match number {
            1 => Some(Self::Person),
            2 => Some(Self::Group),
            _ => None,
        }
    }
}

/// A channel as one of its users names it: a person channel by the peer's uid, a group by its id.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Channel {
    /// The conversation with this peer (possibly the user itself).
    Person(Uid),
    /// This group.
    Group(ChannelId),
}

impl Channel {
    /// The channel with this type and id.
    pub fn new(channel_type: ChannelType, id: ChannelId) -> Self {
        match channel_type {
            ChannelType::Person => Self::Person(id.into_uid()),
            ChannelType::Group => Self::Group(id),
        }
    }

    /// The id as the user gives it.
    pub fn id(&self) -> &str {
        match self {
            Self::Person(peer) => peer.as_str(),
            Self::Group(id) => id.as_str(),
        }
    }

    /// Person or group.
    pub fn channel_type(&self) -> ChannelType {
        match self {
            Self::Person(_) => ChannelType::Person,
            Self::Group(_) => ChannelType::Group,
        }
    }

    /// The channel with its id borrowed.
    pub fn borrowed(&self) -> ChannelRef<'_> {
        ChannelRef {
            channel_type: self.channel_type(),
            id: self.id(),
        }
    }
}

/// A [`Channel`] with a borrowed id, which is a valid one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ChannelRef<'a> {
    /// Person or group.
    pub channel_type: ChannelType,
    /// The id as the user gives it.
    pub id: &'a str,
}

impl<'a> ChannelRef<'a> {
    /// The channel with this type and id; `None` where the id is not valid.
    pub fn parse(channel_type: ChannelType, id: &'a str) -> Option<Self> {
        let is_valid = ChannelId::is_valid(id);
        is_valid.then_some(Self { channel_type, id })
    }
}

/// Identifies a conversation independently of its user: the key of all state shared by a channel's users.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum ConversationKey {
    /// A pair of uids, the smaller one first.
    Pair(Uid, Uid),
    /// A group.
    Group(ChannelId),
}

impl ConversationKey {
    /// The key of `channel` as `user` sees it.
    pub fn of(user: &Uid, channel: &Channel) -> Self {
        match channel {
            Channel::Group(id) => Self::Group(id.clone()),
            Channel::Person(peer) if user <= peer => Self::Pair(user.clone(), peer.clone()),
            Channel::Person(peer) => Self::Pair(peer.clone(), user.clone()),
        }
    }
}

impl fmt::Debug for ConversationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pair(a, b) => write!(f, "{a}+{b}"),
            Self::Group(id) => write!(f, "{id}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_of_a_pair_have_one_key() {
        let (a, b) = (Uid::parse("a", 9).unwrap(), Uid::parse("b", 9).unwrap());
        let from_a = ConversationKey::of(&a, &Channel::Person(b.clone()));
        let from_b = ConversationKey::of(&b, &Channel::Person(a.clone()));
        assert_eq!(from_a, from_b);
        let group = ConversationKey::of(&a, &Channel::Group(ChannelId::parse("b", 9).unwrap()));
        assert_ne!(from_a, group);
    }
}
