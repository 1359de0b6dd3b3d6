//! A stored message as the two generations show it.

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use super::{
    keys::{PERSON, SYSTEM_UID},
    log::Message,
    pages::Page,
};

#[derive(Debug, Serialize)]
struct Header {
    no_persist: u8,
    red_dot: u8,
    sync_once: u8,
}

/// One message of an answer, with its fields in upstream's order.
#[derive(Debug, Serialize)]
pub(super) struct MessageView<'a> {
    header: Header,
    setting: u8,
    message_id: i64,
    message_idstr: String,
    client_msg_no: &'a str,
    message_seq: u64,
    from_uid: &'a str,
    channel_id: &'a str,
    channel_type: u8,
    expire: u32,
    timestamp: i32,
    payload: &'a str,
}

/// An answer of `/channel/messagesync` and `/messages`.
#[derive(Debug, Serialize)]
pub(super) struct SyncView<'a> {
    pub(super) start_message_seq: u64,
    pub(super) end_message_seq: u64,
    pub(super) more: u8,
    pub(super) messages: Vec<Shown<'a>>,
}

/// One message of a page.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Shown<'a> {
    /// In a group, where all see the same: made once for each message, since pages of them are what is read most.
    Alike(&'a RawValue),
    Own(MessageView<'a>),
}

impl<'a> Shown<'a> {
    fn new(message: &'a Message, alike: bool, view: impl FnOnce() -> MessageView<'a>) -> Self {
        if !alike {
            return Self::Own(view());
        }
        // Fails only for maps with non-string keys and custom `Serialize` impls, and there are none here.
        let json = || to_raw_value(&view()).unwrap_or_default();
        Self::Alike(message.json.get_or_init(json))
    }
}

fn view<'a>(
    message: &'a Message,
    from_uid: &'a str,
    channel_id: &'a str,
    with_header: bool,
) -> MessageView<'a> {
    MessageView {
        header: Header {
            no_persist: 0,
            red_dot: u8::from(with_header && message.red_dot),
            sync_once: u8::from(with_header && message.sync_once),
        },
        setting: 0,
        message_id: message.message_id,
        message_idstr: message.message_id.to_string(),
        client_msg_no: &message.client_msg_no,
        message_seq: message.message_seq,
        from_uid,
        channel_id,
        channel_type: message.channel_type,
        expire: message.expire,
        timestamp: message.timestamp,
        payload: &message.payload,
    }
}

/// v2: the system's uid is hidden, and a person channel's id is the last of its two uids that is not the sender's: for a received message
/// that is the reader. A message read alone, or first of a page, has lost its header (the reader skips the first column of what it iterates
/// over).
pub(super) fn v2(message: &Message, with_header: bool) -> MessageView<'_> {
    let from_uid = if *message.from_uid == *SYSTEM_UID {
        ""
    } else {
        &message.from_uid
    };
    let channel_id = if message.channel_type == PERSON && message.channel_id.contains('@') {
        message
            .channel_id
            .split('@')
            .rfind(|uid| *uid != from_uid)
            .unwrap_or(&message.channel_id)
    } else {
        &message.channel_id
    };
    view(message, from_uid, channel_id, with_header)
}

/// v3: a person channel's id is the reader's peer; headers are not kept.
pub(super) fn v3<'a>(message: &'a Message, login_uid: &str) -> MessageView<'a> {
    let peer = match message.channel_id.split_once('@') {
        Some((one, other)) if message.channel_type == PERSON => {
            if one == login_uid {
                Some(other)
            } else {
                (other == login_uid).then_some(one)
            }
        }
        _ => None,
    };
    let channel_id = peer.unwrap_or(&message.channel_id);
    view(message, &message.from_uid, channel_id, false)
}

impl<'a> SyncView<'a> {
    pub(super) fn of_v2(page: &'a Page, start_message_seq: u64, end_message_seq: u64) -> Self {
        let messages = page.messages.iter().enumerate();
        Self {
            start_message_seq,
            end_message_seq,
            more: u8::from(page.more),
            messages: messages
                .map(|(place, message)| {
                    let alike = place > 0 && message.channel_type != PERSON;
                    Shown::new(message, alike, || v2(message, place > 0))
                })
                .collect(),
        }
    }

    pub(super) fn of_v3(
        page: &'a Page,
        login_uid: &str,
        start_message_seq: u64,
        end_message_seq: u64,
    ) -> Self {
        Self {
            start_message_seq,
            end_message_seq,
            more: u8::from(page.more),
            messages: page
                .messages
                .iter()
                .map(|message| {
                    let alike = message.channel_type != PERSON;
                    Shown::new(message, alike, || v3(message, login_uid))
                })
                .collect(),
        }
    }
}
