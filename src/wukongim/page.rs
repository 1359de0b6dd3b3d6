//! Pages of stored messages, as both generations answer them at `/channel/messagesync`.
//!
//! v2 keys its storage by FNV-1a-64 of `id-type` and never compares the id, so a page may hold another conversation's messages (a collision
//! is found within minutes; `upstream-api.md`). Every message is checked here, and those of other channels are dropped.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::Error;
use crate::domain::{
    Channel, ChannelRef, ChannelType, Message, MessageId, MessageRef, MessageText, Uid,
};
use crate::telemetry::Metrics;

mod fast_path;

pub(super) use fast_path::{MessageField, MessageFields};

/// The call's name in metrics and errors.
pub(super) const MESSAGESYNC: &str = "messagesync";

/// Which part of a channel's history to read. Seqs count from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Window {
    /// The newest messages.
    Newest,
    /// From `from` (included) upwards, up to `until` (excluded) where given.
    Up {
        /// The first seq wanted.
        from: u64,
        /// The seq before which the page ends.
        until: Option<u64>,
    },
}

/// One page, oldest first, with only messages of the requested channel.
#[derive(Debug, Default)]
pub struct Page {
    /// The messages, in ascending order of `seq`.
    pub messages: Vec<Message>,
    /// How many messages WuKongIM returned, including the dropped ones.
    pub received: usize,
    /// The lowest and the highest seq that WuKongIM returned, including dropped messages; `None` for an empty page.
    pub seq_range: Option<(u64, u64)>,
}

/// The body of `/channel/messagesync`. Pull mode 0 with both seqs 0 is "newest" on both generations; mode 1 is upward on both.
#[derive(Serialize)]
pub(super) struct PageRequest<'a> {
    login_uid: &'a str,
    channel_id: &'a str,
    channel_type: u8,
    start_message_seq: u64,
    end_message_seq: u64,
    limit: usize,
    pull_mode: u8,
}

impl<'a> PageRequest<'a> {
    pub(super) fn new(reader: &'a Uid, channel: &'a Channel, window: Window, limit: usize) -> Self {
        let (start, end, pull_mode) = match window {
            Window::Newest => (0, 0, 0),
            // A start of 0 would mean "newest" to v2.
            Window::Up { from, until } => (from.max(1), until.unwrap_or(0), 1),
        };
        Self {
            login_uid: reader.as_str(),
            channel_id: channel.id(),
            channel_type: channel.channel_type().number(),
            start_message_seq: start,
            end_message_seq: end,
            // v2 answers nothing, v3 everything to 0.
            limit: limit.max(1),
            pull_mode,
        }
    }
}

/// The largest page ever requested: `limits.sync_max` goes up to 1,000, and one more shows whether more remain.
const MAX_PAGE_MESSAGES: usize = 1001;
/// At most one warning of foreign messages in this time, since every read of such a channel would log one.
const WARN_INTERVAL: Duration = Duration::from_mins(1);

/// About the fewest bytes of a message in a page, to estimate the capacity needed.
const MIN_MESSAGE_BYTES: usize = 256;

#[derive(Deserialize)]
struct WirePage<'a> {
    #[serde(borrow, default)]
    messages: Option<WireMessages<'a>>,
}

/// The messages of a page. A list longer than any request asks for is refused while it is read, not after.
struct WireMessages<'a>(Vec<WireMessage<'a>>);

impl<'de: 'a, 'a> Deserialize<'de> for WireMessages<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bounded;
        impl<'de> Visitor<'de> for Bounded {
            type Value = Vec<WireMessage<'de>>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "at most {MAX_PAGE_MESSAGES} messages")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut wire: A) -> Result<Self::Value, A::Error> {
                let mut messages = Vec::new();
                while let Some(message) = wire.next_element()? {
                    if messages.len() == MAX_PAGE_MESSAGES {
                        return Err(serde::de::Error::invalid_length(
                            MAX_PAGE_MESSAGES + 1,
                            &self,
                        ));
                    }
                    messages.push(message);
                }
                Ok(messages)
            }
        }
        deserializer.deserialize_seq(Bounded).map(Self)
    }
}

#[derive(Deserialize)]
#[cfg_attr(test, derive(Debug, PartialEq))]
pub(super) struct WireMessage<'a> {
    message_id: u64,
    #[serde(borrow, default)]
    client_msg_no: Cow<'a, str>,
    pub(super) message_seq: u64,
    #[serde(borrow, default)]
    from_uid: Cow<'a, str>,
    #[serde(borrow)]
    channel_id: Cow<'a, str>,
    channel_type: u8,
    #[serde(default)]
    timestamp: u64,
    #[serde(borrow, default)]
    payload: Option<BorrowedStr<'a>>,
}

/// A string, borrowed where it contains no escapes (serde always copies into a bare `Cow` in an `Option`).
#[derive(Deserialize)]
#[cfg_attr(test, derive(Debug, PartialEq))]
struct BorrowedStr<'a>(#[serde(borrow)] Cow<'a, str>);

