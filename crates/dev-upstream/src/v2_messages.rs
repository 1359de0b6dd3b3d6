//! v2's messages: sends are acknowledged before they are stored, without permission checks.

use std::{
    sync::{Arc, OnceLock},
    time::Instant,
};

use serde::Deserialize;

use super::{
    V2Release, commands, go_json,
    ids::unix_seconds,
    keys::{PERSON, SYSTEM_UID},
    live::LiveMessage,
    log::Message,
    pages::{self, Bounds},
    permission::PUBLIC_TYPES,
    reply::{Crash, Reply, Request, Storing},
    requests::{self, Send, Sync},
    state::{Inner, State},
    views::{self, Shown, SyncView},
};

/// Longer strings crash the process after the answer (seen with 33,000 bytes).
const DEADLY_TEXT: usize = 32 * 1024;
/// v2.0.10 ends where it has more bytes than this to put down for one message: payload, number, sender, channel and 34 more (seen).
const FATAL_MESSAGE_BYTES: usize = 32_767;
const MESSAGE_OVERHEAD_BYTES: usize = 34;
/// A decoded payload of this size crashes the process after the answer (1,024,000 bytes still work).
const DEADLY_PAYLOAD: usize = 1 << 20;
/// The suffix of the channel that keeps a channel's commands.
pub(super) const COMMANDS: &str = "____cmd";
const UNSENDABLE: &str = "无法处理发送消息请求！";

pub(super) fn send(state: &State, release: V2Release, request: &Request<'_>) -> Reply {
    const REQUEST: &str = "api.messageSendReq";
    /// Unknown to v3, and a string in v2.
    #[derive(Deserialize)]
    struct Tag<'a> {
        #[serde(borrow, default, rename = "tag_key")]
        _tag_key: Option<std::borrow::Cow<'a, str>>,
    }
    let bound = go_json::parse::<Tag<'_>>(request.body, REQUEST)
        .and_then(|_| go_json::parse::<Send<'_>>(request.body, REQUEST));
    let send = match bound {
        Ok(send) => send,
        Err(error) => return Reply::bad_binding(error),
    };
    let payload = match requests::payload(&send.payload) {
        Ok(payload) => payload,
        Err(at) => {
            return Reply::bad_binding(format!("illegal base64 data at input byte {at}"));
        }
    };
    if payload.decoded_len == 0 {
        return Reply::bad("payload不能为空！");
    }
    let is_list = !send.subscribers.is_empty();
    if send.channel_id.trim().is_empty() != is_list || (is_list && send.header.sync_once != 1) {
        return Reply::bad(UNSENDABLE);
    }
    if send.channel_id.contains(['@', '#', '&']) {
        return Reply::bad("频道ID不合法！");
    }
    let deadly = [&send.client_msg_no, &send.channel_id, &send.from_uid]
        .iter()
        .any(|text| text.len() >= DEADLY_TEXT)
        || payload.decoded_len >= DEADLY_PAYLOAD;

    let from_uid = if send.from_uid.trim().is_empty() {
        SYSTEM_UID
    } else {
        &send.from_uid
    };
    let number = if send.client_msg_no.trim().is_empty() {
        format!("{}0", uuid::Uuid::new_v4().simple())
    } else {
        send.client_msg_no.to_string()
    };
    if is_list {
        let mut inner = state.lock();
        commands::push(&mut inner, &send, from_uid, &number, &payload.text);
        return Reply::ok();
    }
    let channel = if send.channel_type == PERSON {
        from_uid.len() + "@".len() + send.channel_id.len()
    } else {
        send.channel_id.len()
    };
    let written =
        payload.decoded_len + number.len() + from_uid.len() + channel + MESSAGE_OVERHEAD_BYTES;
    let deadly = deadly || (release == V2Release::V2_0_10 && written > FATAL_MESSAGE_BYTES);
    let mut message = Message {
        message_id: 0,
        message_seq: 0,
        client_msg_no: number.as_str().into(),
        from_uid: from_uid.into(),
        channel_id: "".into(),
        channel_type: send.channel_type,
        red_dot: send.header.red_dot == 1,
        sync_once: send.header.sync_once == 1,
        expire: send.expire,
        timestamp: unix_seconds(std::time::SystemTime::now()),
        payload: Arc::from(&*payload.text),
        json: OnceLock::new(),
    };
    let mut inner = state.lock();
    inner.received += 1;
    inner.received_bytes += payload.decoded_len as u64;
    let message_id = inner.ids.next();
    message.message_id = message_id;
    if !deadly {
        let is_stored = send.header.no_persist != 1;
        queue(&mut inner, &send.channel_id, message, is_stored, request);
    }
    drop(inner);
    let reply = Reply::json(200, &Sent::new(&number, message_id));
    if deadly {
        return reply.with_crash(Crash::AfterAnswer);
    }
    reply
}

