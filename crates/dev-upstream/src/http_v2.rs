//! The v2 dialect (tag v2.2.5-20260422, and what older tags lack): routes, health and lookups.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::{
    V2Release, channels, cluster,
    ids::unix_nanos,
    keys::PERSON,
    reply::{Reply, Request},
    server::Shared,
    state::{Info, Inner, List},
    users, v2_conversations, v2_messages, v2_rows,
};

/// Answers one call. Unknown paths and wrong methods are the same 404 text here.
pub(super) fn handle(shared: &Shared, request: &Request<'_>) -> Reply {
    let state = &shared.state;
    let release = shared.release();
    match (request.method, &*request.path) {
        ("GET", "/health") => Reply::json(200, &json!({ "status": "ok" })),
        ("GET", "/varz") => varz(shared),
        ("GET", "/route") => route(shared, request),
        ("GET", "/connz") => connz(),
        ("POST", "/user/token") => users::token(state, release, request),
        ("POST", "/user/device_quit") => users::device_quit(state, request),
        ("POST", "/user/onlinestatus") => users::online_status(state, request),
        ("POST", "/message/send") => v2_messages::send(state, release, request),
        ("POST", "/channel/messagesync") => v2_messages::sync(state, release, request),
        ("GET", "/message/byclientmsgno") => v2_messages::by_client_msg_no(state, request),
        ("POST", "/message") => v2_messages::search_one(state, request),
        ("POST", "/messages") => v2_messages::search(state, request),
        ("GET", "/channel/max_message_seq") => max_message_seq(shared, release, request),
        ("GET", "/cluster/channels") => cluster_channels(shared, request),
        ("POST", "/conversation/sync") => v2_conversations::sync(shared, request),
        ("POST", "/conversation/syncByChannels") => v2_conversations::by_channels(shared, request),
        ("POST", "/conversation/syncMessages") => v2_conversations::messages(shared, request),
        ("POST", "/conversation/channels") => v2_rows::channels(state, request),
        ("GET", "/cluster/conversations") => v2_rows::saved(state, request),
        ("POST", "/conversations/clearUnread") => v2_rows::clear_unread(state, request),
        ("POST", "/conversations/setUnread") => v2_rows::set_unread(state, request),
        ("POST", "/conversations/delete") => v2_rows::delete(state, request),
        ("GET", "/cluster/info") => cluster::info(state),
        ("GET", "/cluster/messages") => cluster::messages(state, request),
        ("GET", "/cluster/slots/0/localReplica") if release >= V2Release::V2_2_0 => {
            cluster::slot_replica(shared)
        }
        ("GET", path) => of_channel(shared, path, request).unwrap_or_else(Reply::not_found),
        ("POST", "/channel/subscriber_remove_all") if release < V2Release::V2_2_5 => {
            Reply::not_found()
        }
        ("POST", path) if channels::owns(path) => channels::change(state, release, request),
        _ => Reply::not_found(),
    }
}

fn varz(shared: &Shared) -> Reply {
    let (connections, received, received_bytes) = {
        let inner = shared.state.lock();
        (inner.online.len(), inner.received, inner.received_bytes)
    };
    Reply::json(
        200,
        &json!({
            "server_id": "1001",
            "server_name": "WuKongIM",
            "version": "",
            "connections": connections,
            "user_handler_count": 0,
            "user_handler_conn_count": 0,
            "uptime": uptime(shared.up_for()),
            "goroutine": 1,
            "mem": 0,
            "cpu": 0,
            "in_msgs": received,
            "out_msgs": received,
            "in_bytes": received_bytes,
            "out_bytes": received_bytes,
            "slow_clients": 0,
            "retry_queue": 0,
            "tcp_addr": shared.tcp_address(),
            "ws_addr": shared.ws_url(),
            "wss_addr": "",
            "manager_addr": "127.0.0.1:5300",
            "manager_on": 1,
            "commit": "",
            "commit_date": "",
            "tree_state": "",
            "api_url": shared.url(),
            "manager_uid": "____manager",
            "manager_token_on": u8::from(shared.manager_token.is_some()),
            "conversation_cache_count": 0,
        }),
    )
}

