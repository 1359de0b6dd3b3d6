//! Everything that changes a channel: its record, its members, its denylist and allowlist. The two generations share
//! the calls and differ in what they refuse.

use super::{
    Dialect, V2Release, go_json,
    keys::{GROUP, PERSON},
    reply::{Reply, Request},
    requests::ChannelChange,
    state::{Flags, List, State},
};

const MALFORMED: &str = "数据格式有误！";
const EMPTY_ID: &str = "频道ID不能为空！";
const SPECIAL_ID: &str = "频道ID不能包含特殊字符！";
const NO_PERSON: &str = "个人频道不支持添加订阅者！";
const NOT_FOUND_V3: &str = "db: not found";

/// What a call does, apart from what it is called.
#[derive(Debug, Clone, Copy)]
enum Call {
    Upsert,
    Info,
    Delete,
    Add,
    Remove,
    RemoveAll,
    ListAdd(List),
    ListSet(List),
    ListRemove(List),
    ListRemoveAll(List),
}

/// Which call a path is, if it is one of these, and the Go type its body is read into.
fn call(path: &str) -> Option<(Call, &'static str)> {
    let (denied, allowed) = (List::Denied, List::Allowed);
    Some(match path {
        "/channel" => (Call::Upsert, "api.channelCreateReq"),
        "/channel/info" => (Call::Info, "api.channelInfoReq"),
        "/channel/delete" => (Call::Delete, "api.channelDeleteReq"),
        "/channel/subscriber_add" => (Call::Add, "api.subscriberAddReq"),
        "/channel/subscriber_remove" => (Call::Remove, "api.subscriberRemoveReq"),
        "/channel/subscriber_remove_all" => (Call::RemoveAll, "api.channelReq"),
        "/channel/blacklist_add" => (Call::ListAdd(denied), "api.blacklistReq"),
        "/channel/blacklist_set" => (Call::ListSet(denied), "api.blacklistReq"),
        "/channel/blacklist_remove" => (Call::ListRemove(denied), "api.blacklistReq"),
        "/channel/blacklist_remove_all" => (Call::ListRemoveAll(denied), "api.channelReq"),
        "/channel/whitelist_add" => (Call::ListAdd(allowed), "api.whitelistReq"),
        "/channel/whitelist_set" => (Call::ListSet(allowed), "api.whitelistReq"),
        "/channel/whitelist_remove" => (Call::ListRemove(allowed), "api.whitelistReq"),
        "/channel/whitelist_remove_all" => (Call::ListRemoveAll(allowed), "api.channelReq"),
        _ => return None,
    })
}

/// Whether `path` is one of the calls of this file; all of them are `POST`.
pub(super) fn owns(path: &str) -> bool {
    call(path).is_some()
}

/// Does what the call says.
pub(super) fn change(state: &State, release: V2Release, request: &Request<'_>) -> Reply {
    let Some((call, target)) = call(&request.path) else {
        return Reply::not_found();
    };
    let dialect = state.dialect();
    let body = match go_json::parse(request.body, target) {
        Ok(body) => body,
        Err(error) => return malformed(dialect, call, &error),
    };
    match refusal(dialect, call, &body) {
        Some(message) => Reply::bad(message),
        None => apply(state, dialect, release, call, &body),
    }
}

fn malformed(dialect: Dialect, call: Call, error: &str) -> Reply {
    match (dialect, call) {
        (Dialect::V3, _) | (Dialect::V2, Call::Info) => Reply::bad(MALFORMED),
        (Dialect::V2, Call::Upsert | Call::Add | Call::Remove | Call::RemoveAll | Call::Delete) => {
            Reply::bad(format!("{MALFORMED}: {error}"))
        }
        (Dialect::V2, _) => Reply::bad(error),
    }
}

/// What upstream says against a well-formed body, in the order it looks.
fn refusal(dialect: Dialect, call: Call, body: &ChannelChange) -> Option<&'static str> {
    let person = body.channel_type == PERSON;
    let blank_id = body.channel_id.trim().is_empty();
    let special_id = special(dialect, &body.channel_id);
    let first = |checks: &[(bool, &'static str)]| {
        checks
            .iter()
            .find(|(wrong, _)| *wrong)
            .map(|(_, message)| *message)
    };
    match call {
        Call::Info => None,
        Call::Upsert => first(&[
            (blank_id, EMPTY_ID),
            (body.channel_type == 0, "频道类型错误！"),
            (special_id, SPECIAL_ID),
            (
                person && !body.subscribers.is_empty(),
                "不支持个人频道添加订阅者！",
            ),
        ]),
        Call::Delete => person.then_some(NO_PERSON),
        Call::Add | Call::Remove => first(&[
            (blank_id, EMPTY_ID),
            (special_id, SPECIAL_ID),
            (blank_list(dialect, &body.subscribers), "订阅者不能为空！"),
            (person, NO_PERSON),
            (
                matches!(call, Call::Add) && body.temp_subscriber == 1,
                "新版本临时订阅者已不支持！",
            ),
        ]),
        Call::RemoveAll | Call::ListRemoveAll(_) => first(&[
            (body.channel_id.is_empty(), "channel_id不能为空！"),
            (body.channel_type == 0, "频道类型不能为0！"),
            (
                person && matches!(call, Call::RemoveAll),
                "个人频道不支持此操作！",
            ),
        ]),
        Call::ListSet(_) => blank_id.then_some(EMPTY_ID),
        Call::ListAdd(list) | Call::ListRemove(list) => {
            let allowlist = list == List::Allowed;
            first(&[
                (body.channel_id.is_empty(), "channel_id不能为空！"),
                (allowlist && special_id, SPECIAL_ID),
                (body.channel_type == 0, "频道类型不能为0！"),
                (
                    body.uids.is_empty() || (allowlist && blank_list(dialect, &body.uids)),
                    "uids不能为空！",
                ),
            ])
        }
    }
}

