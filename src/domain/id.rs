//! Uids, channel ids and client message numbers, and the rules for valid ones.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::caps;

/// Why a string is not a valid uid, channel id or client message number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdProblem {
    /// It is empty.
    #[error("must not be empty")]
    Empty,
    /// More bytes of UTF-8 than this deployment allows.
    #[error("must be at most {max_bytes} bytes")]
    TooLong {
        /// The limit in force, in bytes.
        max_bytes: usize,
    },
    /// A control character, white space, or one of `@ # & / \ ? %`.
    #[error("contains a character that is not allowed")]
    Character,
    /// A name reserved by WuKongIM (`____…`, `…____cmd`, `…___vstr`) or that breaks its paths (`.`, `..`).
    #[error("is a reserved name")]
    Reserved,
}

/// A user's id, assigned by the application: 1–255 bytes without the characters that WuKongIM mishandles.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Uid(Arc<str>);

/// A group's id; the same rule as for a [`Uid`], since a person channel's id *is* a uid.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChannelId(Arc<str>);

/// The client's idempotency key of a message: 1–255 bytes without control characters.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ClientMsgNo(Arc<str>);

impl Uid {
    /// Parses a uid of at most `max_bytes` bytes (and never more than [`caps::ID_BYTES`]).
    pub fn parse(text: &str, max_bytes: usize) -> Result<Self, IdProblem> {
        check_id(text, max_bytes)?;
        Ok(Self(text.into()))
    }

    /// The id as sent to WuKongIM and to clients.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl ChannelId {
    /// Parses a channel id of at most `max_bytes` bytes (and never more than [`caps::ID_BYTES`]).
    pub fn parse(text: &str, max_bytes: usize) -> Result<Self, IdProblem> {
        check_id(text, max_bytes)?;
        Ok(Self(text.into()))
    }

    /// The id as sent to WuKongIM and to clients.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Generates an id: `g_` and 22 random base64url characters, 132 bits. `None` where the system has no random numbers.
    pub fn random() -> Option<Self> {
        let mut bytes = [0; 17];
        aws_lc_rs::rand::fill(&mut bytes).ok()?;
        let mut text = String::from("g_");
        URL_SAFE_NO_PAD.encode_string(bytes, &mut text);
        text.truncate(Self::RANDOM_BYTES);
        Some(Self(text.into()))
    }

    /// The length of [`Self::random`].
    pub const RANDOM_BYTES: usize = 24;

    /// Whether [`Self::parse`] accepts an id of any length allowed.
    pub fn is_valid(text: &str) -> bool {
        check_id(text, caps::ID_BYTES).is_ok()
    }

    /// The same id as a uid, for a person channel.
    pub fn into_uid(self) -> Uid {
        Uid(self.0)
    }
}

impl ClientMsgNo {
    /// Parses a client_msg_no of at most `max_bytes` bytes (and never more than [`caps::CLIENT_MSG_NO_BYTES`]).
    pub fn parse(text: &str, max_bytes: usize) -> Result<Self, IdProblem> {
        let max_bytes = max_bytes.min(caps::CLIENT_MSG_NO_BYTES);
        if text.is_empty() {
            return Err(IdProblem::Empty);
        }
        if text.len() > max_bytes {
            return Err(IdProblem::TooLong { max_bytes });
        }
        if text.chars().any(char::is_control) {
            return Err(IdProblem::Character);
        }
        Ok(Self(text.into()))
    }

    /// Generates one for a client that gave none: 32 hex digits.
    pub fn generate() -> Self {
        let mut buffer = uuid::Uuid::encode_buffer();
        Self((&*uuid::Uuid::new_v4().simple().encode_lower(&mut buffer)).into())
    }

