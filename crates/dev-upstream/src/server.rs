//! The listeners and the processing of a call: it is answered by its dialect, and may crash the server. With the feature `testing`, what is
//! scripted for it comes first.

use std::{
    future::poll_fn,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU16, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Response, StatusCode,
    body::Incoming,
    header::{CONNECTION, CONTENT_TYPE, HeaderValue},
    http::request::Parts,
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use percent_encoding::percent_decode_str;
use tokio::{net::TcpListener, sync::watch, task::JoinSet};

#[cfg(feature = "testing")]
use super::testing::{Body, Controls};
use super::{
    Dialect, V2Release, http_v2, http_v3,
    reply::{Crash, Reply, Request, Storing},
    sockets::Addresses,
    state::State,
    v3_manager,
};

/// The two ports of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Port {
    Api,
    Manager,
}

/// The state shared by all connections.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) state: Arc<State>,
    /// Its number in the cluster.
    pub(super) node: u64,
    /// The node's release in v2 mode.
    pub(super) release: Mutex<V2Release>,
    pub(super) manager_token: Option<String>,
    pub(super) manager: Option<(String, String)>,
    #[cfg(feature = "testing")]
    pub(super) controls: Controls,
    pub(super) killed: AtomicBool,
    /// v2: whether CONNECT needs the token of `/user/token`.
    pub(super) token_auth: bool,
    /// How long a connection may take until its CONNECT is answered.
    pub(super) connect_idle: Duration,
    pub(super) sockets: Addresses,
    pub(super) api_port: AtomicU16,
    pub(super) started: Mutex<Instant>,
    /// True while the server runs; false after a stop or a crash.
    pub(super) up: watch::Sender<bool>,
}

impl Shared {
    pub(super) fn release(&self) -> V2Release {
        *self.release.lock()
    }

    pub(super) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.api_port.load(Ordering::Relaxed))
    }

    /// Where clients connect by TCP.
    pub(super) fn tcp_address(&self) -> String {
        reachable(self.sockets.tcp).to_string()
    }

    /// Where clients connect by WebSocket.
    pub(super) fn ws_url(&self) -> String {
        format!("ws://{}", reachable(self.sockets.ws))
    }

    pub(super) fn up_for(&self) -> Duration {
        self.started.lock().elapsed()
    }

    pub(super) fn die(&self) {
        self.state.lock().lose_unsaved_rows();
        self.killed.store(true, Ordering::SeqCst);
        self.up.send_replace(false);
    }
}

/// An address to connect to: loopback where it listens on all.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(Ipv4Addr::LOCALHOST.into());
    }
    address
}

/// Why a connection ends without an answer.
#[derive(Debug, thiserror::Error)]
#[error("connection dropped")]
pub(super) enum Dropped {
    Closed,
    #[cfg(feature = "testing")]
    Reset,
    /// After these bytes, whatever they are.
    #[cfg(feature = "testing")]
    Raw(Bytes),
}

/// How long a crashing server may take to send its last answer.
const LAST_ANSWER: Duration = Duration::from_millis(200);

