//! v2's conversation lists with their messages: all of a user's, named ones, and what one node has of them. No membership is checked.

use std::{collections::HashMap, sync::Arc};

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{
    cluster::FIRST,
    go_json,
    keys::{PERSON, SYSTEM_UID},
    log::{Log, Message},
    reply::{Crash, Reply, Request},
    rows::Row,
    server::Shared,
    state::Inner,
    v2_messages::{COMMANDS, stored_id},
    v2_rows::listed,
    views::{self, MessageView},
};

const DEFAULT_PAGE_SIZE: i64 = 100;
const MAX_PAGE_SIZE: i64 = 500;
/// What `msg_count` 0 means, except to `/conversation/sync`.
const DEFAULT_RECENTS: i64 = 15;
/// The stand-in shows no more messages of a channel, so that no list takes unbounded time; a real server does.
const MAX_RECENTS: i64 = 10_000;
/// A real server runs out of memory at once (seen).
const DEADLY_RECENTS: i64 = 1_000_000_000;
/// A node could not ask another one, which refuses it for the lack of the manager token.
const NODES_FAIL: &str = "获取最近消息失败！";

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct SyncRequest {
    uid: String,
    version: i64,
    last_msg_seqs: String,
    msg_count: i64,
    only_unread: u8,
    exclude_channel_types: Vec<u8>,
    page: i64,
    page_size: i64,
}

/// A channel of a request.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Named {
    channel_id: String,
    channel_type: u8,
    last_msg_seq: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct NamedRequest {
    uid: String,
    channels: Vec<Named>,
    msg_count: i64,
    order_by_last: i64,
}

#[derive(Debug, Serialize)]
struct RowView<'a> {
    channel_id: &'a str,
    channel_type: u8,
    unread: u64,
    timestamp: i64,
    last_msg_seq: u32,
    last_client_msg_no: &'a str,
    offset_msg_seq: i64,
    readed_to_msg_seq: u32,
    version: i64,
    recents: Vec<MessageView<'a>>,
}

#[derive(Debug, Serialize)]
struct MessagesView<'a> {
    channel_id: &'a str,
    channel_type: u8,
    messages: Vec<MessageView<'a>>,
    user_last_msg_seq: u64,
}

/// A row with the newest messages of its channel.
struct Loaded {
    /// As the answer names it: the peer, or the group.
    channel_id: String,
    channel_type: u8,
    read_seq: u64,
    /// Unix nanoseconds, 0 for a channel without a row.
    updated_at: i64,
    /// Newest first.
    messages: Vec<Arc<Message>>,
    /// The newest message that the user sent.
    own_seq: u64,
}

impl Loaded {
    /// Seqs are cut to 32 bits; own messages count as read.
    fn view<'a>(&'a self, uid: &str) -> RowView<'a> {
        let mut read = low_bits(self.read_seq);
        let mut unread = 0;
        let last = self.messages.first();
        let last_seq = last.map_or(0, |last| last.message_seq);
        if last.is_some() {
            unread = last_seq.saturating_sub(read.into());
            if self.own_seq > u64::from(read) && last_seq.saturating_sub(self.own_seq) < unread {
                unread = last_seq.saturating_sub(self.own_seq);
                read = low_bits(self.own_seq);
            }
        }
        if last.is_some_and(|last| *last.from_uid == *uid) {
            read = low_bits(last_seq);
            unread = 0;
        }
        let timestamp = last.map_or(0, |last| i64::from(last.timestamp));
        RowView {
            channel_id: &self.channel_id,
            channel_type: self.channel_type,
            unread,
            timestamp,
            last_msg_seq: low_bits(last_seq),
            last_client_msg_no: last.map_or("", |last| &last.client_msg_no),
            offset_msg_seq: 0,
            readed_to_msg_seq: read,
            version: last.map_or(self.updated_at, |_| timestamp * 1_000_000_000),
            recents: newest_first(&self.messages),
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "as a real server does")]
fn low_bits(seq: u64) -> u32 {
    seq as u32
}

/// The oldest of what is read has lost its header.
fn newest_first(messages: &[Arc<Message>]) -> Vec<MessageView<'_>> {
    let oldest = messages.len().saturating_sub(1);
    let messages = messages.iter().enumerate();
    messages
        .map(|(index, message)| views::v2(message, index < oldest))
        .collect()
}

