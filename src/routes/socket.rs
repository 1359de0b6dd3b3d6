//! `GET /ws`: the upgrade of a connection to a socket. What passes on it is `socket`'s.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::header::{
    CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN, SEC_WEBSOCKET_ACCEPT,
    SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{StatusCode, Uri};
use hyper::upgrade::OnUpgrade;

use crate::config::WebOrigin;
use crate::http::errors::{ApiError, Failure};
use crate::limits::{ConnectionShare, Peer};
use crate::socket::serve_websocket;
use crate::state::App;
use crate::telemetry::SocketConnect;

/// The only version of the protocol (RFC 6455).
const VERSION: &str = "13";
/// What a server appends to the client's key before it hashes it (RFC 6455, 4.2.2).
const KEY_SUFFIX: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Opens a WebSocket for live messages.
///
/// Neither `Authorization` nor a query is read: the first frame must be CONNECT, with the token of `POST /token`, in WuKongIM's binary
/// protocol (as the official SDKs speak it) or as JSON-RPC. [SOCKETS.md](https://github.com/WuKongIM/wukongim-gateway/blob/main/docs/SOCKETS.md)
/// describes what may be sent, how a message is refused, and how a connection ends.
#[utoipa::path(
    get,
    path = "",
    tag = "connection",
    extensions(("x-summary-zh" = json!("建立收发实时消息的 WebSocket 连接"))),
    responses((status = 101, description = "The connection speaks WebSocket from now on."))
)]
pub(super) async fn open_socket(
    State(app): State<App>,
    mut request: Request,
) -> Result<Response, Failure> {
    let upgrade = request.extensions_mut().remove::<OnUpgrade>();
    let (Some(accept), Some(upgrade)) = (accept_key(request.headers()), upgrade) else {
        return Err(ApiError::UpgradeRequired.into());
    };
    if !is_allowed_origin(&app.settings.cors.allowed_origins, request.headers()) {
        return Err(
            Failure::from(ApiError::Forbidden).because("Origin is not in cors.allowed_origins")
        );
    }
    let Some(permit) = app.sockets.try_admit() else {
        app.metrics.sockets.connects[SocketConnect::Full].inc();
        let why = "socket.max_connections are open, or the gateway stops";
        return Err(Failure::from(ApiError::Overloaded).because(why));
    };
    let extensions = request.extensions();
    let peer = extensions.get::<Peer>().copied();
    let address = app.limits.address(peer, request.headers());
    let held = (permit, extensions.get::<ConnectionShare>().cloned());
    // On this worker, which keeps the connection.
    tokio::spawn(async move {
        // An error: the client was gone before the answer.
        if let Ok(upgraded) = upgrade.await {
            serve_websocket(app, upgraded, address).await;
        }
        drop(held);
    });
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    Ok(response)
}

/// The answer to the key of a WebSocket upgrade; `None` where this is none.
fn accept_key(headers: &HeaderMap) -> Option<HeaderValue> {
    let names = |header: HeaderName, token: &str| {
        let values = headers.get_all(header).iter();
        let mut tokens = values
            .filter_map(|value| value.to_str().ok())
            .flat_map(|it| it.split(','));
        tokens.any(|it| it.trim().eq_ignore_ascii_case(token))
    };
    let is_upgrade = names(UPGRADE, "websocket")
        && names(CONNECTION, "upgrade")
        && names(SEC_WEBSOCKET_VERSION, VERSION);
    let key = headers.get(SEC_WEBSOCKET_KEY).filter(|_| is_upgrade)?;
    if BASE64_STANDARD.decode(key).ok()?.len() != 16 {
        return None;
    }
    let mut hash = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY);
    hash.update(key.as_bytes());
    hash.update(KEY_SUFFIX);
    HeaderValue::from_str(&BASE64_STANDARD.encode(hash.finish())).ok()
}