    /// The string exactly as the client gave it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn check_id(text: &str, max_bytes: usize) -> Result<(), IdProblem> {
    let max_bytes = max_bytes.min(caps::ID_BYTES);
    if text.is_empty() {
        return Err(IdProblem::Empty);
    }
    if text.len() > max_bytes {
        return Err(IdProblem::TooLong { max_bytes });
    }
    let is_usual = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if !text.bytes().all(is_usual) && text.chars().any(is_refused) {
        return Err(IdProblem::Character);
    }
    // `..` breaks path lookups on both generations, `____system` and `____manager` are WuKongIM's own users, `____cmd` marks its command
    // channels and a uid ending in `___vstr` skips v2's connect token.
    let reserved = text == "."
        || text == ".."
        || text.starts_with("____")
        || text.ends_with("____cmd")
        || text.ends_with("___vstr");
    if reserved {
        Err(IdProblem::Reserved)
    } else {
        Ok(())
    }
}

fn is_refused(c: char) -> bool {
    matches!(c, '@' | '#' | '&' | '/' | '\\' | '?' | '%') || c.is_control() || c.is_whitespace()
}

/// Hashed and compared as its text.
impl Borrow<str> for ChannelId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

macro_rules! text_traits {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:?})"), &*self.0)
            }
        }
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }
    )*};
}
text_traits!(Uid, ChannelId, ClientMsgNo);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ids_of_any_script_are_allowed() {
        for text in [
            "a",
            "用户-1",
            "Ünïcødé",
            "ユーザー",
            "a.b",
            "...",
            "___x",
            "user:1",
            "a+b=c",
        ] {
            assert!(Uid::parse(text, 128).is_ok(), "{text}");
        }
    }

    #[test]
    fn what_breaks_the_upstream_is_refused() {
        for text in [
            "a@b",
            "a#b",
            "a&b",
            "a/b",
            "a\\b",
            "a?b",
            "a%b",
            "a b",
            "a\nb",
            "a\0",
            "\u{a0}x",
            "a\u{2028}",
        ] {
            assert_eq!(Uid::parse(text, 128), Err(IdProblem::Character), "{text:?}");
        }
        for text in [".", "..", "____system", "____x", "g____cmd", "u___vstr"] {
            assert_eq!(
                ChannelId::parse(text, 128),
                Err(IdProblem::Reserved),
                "{text}"
            );
        }
        assert_eq!(Uid::parse("", 128), Err(IdProblem::Empty));
    }

    #[test]
    fn length_is_counted_in_bytes_and_capped() {
        assert!(Uid::parse(&"é".repeat(64), 128).is_ok());
        assert_eq!(
            Uid::parse(&"é".repeat(65), 128),
            Err(IdProblem::TooLong { max_bytes: 128 })
        );
        assert_eq!(
            Uid::parse(&"a".repeat(256), 100_000),
            Err(IdProblem::TooLong { max_bytes: 255 })
        );
    }

    proptest! {
        #[test]
        fn an_accepted_id_never_holds_a_refused_character(text in "\\PC{0,300}") {
            if let Ok(uid) = Uid::parse(&text, 128) {
                prop_assert!(uid.as_str().len() <= 128);
                prop_assert!(!uid.as_str().chars().any(is_refused));
            }
        }

        #[test]
        fn client_msg_nos_have_no_control_characters(text in any::<String>()) {
            let parsed = ClientMsgNo::parse(&text, 128);
            let fine = !text.is_empty() && text.len() <= 128 && !text.chars().any(char::is_control);
            prop_assert_eq!(parsed.is_ok(), fine);
        }
    }

    #[test]
    fn random_ids_are_valid_and_differ() {
        let ids: std::collections::HashSet<_> =
            (0..200).filter_map(|_| ChannelId::random()).collect();
        assert_eq!(ids.len(), 200);
        for id in &ids {
            let text = id.as_str().strip_prefix("g_").unwrap();
            assert_eq!(id.as_str().len(), ChannelId::RANDOM_BYTES);
            assert!(
                text.bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
            );
            assert_eq!(ChannelId::parse(id.as_str(), 24).as_ref(), Ok(id));
        }
        // No character is always the same.
        for place in 2..24 {
            let at: std::collections::HashSet<_> =
                ids.iter().map(|id| id.as_str().as_bytes()[place]).collect();
            assert!(at.len() > 20, "{place}");
        }
    }
}
