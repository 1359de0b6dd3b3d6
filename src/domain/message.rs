//! Messages: payloads from clients, and stored messages of a channel's history.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Serialize, Serializer};

use super::caps;
use crate::json::json_scan::unescaped_prefix_len;

/// The sender of messages that no user sent; v2 gives an empty `from_uid` for it.
pub const SYSTEM_UID: &str = "____system";

/// The time from which WuKongIM's ids count, in Unix milliseconds.
const EPOCH_MS: u64 = 1_288_834_974_657;

/// A message's id: a 63-bit snowflake of WuKongIM. Always a string in the API, since a JavaScript number loses its last digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageId(pub u64);

impl MessageId {
    /// When the id was generated, in Unix milliseconds (both generations use the epoch 1288834974657; seen on running servers).
    pub fn unix_ms(self) -> u64 {
        (self.0 >> 22) + EPOCH_MS
    }

    /// The lowest id of this time.
    pub fn first_at(unix_ms: u64) -> Self {
        let since_epoch = unix_ms.saturating_sub(EPOCH_MS).min(u64::MAX >> 22);
        Self(since_epoch << 22)
    }
}

impl Serialize for MessageId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// Why a string is not a valid payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PayloadProblem {
    /// It is empty.
    #[error("must not be empty")]
    Empty,
    /// Not standard base64 with padding.
    #[error("must be standard base64 with padding")]
    NotBase64,
    /// More bytes after decoding than this deployment allows.
    #[error("must be at most {max_bytes} bytes after decoding")]
    TooLarge {
        /// The limit in force, in bytes.
        max_bytes: usize,
    },
}

/// A message's content: validated base64, passed on unchanged.
#[derive(Clone, PartialEq, Eq)]
pub struct Payload {
    base64: Box<str>,
}

impl Payload {
    /// Checks base64 of at most `max_bytes` decoded bytes (never more than [`caps::PAYLOAD_BYTES`]).
    ///
    /// The decoder refuses non-zero trailing bits, so equal payloads have equal base64.
    pub fn parse(text: &str, max_bytes: usize) -> Result<Self, PayloadProblem> {
        let max_bytes = max_bytes.min(caps::PAYLOAD_BYTES);
        if text.is_empty() {
            return Err(PayloadProblem::Empty);
        }
        // Check the length first, so that a huge string is not decoded.
        if text.len() / 4 * 3 > max_bytes + 2 {
            return Err(PayloadProblem::TooLarge { max_bytes });
        }
        let mut chunk = [0_u8; 3072];
        let mut decoded = 0;
        let mut parts = text.as_bytes().chunks(4096).peekable();
        while let Some(part) = parts.next() {
            let written = STANDARD
                .decode_slice(part, &mut chunk)
                .map_err(|_| PayloadProblem::NotBase64)?;
            // Padding is only allowed at the end of the whole string, not of a chunk.
            if parts.peek().is_some() && written != 3072 {
                return Err(PayloadProblem::NotBase64);
            }
            decoded += written;
        }
        match decoded {
            0 => Err(PayloadProblem::Empty),
            n if n > max_bytes => Err(PayloadProblem::TooLarge { max_bytes }),
            _ => Ok(Self {
                base64: text.into(),
            }),
        }
    }

    /// The decoded length in bytes.
    pub fn decoded_len(&self) -> usize {
        let padding = self
            .base64
            .bytes()
            .rev()
            .take_while(|byte| *byte == b'=')
            .count();
        self.base64.len() / 4 * 3 - padding
    }

    /// The base64 string.
    pub fn as_base64(&self) -> &str {
        &self.base64
    }
}

impl std::fmt::Debug for Payload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Payload({} base64 bytes)", self.base64.len())
    }
}

/// A stored message, already checked to belong to the requested channel. `Debug` shows no content.
///
/// Its strings are slices of the page they were received in, so a page of 50 messages needs no allocation per message.
#[derive(Clone)]
pub struct Message {
    /// WuKongIM's id.
    pub id: MessageId,
    /// Its seq in the channel, from 1.
    pub seq: u64,
    /// When it was sent, in Unix milliseconds.
    pub timestamp_ms: u64,
    /// The bytes of all strings, as UTF-8.
    texts: Bytes,
    slices: MessageText<Slice>,
    needs_no_escape: bool,
}

/// The strings of a message.
#[derive(Debug, Clone, Copy)]
pub struct MessageText<T> {
    /// The sender; empty for the system.
    pub from_uid: T,
    /// The sender's client_msg_no; empty where v3 kept none.
    pub client_msg_no: T,
    /// Base64.
    pub payload: T,
}

impl<T> MessageText<T> {
    /// What `change` makes of them, from the first to the last.
    fn map<U>(self, mut change: impl FnMut(T) -> U) -> MessageText<U> {
        MessageText {
            from_uid: change(self.from_uid),
            client_msg_no: change(self.client_msg_no),
            payload: change(self.payload),
        }
    }
}