/// Counts the messages that did not belong to the requested channel, and logs some of them.
#[derive(Default)]
pub(super) struct ForeignMessages {
    warned: Mutex<Option<Instant>>,
}

impl ForeignMessages {
    pub(super) fn report(&self, page: &Page, channel: &Channel, metrics: &Metrics) {
        let foreign = page.received - page.messages.len();
        if foreign == 0 {
            return;
        }
        metrics.foreign_messages.inc_by(foreign as u64);
        if self.is_due(Instant::now()) {
            tracing::warn!(
                channel.id = channel.id(),
                foreign,
                "messages of another channel dropped from a page; logged once a minute at most"
            );
        }
    }

    fn is_due(&self, now: Instant) -> bool {
        let mut warned = self.warned.lock();
        let due = warned.is_none_or(|at| now.duration_since(at) >= WARN_INTERVAL);
        if due {
            *warned = Some(now);
        }
        due
    }
}

impl Page {
    /// Parses the body of an answer to `/channel/messagesync` and keeps the messages of `channel` as `reader` sees it.
    ///
    /// # Errors
    /// [`Error::Decode`] when the body is not a page.
    pub fn read(body: &Bytes, reader: &Uid, channel: &Channel) -> Result<Self, Error> {
        let mut page = Self::default();
        if fast_path::read(body, |wire| page.push(body, &wire, reader, channel)).is_some() {
            return Ok(page);
        }
        let no_page = Error::Decode(MESSAGESYNC);
        let wire: WirePage<'_> = serde_json::from_slice(body).map_err(|_| no_page.clone())?;
        page = Self::default();
        // A body without a list of messages is not a page.
        for message in wire.messages.ok_or(no_page)?.0 {
            page.push(body, &message, reader, channel);
        }
        Ok(page)
    }

    /// Counts the next message, and keeps it if it belongs to the channel.
    fn push(&mut self, body: &Bytes, wire: &WireMessage<'_>, reader: &Uid, channel: &Channel) {
        self.received += 1;
        let low = self.seq_range.map_or(wire.message_seq, |(low, _)| low);
        self.seq_range = Some((low, wire.message_seq));
        if belongs_to(wire, reader, channel.borrowed()) {
            if self.messages.is_empty() {
                let room = (body.len() / MIN_MESSAGE_BYTES).min(MAX_PAGE_MESSAGES);
                self.messages.reserve(room);
            }
            self.messages.push(Message::within(body, wire.borrowed()));
        }
    }
}

/// Whether a message is one of `channel`: for a group its id and type, for a pair that both ends are the pair.
///
/// v2 gives "the id that is not the sender" as a person message's channel, which for a received message is the reader's own
/// uid; v3 gives the peer. So only the pair as a whole can be compared.
pub(super) fn belongs_to(message: &WireMessage<'_>, reader: &Uid, channel: ChannelRef<'_>) -> bool {
    if message.channel_type != channel.channel_type.number() || message.message_seq == 0 {
        return false;
    }
    match channel.channel_type {
        ChannelType::Group => message.channel_id == channel.id,
        ChannelType::Person => {
            let (reader, peer) = (reader.as_str(), channel.id);
            let (from, other) = (&*message.from_uid, &*message.channel_id);
            if reader == peer {
                // v2 finds no "other" id in `me@me` and gives the stored id as it is (seen in its source).
                let both = other
                    .split_once('@')
                    .is_some_and(|(a, b)| a == reader && b == reader);
                return from == reader && (other == reader || both);
            }
            (from == reader && other == peer)
                || (from == peer && (other == reader || other == peer))
        }
    }
}

impl WireMessage<'_> {
    /// The message with its strings borrowed.
    pub(super) fn borrowed(&self) -> MessageRef<'_> {
        let id = MessageId(self.message_id);
        let payload = match &self.payload {
            Some(BorrowedStr(payload)) => payload,
            None => &Cow::Borrowed(""),
        };
        MessageRef {
            id,
            seq: self.message_seq,
            // v3 stores no time for messages sent over HTTP.
            timestamp_ms: match self.timestamp {
                0 => id.unix_ms(),
                seconds => seconds.saturating_mul(1000),
            },
            texts: MessageText {
                from_uid: self.from_uid.as_bytes(),
                client_msg_no: self.client_msg_no.as_bytes(),
                payload: payload.as_bytes(),
            },
            needs_no_escape: are_raw([&self.from_uid, &self.client_msg_no, payload]),
        }
    }
}

