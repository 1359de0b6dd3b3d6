//! `GET /config`: where a client connects, and what this deployment allows.

use axum::extract::State;
use serde::Serialize;

use crate::app::App;
use crate::auth::Caller;
use crate::config::Limits;
use crate::domain::Uid;
use crate::error::Failure;
use crate::response::Envelope;
use crate::wukongim::RouteInfo;

/// Addresses are always there and always text; empty where there is none.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ConfigResponse {
    ws_url: String,
    wss_url: String,
    tcp_addr: String,
    api_url: String,
    manager_url: String,
    uid: Uid,
    limits: LimitsResponse,
}

/// The limits in force, so that a client can check before it sends. Bytes are of UTF-8 or of the decoded payload.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct LimitsResponse {
    id_bytes: usize,
    client_msg_no_bytes: usize,
    payload_bytes: usize,
    batch: usize,
    subscribers: usize,
    sync_max: usize,
    group_members: usize,
}

impl From<&Limits> for LimitsResponse {
    fn from(limits: &Limits) -> Self {
        Self {
            id_bytes: limits.id_bytes,
            client_msg_no_bytes: limits.client_msg_no_bytes,
            payload_bytes: limits.payload,
            batch: limits.batch,
            subscribers: limits.subscribers,
            sync_max: limits.sync_max,
            group_members: limits.group_members,
        }
    }
}

/// The configured addresses; WuKongIM's own for the caller where `ws_url` or `tcp_addr` is not configured.
pub(super) async fn get_config(
    caller: Caller,
    State(app): State<App>,
) -> Result<Envelope<ConfigResponse>, Failure> {
    let public = &app.settings().public;
    let route = if public.ws_url.is_some() && public.tcp_addr.is_some() {
        RouteInfo::default()
    } else {
        app.client().route(&caller.uid).await?
    };
    let or = |configured: &Option<String>, told: String| configured.clone().unwrap_or(told);
    Ok(Envelope(ConfigResponse {
        ws_url: or(&public.ws_url, route.ws_addr),
        wss_url: or(&public.wss_url, route.wss_addr),
        tcp_addr: or(&public.tcp_addr, route.tcp_addr),
        api_url: or(&public.api_url, String::new()),
        manager_url: or(&public.manager_url, String::new()),
        uid: caller.uid,
        limits: LimitsResponse::from(&app.settings().limits),
    }))
}