/// `1y2d3h4m5s`, leading units left out.
fn uptime(up: Duration) -> String {
    const UNITS: [(u64, &str); 4] = [
        (365 * 24 * 3600, "y"),
        (24 * 3600, "d"),
        (3600, "h"),
        (60, "m"),
    ];
    let mut seconds = up.as_secs();
    let mut text = String::new();
    for (unit, name) in UNITS {
        if seconds >= unit || !text.is_empty() {
            text.push_str(&(seconds / unit).to_string());
            text.push_str(name);
            seconds %= unit;
        }
    }
    text + &seconds.to_string() + "s"
}

/// The sockets for clients; empty on a v2 without intranet addresses.
fn route(shared: &Shared, request: &Request<'_>) -> Reply {
    let (tcp, ws) = if request.small_param("intranet") == 0 {
        (shared.tcp_address(), shared.ws_url())
    } else {
        (String::new(), String::new())
    };
    Reply::json(
        200,
        &json!({ "tcp_addr": tcp, "ws_addr": ws, "wss_addr": "" }),
    )
}

fn connz() -> Reply {
    let now = humantime::format_rfc3339_nanos(SystemTime::now()).to_string();
    Reply::json(
        200,
        &json!({ "connections": [], "now": now, "total": 0, "offset": 0, "limit": 20 }),
    )
}

/// v2 before v2.2.5 knows no `login_uid`: a pair has to be named by its stored id.
fn max_message_seq(shared: &Shared, release: V2Release, request: &Request<'_>) -> Reply {
    let channel_id = request.param("channel_id");
    let channel_type = request.small_param("channel_type");
    let login_uid = request.param("login_uid");
    if channel_id.is_empty() {
        return Reply::bad("channel_id不能为空");
    }
    let mut inner = shared.state.lock();
    let is_peer = channel_type == PERSON && !channel_id.contains('@');
    let stored_id = if is_peer && release >= V2Release::V2_2_5 {
        if login_uid.trim().is_empty() {
            return Reply::bad("login_uid不能为空");
        }
        inner.dialect.person_channel_id(&login_uid, &channel_id)
    } else {
        channel_id.into_owned()
    };
    match inner.settled(&stored_id, channel_type) {
        Some(channel) if channel.log.owner().is_some() => {
            Reply::json(200, &json!({ "message_seq": channel.log.last_seq() }))
        }
        // Of a cluster's nodes the leader of the id's slot alone says that there is none.
        _ if release == V2Release::V2_0_10 || shared.node != cluster::FIRST => {
            Reply::json(200, &json!({ "message_seq": 0 }))
        }
        _ => Reply::bad("not found"),
    }
}

/// With an id and a type: exactly one row, for the hash of both, empty when nothing is stored. Otherwise all matching channels.
fn cluster_channels(shared: &Shared, request: &Request<'_>) -> Reply {
    let channel_id = request.param("channel_id");
    let channel_id = channel_id.trim();
    let channel_type = request.small_param("channel_type");
    let mut inner = shared.state.lock();
    let rows = if !channel_id.is_empty() && channel_type != 0 {
        let info = inner
            .channel(channel_id, channel_type)
            .and_then(|channel| channel.info.clone());
        // This form of the query returns neither counts nor the last seq.
        vec![channel_row(info.as_ref(), 0, 0)]
    } else {
        all_channels(&mut inner, channel_id, channel_type, limit(request))
    };
    Reply::json(200, &json!({ "total": 0, "more": 0, "data": rows }))
}

pub(super) fn limit(request: &Request<'_>) -> usize {
    match request.param("limit").parse() {
        Ok(limit) if limit > 0 => limit,
        _ => 20,
    }
}

