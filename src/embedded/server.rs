//! The listeners and the processing of a call: it is recorded, delayed or failed by scripted faults, answered by its dialect, and may crash
//! the server.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU16, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::{Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use percent_encoding::percent_decode_str;
use serde_json::Value;
use tokio::{net::TcpListener, sync::watch, task::JoinSet};

use super::{
    Call, Dialect, V2Release,
    faults::{CallFaults, Fault, Faults},
    http_v2, http_v3,
    reply::{Crash, JSON, Reply, Request},
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
    pub(super) faults: Faults,
    pub(super) manager_token: Option<String>,
    pub(super) manager: Option<(String, String)>,
    pub(super) record_calls: bool,
    pub(super) calls: Mutex<Vec<Call>>,
    pub(super) killed: AtomicBool,
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

    pub(super) fn up_for(&self) -> Duration {
        self.started.lock().elapsed()
    }

    fn die(&self) {
        self.killed.store(true, Ordering::SeqCst);
        self.up.send_replace(false);
    }
}

/// Closes the connection without an answer.
#[derive(Debug, thiserror::Error)]
#[error("connection dropped")]
pub(super) struct Dropped;

/// How long a crashing server may take to send its last answer.
const LAST_ANSWER: Duration = Duration::from_millis(200);

/// Accepts connections until the server stops or crashes; returns when all connections are closed.
pub(super) async fn accept(
    listener: TcpListener,
    shared: Arc<Shared>,
    dialect: Dialect,
    port: Port,
) {
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
            let service = service_fn(|request| answer(shared.clone(), dialect, port, request));
            let mut up = shared.up.subscribe();
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(stream), service);
            let mut connection = std::pin::pin!(connection);
            // An error is a disconnected client or a scripted fault.
            tokio::select! {
                _ = connection.as_mut() => {}
                () = ended(&mut up) => {
                    connection.as_mut().graceful_shutdown();
                    let _ = connection.await;
                }
            }
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
async fn ended(up: &mut watch::Receiver<bool>) {
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

async fn answer(
    shared: Arc<Shared>,
    dialect: Dialect,
    port: Port,
    request: hyper::Request<Incoming>,
) -> Result<Response<Answer>, Dropped> {
    if shared.killed.load(Ordering::SeqCst) && !*shared.up.borrow() {
        return Err(Dropped);
    }
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map_err(|_| Dropped)?.to_bytes();
    let target = parts
        .uri
        .path_and_query()
        .map_or("/", |target| target.as_str());
    let method = parts.method.as_str();
    let header = |name: &str| {
        parts
            .headers
            .get(name)
            .and_then(|value| value.to_str().ok())
    };
    if shared.record_calls {
        let call = Call {
            method: method.to_owned(),
            path: target.to_owned(),
            body: recorded(&body),
            request_id: header("x-request-id").map(str::to_owned),
            traceparent: header("traceparent").map(str::to_owned),
            tracestate: header("tracestate").map(str::to_owned),
            token: header("token").map(str::to_owned),
            manager_port: port == Port::Manager,
        };
        shared.calls.lock().push(call);
    }
    let call_faults = shared.faults.take_for_call(method, target, &body);
    if let Some(reply) = before(&shared, &call_faults).await? {
        return Ok(respond(reply, false));
    }
    let refused = dialect == Dialect::V2
        && shared.manager_token.is_some()
        && header("token") != shared.manager_token.as_deref();
    let reply = if refused {
        Reply::raw(401, "", Bytes::new())
    } else {
        let (path, query) = (parts.uri.path(), parts.uri.query().unwrap_or(""));
        let request = Request {
            method,
            path: percent_decode_str(path).decode_utf8_lossy(),
            query,
            body: &body,
            authorization: header("authorization"),
            drop_message: call_faults.drop_message,
            store_late: call_faults.store_late,
        };
        match (dialect, port) {
            (_, Port::Manager) => v3_manager::handle(&shared, &request),
            (Dialect::V2, Port::Api) => http_v2::handle(&shared, &request),
            (Dialect::V3, Port::Api) => http_v3::handle(&shared, &request),
        }
    };
    after(&shared, &call_faults, reply).await
}

fn recorded(body: &[u8]) -> Value {
    if body.is_empty() {
        return Value::Null;
    }
    serde_json::from_slice(body)
        .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(body).into_owned()))
}

/// Applies the faults before the call is processed; some of them answer it.
async fn before(shared: &Shared, call_faults: &CallFaults) -> Result<Option<Reply>, Dropped> {
    if !call_faults.delay.is_zero() {
        tokio::time::sleep(call_faults.delay).await;
    }
    for name in &call_faults.holds {
        shared.faults.hold(name).await;
    }
    match &call_faults.instead {
        Some(Fault::Status(status, body)) => {
            Ok(Some(Reply::raw(*status, JSON, body.clone().into_bytes())))
        }
        Some(Fault::Garbage) => Ok(Some(Reply::raw(200, JSON, "<html>not json"))),
        Some(Fault::Reset) => Err(Dropped),
        Some(Fault::Hang) => std::future::pending().await,
        _ => Ok(None),
    }
}

/// Applies the faults after the call was processed.
async fn after(
    shared: &Shared,
    call_faults: &CallFaults,
    reply: Reply,
) -> Result<Response<Answer>, Dropped> {
    if reply.crash != Crash::None {
        shared.die();
    }
    if reply.crash == Crash::BeforeAnswer {
        return Err(Dropped);
    }
    for name in &call_faults.answer_holds {
        shared.faults.hold(name).await;
    }
    match call_faults.after {
        Some(Fault::ResetAfter) => Err(Dropped),
        Some(Fault::HalfAnswer) => Ok(respond(reply, true)),
        _ => Ok(respond(reply, false)),
    }
}

fn respond(reply: Reply, half: bool) -> Response<Answer> {
    let mut builder = Response::builder().status(reply.status);
    if !reply.content_type.is_empty() {
        builder = builder.header("content-type", reply.content_type);
    }
    if reply.crash == Crash::AfterAnswer {
        builder = builder.header("connection", "close");
    }
    let mut data = reply.body;
    if half {
        builder = builder.header("content-length", data.len());
        data.truncate(data.len() / 2);
    }
    let answer = Answer {
        data: Some(data),
        half: half.then_some(Half::Sending),
    };
    builder
        .body(answer)
        .unwrap_or_else(|_| Response::new(Answer::default()))
}

/// The state of a truncated body.
#[derive(Debug, Clone, Copy)]
enum Half {
    Sending,
    Flushing,
}

/// A whole body, or half of one followed by a broken connection.
#[derive(Debug, Default)]
pub(super) struct Answer {
    data: Option<Bytes>,
    half: Option<Half>,
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Dropped;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Dropped>>> {
        if let Some(data) = self.data.take().filter(|data| !data.is_empty()) {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        match self.half {
            None => Poll::Ready(None),
            Some(Half::Sending) => {
                // hyper writes out what it has before it waits, so the client sees the first half.
                self.half = Some(Half::Flushing);
                context.waker().wake_by_ref();
                Poll::Pending
            }
            Some(Half::Flushing) => Poll::Ready(Some(Err(Dropped))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.half.is_none() && self.data.as_ref().is_none_or(Bytes::is_empty)
    }

    fn size_hint(&self) -> SizeHint {
        match (self.half, &self.data) {
            (None, data) => SizeHint::with_exact(data.as_ref().map_or(0, |data| data.len() as u64)),
            (Some(_), _) => SizeHint::default(),
        }
    }
}