fn special(dialect: Dialect, channel_id: &str) -> bool {
    match dialect {
        Dialect::V2 => channel_id.contains(['@', '#', '&']),
        Dialect::V3 => channel_id.contains(['@', '#']),
    }
}

/// v2 minds a list of nothing but blanks, v3 a single blank.
fn blank_list(dialect: Dialect, uids: &[String]) -> bool {
    let blank = |uid: &String| uid.trim().is_empty();
    match dialect {
        Dialect::V2 => uids.iter().all(blank),
        Dialect::V3 => uids.is_empty() || uids.iter().any(blank),
    }
}

fn apply(
    state: &State,
    dialect: Dialect,
    release: V2Release,
    call: Call,
    body: &ChannelChange,
) -> Reply {
    let mut inner = state.lock();
    // On v3 an added member sees nothing older than what is stored now, so everything due is stored first.
    inner.settled(&body.channel_id, body.channel_type);
    if let Some(reply) = refused_as_unknown(&inner, dialect, call, body) {
        return reply;
    }
    let channel_type = match call {
        Call::Add if body.channel_type == 0 => GROUP,
        _ => body.channel_type,
    };
    let touches = matches!(call, Call::Upsert | Call::Add | Call::Remove);
    if touches && channel_type == GROUP && release >= V2Release::V2_2_0 {
        // In v2.0.10 a send alone does (all seen).
        inner.touch(&body.channel_id, channel_type);
    }
    let channel = inner.channel_mut(&body.channel_id, channel_type);
    match call {
        Call::Upsert | Call::Info => {
            let mut flags = flags(body);
            // v3 never takes a disband back; v2 writes all flags as they come.
            flags.disband |= dialect == Dialect::V3 && channel.flags().disband;
            channel.write_info(&body.channel_id, channel_type, flags);
        }
        Call::Add if channel.info.is_none() => {
            channel.write_info(&body.channel_id, channel_type, Flags::default());
        }
        Call::Delete => {
            if let Some(info) = &mut channel.info {
                info.flags.disband = true;
            }
        }
        _ => {}
    }
    let channel_id = &*body.channel_id;
    match call {
        Call::Upsert | Call::Add => {
            if body.reset == 1 {
                inner.clear(channel_id, channel_type, List::Members);
            }
            inner.add(channel_id, channel_type, List::Members, &body.subscribers);
        }
        Call::Remove => {
            inner.remove(channel_id, channel_type, List::Members, &body.subscribers);
        }
        Call::RemoveAll => inner.clear(channel_id, channel_type, List::Members),
        Call::ListAdd(list) => {
            inner.add(channel_id, channel_type, list, &body.uids);
        }
        Call::ListSet(list) => {
            inner.clear(channel_id, channel_type, list);
            inner.add(channel_id, channel_type, list, &body.uids);
        }
        Call::ListRemove(list) => {
            inner.remove(channel_id, channel_type, list, &body.uids);
        }
        Call::ListRemoveAll(list) => inner.clear(channel_id, channel_type, list),
        Call::Info | Call::Delete => {}
    }
    Reply::ok()
}

/// v3 refuses to delete or to empty a channel it has no record of; v2 answers 200 and does nothing.
fn refused_as_unknown(
    inner: &super::state::Inner,
    dialect: Dialect,
    call: Call,
    body: &ChannelChange,
) -> Option<Reply> {
    if !matches!(call, Call::Delete | Call::RemoveAll) {
        return None;
    }
    let channel = inner.channel(&body.channel_id, body.channel_type);
    let known = channel.is_some_and(|channel| channel.info.is_some());
    match dialect {
        Dialect::V3 if !known => Some(Reply::bad(NOT_FOUND_V3)),
        Dialect::V2 if channel.is_none() => Some(Reply::ok()),
        _ => None,
    }
}

fn flags(body: &ChannelChange) -> Flags {
    Flags {
        ban: body.ban == 1,
        disband: body.disband == 1,
        send_ban: body.send_ban == 1,
        large: body.large == 1,
        allow_stranger: body.allow_stranger == 1,
    }
}
