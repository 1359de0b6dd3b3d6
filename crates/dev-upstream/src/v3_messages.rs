//! v3's messages: sends are checked and stored with a seq before they are answered, and only members may read.

use std::{
    borrow::Cow,
    sync::{Arc, OnceLock},
    time::Instant,
};

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{
    go_json,
    keys::{GROUP, PERSON, SYSTEM_DEVICE, SYSTEM_UID, channel_text},
    log::Message,
    pages::{self, Bounds},
    reply::{Crash, Reply, Request},
    requests::{self, Send, Sync},
    state::{Inner, List, State},
    views::SyncView,
};

/// A client_msg_no or a token of this size crashes the process.
pub(super) const DEADLY_TEXT: usize = 64 * 1024;

const INVALID_REQUEST: &str = "invalid request";
const INVALID_CHANNEL: &str = "invalid channel id";
const LOG_CONFLICT: &str = "internal/message: append failed: channel: log conflict";
const NO_MEMBERSHIP: &str = "internal/message: valid channel membership required";
const DISBANDED: &str = "internal/message: channel disbanded";
const NO_CHANNEL: &str = "internal/message: channel not found: channel: channel not found";

const SUCCESS: u8 = 1;

/// `/message/send`'s answer.
#[derive(Debug, Serialize)]
struct Sent {
    message_id: i64,
    message_seq: u64,
    reason: u8,
}

impl Sent {
    fn reply(message_id: i64, message_seq: u64, reason: u8) -> Reply {
        Reply::json(
            200,
            &Self {
                message_id,
                message_seq,
                reason,
            },
        )
    }

    fn of(message: &Message) -> Reply {
        Self::reply(message.message_id, message.message_seq, SUCCESS)
    }
}

fn send_error(status: u16, message: &str) -> Reply {
    Reply::json(status, &json!({ "error": message }))
}

pub(super) fn send(state: &State, request: &Request<'_>) -> Reply {
    const REQUEST: &str = "api.sendMessageRequest";
    /// Unknown to v2.
    #[derive(Deserialize)]
    struct Device<'a> {
        #[serde(borrow, default)]
        device_id: Cow<'a, str>,
    }
    let device = go_json::parse::<Device<'_>>(request.body, REQUEST);
    let send = go_json::parse::<Send<'_>>(request.body, REQUEST);
    let (Ok(Device { device_id }), Ok(send)) = (device, send) else {
        return send_error(400, INVALID_REQUEST);
    };
    // Messages to a list of uids are out of scope: the gateway sends to channels only.
    let incomplete = send.from_uid.is_empty()
        || send.payload.is_empty()
        || send.channel_id.is_empty()
        || send.channel_type == 0
        || !send.subscribers.is_empty();
    if incomplete {
        return send_error(400, INVALID_REQUEST);
    }
    let Ok(payload) = requests::payload(&send.payload) else {
        return send_error(400, "invalid payload");
    };
    let mut inner = state.lock();
    let Some(stored_id) = stored_id(&inner, &send.from_uid, &send.channel_id, send.channel_type)
    else {
        return send_error(400, INVALID_CHANNEL);
    };
    let trusted = send.from_uid == SYSTEM_UID || device_id == SYSTEM_DEVICE;
    let reason = reason(
        &inner,
        &stored_id,
        send.channel_type,
        &send.from_uid,
        trusted,
    );
    if reason != SUCCESS {
        return Sent::reply(0, 0, reason);
    }
    if send.client_msg_no.len() >= DEADLY_TEXT {
        return send_error(500, "").with_crash(Crash::BeforeAnswer);
    }
    inner.received += 1;
    store(&mut inner, &send, stored_id, &payload.text)
}

fn store(inner: &mut Inner, send: &Send<'_>, mut stored_id: String, payload: &str) -> Reply {
    if send.header.no_persist != 0 {
        return Sent::reply(inner.ids.next(), 0, SUCCESS);
    }
    if send.header.sync_once != 0 {
        stored_id.push_str("____cmd");
    }
    let from_uid: Arc<str> = Arc::from(&*send.from_uid);
    let client_msg_no: Arc<str> = Arc::from(&*send.client_msg_no);
    let message_id = inner.ids.next();
    let keep = inner.keep;
    let log = &mut inner.channel_mut(&stored_id, send.channel_type).log;
    if let Some(earlier) = log.by_client_msg_no(&from_uid, &client_msg_no) {
        if *earlier.payload == *payload {
            return Sent::of(&earlier);
        }
        return send_error(500, LOG_CONFLICT);
    }
    log.admit(&channel_text(&stored_id, send.channel_type));
    let message = Message {
        message_id,
        message_seq: 0,
        client_msg_no,
        from_uid,
        channel_id: stored_id.into(),
        channel_type: send.channel_type,
        red_dot: send.header.red_dot != 0,
        sync_once: send.header.sync_once != 0,
        expire: send.expire,
        timestamp: 0,
        payload: payload.into(),
        json: OnceLock::new(),
    };
    let seq = log.store(Instant::now(), message, keep);
    log.index_client_msg_no();
    Sent::reply(message_id, seq, SUCCESS)
}

