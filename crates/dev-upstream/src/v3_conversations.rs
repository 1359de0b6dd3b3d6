//! v3's conversations: the pages of a user's list, named ones, and the calls that change a row, for members only.
//!
//! The order is that of the activation, then of the id; messages play no part in it.

use std::{
    cmp::Reverse,
    time::{Instant, SystemTime},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};

use super::{
    go_json,
    ids::{EPOCH_MS, unix_nanos},
    keys::PERSON,
    log::Message,
    permission,
    reply::{Reply, Request},
    requests::RowRequest,
    rows::Row,
    state::{Inner, State},
    v2_messages::COMMANDS,
};

const DEFAULT_LIMIT: usize = 50;
const MAX_LIMIT: usize = 200;
const MALFORMED: &str = "数据格式有误！";
const INVALID_REQUEST: &str = "internal/usecase/conversation: invalid request";
const INVALID_ID: &str = "invalid channel_id";
const NOT_FOUND: &str = "db: not found";
const CURSOR_VERSION: u8 = 1;
const CURSOR_HEAD_BYTES: usize = 19;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ListRequest {
    uid: String,
    cursor: String,
    limit: i64,
    channels: Vec<Named>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Named {
    channel_id: String,
    channel_type: i64,
}

#[derive(Debug, Default, Serialize)]
struct Page {
    conversations: Vec<Item>,
    deletes: Vec<Channel>,
    unresolved: Vec<Channel>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
    done: bool,
    /// Unix nanoseconds.
    coverage: i64,
    tombstones_retained_since: i64,
    reset_required: bool,
}

#[derive(Debug, Serialize)]
struct Channel {
    channel_id: String,
    channel_type: u8,
}

#[derive(Debug, Serialize)]
struct Item {
    channel_id: String,
    channel_type: u8,
    /// Unix nanoseconds, 0 for never.
    active_at: i64,
    read_seq: u64,
    deleted_to_seq: u64,
    unread: u64,
    last_message: Option<LastMessage>,
}

#[derive(Debug, Serialize)]
struct LastMessage {
    message_id: i64,
    message_idstr: String,
    message_seq: u64,
    from_uid: String,
    client_msg_no: String,
    server_timestamp_ms: i64,
    payload: String,
}

impl LastMessage {
    fn new(message: &Message) -> Self {
        Self {
            message_id: message.message_id,
            message_idstr: message.message_id.to_string(),
            message_seq: message.message_seq,
            from_uid: message.from_uid.to_string(),
            client_msg_no: message.client_msg_no.to_string(),
            server_timestamp_ms: (message.message_id >> 22) + EPOCH_MS,
            payload: message.payload.to_string(),
        }
    }
}

/// The order of lists, and what a cursor names. Ids are compared by their length first, as their encoded keys are.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Position<'a> {
    active_at: Reverse<i64>,
    length: usize,
    channel_id: &'a str,
    channel_type: u8,
}

impl<'a> Position<'a> {
    fn new(active_at: i64, channel_id: &'a str, channel_type: u8) -> Self {
        Self {
            active_at: Reverse(active_at),
            length: channel_id.len(),
            channel_id,
            channel_type,
        }
    }

    fn of(row: &'a Row) -> Self {
        Self::new(row.ordered_at, &row.channel_id, row.channel_type)
    }