/// The newest messages after a seq, newest first, and none with a greater id than the last one stored.
fn recents(log: &Log, after: u64, count: i64, last_id: Option<i64>) -> Vec<Arc<Message>> {
    let count = usize::try_from(count.min(MAX_RECENTS)).unwrap_or(0);
    let messages = log.range(after.saturating_add(1), u64::MAX).rev();
    let stored =
        messages.skip_while(|message| last_id.is_some_and(|last| message.message_id > last));
    stored.take(count).cloned().collect()
}

/// The other user of a pair, or the group.
fn shown_id(uid: &str, channel_id: &str, channel_type: u8) -> String {
    let pair = channel_id
        .split_once('@')
        .filter(|_| channel_type == PERSON);
    let shown = pair.map_or(
        channel_id,
        |(one, other)| if one == uid { other } else { one },
    );
    shown.to_owned()
}

/// Whether the nodes of this cluster refuse each other's calls.
fn nodes_fail(shared: &Shared, inner: &Inner) -> bool {
    shared.manager_token.is_some() && inner.nodes > 1
}

/// `/conversation/sync`: pages are cut before rows without messages are left out.
pub(super) fn sync(shared: &Shared, request: &Request<'_>) -> Reply {
    let sync: SyncRequest = match go_json::parse(request.body, "api.syncReq") {
        Ok(sync) => sync,
        Err(error) => return Reply::bad(error),
    };
    if sync.uid.is_empty() {
        return Reply::raw(500, "", "");
    }
    if sync.msg_count >= DEADLY_RECENTS {
        return Reply::raw(200, "", "").with_crash(Crash::BeforeAnswer);
    }
    let known = known_seqs(&sync.last_msg_seqs);
    let mut inner = shared.state.lock();
    let is_excluded = |row: &Row| {
        let id = shown_id(&sync.uid, &row.channel_id, row.channel_type);
        sync.exclude_channel_types.contains(&row.channel_type)
            && !known.contains_key(&(id, row.channel_type))
    };
    let mut rows = listed(&mut inner, &sync.uid);
    rows.retain(|row| row.unsaved_since.is_none() || !is_excluded(row));
    let rows = page(&rows, sync.page, sync.page_size);
    if sync.msg_count <= 0 || rows.is_empty() {
        return Reply::json(200, &json!([]));
    }
    if nodes_fail(shared, &inner) {
        return Reply::bad(NODES_FAIL);
    }
    let mut loaded = Vec::with_capacity(rows.len());
    for row in rows {
        let channel_id = shown_id(&sync.uid, &row.channel_id, row.channel_type);
        let is_system = row.channel_type == PERSON && channel_id == SYSTEM_UID;
        if is_system || row.channel_id.ends_with(COMMANDS) || is_excluded(row) {
            continue;
        }
        let key = (channel_id, row.channel_type);
        let known_seq = known.get(&key).copied().unwrap_or(0);
        let channel_id = key.0;
        let mut after = known_seq;
        if known_seq == 0 && (sync.version > 0 || sync.only_unread == 1) {
            after = row.read_seq;
        }
        if row.deleted_to > after {
            after = row.deleted_to;
        }
        let found = load(
            &mut inner,
            &sync.uid,
            row,
            channel_id,
            after,
            sync.msg_count,
        );
        let last_seq = found.messages.first().map_or(0, |last| last.message_seq);
        // A stale client's groups only: pairs are compared by another id, and never left out here.
        let is_known = row.channel_type != PERSON && known_seq != 0 && known_seq >= last_seq;
        if !found.messages.is_empty() && !is_known {
            loaded.push(found);
        }
    }
    drop(inner);
    let views: Vec<_> = loaded.iter().map(|row| row.view(&sync.uid)).collect();
    Reply::json(200, &views)
}

/// `id:type:seq|…`; what has not three parts is passed over.
fn known_seqs(text: &str) -> HashMap<(String, u8), u64> {
    let entries = text.split('|').filter_map(|entry| {
        let parts: Vec<&str> = entry.split(':').collect();
        let [id, channel_type, seq] = parts[..] else {
            return None;
        };
        let channel_type = channel_type.parse().unwrap_or(0);
        Some(((id.to_owned(), channel_type), seq.parse().unwrap_or(0)))
    });
    entries.collect()
}

fn page(rows: &[Row], page: i64, page_size: i64) -> &[Row] {
    if page <= 0 {
        return rows;
    }
    let page_size = if page_size <= 0 {
        DEFAULT_PAGE_SIZE
    } else {
        page_size.min(MAX_PAGE_SIZE)
    };
    let index = |number: i64| {
        usize::try_from(number)
            .unwrap_or(usize::MAX)
            .min(rows.len())
    };
    let start = (page - 1).saturating_mul(page_size);
    &rows[index(start)..index(start.saturating_add(page_size))]
}

