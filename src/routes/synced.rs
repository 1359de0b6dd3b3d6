//! Writes the messages of a history as JSON without serde, which would check each byte of a payload for escapes, although base64 needs none
//! (an answer of 50 messages costs a third; docs/PERFORMANCE.md).

use std::ops::Range;

use utoipa::ToSchema;

use crate::domain::{Channel, ChannelId, ChannelRef, ChannelType, Message, MessageId, MessageRef};
use crate::http::openapi::{MessageSeq, UnixMs};
use crate::json::json_scan::unescaped_prefix_len;

/// A message of a history. One that was sent over WuKongIM's own sockets need not follow the gateway's rules.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
#[expect(dead_code, reason = "`write` writes it; this is its shape")]
pub(super) struct SyncedMessage {
    message_id: MessageId,
    message_seq: MessageSeq,
    /// As the caller addresses the channel: in a conversation of two users, the peer's uid.
    channel_id: ChannelId,
    channel_type: ChannelType,
    /// Never empty; `____system` for messages of the system.
    from_uid: String,
    /// Base64.
    #[schema(content_encoding = "base64")]
    payload: String,
    timestamp: UnixMs,
    /// Empty if the message has none.
    client_msg_no: String,
}

/// Bytes of a message besides its strings.
const MESSAGE_OVERHEAD: usize = 200;

/// Writes `messages` of `channel` as an array. `channelId` is as the caller addresses the channel, `timestamp` in Unix milliseconds.
pub(super) fn write(out: &mut Vec<u8>, messages: &[Message], channel: &Channel) {
    // Identical for all messages.
    let mut of_channel = Vec::new();
    write_channel(&mut of_channel, channel.borrowed());
    out.push(b'[');
    for (index, message) in messages.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_fields(out, message.borrowed(), |out| {
            out.extend_from_slice(&of_channel);
        });
    }
    out.push(b']');
}

/// Writes one message, as in [`write()`]; `of_channel` is where `out` has its [`write_channel`].
pub(super) fn write_one(out: &mut Vec<u8>, message: MessageRef<'_>, of_channel: Range<usize>) {
    write_fields(out, message, |out| out.extend_from_within(of_channel));
}

/// Writes the fields that name the channel.
pub(super) fn write_channel(out: &mut Vec<u8>, channel: ChannelRef<'_>) {
    out.extend_from_slice(br#""channelId":"#);
    write_escaped(out, channel.id.as_bytes());
    out.extend_from_slice(br#","channelType":"#);
    write_number(out, channel.channel_type.number().into());
}

fn write_fields(
    out: &mut Vec<u8>,
    message: MessageRef<'_>,
    write_channel: impl FnOnce(&mut Vec<u8>),
) {
    let write_text = if message.needs_no_escape {
        write_unescaped
    } else {
        write_escaped
    };
    out.extend_from_slice(br#"{"messageId":""#);
    write_number(out, message.id.0);
    out.extend_from_slice(br#"","messageSeq":"#);
    write_number(out, message.seq);
    out.push(b',');
    write_channel(out);
    out.extend_from_slice(br#","fromUid":"#);
    write_text(out, message.from_uid());
    out.extend_from_slice(br#","payload":"#);
    write_text(out, message.payload());
    out.extend_from_slice(br#","timestamp":"#);
    write_number(out, message.timestamp_ms);
    out.extend_from_slice(br#","clientMsgNo":"#);
    write_text(out, message.client_msg_no());
    out.push(b'}');
}

/// The number of bytes that [`write()`] writes if nothing needs an escape, rounded up.
pub(super) fn size(messages: &[Message], channel: &Channel) -> usize {
    let messages = messages.iter().map(Message::borrowed);
    messages
        .map(|message| size_of_one(message, channel.id()))
        .sum()
}

/// As [`size()`], for one message.
pub(super) fn size_of_one(message: MessageRef<'_>, channel_id: &str) -> usize {
    let texts = [
        message.payload(),
        message.from_uid(),
        message.client_msg_no(),
    ];
    MESSAGE_OVERHEAD + channel_id.len() + texts.map(<[u8]>::len).iter().sum::<usize>()
}

// Writing into a vector cannot fail.
pub(super) fn write_number(out: &mut Vec<u8>, number: u64) {
    let _ = serde_json::to_writer(out, &number);
}

/// Writes a string that needs no escapes.
fn write_unescaped(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    out.extend_from_slice(text);
    out.push(b'"');
}

/// Writes any string; invalid UTF-8 as an empty one.
pub(super) fn write_escaped(out: &mut Vec<u8>, text: &[u8]) {
    if text.is_ascii() && unescaped_prefix_len(text) == text.len() {
        write_unescaped(out, text);
    } else {
        let text = std::str::from_utf8(text).unwrap_or_default();
        let _ = serde_json::to_writer(out, text);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::domain::{MessageText, SYSTEM_UID};

    fn written(messages: &[Message], channel: &Channel) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut out, messages, channel);
        out
    }

    #[test]
    fn no_message_is_an_empty_list_and_two_have_a_comma_between_them() {
        let channel = Channel::Group(ChannelId::parse("群", 9).unwrap());
        assert_eq!(written(&[], &channel), b"[]");
        let texts = MessageText {
            from_uid: &b"a"[..],
            client_msg_no: b"",
            payload: b"YQ==",
        };
        let id = MessageId(2_124_846_632_913_506_304);
        let message = Message::new(id, 3, 1_795_437_889_000, texts);
        let two = [message.clone(), message];
        let one = r#"{"messageId":"2124846632913506304","messageSeq":3,"channelId":"群","channelType":2,"fromUid":"a","payload":"YQ==","timestamp":1795437889000,"clientMsgNo":""}"#;
        let text = written(&two, &channel);
        assert_eq!(String::from_utf8(text).unwrap(), format!("[{one},{one}]"));
        assert!(size(&two, &channel) >= 2 * one.len());
    }

    proptest! {
        #[test]
        fn any_text_comes_out_as_it_went_in(from in "\\PC{0,8}|[\\x00-\\x7f]{0,8}", number in ".{0,40}", payload in ".{0,40}") {
            let texts = MessageText {
                from_uid: from.as_bytes(),
                client_msg_no: number.as_bytes(),
                payload: payload.as_bytes(),
            };
            let message = Message::new(MessageId(1), 1, 0, texts);
            let channel = Channel::Group(ChannelId::parse("g", 9).unwrap());
            let read: Value = serde_json::from_slice(&written(&[message], &channel)).unwrap();
            let from = if from.is_empty() { SYSTEM_UID } else { &from };
            prop_assert_eq!(&read[0]["fromUid"], &json!(from));
            prop_assert_eq!(&read[0]["clientMsgNo"], &json!(number));
            prop_assert_eq!(&read[0]["payload"], &json!(payload));
        }
    }
}
