//! v2's conversation rows without their messages: which channels a user has, how far each is read, and the calls that change a row. No
//! membership is checked, so that a clear gives a row to anybody.

use std::{
    cmp::Reverse,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};

use super::{
    go_json,
    http_v2::{limit, minute},
    ids::unix_nanos,
    keys::{GROUP, PERSON},
    reply::{Reply, Request},
    requests::RowRequest,
    rows::Row,
    state::{Inner, State},
    v2_messages::stored_id,
};

/// The newest rows that a list has; older ones are cut, whatever their messages.
const MAX_ROWS: usize = 1_000;
const NO_CHANNEL: &str = "channel_id or channel_type cannot be empty";

/// A user's rows as lists have them: the newest 1,000 saved ones, then those in memory.
pub(super) fn listed(inner: &mut Inner, uid: &str) -> Vec<Row> {
    inner.settle_rows(uid);
    let rows = inner.rows_of(uid).cloned();
    let (mut unsaved, mut saved): (Vec<Row>, Vec<Row>) =
        rows.partition(|row| row.unsaved_since.is_some());
    saved.sort_unstable_by_key(|row| Reverse((row.ordered_at, row.id)));
    saved.truncate(MAX_ROWS);
    unsaved.sort_unstable_by_key(|row| row.id);
    saved.append(&mut unsaved);
    saved
}

/// `/conversation/channels`: the stored ids of the rows that a list has, with those that are hidden or have no messages.
pub(super) fn channels(state: &State, request: &Request<'_>) -> Reply {
    let of: RowRequest = match go_json::parse(request.body, "api.channelsReq") {
        Ok(of) => of,
        Err(error) => return Reply::bad(error),
    };
    let rows = listed(&mut state.lock(), &of.uid);
    let channels: Vec<Value> = rows
        .iter()
        .map(|row| json!({ "channel_id": *row.channel_id, "channel_type": row.channel_type }))
        .collect();
    Reply::json(200, &channels)
}

/// `/cluster/conversations?uid=…`: the saved rows as they are, 20 unless a `limit` says otherwise.
pub(super) fn saved(state: &State, request: &Request<'_>) -> Reply {
    let uid = request.param("uid");
    let mut inner = state.lock();
    inner.settle_rows(&uid);
    let rows = inner
        .rows_of(&uid)
        .filter(|row| row.unsaved_since.is_none());
    let mut rows: Vec<Row> = rows.cloned().collect();
    rows.sort_unstable_by_key(|row| row.id);
    rows.truncate(limit(request));
    let data: Vec<Value> = rows
        .iter()
        .map(|row| saved_row(&mut inner, &uid, row))
        .collect();
    Reply::json(200, &json!({ "total": 0, "data": data }))
}

fn saved_row(inner: &mut Inner, uid: &str, row: &Row) -> Value {
    let last_seq = inner.last_seq(&row.channel_id, row.channel_type);
    let type_format = match row.channel_type {
        PERSON => "个人",
        GROUP => "群组",
        _ => "",
    };
    let (created_at, created_at_format) = seconds(row.created_at);
    let (updated_at, updated_at_format) = seconds(row.ordered_at);
    json!({
        "id": row.id,
        "uid": uid,
        "type": 0,
        "type_format": "聊天",
        "channel_id": *row.channel_id,
        "channel_type": row.channel_type,
        "channel_type_format": type_format,
        "unread_count": last_seq.saturating_sub(row.read_seq),
        "last_msg_seq": last_seq,
        "readed_to_msg_seq": row.read_seq,
        "created_at": created_at,
        "updated_at": updated_at,
        "created_at_format": created_at_format,
        "updated_at_format": updated_at_format,
    })
}

fn seconds(nanos: i64) -> (u64, String) {
    let seconds = u64::try_from(nanos / 1_000_000_000).unwrap_or(0);
    (seconds, minute(UNIX_EPOCH + Duration::from_secs(seconds)))
}

/// `/conversations/clearUnread`: read up to the newest message.
pub(super) fn clear_unread(state: &State, request: &Request<'_>) -> Reply {
    change(
        state,
        request,
        "uid cannot be empty",
        |inner, row, stored_id| {
            let last_seq = inner.last_seq(stored_id, row.channel_type);
            read_to(inner, row, stored_id, last_seq);
        },
    )
}

/// `/conversations/setUnread`: read up to so many before the newest message. In a channel without messages that is far beyond all.
pub(super) fn set_unread(state: &State, request: &Request<'_>) -> Reply {
    change(
        state,
        request,
        "UID cannot be empty",
        |inner, row, stored_id| {
            let last_seq = inner.last_seq(stored_id, row.channel_type);
            let read_seq = match u64::try_from(row.unread) {
                Ok(unread) if unread <= last_seq => last_seq - unread,
                // A negative number is a large one as well.
                _ => last_seq.wrapping_sub(1),
            };
            read_to(inner, row, stored_id, read_seq);
        },
    )
}

/// `/conversations/delete`: hides a saved row up to the newest message; there may be none.
pub(super) fn delete(state: &State, request: &Request<'_>) -> Reply {
    change(
        state,
        request,
        "Uid cannot be empty",
        |inner, row, stored_id| {
            let last_seq = inner.last_seq(stored_id, row.channel_type);
            let row = inner.row_mut(&row.uid, stored_id, row.channel_type);
            if let Some(row) = row.filter(|row| row.unsaved_since.is_none()) {
                row.deleted_to = last_seq;
            }
        },
    )
}

fn change(
    state: &State,
    request: &Request<'_>,
    no_uid: &str,
    apply: impl FnOnce(&mut Inner, &RowRequest, &str),
) -> Reply {
    let row: RowRequest = match go_json::parse(request.body, "api.conversationReq") {
        Ok(row) => row,
        Err(error) => return Reply::bad(error),
    };
    if row.uid.is_empty() {
        return Reply::bad(no_uid);
    }
    if row.channel_id.is_empty() || row.channel_type == 0 {
        return Reply::bad(NO_CHANNEL);
    }
    let mut inner = state.lock();
    inner.settle_rows(&row.uid);
    let stored_id = stored_id(&inner, &row.uid, &row.channel_id, row.channel_type);
    apply(&mut inner, &row, &stored_id);
    Reply::ok()
}

/// Moves the read pointer forward, never back. A row that is not there is made; one in memory is saved.
fn read_to(inner: &mut Inner, change: &RowRequest, stored_id: &str, read_seq: u64) {
    let known = inner.row(&change.uid, stored_id, change.channel_type);
    let saved = known.filter(|row| row.unsaved_since.is_none());
    if saved.map_or(0, |row| row.read_seq) >= read_seq {
        return;
    }
    let now = unix_nanos(SystemTime::now());
    let row = inner.row_or_new(&change.uid, &Arc::from(stored_id), change.channel_type);
    row.read_seq = read_seq;
    row.ordered_at = now;
    row.unsaved_since = None;
}