/// Whether a page of this `Origin` may open a socket. No header passes, and so does the request's own host: nothing ambient identifies a
/// user here, so this only saves honest pages from others.
fn is_allowed_origin(allowed: &[WebOrigin], headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(ORIGIN) else {
        return true;
    };
    let Ok(origin) = origin.to_str() else {
        return false;
    };
    let is_listed = |allowed: &WebOrigin| match allowed {
        WebOrigin::Any => true,
        WebOrigin::Exact(exact) => exact == origin,
    };
    allowed.is_empty() || allowed.iter().any(is_listed) || is_own(origin, headers)
}

/// Whether the origin has the host and port of the request.
fn is_own(origin: &str, headers: &HeaderMap) -> bool {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let Some((scheme, authority)) = origin.split_once("://") else {
        return false;
    };
    let default_port = if scheme == "https" { 443 } else { 80 };
    let parts = |authority: &str| {
        let uri: Uri = format!("{scheme}://{authority}/").parse().ok()?;
        let host = uri.host()?.to_ascii_lowercase();
        Some((host, uri.port_u16().unwrap_or(default_port)))
    };
    let own = host.and_then(parts);
    own.is_some() && own == parts(authority)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let lines = lines.iter().map(|(name, value)| {
            let value = HeaderValue::from_str(value).unwrap();
            (HeaderName::from_static(name), value)
        });
        lines.collect()
    }

    #[test]
    fn the_key_of_the_specification_has_the_answer_of_the_specification() {
        let upgrade = |connection, version, key| {
            accept_key(&headers(&[
                ("upgrade", "WebSocket"),
                ("connection", connection),
                ("sec-websocket-version", version),
                ("sec-websocket-key", key),
            ]))
        };
        let key = "dGhlIHNhbXBsZSBub25jZQ==";
        let accept = upgrade("keep-alive, Upgrade", "13", key);
        assert_eq!(accept.unwrap(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        for (connection, version, key) in [
            ("close", "13", key),
            ("upgrade", "8", key),
            ("upgrade", "13", "c2hvcnQ="),
            ("upgrade", "13", "not base64"),
        ] {
            assert_eq!(
                upgrade(connection, version, key),
                None,
                "{connection} {version} {key}"
            );
        }
        assert_eq!(accept_key(&headers(&[("upgrade", "websocket")])), None);
    }

    #[test]
    fn an_origin_passes_that_is_listed_or_the_hosts_own() {
        let listed = [
            WebOrigin::Exact("https://app.example.com".to_owned()),
            WebOrigin::Exact("null".to_owned()),
        ];
        let passes = |allowed: &[WebOrigin], origin: &str, host: &str| {
            is_allowed_origin(allowed, &headers(&[("origin", origin), ("host", host)]))
        };
        for (origin, host, expected) in [
            ("https://app.example.com", "im.example.com", true),
            ("null", "im.example.com", true),
            ("https://im.example.com", "im.example.com", true),
            ("https://IM.example.com", "im.example.com:443", true),
            ("http://127.0.0.1:8080", "127.0.0.1:8080", true),
            ("http://[::1]:8080", "[::1]:8080", true),
            ("http://127.0.0.1:8081", "127.0.0.1:8080", false),
            ("https://im.example.com", "im.example.com:80", false),
            ("https://evil.example.com", "im.example.com", false),
            ("https://app.example.com.evil.com", "im.example.com", false),
            ("im.example.com", "im.example.com", false),
            ("https://", "", false),
        ] {
            assert_eq!(
                passes(&listed, origin, host),
                expected,
                "{origin} at {host}"
            );
        }
        assert!(passes(&[], "https://evil.example.com", "im.example.com"));
        assert!(passes(
            &[WebOrigin::Any],
            "https://evil.example.com",
            "im.example.com"
        ));
        assert!(
            is_allowed_origin(&listed, &headers(&[("host", "im.example.com")])),
            "no origin"
        );
    }
}