fn load(
    inner: &mut Inner,
    uid: &str,
    row: &Row,
    channel_id: String,
    after: u64,
    count: i64,
) -> Loaded {
    let log = inner.settled(&row.channel_id, row.channel_type);
    let log = log.map(|channel| &channel.log);
    // A row in memory has nothing but its channel.
    let is_saved = row.unsaved_since.is_none();
    Loaded {
        channel_id,
        channel_type: row.channel_type,
        read_seq: if is_saved { row.read_seq } else { 0 },
        updated_at: if is_saved { row.ordered_at } else { 0 },
        messages: log.map_or_else(Vec::new, |log| recents(log, after, count, None)),
        own_seq: log.map_or(0, |log| log.newest_of(uid)),
    }
}

/// `/conversation/syncByChannels`: also channels that the user has not, has hidden or left.
pub(super) fn by_channels(shared: &Shared, request: &Request<'_>) -> Reply {
    let named: NamedRequest = match go_json::parse(request.body, "api.channelsReq") {
        Ok(named) => named,
        Err(error) => return Reply::bad(error),
    };
    if named.uid.is_empty() {
        return Reply::bad("uid cannot be empty");
    }
    if named.channels.is_empty() {
        return Reply::bad("channels cannot be empty");
    }
    if named.msg_count >= DEADLY_RECENTS {
        return Reply::raw(200, "", "").with_crash(Crash::BeforeAnswer);
    }
    let uid = &named.uid;
    let mut inner = shared.state.lock();
    if nodes_fail(shared, &inner) {
        return Reply::bad(NODES_FAIL);
    }
    inner.settle_rows(uid);
    let mut loaded = Vec::with_capacity(named.channels.len());
    for channel in &named.channels {
        let channel_type = channel.channel_type;
        let stored_id = stored_id(&inner, uid, &channel.channel_id, channel_type);
        let row = inner.row(uid, &stored_id, channel_type);
        let row = row.filter(|row| row.unsaved_since.is_none());
        let (read_seq, updated_at) = row.map_or((0, 0), |row| (row.read_seq, row.ordered_at));
        let log = inner.settled(&stored_id, channel_type);
        let log = log.map(|channel| &channel.log);
        let count = recents_count(named.msg_count);
        loaded.push(Loaded {
            channel_id: shown_id(uid, &stored_id, channel_type),
            channel_type,
            read_seq,
            updated_at,
            messages: log.map_or_else(Vec::new, |log| recents(log, 0, count, None)),
            own_seq: log.map_or(0, |log| log.newest_of(uid)),
        });
    }
    drop(inner);
    let views: Vec<_> = loaded.iter().map(|row| row.view(uid)).collect();
    Reply::json(200, &views)
}

fn recents_count(msg_count: i64) -> i64 {
    if msg_count <= 0 {
        DEFAULT_RECENTS
    } else {
        msg_count
    }
}

/// `/conversation/syncMessages`, by which nodes ask each other: what this node has stored of the channels, by their stored ids.
pub(super) fn messages(shared: &Shared, request: &Request<'_>) -> Reply {
    let Ok(named) = go_json::parse::<NamedRequest>(request.body, "api.messagesReq") else {
        return Reply::bad("数据格式有误！");
    };
    let count = recents_count(named.msg_count);
    let mut inner = shared.state.lock();
    let last_id = inner.copied_up_to.filter(|_| shared.node != FIRST);
    let mut loaded = Vec::with_capacity(named.channels.len());
    for channel in &named.channels {
        let after = channel.last_msg_seq.saturating_sub(1);
        let log = inner.settled(&channel.channel_id, channel.channel_type);
        let log = log.map(|channel| &channel.log);
        let messages = log.map_or_else(Vec::new, |log| recents(log, after, count, last_id));
        let own_seq = log.map_or(0, |log| log.newest_of(&named.uid));
        loaded.push((channel, messages, own_seq));
    }
    drop(inner);
    let views: Vec<_> = loaded
        .iter()
        .map(|(channel, messages, own_seq)| {
            let mut messages = newest_first(messages);
            if named.order_by_last == 0 {
                messages.reverse();
            }
            MessagesView {
                channel_id: &channel.channel_id,
                channel_type: channel.channel_type,
                messages,
                user_last_msg_seq: *own_seq,
            }
        })
        .collect();
    Reply::json(200, &views)
}
