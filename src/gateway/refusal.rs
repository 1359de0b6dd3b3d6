//! Refuses connections beyond `max_connections` or `max_connections_per_address`: answers 503 `overloaded` without waiting for a request,
//! and closes.

use std::sync::Arc;
use std::time::Duration;

use http::header::{HeaderMap, HeaderValue, ORIGIN};
use http_body_util::BodyExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use super::cors::Cors;
use crate::config;
use crate::http::envelope::render;
use crate::http::errors::{ApiError, Lang};
use crate::routes::Endpoint;

/// Maximum concurrent refusals with an answer; further connections are closed without one.
const MAX_CONCURRENT: usize = 512;

/// Time limit of one refusal.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a refusal waits for the request's head where the CORS headers depend on its `Origin`, and how many bytes of it are read.
const HEAD_TIMEOUT: Duration = Duration::from_millis(100);
const MAX_HEAD_BYTES: usize = 16 * 1024;

/// Refuses connections.
pub(super) struct Refusals {
    cors: Option<Arc<Cors>>,
    running: Arc<Semaphore>,
}

impl Default for Refusals {
    /// For listeners without CORS.
    fn default() -> Self {
        Self {
            cors: None,
            running: Arc::new(Semaphore::new(MAX_CONCURRENT)),
        }
    }
}

impl Refusals {
    /// With the CORS headers of these settings.
    pub(super) fn new(cors: &config::Cors) -> Self {
        Self {
            cors: Cors::new(cors).map(Arc::new),
            ..Self::default()
        }
    }

    /// Answers and closes the connection, in its own task.
    pub(super) fn refuse(&self, stream: TcpStream) {
        let Ok(permit) = self.running.clone().try_acquire_owned() else {
            return;
        };
        let cors = self.cors.clone();
        tokio::spawn(async move {
            let _ = tokio::time::timeout(ANSWER_TIMEOUT, answer(stream, cors.as_deref())).await;
            drop(permit);
        });
    }
}

/// Reads the request to its end: otherwise closing would reset the connection, and the client would lose the answer.
async fn answer(mut stream: TcpStream, cors: Option<&Cors>) -> std::io::Result<()> {
    let mut request_headers = HeaderMap::new();
    if cors.is_some_and(Cors::depends_on_origin) {
        let mut head = Vec::with_capacity(MAX_HEAD_BYTES);
        let read = tokio::time::timeout(HEAD_TIMEOUT, stream.read_buf(&mut head)).await;
        if read.is_ok()
            && let Some(origin) = origin(&head)
        {
            request_headers.insert(ORIGIN, origin);
        }
    }
    stream
        .write_all(&text(cors, &request_headers).await)
        .await?;
    stream.shutdown().await?;
    let mut discarded = [0; 1024];
    while stream.read(&mut discarded).await? > 0 {}
    Ok(())
}

/// The `Origin` in the received part of a request. Nothing else is parsed, and the value is only compared.
fn origin(head: &[u8]) -> Option<HeaderValue> {
    head.split(|byte| *byte == b'\n').find_map(|line| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let (name, value) = line.split_at(colon);
        let is_it = name.eq_ignore_ascii_case(ORIGIN.as_str().as_bytes());
        is_it.then(|| HeaderValue::from_bytes(value[1..].trim_ascii()).ok())?
    })
}

async fn text(cors: Option<&Cors>, request_headers: &HeaderMap) -> Vec<u8> {
    let id = uuid::Uuid::new_v4().simple().to_string();
    let unknown = Endpoint::UNKNOWN.failure;
    let mut response = render(&ApiError::Overloaded.into(), Lang::Zh, unknown, &id);
    if let Some(cors) = cors {
        cors.add_headers(cors.allow_refused(request_headers), response.headers_mut());
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
