//! `GET /config`: where a client connects, and what this deployment allows.

use std::time::Duration;

use axum::extract::State;
use serde::Serialize;
use tokio::time::timeout;
use utoipa::ToSchema;

use crate::auth::Caller;
use crate::domain::Uid;
use crate::http::envelope::Envelope;
use crate::http::errors::Failure;
use crate::state::App;
use crate::wukongim::{RouteInfo, SAFE_PAYLOAD_BYTES};

/// How long this call waits for WuKongIM's payload limit.
const LIMIT_TIMEOUT: Duration = Duration::from_millis(500);

/// Addresses are always present; empty if there is none.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ConfigResponse {
    /// WebSocket address of WuKongIM.
    ws_url: String,
    /// WebSocket address with TLS.
    wss_url: String,
    /// TCP address of WuKongIM, `host:port`.
    tcp_addr: String,
    api_url: String,
    manager_url: String,
    /// The caller.
    uid: Uid,
    limits: LimitsResponse,
}

/// The limits in force, so that a client can check before it sends. Bytes are of UTF-8 or of the decoded payload.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct LimitsResponse {
    /// Bytes of a uid or channelId.
    id_bytes: usize,
    /// Bytes of a clientMsgNo.
    client_msg_no_bytes: usize,
    /// Bytes of a payload after decoding: the configured limit, or that of this WuKongIM if it is lower.
    payload_bytes: usize,
    /// Messages in one batch.
    batch: usize,
    /// Uids in one call that changes subscribers or managers.
    subscribers: usize,
    /// Messages on one page of a history.
    sync_max: usize,
    /// Members of a group.
    group_members: usize,
}

/// Where a client connects to WuKongIM, and what this deployment allows.
#[utoipa::path(
    get,
    path = "",
    tag = "connection",
    responses((status = 200, description = "The addresses and the limits.", body = ConfigResponse, example = json!({
        "wsUrl": "ws://your-server:5200", "wssUrl": "", "tcpAddr": "your-server:5100",
        "apiUrl": "http://your-server:5001", "managerUrl": "http://your-server:5300", "uid": "user1",
        "limits": {
            "idBytes": 128, "clientMsgNoBytes": 128, "payloadBytes": 65536, "batch": 100, "subscribers": 500,
            "syncMax": 200, "groupMembers": 10000
        }
    })))
)]
pub(super) async fn get_config(
    caller: Caller,
    State(app): State<App>,
) -> Result<Envelope<ConfigResponse>, Failure> {
    // What is configured; WuKongIM's own for the caller where it is not.
    let public = &app.settings.public;
    let route = if public.ws_url.is_some() && public.tcp_addr.is_some() {
        RouteInfo::default()
    } else {
        app.client.route(&caller.uid).await?
    };
    let or = |configured: &Option<String>, upstream: String| configured.clone().unwrap_or(upstream);
    Ok(Envelope(ConfigResponse {
        ws_url: or(&public.ws_url, route.ws_addr),
        wss_url: or(&public.wss_url, route.wss_addr),
        tcp_addr: or(&public.tcp_addr, route.tcp_addr),
        api_url: or(&public.api_url, String::new()),
        manager_url: or(&public.manager_url, String::new()),
        uid: caller.uid,
        limits: limits(&app).await,
    }))
}

async fn limits(app: &App) -> LimitsResponse {
    let limits = &app.settings.limits;
    let mut payload_bytes = limits.payload;
    if payload_bytes > SAFE_PAYLOAD_BYTES {
        // Until a higher limit is known. The addresses are returned even while WuKongIM is down.
        let upstream = timeout(LIMIT_TIMEOUT, app.client.payload_limit()).await;
        let upstream = upstream.map_or(SAFE_PAYLOAD_BYTES, |it| it.unwrap_or(SAFE_PAYLOAD_BYTES));
        payload_bytes = payload_bytes.min(upstream);
    }
    LimitsResponse {
        id_bytes: limits.id_bytes,
        client_msg_no_bytes: limits.client_msg_no_bytes,
        payload_bytes,
        batch: limits.batch,
        subscribers: limits.subscribers,
        sync_max: limits.sync_max,
        group_members: limits.group_members,
    }
}
