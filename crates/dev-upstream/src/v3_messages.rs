//! v3's messages: sends are checked and stored with a seq before they are answered, and only members may read.

use std::{
    borrow::Cow,
    sync::{Arc, OnceLock},
    time::Instant,
};

use serde::{Deserialize, Serialize};
use serde_json::json;
use wkproto::Reason;

use super::{
    commands, go_json,
    keys::{PERSON, SYSTEM_DEVICE, SYSTEM_UID},
    live::LiveMessage,
    log::Message,
    pages::{self, Bounds},
    permission,
    reply::{Crash, Reply, Request},
    requests::{self, Send, Sync},
    state::{Inner, List, State},
    v2_messages::COMMANDS,
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

const SUCCESS: u8 = Reason::SUCCESS.0;

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
    let is_list = !send.subscribers.is_empty();
    let has_channel = !send.channel_id.is_empty() && send.channel_type != 0;
    if send.from_uid.is_empty() || send.payload.is_empty() || !(has_channel || is_list) {
        return send_error(400, INVALID_REQUEST);
    }
    let Ok(payload) = requests::payload(&send.payload) else {
        return send_error(400, "invalid payload");
    };
    let mut inner = state.lock();
    if is_list {
        return send_to_list(&mut inner, &send, &payload.text);
    }
    let stored_id =
        permission::v3_stored_id(&inner, &send.from_uid, &send.channel_id, send.channel_type);
    let Some(stored_id) = stored_id else {
        return send_error(400, INVALID_CHANNEL);
    };
    let trusted = send.from_uid == SYSTEM_UID || device_id == SYSTEM_DEVICE;
    let reason = permission::v3(
        &inner,
        &stored_id,
        send.channel_type,
        &send.from_uid,
        trusted,
    );
    if reason != Reason::SUCCESS {
        return Sent::reply(0, 0, reason.0);
    }
    if send.client_msg_no.len() >= DEADLY_TEXT {
        return send_error(500, "").with_crash(Crash::BeforeAnswer);
    }
    inner.received += 1;
    store(&mut inner, &send, stored_id, &payload.text)
}

fn send_to_list(inner: &mut Inner, send: &Send<'_>, payload: &str) -> Reply {
    if !send.channel_id.is_empty() {
        return send_error(400, "request subscribers cannot include channel_id");
    }
    if send.header.sync_once == 0 {
        return send_error(400, "request subscribers require sync_once");
    }
    let number = &send.client_msg_no;
    let message_id = commands::push(inner, send, &send.from_uid, number, payload);
    let message_seq = u64::from(send.header.no_persist == 0);
    Sent::reply(message_id, message_seq, SUCCESS)
}

fn store(inner: &mut Inner, send: &Send<'_>, mut stored_id: String, payload: &str) -> Reply {
    if send.header.no_persist != 0 {
        // Seen: in no case is it delivered.
        return match (send.header.sync_once != 0, send.channel_type) {
            (false, _) => Sent::reply(0, 0, SUCCESS),
            (true, PERSON) => send_error(400, INVALID_CHANNEL),
            (true, _) => Sent::reply(inner.ids.next(), 0, SUCCESS),
        };
    }
    let read_as = Arc::from(&*stored_id);
    if send.header.sync_once != 0 {
        stored_id.push_str(COMMANDS);
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
    let live = Message {
        channel_id: read_as,
        ..message.clone()
    };
    inner.admit(&message.channel_id, send.channel_type, &message.from_uid);
    let log = &mut inner
        .channel_mut(&message.channel_id, send.channel_type)
        .log;
    let seq = log.store(Instant::now(), message, keep);
    log.index_client_msg_no();
    let mut live = LiveMessage::of_api(inner.dialect, live);
    live.message.message_seq = seq;
    inner.deliver(live, None);
    Sent::reply(message_id, seq, SUCCESS)
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
    let stored_id = permission::v3_stored_id(&inner, login_uid, channel_id, sync.channel_type);
    let Some(stored_id) = stored_id else {
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

/// The first seq `uid` may see, `None` for non-members: nothing that the user has deleted. A pair has members shortly after its first message.
fn visible_from(inner: &Inner, stored_id: &str, channel_type: u8, uid: &str) -> Option<u64> {
    let channel = inner.channel(stored_id, channel_type)?;
    let row = inner.row(uid, stored_id, channel_type);
    let deleted_to = row.map_or(0, |row| row.deleted_to);
    if channel_type == PERSON {
        // The task that would add the members fails permanently.
        if stored_id
            .split_once('@')
            .is_some_and(|(one, other)| one == other)
        {
            return None;
        }
        let first_at = channel.log.first_at()?;
        return (first_at.elapsed() >= inner.membership_after).then_some(deleted_to + 1);
    }
    let uid = inner.dialect.uid_key(uid);
    let member = channel.list(List::Members).get(&uid)?;
    Some(member.join_seq.max(deleted_to + 1))
}

/// The error body of the manager port and of restore maintenance.
pub(super) fn coded_error(status: u16, code: &str, message: impl Into<Cow<'static, str>>) -> Reply {
    Reply::json(status, &json!({ "error": code, "message": message.into() }))
}
