//! What tests control and look at: scripted faults, received calls, stops and restarts, the state. Only with the feature `testing`.

mod answer;
mod conversations;
mod faults;
mod sockets;
mod state;

use std::{io, sync::atomic::Ordering, time::Instant};

use parking_lot::Mutex;
use serde_json::Value;
use tokio::net::TcpListener;

use super::{
    DevUpstream, Dialect, Options, V2Release,
    live::Outgoing,
    serve,
    server::{self, Port, Received},
    sockets::Listeners,
    state::State,
};

pub(super) use self::answer::{Body, answer, end};
pub use self::{
    faults::{Fault, Faults, Rule},
    sockets::{SocketFault, SocketFrame, Sockets},
    state::StoredMessage,
};

/// One received call, whatever its outcome.
#[derive(Debug, Clone)]
pub struct Call {
    /// `GET` or `POST`.
    pub method: String,
    /// The path as it was sent, with its query.
    pub path: String,
    /// The body; a text when it was no JSON, null when there was none.
    pub body: Value,
    /// The header `x-request-id`.
    pub request_id: Option<String>,
    /// The header `traceparent`.
    pub traceparent: Option<String>,
    /// The header `tracestate`.
    pub tracestate: Option<String>,
    /// The header `token`.
    pub token: Option<String>,
    /// Whether it was made to v3's manager port.
    pub manager_port: bool,
}

impl Call {
    fn of(received: &Received) -> Self {
        let header = |name: &str| received.header(name).map(str::to_owned);
        let body = &received.body;
        Self {
            method: received.parts.method.as_str().to_owned(),
            path: received.target().to_owned(),
            body: if body.is_empty() {
                Value::Null
            } else {
                serde_json::from_slice(body)
                    .unwrap_or_else(|_| String::from_utf8_lossy(body).into())
            },
            request_id: header("x-request-id"),
            traceparent: header("traceparent"),
            tracestate: header("tracestate"),
            token: header("token"),
            manager_port: received.port == Port::Manager,
        }
    }
}

/// One server's faults and recorded calls.
#[derive(Debug)]
pub(super) struct Controls {
    faults: Faults,
    record_calls: bool,
    calls: Mutex<Vec<Call>>,
    pub(super) sockets: Sockets,
}

impl Controls {
    pub(super) fn new(record_calls: bool) -> Self {
        Self {
            faults: Faults::default(),
            record_calls,
            calls: Mutex::default(),
            sockets: Sockets::new(record_calls),
        }
    }
}

impl DevUpstream {
    /// Starts another node of this one's cluster, with the same data, but its own address, calls and faults. It must use the same dialect,
    /// and must not be restarted as another one.
    pub async fn start_beside(&self, options: Options) -> io::Result<Self> {
        if options.dialect != self.dialect() {
            return Err(io::Error::other("a cluster speaks one dialect"));
        }
        let node = self.shared.state.join_node();
        Self::start_with(options, self.shared.state.clone(), node).await
    }

    /// Starts a second address of this node, with its data and its number, but with calls and faults of its own.
    pub async fn start_twin(&self, options: Options) -> io::Result<Self> {
        Self::start_with(options, self.shared.state.clone(), self.shared.node).await
    }

    /// The current dialect.
    pub fn dialect(&self) -> Dialect {
        self.shared.state.dialect()
    }

    /// The current v2 release.
    pub fn release(&self) -> V2Release {
        self.shared.release()
    }

    /// Behaves as another v2 release on the same data from the next call on, as after an upgrade; call [`restart`](Self::restart) as well
    /// to close the connections.
    pub fn set_release(&self, release: V2Release) {
        *self.shared.release.lock() = release;
    }

    /// Every call received since the start or [`clear_calls`](Self::clear_calls), in order.
    pub fn calls(&self) -> Vec<Call> {
        self.calls_to("")
    }

    /// The calls whose path begins with `path_prefix`.
    pub fn calls_to(&self, path_prefix: &str) -> Vec<Call> {
        let calls = self.shared.controls.calls.lock();
        let to_path = calls
            .iter()
            .filter(|call| call.path.starts_with(path_prefix));
        to_path.cloned().collect()
    }

    /// Clears the recorded calls.
    pub fn clear_calls(&self) {
        self.shared.controls.calls.lock().clear();
    }

    /// The scripted faults.
    pub fn faults(&self) -> &Faults {
        &self.shared.controls.faults
    }

    /// The controls of the sockets for clients.
    pub fn sockets(&self) -> &Sockets {
        &self.shared.controls.sockets
    }

    /// Writes bytes as they are to all connections of `uid`, in a WebSocket as one message.
    pub fn write_to(&self, uid: &str, bytes: &[u8]) {
        let raw = Outgoing::Raw(bytes.into());
        self.shared.state.lock().online.queue(uid, &raw, None);
    }

    /// Closes all connections of `uid` without a DISCONNECT.
    pub fn cut(&self, uid: &str) {
        self.shared.state.lock().online.remove(uid, None, |_| true);
    }

    /// Its state, for tests to inspect and change.
    pub fn state(&self) -> &State {
        &self.shared.state
    }

    /// Whether some input would have crashed a real node. A restart does not reset it.
    pub fn killed(&self) -> bool {
        self.shared.killed.load(Ordering::SeqCst)
    }

    /// Closes the listeners and all connections: from the return of this call on, connects are refused.
    pub async fn stop(&self) {
        self.shared.up.send_replace(false);
        let tasks = std::mem::take(&mut self.running.lock().tasks);
        for task in tasks {
            // Only a panic of the task is an error, and then it has stopped already.
            let _ = task.await;
        }
    }

    /// Listens on the same ports again with the same data, after [`stop`](Self::stop) or without it.
    pub async fn restart(&self) -> io::Result<()> {
        self.restart_as(self.dialect()).await
    }

    /// Listens on the same ports again with `dialect`. Another dialect starts with empty data.
    pub async fn restart_as(&self, dialect: Dialect) -> io::Result<()> {
        self.stop().await;
        let (api, manager) = {
            let running = self.running.lock();
            (running.api, running.manager)
        };
        if self.dialect() != dialect {
            self.shared.state.replace(dialect);
        }
        let api = server::bind(api).await?;
        let addresses = self.shared.sockets;
        let sockets = Listeners::bind(addresses.tcp, addresses.ws).await?;
        let manager = match (dialect, manager, &self.shared.manager) {
            (Dialect::V3, Some(address), _) => Some(server::bind(address).await?),
            (Dialect::V3, None, Some(_)) => {
                Some(TcpListener::bind((api.local_addr()?.ip(), 0)).await?)
            }
            _ => None,
        };
        let manager_address = manager.as_ref().map(TcpListener::local_addr).transpose()?;
        *self.shared.started.lock() = Instant::now();
        self.shared.up.send_replace(true);
        let mut running = self.running.lock();
        // Kept while v2 runs, so that v3 gets the same port again.
        running.manager = manager_address.or(running.manager);
        serve(&self.shared, &mut running, api, manager, sockets);
        Ok(())
    }
}