/// A range of bytes in a text.
#[derive(Debug, Clone, Copy, Default)]
pub struct Slice {
    start: u32,
    end: u32,
}

impl Slice {
    /// The last `length` bytes of a text of `end` bytes, at most 4 GiB.
    pub fn last(length: usize, end: usize) -> Self {
        let number = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
        Self {
            start: number(end - length),
            end: number(end),
        }
    }

    /// Appends `slice` to `whole`.
    fn append(slice: &[u8], whole: &mut Vec<u8>) -> Self {
        whole.extend_from_slice(slice);
        Self::last(slice.len(), whole.len())
    }

    /// The range of `slice` in `whole`; `None` where it is not part of it.
    fn of(slice: &[u8], whole: &Bytes) -> Option<Self> {
        if slice.is_empty() {
            return Some(Self::default());
        }
        let start = slice
            .as_ptr()
            .addr()
            .checked_sub(whole.as_ptr().addr())
            .filter(|start| start + slice.len() <= whole.len())?;
        Some(Self::last(slice.len(), start + slice.len()))
    }

    /// Where it is.
    pub fn range(self) -> std::ops::Range<usize> {
        self.start as usize..self.end as usize
    }

    fn within(self, whole: &[u8]) -> &[u8] {
        whole.get(self.range()).unwrap_or_default()
    }
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.borrowed().fmt(f)
    }
}

impl Message {
    /// A message with its own copy of the strings, which may have any content.
    pub fn new(id: MessageId, seq: u64, timestamp_ms: u64, texts: MessageText<&[u8]>) -> Self {
        let mut all = Vec::new();
        let slices = texts.map(|text| Slice::append(text, &mut all));
        Self {
            id,
            seq,
            timestamp_ms,
            needs_no_escape: unescaped_prefix_len(&all) == all.len(),
            texts: all.into(),
            slices,
        }
    }

    /// The message with its strings as slices of `page`; copies them where they are not part of it.
    pub fn within(page: &Bytes, message: MessageRef<'_>) -> Self {
        let MessageRef {
            id,
            seq,
            timestamp_ms,
            texts,
            needs_no_escape,
        } = message;
        let slices = texts.map(|text| Slice::of(text, page));
        match (slices.from_uid, slices.client_msg_no, slices.payload) {
            (Some(from_uid), Some(client_msg_no), Some(payload)) => Self {
                id,
                seq,
                timestamp_ms,
                texts: page.clone(),
                slices: MessageText {
                    from_uid,
                    client_msg_no,
                    payload,
                },
                needs_no_escape,
            },
            _ => Self::new(id, seq, timestamp_ms, texts),
        }
    }

    /// The message with its strings borrowed.
    pub fn borrowed(&self) -> MessageRef<'_> {
        MessageRef {
            id: self.id,
            seq: self.seq,
            timestamp_ms: self.timestamp_ms,
            texts: self.slices.map(|slice| slice.within(&self.texts)),
            needs_no_escape: self.needs_no_escape,
        }
    }

    /// As [`MessageRef::from_uid`].
    pub fn from_uid(&self) -> &[u8] {
        self.borrowed().from_uid()
    }

    /// As [`MessageRef::client_msg_no`].
    pub fn client_msg_no(&self) -> &[u8] {
        self.borrowed().client_msg_no()
    }

    /// As [`MessageRef::payload`].
    pub fn payload(&self) -> &[u8] {
        self.borrowed().payload()
    }

    /// As [`MessageRef::payload_bytes`].
    pub fn payload_bytes(&self) -> usize {
        self.borrowed().payload_bytes()
    }
}

/// A message with strings of type `T`: borrowed ones, or slices of a buffer.
#[derive(Clone, Copy)]
pub struct MessageOf<T> {
    /// As [`Message::id`].
    pub id: MessageId,
    /// As [`Message::seq`].
    pub seq: u64,
    /// As [`Message::timestamp_ms`].
    pub timestamp_ms: u64,
    /// As WuKongIM gives them, in UTF-8.
    pub texts: MessageText<T>,
    /// Whether no string needs JSON escapes.
    pub needs_no_escape: bool,
}

/// A message whose strings are borrowed.
pub type MessageRef<'a> = MessageOf<&'a [u8]>;

impl<T> MessageOf<T> {
    fn map<U>(self, change: impl FnMut(T) -> U) -> MessageOf<U> {
        MessageOf {
            id: self.id,
            seq: self.seq,
            timestamp_ms: self.timestamp_ms,
            texts: self.texts.map(change),
            needs_no_escape: self.needs_no_escape,
        }
    }
}

impl MessageOf<Slice> {
    /// The message whose strings are these slices of `whole`.
    pub fn within(self, whole: &[u8]) -> MessageRef<'_> {
        self.map(|slice| slice.within(whole))
    }
}

