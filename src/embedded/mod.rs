//! An upstream for development and tests: a real HTTP server on loopback, in memory, that implements every call the gateway makes, in the
//! v2 or the v3 dialect, with each generation's peculiarities.
//!
//! The gateway talks to it through the same client as to a real WuKongIM. `tests/embedded` checks its behaviour against recordings of real
//! servers. It persists nothing, has no security, and is not for production.

mod channels;
mod cluster;
mod faults;
mod go_json;
mod http_v2;
mod http_v3;
mod ids;
mod keys;
mod log;
mod pages;
mod reply;
mod requests;
mod server;
mod state;
mod test_controls;
mod users;
mod v2_messages;
mod v3_manager;
mod v3_messages;
mod views;

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU16, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use serde_json::Value;
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

use self::server::{Port, Shared};
pub use self::{
    faults::{Fault, Faults, Rule},
    ids::EPOCH_MS,
    keys::{GROUP, PERSON, fnv1a64},
    log::Message,
    state::{Flags, State},
    test_controls::StoredMessage,
};

/// The generation of WuKongIM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// Stable, v2.2.5.
    V2,
    /// Beta, main of 2026-08-23.
    V3,
}

/// The release of v2, oldest first: older ones lack some calls and accept smaller payloads (read in the source of each tag).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum V2Release {
    /// v2.0.10-20241221.
    V2_0_10,
    /// v2.2.0-20250426.
    V2_2_0,
    /// v2.2.1-20250624: `/user/token` refuses a disbanded record as well as a banned one.
    V2_2_1,
    /// v2.2.5-20260422: has `/channel/subscriber_remove_all`, which came with v2.2.2.
    V2_2_5,
}

impl V2Release {
    /// All of them, oldest first.
    pub const ALL: [Self; 4] = [Self::V2_0_10, Self::V2_2_0, Self::V2_2_1, Self::V2_2_5];
}

/// How an embedded upstream behaves.
#[derive(Debug, Clone)]
pub struct Options {
    /// The generation at the start.
    pub dialect: Dialect,
    /// The initial release in v2 mode; the newest by default.
    pub release: V2Release,
    /// Where it listens; port 0 picks a free one.
    pub listen: SocketAddr,
    /// v2: every call without this in its header `token` is refused with 401, `/health` included.
    pub manager_token: Option<String>,
    /// v2: how long after the send a message becomes visible to reads.
    pub visible_after: Duration,
    /// v3: how long after its first message a pair's members may read; a real server takes 0.3–0.5 s.
    pub membership_after: Duration,
    /// How many messages a channel stores; unlimited when `None`.
    pub whole_history: Option<usize>,
    /// v3: user name and password of the manager port, which exists only when this is given.
    pub manager: Option<(String, String)>,
    /// Whether calls are recorded for [`Embedded::calls`]; the memory is unbounded.
    pub record_calls: bool,
}

impl Options {
    /// For tests: records all calls, stores all messages, uses a free port and no tokens.
    pub fn new(dialect: Dialect) -> Self {
        Self {
            dialect,
            release: V2Release::V2_2_5,
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            manager_token: None,
            visible_after: Duration::from_micros(500),
            membership_after: Duration::ZERO,
            whole_history: None,
            manager: None,
            record_calls: true,
        }
    }

    /// For `--embedded`: records nothing and stores at most 10,000 messages per channel, so that memory is bounded; v3 with its manager
    /// port and a random password.
    pub fn development(dialect: Dialect) -> Self {
        let password = uuid::Uuid::new_v4().simple().to_string();
        Self {
            whole_history: Some(10_000),
            record_calls: false,
            manager: Some(("gateway".to_owned(), password)),
            ..Self::new(dialect)
        }
    }
}

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

#[derive(Debug)]
struct RunningServer {
    dialect: Dialect,
    api: SocketAddr,
    manager: Option<SocketAddr>,
    tasks: Vec<JoinHandle<()>>,
}

/// A running embedded upstream; it ends when this is dropped.
#[derive(Debug)]
pub struct Embedded {
    shared: Arc<Shared>,
    running: Mutex<RunningServer>,
}