/// Accepts connections until the server stops or crashes; returns when all connections are closed.
pub(super) async fn accept(listener: TcpListener, shared: Arc<Shared>, port: Port) {
    let mut connections = JoinSet::new();
    let mut up = shared.up.subscribe();
    loop {
        let stream = tokio::select! {
            () = ended(&mut up) => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = stream else {
            // Out of file descriptors: wait for a connection to end.
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        // Otherwise a small answer waits for the acknowledgement of the previous one (Nagle).
        let _ = stream.set_nodelay(true);
        let shared = shared.clone();
        connections.spawn(async move {
            let service = service_fn(|request| Box::pin(answer(shared.clone(), port, request)));
            let mut up = shared.up.subscribe();
            // Without timeouts: the only clients are the gateway, its tests and benchmarks.
            let mut connection =
                http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            // An error is a disconnected client or a scripted fault.
            let outcome = tokio::select! {
                outcome = poll_fn(|context| connection.poll_without_shutdown(context)) => outcome,
                () = ended(&mut up) => {
                    std::pin::Pin::new(&mut connection).graceful_shutdown();
                    (&mut connection).await
                }
            };
            #[cfg(feature = "testing")]
            if let Err(error) = outcome {
                super::testing::end(connection.into_parts().io.into_inner(), &error).await;
            }
            #[cfg(not(feature = "testing"))]
            drop(outcome);
        });
    }
    drop(listener);
    if shared.killed.load(Ordering::SeqCst) {
        // Lets the last answer be sent; idle connections close at once, and hanging ones are aborted.
        let drained = async { while connections.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(LAST_ANSWER, drained).await;
    }
    connections.shutdown().await;
}

/// Returns when the server has stopped or crashed.
pub(super) async fn ended(up: &mut watch::Receiver<bool>) {
    // The sender outlives every receiver.
    let _ = up.wait_for(|up| !*up).await;
}

/// Binds a loopback port; retries, since a port that was just closed may be blocked shortly.
pub(super) async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let mut tries = 0;
    loop {
        match TcpListener::bind(address).await {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && tries < 50 => {
                tries += 1;
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            other => return other,
        }
    }
}

#[cfg(not(feature = "testing"))]
type Body = Full<Bytes>;

/// A call as it came.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) port: Port,
    pub(super) parts: Parts,
    pub(super) body: Bytes,
}

impl Received {
    /// The path with its query.
    #[cfg(feature = "testing")]
    pub(super) fn target(&self) -> &str {
        let target = self.parts.uri.path_and_query();
        target.map_or("/", |target| target.as_str())
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.parts.headers.get(name)?.to_str().ok()
    }
}

async fn answer(
    shared: Arc<Shared>,
    port: Port,
    request: hyper::Request<Incoming>,
) -> Result<Response<Body>, Dropped> {
    if shared.killed.load(Ordering::SeqCst) && !*shared.up.borrow() {
        return Err(Dropped::Closed);
    }
    let (parts, body) = request.into_parts();
    let received = Received {
        port,
        parts,
        body: body
            .collect()
            .await
            .map_err(|_| Dropped::Closed)?
            .to_bytes(),
    };
    #[cfg(feature = "testing")]
    let answered = super::testing::answer(&shared, &received).await;
    #[cfg(not(feature = "testing"))]
    let answered = process(&shared, &received, Storing::default()).map(respond);
    answered
}

/// Carries a call out. The server crashes if the call makes it.
pub(super) fn process(
    shared: &Shared,
    received: &Received,
    storing: Storing,
) -> Result<Reply, Dropped> {
    let dialect = shared.state.dialect();
    let refused = dialect == Dialect::V2
        && shared.manager_token.is_some()
        && received.header("token") != shared.manager_token.as_deref();
    if refused {
        return Ok(Reply::raw(401, "", Bytes::new()));
    }
    let uri = &received.parts.uri;
    let request = Request {
        method: received.parts.method.as_str(),
        path: percent_decode_str(uri.path()).decode_utf8_lossy(),
        query: uri.query().unwrap_or(""),
        body: &received.body,
        authorization: received.header("authorization"),
        storing,
    };
    let reply = match (dialect, received.port) {
        (_, Port::Manager) => v3_manager::handle(shared, &request),
        (Dialect::V2, Port::Api) => http_v2::handle(shared, &request),
        (Dialect::V3, Port::Api) => http_v3::handle(shared, &request),
    };
    shared.state.serve_pending();
    if reply.crash != Crash::None {
        shared.die();
    }
    if reply.crash == Crash::BeforeAnswer {
        return Err(Dropped::Closed);
    }
    Ok(reply)
}

pub(super) fn respond(reply: Reply) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(reply.body));
    // Every status here is a valid one.
    *response.status_mut() = StatusCode::from_u16(reply.status).unwrap_or_default();
    let headers = response.headers_mut();
    if !reply.content_type.is_empty() {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(reply.content_type));
    }
    if reply.crash == Crash::AfterAnswer {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}
