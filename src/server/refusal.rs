//! Connections beyond `max_connections`: 503 `overloaded` without waiting for a request, and the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

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

/// Refuses connections.
pub(super) struct Refusals {
    /// Whose metrics count them.
    app: Option<App>,
    running: Arc<AtomicUsize>,
}

impl Refusals {
    /// For listeners without metrics.
    pub(super) fn uncounted() -> Self {
        Self {
            app: None,
            running: Arc::default(),
        }
    }

    /// Counts as `gateway_limited_total{limit="connections"}`.
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

    /// Answers and closes, in a task of its own.
    pub(super) fn refuse(&self, stream: TcpStream) {
        if let Some(app) = &self.app {
            app.metrics().limited("connections");
        }
        if self.running.fetch_add(1, Ordering::Relaxed) >= AT_ONCE {
            self.running.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        let running = self.running.clone();
        tokio::spawn(async move {
            let _ = tokio::time::timeout(PATIENCE, answer(stream)).await;
            running.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

/// A client that has sent its request already would lose the answer to a reset, were the connection just closed.
async fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    stream.write_all(&text().await).await?;
    stream.shutdown().await?;
    let mut thrown_away = [0; 1024];
    while stream.read(&mut thrown_away).await? > 0 {}
    Ok(())
}

async fn text() -> Vec<u8> {
    let id = uuid::Uuid::new_v4().simple().to_string();
    let unknown = Endpoint::of(None).failure;
    let response = render(&ApiError::Overloaded.into(), Lang::Zh, unknown, &id);
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