fn all_channels(inner: &mut Inner, channel_id: &str, channel_type: u8, limit: usize) -> Vec<Value> {
    let mut found: Vec<_> = inner
        .channels
        .values()
        .filter_map(|channel| {
            let info = channel.info.as_ref()?;
            let fits = (channel_id.is_empty() || info.channel_id == channel_id)
                && (channel_type == 0 || info.channel_type == channel_type);
            let members = channel.list(List::Members).len();
            fits.then_some((info, members, channel.log.last_seq()))
        })
        .collect();
    found.sort_by_key(|(info, ..)| std::cmp::Reverse(info.created_at));
    found
        .into_iter()
        .take(limit)
        .map(|(info, members, last_seq)| channel_row(Some(info), members, last_seq))
        .collect()
}

fn channel_row(info: Option<&Info>, members: usize, last_seq: u64) -> Value {
    let flags = info.map(|info| info.flags).unwrap_or_default();
    let status = match (flags.ban, flags.disband) {
        (true, _) => "封禁",
        (false, true) => "解散",
        (false, false) => "正常",
    };
    let time = |time: Option<SystemTime>| {
        (
            time.map_or(0, unix_nanos),
            time.map(minute).unwrap_or_default(),
        )
    };
    let (created_at, created_at_format) = time(info.map(|info| info.created_at));
    let (updated_at, updated_at_format) = time(info.map(|info| info.updated_at));
    json!({
        "id": info.map_or(0, |info| unix_nanos(info.created_at)),
        "slot": 0,
        "channel_id": info.map_or("", |info| info.channel_id.as_str()),
        "channel_type": info.map_or(0, |info| info.channel_type),
        "ban": u8::from(flags.ban),
        "disband": u8::from(flags.disband),
        "subscriber_count": members,
        "allowlist_count": 0,
        "denylist_count": 0,
        "last_msg_seq": last_seq,
        "last_msg_time": 0,
        "last_msg_time_format": "",
        "status_format": status,
        "created_at": created_at,
        "updated_at": updated_at,
        "created_at_format": created_at_format,
        "updated_at_format": updated_at_format,
    })
}

/// `2026-11-23 12:44`.
pub(super) fn minute(time: SystemTime) -> String {
    let text = humantime::format_rfc3339_seconds(time).to_string();
    text.get(..16).unwrap_or(&text).replace('T', " ")
}

/// `/cluster/channels/{id}/{type}/{what}`; an id with a slash, encoded or not, is another path and finds nothing, as do dots, which clients
/// normalise.
fn of_channel(shared: &Shared, path: &str, request: &Request<'_>) -> Option<Reply> {
    let rest = path.strip_prefix("/cluster/channels/")?;
    let parts: Vec<&str> = rest.split('/').collect();
    let [channel_id, channel_type, list] = parts[..] else {
        return None;
    };
    let channel_number = channel_type.parse().unwrap_or(0);
    if matches!(channel_id, "" | "." | "..") {
        return None;
    }
    let list = match list {
        "config" => {
            return Some(cluster::log_config(
                shared,
                channel_id,
                channel_number,
                request,
            ));
        }
        "subscribers" => List::Members,
        "denylist" => List::Denied,
        "allowlist" => List::Allowed,
        _ => return None,
    };
    let inner = shared.state.lock();
    let channel = inner.channel(channel_id, channel_number);
    let uids: Vec<&str> = channel.map_or_else(Vec::new, |channel| {
        channel
            .list(list)
            .values()
            .map(|member| &*member.uid)
            .collect()
    });
    Some(Reply::json(200, &uids))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uptimes_leave_out_leading_units() {
        let text = |seconds| uptime(Duration::from_secs(seconds));
        assert_eq!(text(42), "42s");
        assert_eq!(text(80), "1m20s");
        assert_eq!(text(3 * 3600 + 5), "3h0m5s");
        assert_eq!(text(365 * 86400 + 2 * 86400 + 3 * 3600 + 245), "1y2d3h4m5s");
    }
}
