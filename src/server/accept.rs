//! The accept loop: which connections are taken, what they speak, and their graceful end.

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

use super::activity::{Activity, Patience, Watched};
use super::answer::Answer;
use super::crew::{Place, Post, crew};
use super::refusal::Refusals;
use super::unread;
use crate::app::App;
use crate::config;
use crate::limits::{AddressConnections, Peer};

/// How long to wait when the system has no descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The largest head hyper reads, in bytes; larger ones it answers itself with a bare 431.
const HEAD_BUFFER: u32 = 64 * 1024;

/// The bounds of a listener.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    patience: Patience,
    max_connections: usize,
    http2: bool,
}

impl Bounds {
    fn of(settings: &config::Server) -> Self {
        Self {
            patience: Patience {
                head: settings.header_timeout,
                idle: settings.idle_timeout,
            },
            max_connections: settings.max_connections,
            http2: settings.http2,
        }
    }

    /// For the operations port and for tests.
    const USUAL: Self = Self {
        patience: Patience {
            head: Duration::from_secs(10),
            idle: Duration::from_secs(75),
        },
        max_connections: 1000,
        http2: false,
    };
}

/// What answers requests; a copy for each connection and request.
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

/// Serves `api` on `listener` with the usual bounds until `stop` turns true, then ends when the last running request has been
/// answered.
pub async fn run(listener: TcpListener, api: impl Api, stop: watch::Receiver<bool>) {
    let bounds = Bounds::USUAL;
    let addresses = AddressConnections::unlimited();
    let posts = crew(1, bounds.max_connections, addresses, Refusals::uncounted());
    if let Some(post) = posts.into_iter().next() {
        accept(listener, api, bounds, post, stop).await;
    }
}

/// Serves the API of `app` on `listener` with the bounds of its configuration, until `stop` turns true like [`run`].
pub async fn run_api(listener: TcpListener, app: App, stop: watch::Receiver<bool>) {
    if let Some(post) = crew_of(&app, 1).pop() {
        run_api_at(post, listener, &app, stop).await;
    }
}

/// The posts of `count` cores that serve the API of `app` together.
pub(super) fn crew_of(app: &App, count: usize) -> Vec<Post> {
    let settings = &app.settings().server;
    let addresses = AddressConnections::new(settings);
    let refusals = Refusals::counted_by(app.clone());
    crew(count, settings.max_connections, addresses, refusals)
}

/// [`run_api`] on one of several cores.
pub(super) async fn run_api_at(
    post: Post,
    listener: TcpListener,
    app: &App,
    stop: watch::Receiver<bool>,
) {
    let bounds = Bounds::of(&app.settings().server);
    accept(listener, app.service(), bounds, post, stop).await;
}

async fn accept(
    listener: TcpListener,
    api: impl Api,
    bounds: Bounds,
    mut post: Post,
    mut stop: watch::Receiver<bool>,
) {
    let graceful = GracefulShutdown::new();
    let protocols = Protocols::new(bounds.http2);
    let serve = |stream: TcpStream, peer, place: Place| {
        drop(stream.set_nodelay(true));
        let activity = Activity::new(bounds.patience, place.is_shared());
        let stream = Watched::new(stream, activity.clone());
        protocols.serve(stream, peer, &api, activity, place, &graceful);
    };
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            (stream, peer, place) = post.handed() => {
                serve(stream, peer, place);
                continue;
            }
            _ = stop.wait_for(|stop| *stop) => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                if let Some((stream, place)) = post.take(stream, peer.ip()) {
                    serve(stream, peer.ip(), place);
                }
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    for (stream, peer, place) in post.leave() {
        serve(stream, peer, place);
    }
    graceful.shutdown().await;
}

/// What is spoken on a connection.
enum Protocols {
    /// HTTP/1.0 and 1.1.
    Http1(http1::Builder),
    /// And HTTP/2, where the client begins with it. A connection takes more memory then.
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
                .max_buf_size(HEAD_BUFFER as usize);
            return Self::Http1(http1);
        }
        let mut both = auto::Builder::new(TokioExecutor::new());
        both.http1()
            .timer(TokioTimer::new())
            .header_read_timeout(None)
            .half_close(false)
            .max_buf_size(HEAD_BUFFER as usize);
        both.http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(100)
            // Rapid reset: streams that are opened and reset at once end the connection when this many are open at a time.
            .max_pending_accept_reset_streams(20)
            .max_local_error_reset_streams(20)
            .max_header_list_size(HEAD_BUFFER)
            .initial_stream_window_size(64 * 1024)
            .initial_connection_window_size(1024 * 1024)
            .max_send_buf_size(64 * 1024);
        Self::Both(both)
    }

    fn serve<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
        &self,
        stream: Watched<S>,
        peer: IpAddr,
        api: &impl Api,
        activity: Arc<Activity>,
        place: Place,
        graceful: &GracefulShutdown,
    ) {
        let api = api.clone();
        let watching = activity.clone();
        let is_shared = place.is_shared();
        let service = service_fn(move |mut request: Request<Incoming>| {
            let mut api = api.clone();
            let activity = watching.clone();
            let running = activity.request();
            request.extensions_mut().insert(Peer(peer));
            // hyper shows no `Content-Length` that came beside it; whoever read that one instead would see another end of the body
            // (RFC 9112, 6.1). So nothing behind it is ever taken for a request.
            let is_last = request.headers().contains_key(TRANSFER_ENCODING);
            let is_http2 = request.version() >= Version::HTTP_2;
            let (request, rest) = if is_http2 {
                // A client of HTTP/1 fetches its answers one after the other, and none of a proxy's may close it to the others.
                if !is_shared {
                    request.extensions_mut().insert(activity.unwritten());
                }
                (request.map(Body::new), None)
            } else {
                unread::watch(request)
            };
            async move {
                let Ok(mut response) = api.call(request).await;
                let may_follow = match rest {
                    None => true,
                    Some(rest) => rest.read_rest(response.status()).await,
                };
                drop(running);
                if !may_follow {
                    activity.leave_unread();
                }
                if is_last || !may_follow {
                    let close = HeaderValue::from_static("close");
                    response.headers_mut().insert(CONNECTION, close);
                }
                Ok::<_, Infallible>(Answer::new(response, &activity, is_http2))
            }
        });
        let stream = TokioIo::new(stream);
        match self {
            Self::Http1(http1) => {
                let connection = http1.serve_connection(stream, service);
                spawn(connection, activity, place, graceful);
            }
            Self::Both(both) => {
                let connection = both.serve_connection(stream, service).into_owned();
                spawn(connection, activity, place, graceful);
            }
        }
    }
}

fn spawn<C>(connection: C, activity: Arc<Activity>, place: Place, graceful: &GracefulShutdown)
where
    C: GracefulConnection + Send + 'static,
    C::Error: std::fmt::Display + Send,
{
    // In a box: a task would hold it three times over, since each future it is moved into makes room for it.
    let connection = Box::pin(graceful.watch(connection));
    tokio::spawn(async move {
        match activity.guard(connection).await {
            Some(Ok(())) => {}
            Some(Err(error)) => tracing::debug!(%error, "connection ended"),
            None => tracing::debug!("connection given up: nothing came of it in time"),
        }
        drop(place);
    });
}

#[cfg(test)]
mod tests;