/// The reason for a refusal, or [`SUCCESS`].
fn reason(inner: &Inner, stored_id: &str, channel_type: u8, from_uid: &str, trusted: bool) -> u8 {
    const SUBSCRIBER_NOT_EXIST: u8 = 3;
    const IN_BLACKLIST: u8 = 4;
    const CHANNEL_NOT_EXIST: u8 = 5;
    const NOT_IN_WHITELIST: u8 = 13;
    const BAN: u8 = 19;
    const DISBAND: u8 = 24;

    let channel = inner.channel(stored_id, channel_type);
    let known = channel.is_some_and(|channel| channel.info.is_some());
    let flags = inner.flags(stored_id, channel_type);
    if channel_type != GROUP || trusted {
        if flags.disband {
            return DISBAND;
        }
        let receiver = peer(stored_id, from_uid);
        let denied = channel_type == PERSON
            && !trusted
            && receiver != SYSTEM_UID
            && inner.listed(receiver, PERSON, List::Denied, from_uid);
        return if denied { IN_BLACKLIST } else { SUCCESS };
    }
    let on = |list| inner.listed(stored_id, GROUP, list, from_uid);
    let has_allowlist = channel.is_some_and(|channel| !channel.list(List::Allowed).is_empty());
    [
        (!known, CHANNEL_NOT_EXIST),
        (flags.ban, BAN),
        (flags.disband, DISBAND),
        (on(List::Denied), IN_BLACKLIST),
        (!on(List::Members), SUBSCRIBER_NOT_EXIST),
        (has_allowlist && !on(List::Allowed), NOT_IN_WHITELIST),
    ]
    .into_iter()
    .find_map(|(refused, reason)| refused.then_some(reason))
    .unwrap_or(SUCCESS)
}

/// The other one of a pair; the same one in a conversation with oneself.
fn peer<'a>(stored_id: &'a str, uid: &str) -> &'a str {
    let (one, other) = stored_id.split_once('@').unwrap_or((stored_id, stored_id));
    if one == uid { other } else { one }
}

/// The stored id, or `None` for the id of a pair that `uid` is not one of.
fn stored_id(inner: &Inner, uid: &str, channel_id: &str, channel_type: u8) -> Option<String> {
    if channel_type != PERSON {
        return Some(channel_id.to_owned());
    }
    let (one, other) = match channel_id.split_once('@') {
        None => (uid, channel_id),
        Some((one, other)) => {
            let pair = !one.is_empty() && !other.is_empty() && !other.contains('@');
            if !pair || (one != uid && other != uid) {
                return None;
            }
            (one, other)
        }
    };
    Some(inner.dialect.person_channel_id(one, other))
}

/// Only for members, and nothing older than their joining.
pub(super) fn sync(state: &State, request: &Request<'_>) -> Reply {
    let Ok(sync) = go_json::parse::<Sync>(request.body, "api.syncRequest") else {
        return Reply::bad("数据格式有误！");
    };
    let login_uid = sync.login_uid.trim();
    let channel_id = sync.channel_id.trim();
    for (missing, message) in [
        (login_uid.is_empty(), "login_uid不能为空！"),
        (channel_id.is_empty(), "channel_id不能为空！"),
        (sync.channel_type == 0, "channel_type不能为空！"),
    ] {
        if missing {
            return Reply::bad(message);
        }
    }
    let bounds = Bounds {
        start: sync.start_message_seq,
        end: sync.end_message_seq,
        limit: sync.limit,
        up: sync.pull_mode == 1,
    };
    let inner = state.lock();
    let Some(stored_id) = stored_id(&inner, login_uid, channel_id, sync.channel_type) else {
        return Reply::bad("runtime/channelid: invalid person channel");
    };
    let Some(min_visible) = visible_from(&inner, &stored_id, sync.channel_type, login_uid) else {
        return Reply::bad(NO_MEMBERSHIP);
    };
    if inner.flags(&stored_id, sync.channel_type).disband {
        return Reply::bad(DISBANDED);
    }
    let log = inner
        .channel(&stored_id, sync.channel_type)
        .map(|channel| &channel.log)
        .filter(|log| log.last_seq() > 0);
    let Some(log) = log else {
        return Reply::bad(NO_CHANNEL);
    };
    let page = pages::v3(log, bounds, min_visible);
    drop(inner);
    let view = SyncView::of_v3(&page, login_uid, bounds.start, bounds.end);
    Reply::json(200, &view)
}

/// The first seq `uid` may see, `None` for non-members. A pair has members shortly after its first message.
fn visible_from(inner: &Inner, stored_id: &str, channel_type: u8, uid: &str) -> Option<u64> {
    let channel = inner.channel(stored_id, channel_type)?;
    if channel_type == PERSON {
        // The task that would add the members fails permanently.
        if stored_id
            .split_once('@')
            .is_some_and(|(one, other)| one == other)
        {
            return None;
        }
        let first_at = channel.log.first_at()?;
        return (first_at.elapsed() >= inner.membership_after).then_some(1);
    }
    let uid = inner.dialect.uid_key(uid);
    let member = channel.list(List::Members).get(&uid)?;
    Some(member.join_seq)
}

/// The error body of the manager port and of restore maintenance.
pub(super) fn coded_error(status: u16, code: &str, message: impl Into<Cow<'static, str>>) -> Reply {
    Reply::json(status, &json!({ "error": code, "message": message.into() }))
}
