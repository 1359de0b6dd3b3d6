//! v3's manager port: a login, and the members of channels with true counts.

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime},
};

use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    go_json,
    keys::PERSON,
    reply::{Reply, Request},
    server::Shared,
    state::{Channel, List},
    v3_messages::coded_error,
};

const EXPIRES: Duration = Duration::from_hours(24);
const DEFAULT_PAGE: usize = 100;
const MAX_PAGE: usize = 500;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Login {
    username: String,
    password: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Uids {
    uids: Vec<String>,
}

/// Answers one call to the manager port.
pub(super) fn handle(shared: &Shared, request: &Request<'_>) -> Reply {
    let path = &*request.path;
    if path == "/manager/login" {
        return match request.method {
            "POST" => login(shared, request),
            _ => Reply::not_found(),
        };
    }
    let Some(rest) = path.strip_prefix("/manager/channels/") else {
        return Reply::not_found();
    };
    if !authenticated(shared, request) {
        return coded_error(401, "unauthorized", "unauthorized");
    }
    let parts: Vec<&str> = rest.split('/').collect();
    let [channel_type, channel_id, ref tail @ ..] = parts[..] else {
        return Reply::not_found();
    };
    // Seen: ids with an encoded slash or percent sign are not found; clients fold dots away.
    if matches!(channel_id, "" | "." | "..") || channel_id.contains('%') {
        return Reply::not_found();
    }
    let Some(channel_type) = channel_type.parse::<u8>().ok().filter(|number| *number > 0) else {
        return coded_error(400, "bad_request", "invalid channel_type");
    };
    let channel = (channel_id, channel_type);
    match (request.method, tail) {
        ("GET", []) => detail(shared, channel),
        ("GET", [list]) => list_of(list).map_or_else(Reply::not_found, |kind| {
            page(shared, request, channel, kind)
        }),
        ("POST", [list, change @ ("add" | "remove")]) => list_of(list)
            .map_or_else(Reply::not_found, |kind| {
                mutate(shared, request, channel, (list, kind), *change == "add")
            }),
        _ => Reply::not_found(),
    }
}

fn list_of(name: &str) -> Option<List> {
    match name {
        "subscribers" => Some(List::Members),
        "allowlist" => Some(List::Allowed),
        "denylist" => Some(List::Denied),
        _ => None,
    }
}

fn login(shared: &Shared, request: &Request<'_>) -> Reply {
    let Ok(login) = go_json::parse::<Login>(request.body, "api.loginRequest") else {
        return coded_error(400, "invalid_request", "invalid request");
    };
    let known = shared
        .manager
        .as_ref()
        .is_some_and(|(name, word)| *name == login.username && *word == login.password);
    if !known {
        return coded_error(401, "invalid_credentials", "invalid credentials");
    }
    // Formatted like a JWT; only this server reads it.
    let random = || uuid::Uuid::new_v4().simple().to_string();
    let access_token = format!("{}.{}.{}", random(), random(), random());
    shared
        .state
        .lock()
        .manager_tokens
        .insert(access_token.clone());
    let expires_at = humantime::format_rfc3339_nanos(SystemTime::now() + EXPIRES).to_string();
    Reply::json(
        200,
        &json!({
            "username": login.username,
            "token_type": "Bearer",
            "access_token": access_token,
            "expires_in": EXPIRES.as_secs(),
            "expires_at": expires_at,
            "permissions": [{ "resource": "*", "actions": ["*"] }],
        }),
    )
}

fn authenticated(shared: &Shared, request: &Request<'_>) -> bool {
    request
        .authorization
        .and_then(|header| header.trim().split_once(' '))
        .is_some_and(|(scheme, token)| {
            scheme.eq_ignore_ascii_case("bearer")
                && shared.state.lock().manager_tokens.contains(token.trim())
        })
}

fn not_found() -> Reply {
    coded_error(404, "not_found", "channel not found")
}

fn detail(shared: &Shared, (channel_id, channel_type): (&str, u8)) -> Reply {
    let inner = shared.state.lock();
    let channel = inner.channel(channel_id, channel_type);
    let Some((channel, info)) = channel.and_then(|channel| Some((channel, channel.info.as_ref()?)))
    else {
        return not_found();
    };
    let has = |list| !channel.list(list).is_empty();
    Reply::json(
        200,
        &json!({
            "channel_id": channel_id,
            "channel_type": channel_type,
            "slot_id": 1,
            "hash_slot": 0,
            "ban": info.flags.ban,
            "disband": info.flags.disband,
            "send_ban": info.flags.send_ban,
            "subscriber_mutation_version": 1,
            "has_subscribers": has(List::Members),
            "has_allowlist": has(List::Allowed),
            "has_denylist": has(List::Denied),
        }),
    )
}

fn page(
    shared: &Shared,
    request: &Request<'_>,
    (channel_id, channel_type): (&str, u8),
    list: List,
) -> Reply {
    let limit = match &*request.param("limit") {
        "" => Some(DEFAULT_PAGE),
        text => text
            .parse()
            .ok()
            .filter(|limit| (1..=MAX_PAGE).contains(limit)),
    };
    let Some(limit) = limit else {
        return coded_error(400, "bad_request", "invalid limit");
    };
    let (uid, cursor) = (request.param("uid"), request.param("cursor"));
    if !uid.is_empty() && !cursor.is_empty() {
        return coded_error(400, "bad_request", "uid and cursor are mutually exclusive");
    }
    let inner = shared.state.lock();
    let channel = inner.channel(channel_id, channel_type);
    let Some(channel) = channel.filter(|channel| channel.info.is_some()) else {
        return not_found();
    };
    if !uid.is_empty() {
        let found = inner.listed(channel_id, channel_type, list, &uid);
        let items: Vec<Value> = found.then(|| json!({ "uid": uid })).into_iter().collect();
        return Reply::json(200, &json!({ "items": items, "has_more": false }));
    }
    Reply::json(200, &members_after(channel, list, &cursor, limit))
}

/// A page after `cursor`, which here is the last uid of the page before.
fn members_after(channel: &Channel, list: List, cursor: &str, limit: usize) -> Value {
    let mut rest = channel
        .list(list)
        .values()
        .map(|member| &*member.uid)
        .skip_while(|uid| !cursor.is_empty() && *uid <= cursor);
    let uids: Vec<&str> = rest.by_ref().take(limit).collect();
    let items: Vec<Value> = uids.iter().map(|uid| json!({ "uid": uid })).collect();
    match (rest.next(), uids.last().copied()) {
        (Some(_), Some(cursor)) => {
            json!({ "items": items, "has_more": true, "next_cursor": cursor })
        }
        _ => json!({ "items": items, "has_more": false }),
    }
}

fn mutate(
    shared: &Shared,
    request: &Request<'_>,
    (channel_id, channel_type): (&str, u8),
    (list_name, list): (&str, List),
    add: bool,
) -> Reply {
    let Ok(Uids { uids }) = go_json::parse(request.body, "api.membersBody") else {
        return coded_error(400, "bad_request", "invalid member list request");
    };
    let distinct: BTreeSet<String> = uids.into_iter().collect();
    let person = channel_type == PERSON && list == List::Members;
    if distinct.is_empty() || distinct.contains("") || person {
        return coded_error(400, "bad_request", "invalid business channel request");
    }
    let uids: Vec<String> = distinct.into_iter().collect();
    let mut inner = shared.state.lock();
    let known = inner
        .channel(channel_id, channel_type)
        .is_some_and(|channel| channel.info.is_some());
    if !known {
        return not_found();
    }
    let changed = if add {
        inner.add(channel_id, channel_type, list, &uids)
    } else {
        inner.remove(channel_id, channel_type, list, &uids)
    };
    Reply::json(
        200,
        &json!({
            "channel_id": channel_id,
            "channel_type": channel_type,
            "list": list_name,
            "requested_count": uids.len(),
            "changed_count": changed,
        }),
    )
}