/// Whether these strings stand in WuKongIM's answer without escapes, so that they need none in an answer of the gateway. Base64 needs none,
/// but `\/` is a valid spelling of `/`.
pub(super) fn are_raw(texts: [&Cow<'_, str>; 3]) -> bool {
    let is_raw = |text: &&Cow<'_, str>| text.is_empty() || matches!(text, Cow::Borrowed(_));
    texts.iter().all(is_raw)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{ChannelId, SYSTEM_UID};

    fn uid(text: &str) -> Uid {
        Uid::parse(text, 128).unwrap()
    }

    fn read(body: &str, reader: &Uid, channel: &Channel) -> Result<Page, Error> {
        Page::read(&Bytes::copy_from_slice(body.as_bytes()), reader, channel)
    }

    fn message(from: &str, channel: &str, channel_type: u8) -> String {
        format!(
            r#"{{"message_id":2124846632913506304,"client_msg_no":"n","message_seq":3,"from_uid":"{from}","channel_id":"{channel}",
            "channel_type":{channel_type},"timestamp":0,"payload":"YQ=="}}"#
        )
    }

    fn count_kept(from: &str, id: &str, channel_type: u8, asked: &Channel) -> usize {
        let body = format!(
            r#"{{"more":0,"messages":[{}]}}"#,
            message(from, id, channel_type)
        );
        let page = read(&body, &uid("me"), asked).unwrap();
        assert_eq!((page.received, page.seq_range), (1, Some((3, 3))));
        page.messages.len()
    }

    #[test]
    fn a_pair_keeps_only_its_own_messages() {
        let asked = Channel::Person(uid("peer"));
        assert_eq!(count_kept("me", "peer", 1, &asked), 1);
        assert_eq!(
            count_kept("peer", "me", 1, &asked),
            1,
            "v2 names the reader"
        );
        assert_eq!(
            count_kept("peer", "peer", 1, &asked),
            1,
            "v3 names the peer"
        );
        assert_eq!(count_kept("me", "other", 1, &asked), 0);
        assert_eq!(count_kept("other", "peer", 1, &asked), 0);
        assert_eq!(count_kept("other", "me", 1, &asked), 0);
        assert_eq!(count_kept("me", "peer", 2, &asked), 0);
        assert_eq!(
            count_kept("me", "me", 1, &asked),
            0,
            "a note to oneself is another conversation"
        );
        assert_eq!(
            count_kept("me", "me@me", 1, &Channel::Person(uid("me"))),
            1,
            "v2's note to oneself"
        );
        assert_eq!(count_kept("me", "peer", 1, &Channel::Person(uid("me"))), 0);
    }

    #[test]
    fn a_group_keeps_only_its_own_messages() {
        let asked = Channel::Group(ChannelId::parse("g", 9).unwrap());
        assert_eq!(count_kept("anybody", "g", 2, &asked), 1);
        assert_eq!(count_kept("hc-alice", "hc-bob", 1, &asked), 0);
        assert_eq!(count_kept("anybody", "g", 1, &asked), 0);
        assert_eq!(count_kept("anybody", "h", 2, &asked), 0);
    }

    #[test]
    fn the_payload_is_a_slice_and_the_time_comes_from_the_id() {
        let asked = Channel::Group(ChannelId::parse("g", 9).unwrap());
        let body = format!(r#"{{"messages":[{}]}}"#, message("", "g", 2));
        let body = Bytes::from(body);
        let page = Page::read(&body, &uid("me"), &asked).unwrap();
        let message = &page.messages[0];
        assert_eq!(message.payload(), b"YQ==");
        assert!(body.as_ptr_range().contains(&message.payload().as_ptr()));
        assert_eq!(message.timestamp_ms / 1000, 1_795_437_889);
        assert_eq!(message.from_uid(), SYSTEM_UID.as_bytes());
    }

    #[test]
    fn a_warning_is_due_once_a_minute() {
        let foreign = ForeignMessages::default();
        let now = Instant::now();
        assert!(foreign.is_due(now));
        assert!(!foreign.is_due(now + WARN_INTERVAL / 2));
        assert!(foreign.is_due(now + WARN_INTERVAL));
        assert!(!foreign.is_due(now + WARN_INTERVAL));
    }

    #[test]
    fn a_page_longer_than_any_request_is_refused() {
        let asked = Channel::Group(ChannelId::parse("g", 9).unwrap());
        for (count, fits) in [(MAX_PAGE_MESSAGES, true), (MAX_PAGE_MESSAGES + 1, false)] {
            let all = vec![message("a", "g", 2); count].join(",");
            let body = format!(r#"{{"messages":[{all}]}}"#);
            let page = read(&body, &uid("me"), &asked);
            assert_eq!(page.is_ok(), fits, "{count}");
        }
    }

    #[test]
    fn an_answer_without_messages_is_no_page() {
        let asked = Channel::Group(ChannelId::parse("g", 9).unwrap());
        for body in [
            r#"{"status":200}"#,
            r#"{"messages":null}"#,
            "[]",
            "<html>",
            r#"{"messages":[{}]}"#,
        ] {
            assert!(read(body, &uid("me"), &asked).is_err(), "{body}");
        }
        assert_eq!(
            read(r#"{"messages":[]}"#, &uid("me"), &asked)
                .unwrap()
                .received,
            0
        );
    }
}
