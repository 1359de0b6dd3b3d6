//! A user's conversations as one answer has them. Knows no wire format.

use std::fmt;
use std::sync::Arc;

use super::MAX_WALK_ROWS;
use crate::context::Reservation;
use crate::domain::{ChannelRef, ChannelType, MessageOf, MessageRef, Slice, Uid};
use crate::wukongim::call::Answer;

/// About the fewest bytes of a row with a message, to estimate the capacity needed.
const MIN_ROW_BYTES: usize = 384;

/// A conversation as its user has it; its strings are borrowed.
#[derive(Debug, Clone, Copy)]
pub struct Conversation<'a> {
    /// As the user names it.
    pub channel: ChannelRef<'a>,
    /// The seq of its newest message, from 1; 0 without one.
    pub last_seq: u64,
    /// Unread messages, at most `last_seq`; the user's own messages count as read.
    pub unread: u64,
    /// When WuKongIM says it was active, in Unix milliseconds; 0 where it does not.
    pub active_ms: u64,
    /// Its newest message, if WuKongIM gives it.
    pub message: Option<MessageRef<'a>>,
}

impl Conversation<'_> {
    /// The row, if it is one to be shown: not a group without messages, nor a channel that WuKongIM does not know.
    pub(in crate::wukongim) fn if_shown(mut self) -> Option<Self> {
        let is_empty = self.last_seq == 0 && self.message.is_none();
        let is_group = self.channel.channel_type == ChannelType::Group;
        self.unread = self.unread.min(self.last_seq);
        (!is_empty || (!is_group && self.active_ms > 0)).then_some(self)
    }

    /// Up to which seq the user has read.
    pub fn read_to(&self) -> u64 {
        self.last_seq.saturating_sub(self.unread)
    }
}

/// Conversations of one answer, with their own strings.
#[derive(Default)]
pub struct ConversationPage {
    /// In WuKongIM's order.
    rows: Vec<Row>,
    /// The channels' ids, one after the other.
    ids: String,
    /// The messages' strings.
    texts: Vec<u8>,
    /// How many rows WuKongIM gave, including those left out.
    pub(in crate::wukongim) received: usize,
    /// Whether WuKongIM could not resolve some rows of this page.
    pub is_partial: bool,
    /// Reserve the bytes of the answers.
    pub(in crate::wukongim) reservations: Vec<Arc<Reservation>>,
}

/// A [`Conversation`] without its strings.
#[derive(Debug)]
struct Row {
    channel_type: ChannelType,
    id: Slice,
    last_seq: u64,
    unread: u64,
    active_ms: u64,
    message: Option<MessageOf<Slice>>,
}

impl ConversationPage {
    /// An empty page of this answer.
    pub(in crate::wukongim) fn new(answer: &Answer) -> Self {
        let rows = (answer.body.len() / MIN_ROW_BYTES).min(MAX_WALK_ROWS);
        Self {
            rows: Vec::with_capacity(rows),
            reservations: vec![answer.reservation.clone()],
            ..Self::default()
        }
    }

    /// Counts a row that WuKongIM gave, and adds it where it is one to be shown.
    pub(in crate::wukongim) fn add(&mut self, row: Option<Conversation<'_>>) {
        self.received += 1;
        let Some(row) = row else { return };
        self.ids.push_str(row.channel.id);
        self.rows.push(Row {
            channel_type: row.channel.channel_type,
            id: Slice::last(row.channel.id.len(), self.ids.len()),
            last_seq: row.last_seq,
            unread: row.unread,
            active_ms: row.active_ms,
            message: row.message.map(|message| message.append(&mut self.texts)),
        });
    }

    /// The number of conversations.
    pub fn count(&self) -> usize {
        self.rows.len()
    }

