//! The accept loop: which connections are accepted, their protocol, and their graceful shutdown.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::header::{CONNECTION, HeaderValue, TRANSFER_ENCODING};
use http::{Request, Response, Version};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulConnection, GracefulShutdown};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tower::Service;

use super::accept_pool::{Acceptor, ConnectionPermit, accept_pool};
use super::connection_state::{ConnectionState, MonitoredStream, Timeouts};
use super::frame::Framed;
use super::refusal::Refusals;
use super::tracked_body::TrackedBody;
use super::unread_body;
use crate::config;
use crate::limits::{AddressConnections, Peer};
use crate::state::App;

/// Pause after a failed accept, such as when no file descriptors are left.
const ACCEPT_RETRY_PAUSE: Duration = Duration::from_millis(50);

/// The largest head hyper reads, in bytes; it answers larger ones itself with a 431 without a body.
const MAX_HEAD_BUFFER: u32 = 64 * 1024;

/// The limits of a listener.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    timeouts: Timeouts,
    max_connections: usize,
    http2: bool,
}

impl Bounds {
    fn of(settings: &config::Server) -> Self {
        Self {
            timeouts: Timeouts {
                head: settings.header_timeout,
                idle: settings.idle_timeout,
            },
            max_connections: settings.max_connections,
            http2: settings.http2,
        }
    }

    /// For the operations port and for tests.
    const DEFAULT: Self = Self {
        timeouts: Timeouts {
            head: Duration::from_secs(10),
            idle: Duration::from_secs(75),
        },
        max_connections: 1000,
        http2: false,
    };
}

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
    let bounds = Bounds::DEFAULT;
    let addresses = AddressConnections::unlimited();
    let posts = accept_pool(
        1,
        bounds.max_connections,
        addresses,
        Refusals::without_app(),
    );
    if let Some(acceptor) = posts.into_iter().next() {
        accept(listener, api, bounds, acceptor, stop).await;
    }
}

/// Serves the API of `app` on `listener` with the configured limits, until `stop` turns true like [`run`].
pub async fn run_api(listener: TcpListener, app: App, stop: watch::Receiver<bool>) {
    if let Some(acceptor) = accept_pool_for(&app, 1).pop() {
        run_api_at(acceptor, listener, &app, stop).await;
    }
}

/// The acceptors of `count` workers that serve the API of `app`.
pub(super) fn accept_pool_for(app: &App, count: usize) -> Vec<Acceptor> {
    let settings = &app.settings.server;
    let addresses = AddressConnections::new(settings);
    let refusals = Refusals::for_app(app.clone());
    accept_pool(count, settings.max_connections, addresses, refusals)
}

/// [`run_api`] on one of several workers.
pub(super) async fn run_api_at(
    acceptor: Acceptor,
    listener: TcpListener,
    app: &App,
    stop: watch::Receiver<bool>,
) {
    let bounds = Bounds::of(&app.settings.server);
    accept(listener, Framed::api(app), bounds, acceptor, stop).await;
}

async fn accept(
    listener: TcpListener,
    api: impl Api,
    bounds: Bounds,
    mut acceptor: Acceptor,
    mut stop: watch::Receiver<bool>,
) {
    let graceful = GracefulShutdown::new();
    let protocols = Protocols::new(bounds.http2);
    let serve = |stream: TcpStream, peer, permit: ConnectionPermit| {
        drop(stream.set_nodelay(true));
        let state = ConnectionState::new(bounds.timeouts, permit.is_shared());
        let stream = MonitoredStream::new(stream, state.clone());
        protocols.serve(stream, peer, &api, state, permit, &graceful);
    };
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            (stream, peer, permit) = acceptor.receive() => {
                serve(stream, peer, permit);
                continue;
            }
            _ = stop.wait_for(|stop| *stop) => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                if let Some((stream, permit)) = acceptor.place(stream, peer.ip()) {
                    serve(stream, peer.ip(), permit);
                }
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_RETRY_PAUSE).await;
            }
        }
    }
    drop(listener);
    for (stream, peer, permit) in acceptor.close() {
        serve(stream, peer, permit);
    }
    graceful.shutdown().await;
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

    fn serve<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
        &self,
        stream: MonitoredStream<S>,
        peer: IpAddr,
        api: &impl Api,
        state: Arc<ConnectionState>,
        permit: ConnectionPermit,
        graceful: &GracefulShutdown,
    ) {
        let api = api.clone();
        let service_state = state.clone();
        let is_shared = permit.is_shared();
        let service = service_fn(move |mut request: Request<Incoming>| {
            let mut api = api.clone();
            let state = service_state.clone();
            let running = state.begin_request();
            request.extensions_mut().insert(Peer(peer));
            // hyper hides a `Content-Length` next to `Transfer-Encoding`; a proxy that used it would see a different end of the body (RFC
            // 9112, 6.1). So the connection ends after this request, against request smuggling.
            let is_last = request.headers().contains_key(TRANSFER_ENCODING);
            let is_http2 = request.version() >= Version::HTTP_2;
            let (request, rest) = if is_http2 {
                // A client of HTTP/1 fetches its answers one after the other, and none of a proxy's may close it to the others.
                if !is_shared {
                    request.extensions_mut().insert(state.unwritten());
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
                    state.mark_unread_input();
                }
                if is_last || !may_follow {
                    let close = HeaderValue::from_static("close");
                    response.headers_mut().insert(CONNECTION, close);
                }
                Ok::<_, Infallible>(TrackedBody::new(response, &state, is_http2))
            }
        });
        let stream = TokioIo::new(stream);
        match self {
            Self::Http1(http1) => {
                let connection = http1.serve_connection(stream, service);
                spawn(connection, state, permit, graceful);
            }
            Self::Both(both) => {
                let connection = both.serve_connection(stream, service).into_owned();
                spawn(connection, state, permit, graceful);
            }
        }
    }
}

fn spawn<C>(
    connection: C,
    state: Arc<ConnectionState>,
    permit: ConnectionPermit,
    graceful: &GracefulShutdown,
) where
    C: GracefulConnection + Send + 'static,
    C::Error: std::fmt::Display + Send,
{
    // Boxed: otherwise each of the nested futures reserves space for it, three times its size.
    let connection = Box::pin(graceful.watch(connection));
    tokio::spawn(async move {
        match state.run(connection).await {
            Some(Ok(())) => {}
            Some(Err(error)) => tracing::debug!(%error, "connection ended"),
            None => tracing::debug!("connection timed out"),
        }
        drop(permit);
    });
}

#[cfg(test)]
mod tests;
