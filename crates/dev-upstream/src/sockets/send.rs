//! SEND over a socket: permission, storing, SENDACK, delivery.

use std::{
    sync::{Arc, OnceLock},
    time::{Instant, SystemTime},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use wkproto::{Frame, MAX_STRING, Reason, Send, Sendack, flags, setting};

use super::{connect::Client, session::After};
use crate::{
    Dialect,
    ids::unix_seconds,
    keys::{PERSON, SYSTEM_UID},
    live::LiveMessage,
    log::Message,
    permission,
    server::Shared,
    state::Inner,
    v2_messages::COMMANDS,
};

/// What was decided on a SEND: the message's id and seq, 0 where there is none.
struct Outcome {
    message_id: i64,
    message_seq: u64,
    reason: Reason,
}

impl Outcome {
    fn refused(message_id: i64, reason: Reason) -> Self {
        Self {
            message_id,
            message_seq: 0,
            reason,
        }
    }
}

/// Takes a SEND; its SENDACK is appended to `out`.
pub(super) fn send(
    shared: &Shared,
    client: &Client,
    frame: Frame<'_>,
    out: &mut Vec<Vec<u8>>,
) -> After {
    let Ok(send) = Send::parse(frame, client.version) else {
        return After::Close;
    };
    let Ok(to) = std::str::from_utf8(send.channel_id) else {
        return After::Close;
    };
    let mut inner = shared.state.lock();
    let is_v2 = inner.dialect == Dialect::V2;
    // v2 writes the pair's id as one string, and panics.
    let pair = client.uid.len() + "@".len() + to.len();
    if is_v2 && send.channel_type == PERSON && pair > MAX_STRING {
        return After::Crash;
    }
    let taken = if is_v2 {
        take_v2(&mut inner, client, &send, frame.flags, to)
    } else {
        take_v3(&mut inner, client, &send, frame.flags, to)
    };
    drop(inner);
    if is_v2 && client.is_system_device {
        return After::GoOn;
    }
    let ack = Sendack {
        message_id: taken.message_id,
        client_seq: send.client_seq,
        message_seq: taken.message_seq,
        reason: taken.reason,
        client_msg_no: (!is_v2).then_some(send.client_msg_no),
    };
    let mut bytes = Vec::new();
    let flags = if is_v2 { frame.flags } else { 0 };
    if ack.write(client.version, flags, &mut bytes).is_err() {
        return After::Close;
    }
    out.push(bytes);
    After::GoOn
}

/// The opened payload, unless the msgKey or the sealing is wrong.
fn open(client: &Client, send: &Send<'_>) -> Option<Vec<u8>> {
    if client.cipher.send_msg_key(send) != send.msg_key {
        return None;
    }
    client.cipher.open(send.payload).ok()
}

fn take_v2(inner: &mut Inner, client: &Client, send: &Send<'_>, bits: u8, to: &str) -> Outcome {
    let message_id = inner.ids.next();
    if inner.flags(&client.uid, PERSON).send_ban {
        return Outcome::refused(message_id, Reason::SEND_BAN);
    }
    let Some(payload) = open(client, send) else {
        return Outcome::refused(message_id, Reason::PAYLOAD_DECODE_ERROR);
    };
    let stored_id = if send.channel_type == PERSON {
        inner.dialect.person_channel_id(&client.uid, to)
    } else {
        to.to_owned()
    };
    let reason = permission::v2(
        inner,
        &stored_id,
        send.channel_type,
        &client.uid,
        client.is_trusted,
    );
    if reason != Reason::SUCCESS {
        return Outcome::refused(message_id, reason);
    }
    let is_command = bits & flags::SYNC_ONCE != 0;
    let kept_in = if is_command {
        format!("{stored_id}{COMMANDS}")
    } else {
        stored_id.clone()
    };
    let mut live = live(client, send, bits, message_id, &stored_id, payload);
    live.setting = send.setting & (setting::RECEIPT | setting::TOPIC);
    send.topic.clone_into(&mut live.topic);
    if bits & flags::NO_PERSIST == 0 {
        match store(inner, &live, &kept_in) {
            Some(seq) => live.message.message_seq = seq,
            None => return Outcome::refused(message_id, Reason::SYSTEM_ERROR),
        }
    }
    let message_seq = live.message.message_seq;
    inner.deliver(live, Some(client.online.id));
    Outcome {
        message_id,
        message_seq,
        reason,
    }
}

fn take_v3(inner: &mut Inner, client: &Client, send: &Send<'_>, bits: u8, to: &str) -> Outcome {
    let is_plain = send.setting & setting::NO_ENCRYPT != 0;
    let payload = if is_plain {
        Some(send.payload.to_vec())
    } else {
        open(client, send)
    };
    let Some(payload) = payload else {
        return Outcome::refused(0, Reason::PAYLOAD_DECODE_ERROR);
    };
    let stored = permission::v3_stored_id(inner, &client.uid, to, send.channel_type);
    let Some(stored_id) = stored else {
        return Outcome::refused(0, Reason::SYSTEM_ERROR);
    };
    let reason = permission::v3(
        inner,
        &stored_id,
        send.channel_type,
        &client.uid,
        client.is_trusted,
    );
    if reason != Reason::SUCCESS || bits & flags::NO_PERSIST != 0 {
        // Neither stored nor delivered, and a success where it asked for that (seen).
        return Outcome::refused(0, reason);
    }
    let is_command = bits & flags::SYNC_ONCE != 0;
    let kept_in = if is_command {
        format!("{stored_id}{COMMANDS}")
    } else {
        stored_id.clone()
    };
    let message_id = inner.ids.next();
    let mut live = live(
        client,
        send,
        bits & flags::RED_DOT,
        message_id,
        &stored_id,
        payload,
    );
    live.setting = if is_plain { setting::NO_ENCRYPT } else { 0 };
    let number = &live.message.client_msg_no;
    let log = &inner.channel_mut(&kept_in, send.channel_type).log;
    if let Some(earlier) = log.by_client_msg_no(&live.message.from_uid, number) {
        return if earlier.payload == live.message.payload {
            Outcome {
                message_id: earlier.message_id,
                message_seq: earlier.message_seq,
                reason,
            }
        } else {
            Outcome::refused(0, Reason::SYSTEM_ERROR)
        };
    }
    let Some(message_seq) = store(inner, &live, &kept_in) else {
        return Outcome::refused(0, Reason::SYSTEM_ERROR);
    };
    let log = &mut inner.channel_mut(&kept_in, send.channel_type).log;
    log.index_client_msg_no();
    live.message.message_seq = message_seq;
    inner.deliver(live, Some(client.online.id));
    Outcome {
        message_id,
        message_seq,
        reason,
    }
}

fn live(
    client: &Client,
    send: &Send<'_>,
    bits: u8,
    message_id: i64,
    stored_id: &str,
    payload: Vec<u8>,
) -> LiveMessage {
    let timestamp = unix_seconds(SystemTime::now());
    let message = Message {
        message_id,
        message_seq: 0,
        client_msg_no: send.client_msg_no.into(),
        from_uid: client.uid.as_str().into(),
        channel_id: stored_id.into(),
        channel_type: send.channel_type,
        red_dot: bits & flags::RED_DOT != 0,
        sync_once: bits & flags::SYNC_ONCE != 0,
        expire: send.expire,
        timestamp,
        payload: STANDARD.encode(&payload).into(),
        json: OnceLock::new(),
    };
    LiveMessage {
        message,
        flags: bits,
        setting: 0,
        topic: String::new(),
        seconds: u32::try_from(timestamp).unwrap_or(0),
        payload,
    }
}

/// Stores a message at once and gives its seq; nothing where another channel with the same hash owns the log.
fn store(inner: &mut Inner, live: &LiveMessage, kept_in: &str) -> Option<u64> {
    let (now, keep) = (Instant::now(), inner.keep);
    let channel_type = live.message.channel_type;
    inner.received += 1;
    inner.received_bytes += live.payload.len() as u64;
    if !inner.admit(kept_in, channel_type, &live.message.from_uid) {
        return None;
    }
    let log = &mut inner.channel_mut(kept_in, channel_type).log;
    log.settle(now, keep);
    let message = Message {
        channel_id: Arc::from(kept_in),
        ..live.message.clone()
    };
    Some(log.store(now, message, keep))
}

/// The channel as `reader` knows it, and the sender as RECV names it.
pub(super) fn as_read_by<'a>(
    message: &'a Message,
    dialect: Dialect,
    reader: &str,
) -> (&'a str, &'a str) {
    let from: &str = &message.from_uid;
    let channel: &str = &message.channel_id;
    let channel = match channel.split_once('@') {
        Some((one, other)) if message.channel_type == PERSON => {
            if one == reader {
                other
            } else {
                one
            }
        }
        _ => channel,
    };
    // Seen: v2 leaves the system out as a sender.
    let from = if dialect == Dialect::V2 && from == SYSTEM_UID {
        ""
    } else {
        from
    };
    (from, channel)
}
