//! The listeners and the way a call walks: recorded, held up or spoilt by the faults, answered by its dialect, and
//! perhaps the last one this server ever answers.

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
    faults::{Fault, Faults, Plan},
    http_v2, http_v3,
    reply::{Fate, JSON, Reply, Request},
    state::State,
    v3_manager,
};

/// Which of the two ports a listener serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Port {
    Api,
    Manager,
}

/// What all connections share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) state: Arc<State>,
    /// Its number in the cluster.
    pub(super) node: u64,
    /// Which v2 this node is, while it speaks v2.
    pub(super) release: Mutex<V2Release>,
    pub(super) faults: Faults,
    pub(super) manager_token: Option<String>,
    pub(super) manager: Option<(String, String)>,
    pub(super) record_calls: bool,
    pub(super) calls: Mutex<Vec<Call>>,
    pub(super) killed: AtomicBool,
    pub(super) api_port: AtomicU16,
    pub(super) started: Mutex<Instant>,
    /// True while the process is up: stopping and dying turn it off.
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

/// The connection is to be closed without an answer.
#[derive(Debug, thiserror::Error)]
#[error("connection dropped")]
pub(super) struct Dropped;

/// How long a dying server's last answer may take to get out.
const LAST_ANSWER: Duration = Duration::from_millis(200);

/// Accepts connections until the server is stopped or dies; ends only when every connection has been closed.
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
            // Out of file handles: let some connection end first.
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        // Without it a small answer waits for the acknowledgement of the one before.
        let _ = stream.set_nodelay(true);
        let shared = shared.clone();
        connections.spawn(async move {
            let service = service_fn(|request| answer(shared.clone(), dialect, port, request));
            let mut up = shared.up.subscribe();
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(stream), service);
            let mut connection = std::pin::pin!(connection);
            // An error here is a client that went away or a fault that was asked for.
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
        // The last answer still has to get out; idle connections close at once, and whatever hangs is cut off.
        let drained = async { while connections.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(LAST_ANSWER, drained).await;
    }
    connections.shutdown().await;
}

/// Returns when the server was stopped or died.
async fn ended(up: &mut watch::Receiver<bool>) {
    // The sender lives as long as every task that asks.
    let _ = up.wait_for(|up| !*up).await;
}

/// Binds a loopback port; a port that was just given up may need a moment.
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
    let plan = shared.faults.plan(method, target, &body);
    if let Some(reply) = before(&shared, &plan).await? {
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
            drop_message: plan.drop_message,
            store_late: plan.store_late,
        };
        match (dialect, port) {
            (_, Port::Manager) => v3_manager::handle(&shared, &request),
            (Dialect::V2, Port::Api) => http_v2::handle(&shared, &request),
            (Dialect::V3, Port::Api) => http_v3::handle(&shared, &request),
        }
    };
    after(&shared, &plan, reply).await
}

fn recorded(body: &[u8]) -> Value {
    if body.is_empty() {
        return Value::Null;
    }
    serde_json::from_slice(body)
        .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(body).into_owned()))
}

/// The faults that strike before the call is processed; some of them answer it.
async fn before(shared: &Shared, plan: &Plan) -> Result<Option<Reply>, Dropped> {
    if !plan.delay.is_zero() {
        tokio::time::sleep(plan.delay).await;
    }
    for name in &plan.holds {
        shared.faults.hold(name).await;
    }
    match &plan.instead {
        Some(Fault::Status(status, body)) => {
            Ok(Some(Reply::raw(*status, JSON, body.clone().into_bytes())))
        }
        Some(Fault::Garbage) => Ok(Some(Reply::raw(200, JSON, "<html>not json"))),
        Some(Fault::Reset) => Err(Dropped),
        Some(Fault::Hang) => std::future::pending().await,
        _ => Ok(None),
    }
}

/// The end of a call that was processed.
async fn after(shared: &Shared, plan: &Plan, reply: Reply) -> Result<Response<Answer>, Dropped> {
    if reply.fate != Fate::LivesOn {
        shared.die();
    }
    if reply.fate == Fate::DiesFirst {
        return Err(Dropped);
    }
    for name in &plan.answer_holds {
        shared.faults.hold(name).await;
    }
    match plan.after {
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
    if reply.fate == Fate::DiesAfter {
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

/// Where a body that breaks off is.
#[derive(Debug, Clone, Copy)]
enum Half {
    Sending,
    Flushing,
}

/// A whole body, or half of one and then a broken connection.
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