    /// The conversations in WuKongIM's order.
    pub fn iter(&self) -> impl Iterator<Item = Conversation<'_>> {
        self.rows.iter().map(|row| self.conversation(row))
    }

    /// The conversation with this index in WuKongIM's order.
    #[inline]
    pub fn get(&self, index: usize) -> Option<Conversation<'_>> {
        self.rows.get(index).map(|row| self.conversation(row))
    }

    // Inlined, since most callers use few fields.
    #[inline]
    fn conversation(&self, row: &Row) -> Conversation<'_> {
        Conversation {
            channel: ChannelRef {
                channel_type: row.channel_type,
                id: self.ids.get(row.id.range()).unwrap_or_default(),
            },
            last_seq: row.last_seq,
            unread: row.unread,
            active_ms: row.active_ms,
            message: row.message.map(|message| message.within(&self.texts)),
        }
    }

    /// The page without spare room in its buffers, so that it has no more than is reserved.
    pub(in crate::wukongim) fn shrunk(mut self) -> Self {
        self.rows.shrink_to_fit();
        self.ids.shrink_to_fit();
        self.texts.shrink_to_fit();
        self
    }

    /// The page to be held for longer, with no more reserved than it has. It must not be of a request's reservation.
    #[must_use]
    pub fn compacted(self) -> Self {
        let page = self.shrunk();
        let rows = page.rows.len() * size_of::<Row>();
        let mut bytes = rows + page.ids.len() + page.texts.len();
        for reservation in &page.reservations {
            reservation.shrink_to(bytes);
            bytes -= reservation.bytes().min(bytes);
        }
        page
    }
}

/// Shows no content.
impl fmt::Debug for ConversationPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("ConversationPage");
        shown.field("rows", &self.rows).finish_non_exhaustive()
    }
}

/// The channel of a row, as `user` names it; v2 stores a pair under both uids. `None` for what the gateway has no name for: command channels,
/// the system, other types.
pub(in crate::wukongim) fn channel_of<'a>(
    user: &Uid,
    id: &'a str,
    channel_type: u8,
) -> Option<ChannelRef<'a>> {
    let channel_type = ChannelType::from_number(channel_type.into())?;
    let pair = match channel_type {
        ChannelType::Person => id.split_once('@'),
        ChannelType::Group => None,
    };
    let id = match pair {
        Some((one, other)) if one == user.as_str() => other,
        Some((one, other)) if other == user.as_str() => one,
        // Not valid with an `@`.
        _ => id,
    };
    ChannelRef::parse(channel_type, id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{MessageId, MessageText, SYSTEM_UID};

    #[test]
    fn rows_keep_their_own_strings() {
        let user = Uid::parse("me", 9).unwrap();
        let message = MessageRef {
            id: MessageId(7),
            seq: 3,
            timestamp_ms: 1,
            texts: MessageText {
                from_uid: b"alice",
                client_msg_no: "群-1".as_bytes(),
                payload: b"YQ==",
            },
            needs_no_escape: true,
        };
        let mut of_system = message;
        of_system.texts.from_uid = b"";
        let mut page = ConversationPage::default();
        for (id, channel_type, message) in [
            ("群", 2, Some(message)),
            ("bob@me", 1, None),
            ("g", 2, Some(of_system)),
        ] {
            page.add(Some(Conversation {
                channel: channel_of(&user, id, channel_type).unwrap(),
                last_seq: 3,
                unread: 1,
                active_ms: 5,
                message,
            }));
        }
        page.add(None);
        let page = page.compacted();
        assert_eq!((page.received, page.count()), (4, 3));
        let ids: Vec<_> = page.iter().map(|row| row.channel.id).collect();
        assert_eq!(ids, ["群", "bob", "g"]);
        let senders = [Some("alice"), None, Some(SYSTEM_UID)];
        for (index, from) in senders.into_iter().enumerate() {
            let row = page.get(index).unwrap();
            assert_eq!((row.last_seq, row.read_to()), (3, 2));
            let Some(message) = row.message else {
                assert!(from.is_none());
                continue;
            };
            assert_eq!(message.from_uid(), from.unwrap().as_bytes());
            let texts = (message.client_msg_no(), message.payload());
            assert_eq!(texts, ("群-1".as_bytes(), &b"YQ=="[..]));
        }
        assert!(page.get(3).is_none());
    }

    #[test]
    fn channels_without_a_name_here_are_left_out() {
        let user = Uid::parse("me", 9).unwrap();
        let named =
            |id, channel_type| channel_of(&user, id, channel_type).map(|channel| channel.id);
        assert_eq!(named("bob", 1), Some("bob"));
        assert_eq!(named("me@bob", 1), Some("bob"));
        assert_eq!(named("bob@me", 1), Some("bob"));
        assert_eq!(named("me@me", 1), Some("me"));
        for (id, channel_type) in [
            ("a@b", 1),
            ("me@bob", 2),
            ("____system", 1),
            ("g____cmd", 2),
            ("g", 3),
            ("", 2),
        ] {
            assert_eq!(named(id, channel_type), None, "{id} {channel_type}");
        }
    }
}
