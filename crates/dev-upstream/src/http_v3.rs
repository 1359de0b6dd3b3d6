//! The v3 dialect (main of 2026-08-23): its routes, its probes and its metrics.

use std::time::SystemTime;

use serde_json::json;

use super::{
    channels,
    ids::unix_ms,
    reply::{Reply, Request},
    server::Shared,
    users, v3_conversations, v3_messages,
};

/// What Prometheus calls its text.
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Answers one call; a known path with another method is 405 here.
pub(super) fn handle(shared: &Shared, request: &Request<'_>) -> Reply {
    let state = &shared.state;
    let path = &*request.path;
    let method = match path {
        "/healthz" | "/readyz" | "/metrics" | "/top/v1/snapshot" | "/route" => "GET",
        "/user/token"
        | "/user/device_quit"
        | "/user/onlinestatus"
        | "/message/send"
        | "/channel/messagesync"
        | "/conversation/list"
        | "/conversation/retry"
        | "/conversations/clearUnread"
        | "/conversations/setUnread"
        | "/conversations/delete"
        | "/conversations/activate" => "POST",
        path if channels::owns(path) => "POST",
        _ => return Reply::not_found(),
    };
    if request.method != method {
        return Reply::wrong_method();
    }
    match path {
        "/healthz" => Reply::json(200, &json!({ "status": "ok" })),
        "/readyz" => Reply::json(200, &json!({ "ready": true })),
        "/metrics" => metrics(shared),
        "/top/v1/snapshot" => snapshot(shared),
        "/route" => route(shared, request),
        "/user/token" => users::token(state, shared.release(), request),
        "/user/device_quit" => users::device_quit(state, request),
        "/user/onlinestatus" => users::online_status(state, request),
        "/message/send" => v3_messages::send(state, request),
        "/channel/messagesync" => v3_messages::sync(state, request),
        "/conversation/list" => v3_conversations::list(state, request),
        "/conversation/retry" => v3_conversations::retry(state, request),
        "/conversations/clearUnread" => v3_conversations::clear_unread(state, request),
        "/conversations/setUnread" => v3_conversations::set_unread(state, request),
        "/conversations/delete" => v3_conversations::delete(state, request),
        "/conversations/activate" => v3_conversations::activate(state, request),
        _ => channels::change(state, shared.release(), request),
    }
}

fn route(shared: &Shared, request: &Request<'_>) -> Reply {
    // Seen: the intranet has a TCP address and no socket for browsers.
    let ws = if request.small_param("intranet") == 0 {
        shared.ws_url()
    } else {
        String::new()
    };
    Reply::json(
        200,
        &json!({ "tcp_addr": shared.tcp_address(), "ws_addr": ws, "wss_addr": "" }),
    )
}

fn metrics(shared: &Shared) -> Reply {
    let started_ms = unix_ms(SystemTime::now() - shared.up_for());
    let text = format!(
        "# HELP go_goroutines Number of goroutines that currently exist.\n\
         # TYPE go_goroutines gauge\n\
         go_goroutines 1\n\
         # HELP process_start_time_seconds Start time of the process since unix epoch in seconds.\n\
         # TYPE process_start_time_seconds gauge\n\
         process_start_time_seconds {}.{:03}\n",
        started_ms / 1000,
        started_ms % 1000,
    );
    Reply::raw(200, METRICS, text)
}

fn snapshot(shared: &Shared) -> Reply {
    let connections = shared.state.lock().online.len();
    let now = humantime::format_rfc3339_nanos(SystemTime::now()).to_string();
    Reply::json(
        200,
        &json!({
            "version": "top/v1",
            "scope": "local_node",
            "generated_at": now,
            "window_seconds": 9,
            "node": {
                "id": 1,
                "name": "node-1",
                "ready": true,
                "ready_parts": { "channels": true, "routes": true, "slots": true },
                "state_revision": 1,
                "controller_leader": 1,
                "slot_count": 10,
                "hash_slot_count": 256,
            },
            "verdict": { "level": "ok", "summary": "runtime healthy" },
            "traffic": {
                "send_per_sec": 0,
                "sendack_per_sec": 0,
                "sendack_error_per_sec": 0,
                "sendack_error_rate": 0,
                "append_per_sec": 0,
                "append_p50_ms": 0,
                "append_p99_ms": 0,
                "deliver_per_sec": 0,
                "fanout_rate": 0,
            },
            "clients": { "connections": connections, "auth_fail_per_sec": 0, "close_per_sec": 0 },
            "resources": {
                "cpu_percent": 0,
                "memory_rss_bytes": 0,
                "memory_vms_bytes": 0,
                "goroutines": 1,
                "threads": 1,
            },
            "pressure": {
                "overall_level": "ok",
                "component_scores": { "slot": 0.05 },
                "top": [{
                    "component": "channel",
                    "pool": "reactor_0",
                    "queue": "mailbox",
                    "priority": "high",
                    "level": "ok",
                    "score": 0,
                    "capacity": 1024,
                }],
            },
            "sources": {
                "collector": { "available": true, "sample_count": 1 },
                "cluster_snapshot": { "available": true, "sample_count": 1 },
                "metrics": { "enabled": true, "required": false },
            },
        }),
    )
}