impl<'a> MessageRef<'a> {
    /// The message with its strings appended to `whole`.
    pub fn append(self, whole: &mut Vec<u8>) -> MessageOf<Slice> {
        self.map(|text| Slice::append(text, whole))
    }

    /// The sender; [`SYSTEM_UID`] where WuKongIM leaves it empty.
    pub fn from_uid(self) -> &'a [u8] {
        match self.texts.from_uid {
            b"" => SYSTEM_UID.as_bytes(),
            uid => uid,
        }
    }

    /// The sender's client_msg_no; empty where v3 kept none.
    pub fn client_msg_no(self) -> &'a [u8] {
        self.texts.client_msg_no
    }

    /// The payload as base64.
    pub fn payload(self) -> &'a [u8] {
        self.texts.payload
    }

    /// The payload's size in bytes once decoded.
    pub fn payload_bytes(self) -> usize {
        let payload = self.payload();
        let ends = payload.iter().rev().take(2);
        let padding = ends.filter(|byte| **byte == b'=');
        (payload.len() / 4 * 3).saturating_sub(padding.count())
    }
}

/// Shows no content.
impl<T> std::fmt::Debug for MessageOf<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("Message");
        shown.field("id", &self.id).field("seq", &self.seq);
        shown.finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_padded_standard_base64_is_a_payload() {
        assert!(Payload::parse("eyJ0eXBlIjoxfQ==", 100).is_ok());
        for text in [
            "YQ", "***", "string", "YQ==YQ==", "YR==", "-_-_", "YQ==\n", " YQ==",
        ] {
            assert_eq!(
                Payload::parse(text, 100),
                Err(PayloadProblem::NotBase64),
                "{text}"
            );
        }
        assert_eq!(Payload::parse("", 100), Err(PayloadProblem::Empty));
    }

    #[test]
    fn debug_shows_no_payload() {
        let payload = Payload::parse("bWFya2Vk", 100).unwrap();
        let texts = MessageText {
            from_uid: &b"a"[..],
            client_msg_no: b"n",
            payload: b"bWFya2Vk",
        };
        let message = Message::new(MessageId(1), 1, 0, texts);
        let shown = format!("{payload:?} {message:?}");
        assert!(!shown.contains("bWFya2Vk"), "{shown}");
    }

    #[test]
    fn texts_are_pieces_of_their_page_where_they_lie_in_it() {
        let page = Bytes::from_static(b"{alice n-1 YQ==}");
        let within = |texts, needs_no_escape| {
            let message = MessageRef {
                id: MessageId(1),
                seq: 1,
                timestamp_ms: 0,
                texts,
                needs_no_escape,
            };
            Message::within(&page, message)
        };
        let texts = MessageText {
            from_uid: &page[1..6],
            client_msg_no: &page[7..10],
            payload: &page[11..15],
        };
        let inside = within(texts, true);
        let payload = MessageText {
            payload: &b"YQ=\x07"[..],
            ..texts
        };
        let outside = within(payload, false);
        for message in [&inside, &outside] {
            assert_eq!(message.from_uid(), b"alice");
            assert_eq!(message.client_msg_no(), b"n-1");
        }
        assert_eq!(inside.payload(), b"YQ==");
        assert!(page.as_ptr_range().contains(&inside.payload().as_ptr()));
        assert_eq!(outside.payload(), b"YQ=\x07");
        assert!(inside.needs_no_escape && !outside.needs_no_escape);
        let nothing = MessageText {
            from_uid: &b""[..],
            client_msg_no: b"",
            payload: b"",
        };
        let system = within(nothing, true);
        assert_eq!(system.from_uid(), SYSTEM_UID.as_bytes());
        assert!(system.payload().is_empty() && system.client_msg_no().is_empty());
    }

    #[test]
    fn a_timestamp_comes_out_of_the_id() {
        assert_eq!(
            MessageId(2_124_846_632_913_506_304).unix_ms() / 1000,
            1_795_437_889
        );
        let time = 1_795_437_889_123;
        assert_eq!(MessageId::first_at(time).unix_ms(), time);
        assert_eq!(MessageId::first_at(0), MessageId(0));
        assert!(MessageId::first_at(u64::MAX) > MessageId::first_at(time));
    }

    proptest! {
        #[test]
        fn size_is_counted_after_decoding(size in 1_usize..9000, max in 1_usize..9000) {
            let text = STANDARD.encode(vec![7_u8; size]);
            prop_assert_eq!(Payload::parse(&text, max).is_ok(), size <= max);
        }

        #[test]
        fn the_check_agrees_with_the_library(text in "[A-Za-z0-9+/=]{0,64}|[A-Za-z0-9+/]{4090,4100}={0,2}") {
            let decoded = STANDARD.decode(&text).ok().filter(|bytes| !bytes.is_empty());
            prop_assert_eq!(Payload::parse(&text, 100_000).is_ok(), decoded.is_some());
        }
    }
}
