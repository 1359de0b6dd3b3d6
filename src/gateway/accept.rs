//! The accept loop: which connections are accepted, their protocol, and their graceful shutdown.

use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::Body;
use http::header::{CONNECTION, HeaderValue, TRANSFER_ENCODING};
use http::{Request, Response, Version};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tower::Service;

use super::admission::{Admission, ConnectionPermit};
use super::connection_state::{ConnectionState, MonitoredStream, Timeouts};
use super::frame::Framed;
use super::tracked_body::TrackedBody;
use super::unread_body;
use crate::limits::Peer;
use crate::state::App;

/// Pause after a failed accept, such as when no file descriptors are left.
const ACCEPT_RETRY_PAUSE: Duration = Duration::from_millis(50);

/// The largest head hyper reads, in bytes; it answers larger ones itself with a 431 without a body.
const MAX_HEAD_BUFFER: u32 = 64 * 1024;

/// Connections of a listener without settings: the operations port, and tests.
const DEFAULT_MAX_CONNECTIONS: usize = 1000;
const DEFAULT_TIMEOUTS: Timeouts = Timeouts {
    head: Duration::from_secs(10),
    idle: Duration::from_secs(75),
};

/// The service that answers requests; cloned for each connection and request.
pub trait Api:
    Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send>
    + Clone
    + Send
    + 'static
{
}

impl<S> Api for S where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send>
        + Clone
        + Send
        + 'static
{
}

/// Serves `api` on `listener` with default limits until `stop` turns true, then returns after the last running request is answered.
pub async fn run(listener: TcpListener, api: impl Api, stop: watch::Receiver<bool>) {
    let admission = Admission::uncounted(DEFAULT_MAX_CONNECTIONS);
    let server = Server::new(api, DEFAULT_TIMEOUTS, false);
    serve_all(listener, admission, server, stop).await;
}

/// Serves the API of `app` on `listener` with the configured limits, until `stop` turns true like [`run`].
pub async fn run_api(listener: TcpListener, app: App, stop: watch::Receiver<bool>) {
    let server = Server::for_app(&app);
    serve_all(listener, Admission::for_app(&app), server, stop).await;
}

async fn serve_all(
    listener: TcpListener,
    admission: Admission,
    server: Server<impl Api>,
    stop: watch::Receiver<bool>,
) {
    let serve = |stream, peer, permit| server.serve(stream, peer, permit);
    accept(listener, admission, stop, serve).await;
    server.shut_down().await;
}

/// Accepts connections until `stop` turns true, and passes those within the limits to `serve`.
pub(super) async fn accept(
    listener: TcpListener,
    admission: Admission,
    mut stop: watch::Receiver<bool>,
    serve: impl Fn(TcpStream, IpAddr, ConnectionPermit),
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                if let Some((stream, permit)) = admission.admit(stream, peer.ip()) {
                    drop(stream.set_nodelay(true));
                    serve(stream, peer.ip(), permit);
                }
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_RETRY_PAUSE).await;
            }
        }
    }
}

/// Serves connections on the current runtime.
pub(super) struct Server<A> {
    api: A,
    timeouts: Timeouts,
    protocols: Protocols,
    /// Turns true when connections must close; each of them has a receiver.
    closing: watch::Sender<bool>,
}

/// The protocols of a listener.
enum Protocols {
    /// HTTP/1.0 and 1.1.
    Http1(http1::Builder),
    /// Also HTTP/2 with prior knowledge. A connection takes more memory.
    Both(auto::Builder<TokioExecutor>),
}

impl Protocols {
    fn new(http2: bool) -> Self {
        if !http2 {
            let mut http1 = http1::Builder::new();
            http1
                .timer(TokioTimer::new())
                .header_read_timeout(None)
                .half_close(false)
                .max_buf_size(MAX_HEAD_BUFFER as usize);
            return Self::Http1(http1);
        }
        let mut both = auto::Builder::new(TokioExecutor::new());
        both.http1()
            .timer(TokioTimer::new())
            .header_read_timeout(None)
            .half_close(false)
            .max_buf_size(MAX_HEAD_BUFFER as usize);
        both.http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(100)
            // Against rapid reset: the connection ends when so many streams were opened and reset at once.
            .max_pending_accept_reset_streams(20)
            .max_local_error_reset_streams(20)
            .max_header_list_size(MAX_HEAD_BUFFER)
            .initial_stream_window_size(64 * 1024)
            .initial_connection_window_size(1024 * 1024)
            .max_send_buf_size(64 * 1024);
        Self::Both(both)
    }
}