/// Queues a message, or only delivers it; it is silently dropped when the channel is banned or disbanded, or when another channel with the
/// same hash owns the log.
fn queue(
    inner: &mut Inner,
    to: &str,
    mut message: Message,
    is_stored: bool,
    request: &Request<'_>,
) {
    let channel_type = message.channel_type;
    let mut stored_id = if channel_type == PERSON {
        inner.dialect.person_channel_id(&message.from_uid, to)
    } else {
        to.to_owned()
    };
    let flags = inner.flags(&stored_id, channel_type);
    if (flags.ban || flags.disband) && !PUBLIC_TYPES.contains(&channel_type) {
        return;
    }
    let read_as: Arc<str> = Arc::from(&*stored_id);
    if !is_stored {
        message.channel_id = read_as;
        let mut live = LiveMessage::of_api(inner.dialect, message);
        live.flags |= wkproto::flags::NO_PERSIST;
        return inner.deliver(live, None);
    }
    if message.sync_once {
        stored_id.push_str(COMMANDS);
    }
    let now = Instant::now();
    let visible_after = match request.storing {
        Storing::AsUsual => inner.visible_after,
        #[cfg(feature = "testing")]
        Storing::Late(late) => late,
        #[cfg(feature = "testing")]
        Storing::Never => return,
    };
    let keep = inner.keep;
    if !inner.admit(&stored_id, channel_type, &message.from_uid) {
        return;
    }
    let log = &mut inner.channel_mut(&stored_id, channel_type).log;
    message.channel_id = stored_id.as_str().into();
    // Due messages are stored first, so that the queue stays short in a channel without reads.
    log.settle(now, keep);
    let message_id = message.message_id;
    log.queue(now + visible_after, message);
    let key = inner.dialect.channel_key(&stored_id, channel_type);
    inner.deliver_later(now + visible_after, key, message_id, read_as);
}

#[derive(serde::Serialize)]
struct Sent<'a> {
    data: SentData<'a>,
    status: u16,
}

#[derive(serde::Serialize)]
struct SentData<'a> {
    client_msg_no: &'a str,
    message_id: i64,
}

impl<'a> Sent<'a> {
    fn new(client_msg_no: &'a str, message_id: i64) -> Self {
        Self {
            data: SentData {
                client_msg_no,
                message_id,
            },
            status: 200,
        }
    }
}

/// Every user may read everything, and a read creates the log, except in v2.0.10.
pub(super) fn sync(state: &State, release: V2Release, request: &Request<'_>) -> Reply {
    let sync: Sync = match go_json::parse(request.body, "api.syncReq") {
        Ok(sync) => sync,
        Err(error) => return Reply::bad(error),
    };
    if sync.channel_id.trim().is_empty() {
        return Reply::bad("channel_id不能为空！");
    }
    if sync.login_uid.trim().is_empty() {
        return Reply::bad("login_uid不能为空！");
    }
    let bounds = Bounds {
        start: sync.start_message_seq,
        end: sync.end_message_seq,
        limit: sync.limit,
        up: sync.pull_mode == 1,
    };
    let mut inner = state.lock();
    let stored_id = stored_id(&inner, &sync.login_uid, &sync.channel_id, sync.channel_type);
    if release >= V2Release::V2_2_0 {
        inner.touch(&stored_id, sync.channel_type);
    }
    let page = inner
        .settled(&stored_id, sync.channel_type)
        .filter(|channel| channel.log.last_seq() > 0)
        .map(|channel| pages::v2(&channel.log, bounds));
    drop(inner);
    match page {
        Some(page) => Reply::json(200, &SyncView::of_v2(&page, bounds.start, bounds.end)),
        // A channel without messages has no leader, and the answer does not even repeat the bounds.
        None => Reply::json(200, &empty()),
    }
}

