//! The bodies of the calls that both generations read alike.

use std::borrow::Cow;

use base64::{
    Engine as _, alphabet,
    engine::{GeneralPurpose, GeneralPurposeConfig, general_purpose::STANDARD},
};
use serde::Deserialize;

/// Where a message goes and what it says.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Send<'a> {
    pub(super) header: SendHeader,
    #[serde(borrow)]
    pub(super) client_msg_no: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) from_uid: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) channel_id: Cow<'a, str>,
    pub(super) channel_type: u8,
    pub(super) expire: u32,
    pub(super) subscribers: Vec<String>,
    #[serde(borrow)]
    pub(super) payload: Cow<'a, str>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct SendHeader {
    pub(super) no_persist: i64,
    pub(super) red_dot: i64,
    pub(super) sync_once: i64,
}

/// A user's conversation, and how many of its messages become unread.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RowRequest {
    pub(super) uid: String,
    pub(super) channel_id: String,
    pub(super) channel_type: u8,
    pub(super) unread: i64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Sync {
    pub(super) login_uid: String,
    pub(super) channel_id: String,
    pub(super) channel_type: u8,
    pub(super) start_message_seq: u64,
    pub(super) end_message_seq: u64,
    pub(super) limit: i64,
    pub(super) pull_mode: u8,
}

/// `POST /channel`, `/channel/info` and everything about lists of uids: each call reads the fields it knows.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ChannelChange {
    pub(super) channel_id: String,
    pub(super) channel_type: u8,
    pub(super) large: i64,
    pub(super) ban: i64,
    pub(super) disband: i64,
    pub(super) send_ban: i64,
    pub(super) allow_stranger: i64,
    pub(super) reset: i64,
    pub(super) temp_subscriber: i64,
    pub(super) subscribers: Vec<String>,
    pub(super) uids: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct TokenChange {
    pub(super) uid: String,
    pub(super) token: String,
    pub(super) device_flag: u8,
    pub(super) device_level: u8,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct DeviceQuit {
    pub(super) uid: String,
    /// -1 = all.
    pub(super) device_flag: i64,
}

/// A payload that decodes: its base64 text and how many bytes that is.
pub(super) struct Payload<'a> {
    pub(super) text: Cow<'a, str>,
    pub(super) decoded_len: usize,
}

/// Standard base64 with padding, as lenient as Go: line breaks and loose bits in the last character are let through.
/// The error is where Go says it is.
pub(super) fn payload(text: &str) -> Result<Payload<'_>, usize> {
    if let Ok(bytes) = STANDARD.decode(text) {
        return Ok(Payload {
            text: Cow::Borrowed(text),
            decoded_len: bytes.len(),
        });
    }
    let lenient = GeneralPurpose::new(
        &alphabet::STANDARD,
        GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
    );
    let joined: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
    match lenient.decode(&joined) {
        Ok(bytes) => Ok(Payload {
            text: Cow::Owned(STANDARD.encode(&bytes)),
            decoded_len: bytes.len(),
        }),
        Err(base64::DecodeError::InvalidByte(at, _)) => Err(at),
        Err(_) => Err(joined.len() / 4 * 4),
    }
}
