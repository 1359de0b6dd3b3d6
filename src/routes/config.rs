//! `GET /config`: where a client connects, and what this deployment allows.

use std::convert::Infallible;
use std::net::{Ipv4Addr, Ipv6Addr};

use axum::extract::{FromRequestParts, State};
use http::header::HOST;
use http::request::Parts;
use serde::Serialize;
use utoipa::ToSchema;

use crate::auth::Caller;
use crate::domain::Uid;
use crate::http::envelope::Envelope;
use crate::http::errors::Failure;
use crate::state::App;
use crate::wukongim::RouteInfo;

/// Addresses are always present; empty if there is none. A gateway without sockets returns WuKongIM's where none is configured.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ConfigResponse {
    /// WebSocket address for live messages: the configured one, else the gateway's own at the request's host.
    ws_url: String,
    /// Another WebSocket address, with TLS, if one is configured.
    wss_url: String,
    /// TCP address for live messages, `host:port`, if one is configured.
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

/// Where a client connects for live messages, and what this deployment allows.
#[utoipa::path(
    get,
    path = "",
    tag = "connection",
    extensions(("x-summary-zh" = json!("获取实时消息的连接地址，以及本部署的各项限制"))),
    responses((status = 200, description = "The addresses and the limits.", body = ConfigResponse, example = json!({
        "wsUrl": "wss://your-server/api/v1/im/ws", "wssUrl": "", "tcpAddr": "your-server:5100",
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
    OwnAddress(own): OwnAddress,
) -> Result<Envelope<ConfigResponse>, Failure> {
    let public = &app.settings.public;
    let others = if app.settings.socket.enabled {
        // Never WuKongIM's own addresses: they lead past the gateway.
        RouteInfo {
            ws_addr: own,
            ..RouteInfo::default()
        }
    } else if public.ws_url.is_some() && public.tcp_addr.is_some() {
        RouteInfo::default()
    } else {
        app.client.route(&caller.uid).await?
    };
    let or = |configured: &Option<String>, other: String| configured.clone().unwrap_or(other);
    let limits = &app.settings.limits;
    Ok(Envelope(ConfigResponse {
        ws_url: or(&public.ws_url, others.ws_addr),
        wss_url: or(&public.wss_url, others.wss_addr),
        tcp_addr: or(&public.tcp_addr, others.tcp_addr),
        api_url: or(&public.api_url, String::new()),
        manager_url: or(&public.manager_url, String::new()),
        uid: caller.uid,
        limits: LimitsResponse {
            id_bytes: limits.id_bytes,
            client_msg_no_bytes: limits.client_msg_no_bytes,
            payload_bytes: app.payload_limit().await,
            batch: limits.batch,
            subscribers: limits.subscribers,
            sync_max: limits.sync_max,
            group_members: limits.group_members,
        },
    }))
}

/// The gateway's WebSocket address at the host by which the client reached it; empty where that is no host name or address.
pub(super) struct OwnAddress(String);

impl FromRequestParts<App> for OwnAddress {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Infallible> {
        let peer = parts.extensions.get().copied();
        let proto = parts.headers.get("x-forwarded-proto");
        let is_https = proto.is_some_and(|proto| proto.as_bytes().eq_ignore_ascii_case(b"https"));
        let scheme = if is_https && app.limits.is_trusted_proxy(peer) {
            "wss"
        } else {
            "ws"
        };
        let host = host(parts).filter(|host| is_host_with_port(host));
        Ok(Self(host.map_or_else(String::new, |host| {
            format!("{scheme}://{host}/api/v1/im/ws")
        })))
    }
}

/// The authority of the URI (HTTP/2, or the absolute form), else the only `Host` header.
fn host(parts: &Parts) -> Option<&str> {
    if let Some(authority) = parts.uri.authority() {
        return Some(authority.as_str());
    }
    let mut hosts = parts.headers.get_all(HOST).iter();
    let host = hosts.next().filter(|_| hosts.next().is_none())?;
    host.to_str().ok()
}

/// A host name or an IP address (IPv6 in brackets), with or without a port. It goes to the client, so nothing else is let through.
fn is_host_with_port(text: &str) -> bool {
    let after_brackets = text.find(']').map_or(0, |end| end + 1);
    let (host, port) = match text[after_brackets..].find(':') {
        Some(at) => {
            let (host, port) = text.split_at(after_brackets + at);
            (host, &port[1..])
        }
        None => (text, "80"),
    };
    is_host(host)
        && port.bytes().all(|byte| byte.is_ascii_digit())
        && port.parse::<u16>().is_ok_and(|port| port > 0)
}

fn is_host(host: &str) -> bool {
    let in_brackets = host.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
    if let Some(address) = in_brackets {
        return address.parse::<Ipv6Addr>().is_ok();
    }
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            // Names of containers may have underscores.
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    let name = host.strip_suffix('.').unwrap_or(host);
    let last = name.rsplit('.').next().unwrap_or(name);
    let is_numeric = last.bytes().all(|byte| byte.is_ascii_digit());
    host.parse::<Ipv4Addr>().is_ok()
        || name.len() <= 253 && !is_numeric && name.split('.').all(is_label)
}
