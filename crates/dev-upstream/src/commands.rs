//! Sends to a list of uids, without a channel: both generations push them as commands of a channel of their own to whoever is online.
//!
//! A real server keeps those that are to be stored; here they are only pushed, since the gateway sends none.

use std::{
    collections::HashSet,
    sync::{Arc, OnceLock},
    time::SystemTime,
};

use wkproto::flags;

use super::{
    Dialect, ids::unix_seconds, keys::fnv1a64, live::LiveMessage, log::Message, requests::Send,
    state::Inner, v2_messages::COMMANDS,
};

/// The channel type of temporary channels.
const TEMPORARY: u8 = 8;
/// v2's channel of commands that are not stored.
const ONLINE_COMMANDS: &str = "systemcmdonline";

/// Pushes the message to each of its `subscribers` once, and returns its id. Nobody is checked.
pub(super) fn push(
    inner: &mut Inner,
    send: &Send<'_>,
    from_uid: &str,
    client_msg_no: &str,
    payload: &str,
) -> i64 {
    let is_stored = send.header.no_persist != 1;
    let mut seen = HashSet::new();
    let uids = send.subscribers.iter().map(String::as_str);
    let uids: Vec<&str> = uids.filter(|uid| seen.insert(*uid)).collect();
    let channel_id = if inner.dialect == Dialect::V2 && !is_stored {
        ONLINE_COMMANDS.to_owned()
    } else {
        // The order counts.
        format!("{}{COMMANDS}", fnv1a64(&uids.join(",")))
    };
    let message_id = inner.ids.next();
    let message = Message {
        message_id,
        message_seq: u64::from(is_stored),
        client_msg_no: client_msg_no.into(),
        from_uid: from_uid.into(),
        channel_id: channel_id.into(),
        channel_type: TEMPORARY,
        red_dot: send.header.red_dot == 1,
        sync_once: true,
        expire: send.expire,
        timestamp: unix_seconds(SystemTime::now()),
        payload: payload.into(),
        json: OnceLock::new(),
    };
    let mut live = LiveMessage::of_api(inner.dialect, message);
    if inner.dialect == Dialect::V2 && !is_stored {
        live.flags |= flags::NO_PERSIST;
    }
    inner.deliver_to(uids.into_iter().map(Arc::from), live, None);
    message_id
}
