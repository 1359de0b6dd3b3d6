//! Connections beyond `max_connections` or `max_connections_per_address`: 503 `overloaded` without waiting for a request, and the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::header::{HeaderMap, HeaderValue, ORIGIN};
use http_body_util::BodyExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::app::App;
use crate::error::{ApiError, Lang};
use crate::response::render;
use crate::routes::Endpoint;
use crate::telemetry::ConnectionMeters;

/// How many are refused with an answer at a time; in a flood the others are just closed.
const AT_ONCE: usize = 512;

/// How long one refusal may take.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long a refusal waits for the request's head, where who asks decides who may read it, and how much of that is looked at.
const HEAD_PATIENCE: Duration = Duration::from_millis(100);
const HEAD_BYTES: usize = 16 * 1024;

/// Refuses connections.
pub(super) struct Refusals {
    /// Whose metrics count them, and whose pages may read it.
    app: Option<App>,
    running: Arc<AtomicUsize>,
}

impl Refusals {
    /// For listeners without metrics and pages.
    pub(super) fn uncounted() -> Self {
        Self {
            app: None,
            running: Arc::default(),
        }
    }

    /// Counts in `gateway_limited_total`.
    pub(super) fn counted_by(app: App) -> Self {
        Self {
            app: Some(app),
            ..Self::uncounted()
        }
    }

    /// Where the connections are counted that are not refused.
    pub(super) fn taken(&self) -> ConnectionMeters {
        let metrics = self.app.as_ref().map(App::metrics);
        metrics.map_or_else(Default::default, |metrics| metrics.connections.clone())
    }

    /// Answers and closes, in a task of its own. `limit` is the label it counts by.
    pub(super) fn refuse(&self, stream: TcpStream, limit: &'static str) {
        if let Some(app) = &self.app {
            app.metrics().limited(limit);
        }
        if self.running.fetch_add(1, Ordering::Relaxed) >= AT_ONCE {
            self.running.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        let (running, app) = (self.running.clone(), self.app.clone());
        tokio::spawn(async move {
            let _ = tokio::time::timeout(PATIENCE, answer(stream, app)).await;
            running.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

/// A client that has sent its request already would lose the answer to a reset, were the connection just closed.
async fn answer(mut stream: TcpStream, app: Option<App>) -> std::io::Result<()> {
    let mut asked = HeaderMap::new();
    if app.as_ref().is_some_and(App::refusal_needs_origin) {
        let mut head = Vec::with_capacity(HEAD_BYTES);
        let read = tokio::time::timeout(HEAD_PATIENCE, stream.read_buf(&mut head)).await;
        if read.is_ok()
            && let Some(origin) = origin(&head)
        {
            asked.insert(ORIGIN, origin);
        }
    }
    stream.write_all(&text(app, &asked).await).await?;
    stream.shutdown().await?;
    let mut thrown_away = [0; 1024];
    while stream.read(&mut thrown_away).await? > 0 {}
    Ok(())
}

/// The `Origin` in what came of a request. Nothing else is read of it, and all it does is to be compared.
fn origin(head: &[u8]) -> Option<HeaderValue> {
    head.split(|byte| *byte == b'\n').find_map(|line| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let (name, value) = line.split_at(colon);
        let is_it = name.eq_ignore_ascii_case(ORIGIN.as_str().as_bytes());
        is_it.then(|| HeaderValue::from_bytes(value[1..].trim_ascii()).ok())?
    })
}

async fn text(app: Option<App>, asked: &HeaderMap) -> Vec<u8> {
    let id = uuid::Uuid::new_v4().simple().to_string();
    let unknown = Endpoint::UNKNOWN.failure;
    let mut response = render(&ApiError::Overloaded.into(), Lang::Zh, unknown, &id);
    if let Some(app) = app {
        app.mark_refusal(asked, response.headers_mut());
    }
    let (parts, body) = response.into_parts();
    let body = body
        .collect()
        .await
        .map(http_body_util::Collected::to_bytes);
    let body = body.unwrap_or_default();
    let mut text = format!(
        "HTTP/1.1 {}\r\nx-request-id: {id}\r\nconnection: close\r\ncontent-length: {}\r\n",
        parts.status,
        body.len()
    )
    .into_bytes();
    for (name, value) in &parts.headers {
        text.extend_from_slice(name.as_str().as_bytes());
        text.extend_from_slice(b": ");
        text.extend_from_slice(value.as_bytes());
        text.extend_from_slice(b"\r\n");
    }
    text.extend_from_slice(b"\r\n");
    text.extend_from_slice(&body);
    text
}
