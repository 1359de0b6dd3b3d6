//! Messages: what a client hands in, what a channel's history holds.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Serialize, Serializer};

use super::caps;
use crate::plain::plain_length;

/// The sender of messages that no user sent; v2 gives an empty `from_uid` for it.
pub const SYSTEM_UID: &str = "____system";

/// A message's id: a 63-bit snowflake of WuKongIM. Always text towards clients, since a JavaScript number loses its last digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageId(pub u64);

impl MessageId {
    /// When the id was made, in Unix milliseconds (both generations count from 1288834974657; seen on running servers).
    pub fn unix_ms(self) -> u64 {
        (self.0 >> 22) + 1_288_834_974_657
    }
}

impl Serialize for MessageId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// Why a text is no payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PayloadProblem {
    /// Nothing in it.
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

/// A message's content: base64 text that was checked and is passed on as it came.
#[derive(Clone, PartialEq, Eq)]
pub struct Payload {
    base64: Box<str>,
}

impl Payload {
    /// Checks base64 of at most `max_bytes` decoded bytes (never more than [`caps::PAYLOAD_BYTES`]).
    ///
    /// The engine refuses non-zero trailing bits, so equal payloads have equal texts.
    pub fn parse(text: &str, max_bytes: usize) -> Result<Self, PayloadProblem> {
        let max_bytes = max_bytes.min(caps::PAYLOAD_BYTES);
        if text.is_empty() {
            return Err(PayloadProblem::Empty);
        }
        // Length first: a huge text costs no decoding.
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
            // Padding may only end the whole text, not one of the pieces it is checked in.
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

    /// How many bytes it has after decoding.
    pub fn decoded_len(&self) -> usize {
        let padding = self
            .base64
            .bytes()
            .rev()
            .take_while(|byte| *byte == b'=')
            .count();
        self.base64.len() / 4 * 3 - padding
    }

    /// The base64 text.
    pub fn as_base64(&self) -> &str {
        &self.base64
    }
}

impl std::fmt::Debug for Payload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Payload({} base64 bytes)", self.base64.len())
    }
}

/// A stored message, already checked to belong to the channel it was asked from. `Debug` shows no text of it.
///
/// Its texts stay in the page that they came in: a page of 50 is passed on without an allocation for each.
#[derive(Clone)]
pub struct Message {
    /// WuKongIM's id.
    pub id: MessageId,
    /// Its number in the channel, from 1.
    pub seq: u64,
    /// When, in Unix milliseconds.
    pub timestamp_ms: u64,
    /// UTF-8, as are all pieces of it below.
    texts: Bytes,
    pieces: Texts<Piece>,
    is_plain: bool,
}

/// What a message says.
#[derive(Debug, Clone, Copy)]
pub struct Texts<T> {
    /// Who sent it; empty for the system.
    pub from_uid: T,
    /// The sender's own number; empty where v3 kept none.
    pub client_msg_no: T,
    /// Base64.
    pub payload: T,
}

/// A piece of a text, in bytes.
#[derive(Debug, Clone, Copy)]
struct Piece {
    start: u32,
    end: u32,
}

impl Piece {
    /// Where `piece` lies in `whole`; `None` where it is no part of it.
    fn of(piece: &str, whole: &Bytes) -> Option<Self> {
        if piece.is_empty() {
            return Some(Self { start: 0, end: 0 });
        }
        let start = piece
            .as_ptr()
            .addr()
            .checked_sub(whole.as_ptr().addr())
            .filter(|start| start + piece.len() <= whole.len())?;
        Some(Self {
            start: start.try_into().ok()?,
            end: (start + piece.len()).try_into().ok()?,
        })
    }

    fn within(self, whole: &Bytes) -> &[u8] {
        whole
            .get(self.start as usize..self.end as usize)
            .unwrap_or_default()
    }
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("Message");
        shown.field("id", &self.id).field("seq", &self.seq);
        shown.finish_non_exhaustive()
    }
}