fn empty() -> SyncView<'static> {
    SyncView {
        start_message_seq: 0,
        end_message_seq: 0,
        more: 0,
        messages: Vec::new(),
    }
}

pub(super) fn stored_id(
    inner: &Inner,
    login_uid: &str,
    channel_id: &str,
    channel_type: u8,
) -> String {
    if channel_type == PERSON {
        inner.dialect.person_channel_id(login_uid, channel_id)
    } else {
        channel_id.to_owned()
    }
}

/// The first message with the client_msg_no in exactly this channel, by any sender.
pub(super) fn by_client_msg_no(state: &State, request: &Request<'_>) -> Reply {
    let channel_id = request.param("channel_id");
    let channel_type = request.small_param("channel_type");
    let number = request.param("client_msg_no");
    for (wrong, message) in [
        (channel_id.trim().is_empty(), "channel_id不能为空"),
        (channel_type == 0, "channel_type不能为0"),
        (number.trim().is_empty(), "client_msg_no不能为空"),
    ] {
        if wrong {
            return Reply::bad(message);
        }
    }
    let found = find(state, &channel_id, channel_type, |message| {
        *message.client_msg_no == *number && *message.channel_id == *channel_id
    });
    one(found.as_deref())
}

fn find(
    state: &State,
    stored_id: &str,
    channel_type: u8,
    wanted: impl Fn(&Message) -> bool,
) -> Option<Arc<Message>> {
    let mut inner = state.lock();
    let channel = inner.settled(stored_id, channel_type)?;
    channel
        .log
        .iter()
        .find(|message| message.channel_type == channel_type && wanted(message))
        .cloned()
}

fn one(message: Option<&Message>) -> Reply {
    message.map_or_else(
        || Reply::soft(404),
        |message| Reply::json(200, &views::v2(message, false)),
    )
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Search {
    login_uid: String,
    channel_id: String,
    channel_type: u8,
    message_id: i64,
    message_seqs: Vec<u64>,
    message_ids: Vec<i64>,
    client_msg_nos: Vec<String>,
}

fn search_request(request: &Request<'_>) -> Result<Search, Reply> {
    let search: Search =
        go_json::parse(request.body, "api.searchReq").map_err(|_| Reply::bad("数据格式有误！"))?;
    if search.channel_id.trim().is_empty() {
        return Err(Reply::bad("channel_id不能为空！"));
    }
    Ok(search)
}

/// `/message`: by id it works, by client_msg_no it was never seen to find anything.
pub(super) fn search_one(state: &State, request: &Request<'_>) -> Reply {
    let search = match search_request(request) {
        Ok(search) => search,
        Err(reply) => return reply,
    };
    if search.channel_type == 0 {
        return Reply::bad("channel_type不能为0");
    }
    if search.channel_type == PERSON && search.login_uid.trim().is_empty() {
        return Reply::bad("login_uid不能为空！");
    }
    let stored_id = stored_id(
        &state.lock(),
        &search.login_uid,
        &search.channel_id,
        search.channel_type,
    );
    let found = find(state, &stored_id, search.channel_type, |message| {
        message.message_id == search.message_id
    });
    one(found.as_deref())
}

/// `/messages`: by seqs, ids and numbers, in this order.
pub(super) fn search(state: &State, request: &Request<'_>) -> Reply {
    let search = match search_request(request) {
        Ok(search) => search,
        Err(reply) => return reply,
    };
    let mut inner = state.lock();
    let stored_id = stored_id(
        &inner,
        &search.login_uid,
        &search.channel_id,
        search.channel_type,
    );
    let found: Vec<Arc<Message>> = inner
        .settled(&stored_id, search.channel_type)
        .map(|channel| {
            let log = &channel.log;
            let by_seq = search.message_seqs.iter().filter_map(|seq| log.get(*seq));
            let by_id = search
                .message_ids
                .iter()
                .filter_map(|id| log.iter().find(|m| m.message_id == *id).cloned());
            let by_number = search
                .client_msg_nos
                .iter()
                .filter_map(|no| log.iter().find(|m| *m.client_msg_no == **no).cloned());
            by_seq.chain(by_id).chain(by_number).collect()
        })
        .unwrap_or_default();
    drop(inner);
    let messages = found
        .iter()
        .map(|message| Shown::Own(views::v2(message, false)))
        .collect();
    Reply::json(
        200,
        &SyncView {
            messages,
            ..empty()
        },
    )
}
