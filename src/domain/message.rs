//! Messages: what a client hands in, what a channel's history holds.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Serialize, Serializer};

use super::caps;

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

/// A stored message, already checked to belong to the channel it was asked from. `Debug` shows no payload.
#[derive(Clone)]
pub struct Message {
    /// WuKongIM's id.
    pub id: MessageId,
    /// Its number in the channel, from 1.
    pub seq: u64,
    /// Who sent it; [`SYSTEM_UID`] where WuKongIM leaves it empty.
    pub from_uid: Box<str>,
    /// The sender's own number; empty where v3 kept none.
    pub client_msg_no: Box<str>,
    /// When, in Unix milliseconds.
    pub timestamp_ms: u64,
    /// Base64 text, a slice of the page it came in.
    pub payload: Bytes,
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("Message");
        shown.field("id", &self.id).field("seq", &self.seq);
        shown.finish_non_exhaustive()
    }
}

impl Message {
    /// The payload's size in bytes once decoded.
    pub fn payload_bytes(&self) -> usize {
        let ends = self.payload.iter().rev().take(2);
        let padding = ends.filter(|byte| **byte == b'=');
        (self.payload.len() / 4 * 3).saturating_sub(padding.count())
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
        let message = Message {
            id: MessageId(1),
            seq: 1,
            from_uid: "a".into(),
            client_msg_no: "n".into(),
            timestamp_ms: 0,
            payload: "bWFya2Vk".into(),
        };
        let shown = format!("{payload:?} {message:?}");
        assert!(!shown.contains("bWFya2Vk"), "{shown}");
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