impl Message {
    /// A message with texts of its own, whatever is in them.
    pub fn new(id: MessageId, seq: u64, timestamp_ms: u64, texts: Texts<&str>) -> Self {
        let Texts {
            from_uid,
            client_msg_no,
            payload,
        } = texts;
        let all = Bytes::from([from_uid, client_msg_no, payload].concat());
        let mut at = 0_u32;
        let mut piece = |text: &str| {
            let start = at;
            at += u32::try_from(text.len()).unwrap_or_default();
            Piece { start, end: at }
        };
        let pieces = Texts {
            from_uid: piece(from_uid),
            client_msg_no: piece(client_msg_no),
            payload: piece(payload),
        };
        Self {
            id,
            seq,
            timestamp_ms,
            is_plain: plain_length(&all) == all.len(),
            texts: all,
            pieces,
        }
    }

    /// A message whose texts are pieces of `page`, without anything that JSON would escape; with texts of its own where they are not.
    pub fn within(
        page: &Bytes,
        id: MessageId,
        seq: u64,
        timestamp_ms: u64,
        texts: Texts<&str>,
    ) -> Self {
        let pieces = || {
            Some(Texts {
                from_uid: Piece::of(texts.from_uid, page)?,
                client_msg_no: Piece::of(texts.client_msg_no, page)?,
                payload: Piece::of(texts.payload, page)?,
            })
        };
        match pieces() {
            Some(pieces) => Self {
                id,
                seq,
                timestamp_ms,
                texts: page.clone(),
                pieces,
                is_plain: true,
            },
            None => Self::new(id, seq, timestamp_ms, texts),
        }
    }

    /// Who sent it, in UTF-8; [`SYSTEM_UID`] where WuKongIM leaves it empty.
    pub fn from_uid(&self) -> &[u8] {
        match self.pieces.from_uid.within(&self.texts) {
            b"" => SYSTEM_UID.as_bytes(),
            uid => uid,
        }
    }

    /// The sender's own number, in UTF-8; empty where v3 kept none.
    pub fn client_msg_no(&self) -> &[u8] {
        self.pieces.client_msg_no.within(&self.texts)
    }

    /// Base64 text.
    pub fn payload(&self) -> &[u8] {
        self.pieces.payload.within(&self.texts)
    }

    /// Whether none of its texts holds what JSON would escape.
    pub fn is_plain(&self) -> bool {
        self.is_plain
    }

    /// The payload's size in bytes once decoded.
    pub fn payload_bytes(&self) -> usize {
        let payload = self.payload();
        let ends = payload.iter().rev().take(2);
        let padding = ends.filter(|byte| **byte == b'=');
        (payload.len() / 4 * 3).saturating_sub(padding.count())
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
        let texts = Texts {
            from_uid: "a",
            client_msg_no: "n",
            payload: "bWFya2Vk",
        };
        let message = Message::new(MessageId(1), 1, 0, texts);
        let shown = format!("{payload:?} {message:?}");
        assert!(!shown.contains("bWFya2Vk"), "{shown}");
    }

    #[test]
    fn texts_are_pieces_of_their_page_where_they_lie_in_it() {
        let page = Bytes::from_static(b"{alice n-1 YQ==}");
        let whole = std::str::from_utf8(&page).unwrap();
        let texts = Texts {
            from_uid: &whole[1..6],
            client_msg_no: &whole[7..10],
            payload: &whole[11..15],
        };
        let inside = Message::within(&page, MessageId(1), 1, 0, texts);
        let payload = Texts {
            payload: "YQ=\u{7}",
            ..texts
        };
        let outside = Message::within(&page, MessageId(1), 1, 0, payload);
        for message in [&inside, &outside] {
            assert_eq!(message.from_uid(), b"alice");
            assert_eq!(message.client_msg_no(), b"n-1");
        }
        assert_eq!(inside.payload(), b"YQ==");
        assert_eq!(outside.payload(), b"YQ=\x07");
        assert!(inside.is_plain() && !outside.is_plain());
        let nothing = Texts {
            from_uid: "",
            client_msg_no: "",
            payload: "",
        };
        let system = Message::within(&page, MessageId(1), 1, 0, nothing);
        assert_eq!(system.from_uid(), SYSTEM_UID.as_bytes());
        assert!(system.payload().is_empty() && system.client_msg_no().is_empty());
    }

    #[test]
    fn a_timestamp_comes_out_of_the_id() {
        assert_eq!(
            MessageId(2_124_846_632_913_506_304).unix_ms() / 1000,
            1_795_437_889
        );
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
