//! The place of a conversation in its user's list: newest message first. A page's last one is the cursor of the next page.

use std::cmp::Ordering;

use crate::domain::{Channel, ChannelId, ChannelType, MessageId, caps};
use crate::wukongim::Conversation;

/// A place in the list, in its order: the newest message first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    key: u64,
    channel: Channel,
}

impl Position {
    pub(super) fn new(key: u64, channel: &Channel) -> Self {
        let channel = channel.clone();
        Self { key, channel }
    }

    pub(super) fn of(conversation: &Conversation) -> Self {
        Self::new(key(conversation), &conversation.channel)
    }

    /// Whether the row with this key and channel comes after it.
    pub(super) fn is_before(&self, key: u64, channel: &Channel) -> bool {
        order(self.key, &self.channel, key, channel).is_lt()
    }

    /// The position as bytes, at most 264.
    pub fn to_bytes(&self) -> Vec<u8> {
        let kind = self.channel.channel_type().number();
        [
            &self.key.to_be_bytes()[..],
            &[kind],
            self.channel.id().as_bytes(),
        ]
        .concat()
    }

    /// Reads [`Self::to_bytes`].
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (key, rest) = bytes.split_first_chunk()?;
        let (kind, id) = rest.split_first()?;
        let id = std::str::from_utf8(id).ok()?;
        let id = ChannelId::parse(id, caps::ID_BYTES).ok()?;
        Some(Self {
            key: u64::from_be_bytes(*key),
            channel: Channel::new(ChannelType::from_number(u64::from(*kind))?, id),
        })
    }
}

impl Ord for Position {
    fn cmp(&self, other: &Self) -> Ordering {
        order(self.key, &self.channel, other.key, &other.channel)
    }
}

impl PartialOrd for Position {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// What the list is sorted by: the newest message's id, which has its time in milliseconds, or where there is none an id of the time at
/// which the conversation was active.
pub(super) fn key(conversation: &Conversation) -> u64 {
    let message = conversation.message.as_ref();
    let id = message.map_or_else(
        || MessageId::first_at(conversation.active_ms),
        |message| message.id,
    );
    id.0
}

/// The order of the list.
pub(super) fn order(key: u64, channel: &Channel, other_key: u64, other: &Channel) -> Ordering {
    other_key.cmp(&key).then_with(|| by_channel(channel, other))
}

/// Any order of channels, for equal keys.
fn by_channel(channel: &Channel, other: &Channel) -> Ordering {
    let order = |channel: &Channel| channel.channel_type().number();
    (order(channel), channel.id()).cmp(&(order(other), other.id()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(key: u64, id: &str) -> Position {
        let id = ChannelId::parse(id, 255).unwrap();
        Position::new(key, &Channel::Group(id))
    }

    #[test]
    fn the_newest_comes_first_and_equal_ones_have_an_order() {
        let mut all = [group(1, "b"), group(2, "z"), group(1, "a")];
        all.sort();
        assert_eq!(all, [group(2, "z"), group(1, "a"), group(1, "b")]);
        let pair = Position::new(
            1,
            &Channel::Person(ChannelId::parse("a", 9).unwrap().into_uid()),
        );
        assert!(pair < all[1] && pair.is_before(1, &all[1].channel));
        assert!(!all[1].is_before(1, &all[1].channel));
    }

    #[test]
    fn bytes_are_read_as_they_were_written_and_no_others() {
        let position = group(u64::MAX, "群");
        let bytes = position.to_bytes();
        assert_eq!(Position::from_bytes(&bytes), Some(position));
        for end in 0..bytes.len() {
            let cut = Position::from_bytes(&bytes[..end]);
            assert!(cut.is_none(), "{end}");
        }
        let mut other_type = bytes;
        other_type[8] = 3;
        assert_eq!(Position::from_bytes(&other_type), None);
    }
}