impl Server<Framed> {
    /// Serves the API of `app`.
    pub(super) fn for_app(app: &App) -> Self {
        let settings = &app.settings.server;
        let timeouts = Timeouts {
            head: settings.header_timeout,
            idle: settings.idle_timeout,
        };
        Self::new(Framed::api(app), timeouts, settings.http2)
    }
}

impl<A: Api> Server<A> {
    fn new(api: A, timeouts: Timeouts, http2: bool) -> Self {
        Self {
            api,
            timeouts,
            protocols: Protocols::new(http2),
            closing: watch::Sender::new(false),
        }
    }

    /// Finishes the running requests and closes all connections, except those that were upgraded.
    pub(super) async fn shut_down(self) {
        self.closing.send_replace(true);
        self.closing.closed().await;
    }

    /// Serves a connection from `peer` in a task of its own.
    pub(super) fn serve<S>(&self, stream: S, peer: IpAddr, permit: ConnectionPermit)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let api = self.api.clone();
        let is_shared = permit.is_shared;
        let share = permit.share();
        let state = ConnectionState::new(self.timeouts, is_shared);
        let stream = TokioIo::new(MonitoredStream::new(stream, state.clone()));
        let service_state = state.clone();
        let service = service_fn(move |mut request: Request<Incoming>| {
            let mut api = api.clone();
            let state = service_state.clone();
            let running = state.begin_request();
            request.extensions_mut().insert(Peer(peer));
            request.extensions_mut().insert(share.clone());
            // hyper hides a `Content-Length` next to `Transfer-Encoding`; a proxy that used it would see a different end of the body (RFC
            // 9112, 6.1). So the connection ends after this request, against request smuggling.
            let is_last = request.headers().contains_key(TRANSFER_ENCODING);
            let is_http2 = request.version() >= Version::HTTP_2;
            let (request, rest) = if is_http2 {
                // A client of HTTP/1 fetches its answers one after the other, and none of a proxy's may close it to the others.
                if !is_shared {
                    request.extensions_mut().insert(state.unwritten.clone());
                }
                (request.map(Body::new), None)
            } else {
                unread_body::track(request)
            };
            async move {
                let Ok(mut response) = api.call(request).await;
                let may_follow = match rest {
                    None => true,
                    Some(rest) => rest.drain(response.status()).await,
                };
                drop(running);
                if !may_follow {
                    state.has_unread_input.store(true, Ordering::Relaxed);
                }
                if is_last || !may_follow {
                    let close = HeaderValue::from_static("close");
                    response.headers_mut().insert(CONNECTION, close);
                }
                Ok::<_, Infallible>(TrackedBody::new(response, &state, is_http2))
            }
        });
        match &self.protocols {
            Protocols::Http1(http1) => {
                let connection = http1.serve_connection(stream, service).with_upgrades();
                let close = http1::UpgradeableConnection::graceful_shutdown;
                self.spawn(connection, close, state, permit);
            }
            Protocols::Both(both) => {
                let connection = both.serve_connection_with_upgrades(stream, service);
                let connection = connection.into_owned();
                let close = auto::UpgradeableConnection::graceful_shutdown;
                self.spawn(connection, close, state, permit);
            }
        }
    }

    /// Runs a connection in a task of its own; `close` makes it end after its running request.
    fn spawn<C, E>(
        &self,
        connection: C,
        close: fn(Pin<&mut C>),
        state: Arc<ConnectionState>,
        permit: ConnectionPermit,
    ) where
        C: Future<Output = Result<(), E>> + Send + 'static,
        E: std::fmt::Display + Send,
    {
        let mut closing = self.closing.subscribe();
        // Boxed: otherwise each of the nested futures reserves space for it, three times its size.
        let mut connection = Box::pin(connection);
        let connection = Box::pin(async move {
            tokio::select! {
                ended = connection.as_mut() => return ended,
                _ = closing.wait_for(|closing| *closing) => {}
            }
            close(connection.as_mut());
            connection.await
        });
        tokio::spawn(async move {
            match state.run(connection).await {
                Some(Ok(())) => {}
                Some(Err(error)) => tracing::debug!(%error, "connection ended"),
                None => tracing::debug!("connection timed out"),
            }
            drop(permit);
        });
    }
}

#[cfg(test)]
mod tests;