    fn encode(&self) -> String {
        let length = u16::try_from(self.length).unwrap_or(u16::MAX);
        let mut bytes = vec![CURSOR_VERSION];
        bytes.extend(self.active_at.0.to_be_bytes());
        bytes.extend(i64::from(self.channel_type).to_be_bytes());
        bytes.extend(length.to_be_bytes());
        bytes.extend(self.channel_id.as_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    fn decode(bytes: &'a [u8]) -> Option<Self> {
        let (head, id) = bytes.split_at_checked(CURSOR_HEAD_BYTES)?;
        let number = |at: usize| Some(i64::from_be_bytes(head[at..at + 8].try_into().ok()?));
        let length = u16::from_be_bytes(head[17..].try_into().ok()?);
        let (active_at, channel_type) = (number(1)?, u8::try_from(number(9)?).ok()?);
        let is_valid = head[0] == CURSOR_VERSION
            && active_at >= 0
            && channel_type > 0
            && length > 0
            && id.len() == usize::from(length);
        let id = std::str::from_utf8(id).ok().filter(|_| is_valid)?;
        Some(Self::new(active_at, id, channel_type))
    }
}

/// `/conversation/list`: `limit` counts what is looked at, so pages may be short.
pub(super) fn list(state: &State, request: &Request<'_>) -> Reply {
    let Ok(list) = go_json::parse::<ListRequest>(request.body, "api.listRequest") else {
        return Reply::bad(MALFORMED);
    };
    if list.uid.is_empty() {
        return Reply::bad("uid不能为空！");
    }
    let cursor = URL_SAFE_NO_PAD.decode(&list.cursor).unwrap_or_default();
    let after = Position::decode(&cursor);
    if after.is_none() && !list.cursor.is_empty() {
        return Reply::bad("cursor格式错误！");
    }
    let limit = match usize::try_from(list.limit) {
        Ok(0) => DEFAULT_LIMIT,
        Ok(limit @ 1..=MAX_LIMIT) => limit,
        _ => return Reply::bad(INVALID_REQUEST),
    };
    let inner = state.lock();
    let mut rows: Vec<&Row> = inner
        .rows_of(&list.uid)
        .filter(|row| is_member_yet(&inner, row))
        .filter(|row| {
            after
                .as_ref()
                .is_none_or(|after| Position::of(row) > *after)
        })
        .collect();
    rows.sort_unstable_by(|one, other| Position::of(one).cmp(&Position::of(other)));
    let mut page = Page {
        done: rows.len() <= limit,
        coverage: unix_nanos(SystemTime::now()),
        ..Page::default()
    };
    rows.truncate(limit);
    page.next_cursor = rows.last().map(|last| Position::of(last).encode());
    for row in rows {
        page.add(&inner, &list.uid, row);
    }
    drop(inner);
    Reply::json(200, &page)
}

/// `/conversation/retry`: the same for named channels.
pub(super) fn retry(state: &State, request: &Request<'_>) -> Reply {
    let Ok(retry) = go_json::parse::<ListRequest>(request.body, "api.retryRequest") else {
        return Reply::bad(MALFORMED);
    };
    if retry.uid.is_empty() || retry.channels.is_empty() {
        return Reply::bad("uid或channels不能为空！");
    }
    let inner = state.lock();
    let mut stored_ids = Vec::with_capacity(retry.channels.len().min(MAX_LIMIT));
    for named in &retry.channels {
        let channel_type = u8::try_from(named.channel_type).unwrap_or(0);
        if named.channel_id.is_empty() || channel_type == 0 {
            return Reply::bad("channel_id或channel_type错误！");
        }
        match stored_id(&inner, &retry.uid, &named.channel_id, channel_type) {
            Some(id) => stored_ids.push((id, channel_type)),
            None => return Reply::bad(INVALID_ID),
        }
    }
    if stored_ids.len() > MAX_LIMIT {
        return Reply::bad(INVALID_REQUEST);
    }
    let mut page = Page {
        done: true,
        ..Page::default()
    };
    for (index, (channel_id, channel_type)) in stored_ids.iter().enumerate() {
        if stored_ids[..index].contains(&stored_ids[index]) {
            continue;
        }
        let row = inner.row(&retry.uid, channel_id, *channel_type);
        match row.filter(|row| is_member_yet(&inner, row)) {
            Some(row) => page.add(&inner, &retry.uid, row),
            None => page
                .deletes
                .push(channel(&retry.uid, channel_id, *channel_type)),
        }
    }
    drop(inner);
    Reply::json(200, &page)
}

impl Page {
    /// Seen: a group without messages is told like one that the user has left.
    fn add(&mut self, inner: &Inner, uid: &str, row: &Row) {
        let named = channel(uid, &row.channel_id, row.channel_type);
        #[cfg(feature = "testing")]
        if inner.unresolved.contains(&*row.channel_id) {
            return self.unresolved.push(named);
        }
        let last = last_seq(inner, row);
        if last == 0 {
            return self.deletes.push(named);
        }
        let is_visible = last > row.deleted_to;
        if !is_visible && row.ordered_at == 0 {
            return;
        }
        let log = inner.channel(&row.channel_id, row.channel_type);
        let log = log.map(|channel| &channel.log);
        let own_seq = log.map_or(0, |log| log.newest_of(uid));
        let read_to = row.read_seq.max(row.deleted_to).max(own_seq);
        let message = log.and_then(|log| log.get(last));
        // Seen: the message of a command is not shown.
        let message = message.filter(|message| is_visible && !message.sync_once);
        self.conversations.push(Item {
            channel_id: named.channel_id,
            channel_type: row.channel_type,
            active_at: row.ordered_at,
            read_seq: row.read_seq,
            deleted_to_seq: row.deleted_to,
            unread: last.saturating_sub(read_to),
            last_message: message.map(|message| LastMessage::new(&message)),
        });
    }
}

/// The newest seq, 0 where there is no conversation (any more): none was sent, the user has left or the group is disbanded.
fn last_seq(inner: &Inner, row: &Row) -> u64 {
    let channel = inner.channel(&row.channel_id, row.channel_type);
    let channel = channel.filter(|channel| !row.has_left && !channel.flags().disband);
    channel.map_or(0, |channel| channel.log.last_seq())
}

/// A pair has members shortly after its first message.
fn is_member_yet(inner: &Inner, row: &Row) -> bool {
    let channel = inner.channel(&row.channel_id, row.channel_type);
    let first_at = channel.and_then(|channel| channel.log.first_at());
    let is_old = |at: Instant| at.elapsed() >= inner.membership_after;
    row.channel_type != PERSON || first_at.is_some_and(is_old)
}

fn channel(uid: &str, stored_id: &str, channel_type: u8) -> Channel {
    Channel {
        channel_id: shown_id(uid, stored_id, channel_type),
        channel_type,
    }
}

/// The other user of a pair, or the group.
fn shown_id(uid: &str, stored_id: &str, channel_type: u8) -> String {
    let (id, suffix) = match stored_id.strip_suffix(COMMANDS) {
        Some(id) => (id, COMMANDS),
        None => (stored_id, ""),
    };
    let pair = id.split_once('@').filter(|_| channel_type == PERSON);
    let shown = pair.map_or(id, |(one, other)| if one == uid { other } else { one });
    format!("{shown}{suffix}")
}

fn stored_id(inner: &Inner, uid: &str, channel_id: &str, channel_type: u8) -> Option<String> {
    permission::v3_stored_id(inner, uid, channel_id, channel_type)
}

/// `/conversations/clearUnread`: read up to the newest message, whatever `message_seq` says.
pub(super) fn clear_unread(state: &State, request: &Request<'_>) -> Reply {
    change(state, request, |row, _, last_seq| {
        row.read_seq = row.read_seq.max(last_seq);
    })
}

/// `/conversations/setUnread`: read up to so many before the newest message, never back.
pub(super) fn set_unread(state: &State, request: &Request<'_>) -> Reply {
    change(state, request, |row, request, last_seq| {
        let unread = u64::try_from(request.unread).unwrap_or(0);
        row.read_seq = row.read_seq.max(last_seq.saturating_sub(unread));
    })
}

/// `/conversations/delete`: hides the conversation and, from this user, its history up to here.
pub(super) fn delete(state: &State, request: &Request<'_>) -> Reply {
    change(state, request, |row, _, last_seq| {
        row.deleted_to = row.deleted_to.max(last_seq);
        row.ordered_at = 0;
    })
}

fn change(
    state: &State,
    request: &Request<'_>,
    apply: impl FnOnce(&mut Row, &RowRequest, u64),
) -> Reply {
    let (mut inner, change, stored_id) = match row_request(state, request) {
        Ok(parsed) => parsed,
        Err(reply) => return reply,
    };
    let row = inner.row(&change.uid, &stored_id, change.channel_type);
    let row = row.filter(|row| is_member_yet(&inner, row));
    let last_seq = row.map_or(0, |row| last_seq(&inner, row));
    let row = inner.row_mut(&change.uid, &stored_id, change.channel_type);
    match row.filter(|_| last_seq > 0) {
        Some(row) => apply(row, &change, last_seq),
        None => return Reply::bad(NOT_FOUND),
    }
    Reply::ok()
}

/// `/conversations/activate`: moves the user's row to the top; nothing for those who have none.
pub(super) fn activate(state: &State, request: &Request<'_>) -> Reply {
    let (mut inner, change, stored_id) = match row_request(state, request) {
        Ok(parsed) => parsed,
        Err(reply) => return reply,
    };
    let row = inner.row_mut(&change.uid, &stored_id, change.channel_type);
    if let Some(row) = row.filter(|row| !row.has_left) {
        row.ordered_at = unix_nanos(SystemTime::now());
    }
    Reply::ok()
}

type RowCall<'a> = (parking_lot::MutexGuard<'a, Inner>, RowRequest, String);

fn row_request<'a>(state: &'a State, request: &Request<'_>) -> Result<RowCall<'a>, Reply> {
    let change: RowRequest = go_json::parse(request.body, "api.conversationRequest")
        .map_err(|_| Reply::bad(MALFORMED))?;
    let checks = [
        (change.uid.is_empty(), "uid cannot be empty"),
        (
            change.channel_id.is_empty() || change.channel_type == 0,
            "channel_id or channel_type cannot be empty",
        ),
        (change.unread < 0, "unread cannot be negative"),
    ];
    if let Some((_, message)) = checks.iter().find(|(wrong, _)| *wrong) {
        return Err(Reply::bad(message));
    }
    let inner = state.lock();
    let stored_id = stored_id(&inner, &change.uid, &change.channel_id, change.channel_type);
    match stored_id {
        Some(stored_id) => Ok((inner, change, stored_id)),
        None => Err(Reply::bad(INVALID_ID)),
    }
}