impl Embedded {
    /// Starts listening.
    pub async fn start(options: Options) -> io::Result<Self> {
        let state = State::new(
            options.dialect,
            options.whole_history,
            options.visible_after,
            options.membership_after,
        );
        Self::start_with(options, Arc::new(state)).await
    }

    /// Starts another node of this one's cluster, with the same data, but its own address, calls and faults. It must use the same dialect,
    /// and must not be restarted as another one.
    pub async fn start_beside(&self, options: Options) -> io::Result<Self> {
        if options.dialect != self.dialect() {
            return Err(io::Error::other("a cluster speaks one dialect"));
        }
        Self::start_with(options, self.shared.state.clone()).await
    }

    async fn start_with(options: Options, state: Arc<State>) -> io::Result<Self> {
        let api = server::bind(options.listen).await?;
        let node = state.join_node();
        let manager = match options.manager {
            Some(_) if options.dialect == Dialect::V3 => {
                Some(TcpListener::bind((options.listen.ip(), 0)).await?)
            }
            _ => None,
        };
        let shared = Arc::new(Shared {
            state,
            node,
            release: Mutex::new(options.release),
            faults: Faults::default(),
            manager_token: options.manager_token,
            manager: options.manager,
            record_calls: options.record_calls,
            calls: Mutex::default(),
            killed: AtomicBool::new(false),
            api_port: AtomicU16::new(api.local_addr()?.port()),
            started: Mutex::new(Instant::now()),
            up: watch::Sender::new(true),
        });
        let mut running = RunningServer {
            dialect: options.dialect,
            api: api.local_addr()?,
            manager: manager.as_ref().map(TcpListener::local_addr).transpose()?,
            tasks: Vec::new(),
        };
        serve(&shared, &mut running, api, manager);
        Ok(Self {
            shared,
            running: Mutex::new(running),
        })
    }

    /// The base URL of the API, `http://127.0.0.1:PORT`; the same after a restart.
    pub fn url(&self) -> String {
        format!("http://{}", self.running.lock().api)
    }

    /// The base URL of v3's manager port, if it has one.
    pub fn manager_url(&self) -> Option<String> {
        let running = self.running.lock();
        let spoken = running.dialect == Dialect::V3;
        let address = running.manager.filter(|_| spoken)?;
        Some(format!("http://{address}"))
    }

    /// The current dialect.
    pub fn dialect(&self) -> Dialect {
        self.running.lock().dialect
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
        self.shared.calls.lock().clone()
    }

    /// The calls whose path begins with `path_prefix`.
    pub fn calls_to(&self, path_prefix: &str) -> Vec<Call> {
        let calls = self.shared.calls.lock();
        let to_path = calls
            .iter()
            .filter(|call| call.path.starts_with(path_prefix));
        to_path.cloned().collect()
    }

    /// Clears the recorded calls.
    pub fn clear_calls(&self) {
        self.shared.calls.lock().clear();
    }

    /// The scripted faults.
    pub fn faults(&self) -> &Faults {
        &self.shared.faults
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
        let (api, manager, changed) = {
            let running = self.running.lock();
            (running.api, running.manager, running.dialect != dialect)
        };
        if changed {
            self.shared.state.replace(dialect);
        }
        let api = server::bind(api).await?;
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
        running.dialect = dialect;
        // Kept while v2 runs, so that v3 gets the same port again.
        running.manager = manager_address.or(running.manager);
        serve(&self.shared, &mut running, api, manager);
        Ok(())
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        for task in &self.running.get_mut().tasks {
            task.abort();
        }
    }
}

fn serve(
    shared: &Arc<Shared>,
    running: &mut RunningServer,
    api: TcpListener,
    manager: Option<TcpListener>,
) {
    let dialect = running.dialect;
    let start = |listener, port| {
        let task = server::accept(listener, shared.clone(), dialect, port);
        tokio::spawn(task)
    };
    running.tasks.push(start(api, Port::Api));
    running
        .tasks
        .extend(manager.map(|listener| start(listener, Port::Manager)));
}
