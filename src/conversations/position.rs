//! The place of a conversation in its user's list: newest message first. A page's last one is the cursor of the next page.

use std::cmp::Reverse;

use crate::domain::{ChannelRef, ChannelType, MessageId};
use crate::wukongim::Conversation;

/// A place in the list, in its order: the newest message first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    key: u64,
    channel_type: ChannelType,
    id: Box<str>,
}

impl Position {
    pub(super) fn new(key: u64, channel: ChannelRef<'_>) -> Self {
        Self {
            key,
            channel_type: channel.channel_type,
            id: channel.id.into(),
        }
    }

    /// Whether the row with this key and channel comes after it.
    pub(super) fn is_before(&self, key: u64, channel: ChannelRef<'_>) -> bool {
        let own = ChannelRef {
            channel_type: self.channel_type,
            id: &self.id,
        };
        rank(self.key, own) < rank(key, channel)
    }

    /// The position as bytes, at most 264.
    pub fn to_bytes(&self) -> Vec<u8> {
        let kind = self.channel_type.number();
        [&self.key.to_be_bytes()[..], &[kind], self.id.as_bytes()].concat()
    }

    /// Reads [`Self::to_bytes`].
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (key, rest) = bytes.split_first_chunk()?;
        let (kind, id) = rest.split_first()?;
        let channel_type = ChannelType::from_number(u64::from(*kind))?;
        let channel = ChannelRef::parse(channel_type, std::str::from_utf8(id).ok()?)?;
        Some(Self::new(u64::from_be_bytes(*key), channel))
    }
}

/// What the list is sorted by: the newest message's id, which has its time in milliseconds, or where there is none an id of the time at
/// which the conversation was active.
pub(super) fn key(conversation: &Conversation<'_>) -> u64 {
    let id = conversation.message.map_or_else(
        || MessageId::first_at(conversation.active_ms),
        |message| message.id,
    );
    id.0
}

/// What the list is in ascending order of: the newest first, and any order of the channels for equal keys.
pub(super) fn rank(key: u64, channel: ChannelRef<'_>) -> impl Ord {
    (Reverse(key), channel.channel_type.number(), channel.id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(id: &str) -> ChannelRef<'_> {
        ChannelRef::parse(ChannelType::Group, id).unwrap()
    }

    #[test]
    fn the_newest_comes_first_and_equal_ones_have_an_order() {
        let pair = ChannelRef::parse(ChannelType::Person, "a").unwrap();
        let all = [(2, group("z")), (1, pair), (1, group("a")), (1, group("b"))];
        for (index, (key, channel)) in all.into_iter().enumerate() {
            for (other_index, (other_key, other)) in all.into_iter().enumerate() {
                let position = Position::new(key, channel);
                let is_before = position.is_before(other_key, other);
                assert_eq!(is_before, index < other_index, "{position:?}");
            }
        }
    }

    #[test]
    fn bytes_are_read_as_they_were_written_and_no_others() {
        let position = Position::new(u64::MAX, group("群"));
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
