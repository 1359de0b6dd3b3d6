//! A stand-in for WuKongIM v2 and v3, for development and tests: a real server on loopback, in memory, with every call of the API that the
//! gateway makes, the sockets for clients, and each generation's peculiarities.
//!
//! It knows nothing of the gateway, which talks to it through the same client as to a real WuKongIM. `tests/behaviour` checks it against
//! recordings of real servers. It persists nothing, has no security, and is not for production.

mod channels;
mod cluster;
mod commands;
mod go_json;
mod http_v2;
mod http_v3;
mod ids;
mod keys;
mod live;
mod log;
mod pages;
mod permission;
mod presence;
mod reply;
mod requests;
mod rows;
mod server;
mod sockets;
mod state;
#[cfg(feature = "testing")]
mod testing;
mod users;
mod v2_conversations;
mod v2_messages;
mod v2_rows;
mod v3_conversations;
mod v3_manager;
mod v3_messages;
mod views;

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU16},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

#[cfg(feature = "testing")]
pub use self::testing::{
    Call, Fault, Faults, Rule, SocketFault, SocketFrame, Sockets, StoredMessage,
};
pub use self::{
    ids::EPOCH_MS,
    keys::{GROUP, PERSON, fnv1a64},
    log::Message,
    state::{Flags, State},
};
use self::{
    server::{Port, Shared},
    sockets::{Listeners, Transport},
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

/// How an upstream behaves.
#[derive(Debug, Clone)]
pub struct Options {
    /// The generation at the start.
    pub dialect: Dialect,
    /// The initial release in v2 mode; the newest by default.
    pub release: V2Release,
    /// Where it listens; port 0 picks a free one.
    pub listen: SocketAddr,
    /// The ports of the sockets for clients, TCP and WebSocket, on the same interface; port 0 picks a free one.
    pub socket_ports: (u16, u16),
    /// v2: whether a CONNECT needs the token of `/user/token` (`tokenAuthOn`).
    pub token_auth: bool,
    /// How long a connection may take until its CONNECT is answered; a real v2 closes after 2 to 3 s, a v3 after 3 min.
    pub connect_idle: Duration,
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
    /// Whether calls are recorded for [`DevUpstream::calls`]; the memory is unbounded.
    #[cfg(feature = "testing")]
    pub record_calls: bool,
}

impl Options {
    /// For tests: records all calls, stores all messages, uses a free port and no tokens.
    pub fn new(dialect: Dialect) -> Self {
        Self {
            dialect,
            release: V2Release::V2_2_5,
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            socket_ports: (0, 0),
            token_auth: false,
            connect_idle: match dialect {
                Dialect::V2 => Duration::from_secs(3),
                Dialect::V3 => Duration::from_mins(3),
            },
            manager_token: None,
            visible_after: Duration::from_micros(500),
            membership_after: Duration::ZERO,
            whole_history: None,
            manager: None,
            #[cfg(feature = "testing")]
            record_calls: true,
        }
    }

    /// For development: records nothing and stores at most 10,000 messages per channel, so that memory is bounded; v2 with connect tokens,
    /// v3 with its manager port and a random password.
    pub fn development(dialect: Dialect) -> Self {
        let password = uuid::Uuid::new_v4().simple().to_string();
        Self {
            whole_history: Some(10_000),
            token_auth: true,
            #[cfg(feature = "testing")]
            record_calls: false,
            manager: Some(("gateway".to_owned(), password)),
            ..Self::new(dialect)
        }
    }
}

#[derive(Debug)]
struct RunningServer {
    api: SocketAddr,
    manager: Option<SocketAddr>,
    tasks: Vec<JoinHandle<()>>,
}

/// A running upstream; it ends when this is dropped.
#[derive(Debug)]
pub struct DevUpstream {
    shared: Arc<Shared>,
    running: Mutex<RunningServer>,
}

impl DevUpstream {
    /// Starts listening.
    pub async fn start(options: Options) -> io::Result<Self> {
        let state = State::new(
            options.dialect,
            options.whole_history,
            options.visible_after,
            options.membership_after,
        );
        let node = state.join_node();
        Self::start_with(options, Arc::new(state), node).await
    }

    async fn start_with(options: Options, state: Arc<State>, node: u64) -> io::Result<Self> {
        let api = server::bind(options.listen).await?;
        let manager = match options.manager {
            Some(_) if options.dialect == Dialect::V3 => {
                Some(TcpListener::bind((options.listen.ip(), 0)).await?)
            }
            _ => None,
        };
        let (tcp, ws) = options.socket_ports;
        let ip = options.listen.ip();
        let sockets = Listeners::bind((ip, tcp).into(), (ip, ws).into()).await?;
        let shared = Arc::new(Shared {
            state,
            node,
            release: Mutex::new(options.release),
            manager_token: options.manager_token,
            manager: options.manager,
            #[cfg(feature = "testing")]
            controls: testing::Controls::new(options.record_calls),
            token_auth: options.token_auth,
            connect_idle: options.connect_idle,
            sockets: sockets.addresses()?,
            killed: AtomicBool::new(false),
            api_port: AtomicU16::new(api.local_addr()?.port()),
            started: Mutex::new(Instant::now()),
            up: watch::Sender::new(true),
        });
        let mut running = RunningServer {
            api: api.local_addr()?,
            manager: manager.as_ref().map(TcpListener::local_addr).transpose()?,
            tasks: Vec::new(),
        };
        serve(&shared, &mut running, api, manager, sockets);
        Ok(Self {
            shared,
            running: Mutex::new(running),
        })
    }

    /// The base URL of the API, `http://127.0.0.1:PORT`; the same after a restart.
    pub fn url(&self) -> String {
        format!("http://{}", self.running.lock().api)
    }

    /// Where clients connect by TCP; the same after a restart.
    pub fn tcp_addr(&self) -> SocketAddr {
        self.shared.sockets.tcp
    }

    /// Where clients connect by WebSocket, `ws://127.0.0.1:PORT`; the same after a restart.
    pub fn ws_url(&self) -> String {
        self.shared.ws_url()
    }

    /// The base URL of v3's manager port, if it has one.
    pub fn manager_url(&self) -> Option<String> {
        let is_v3 = self.shared.state.dialect() == Dialect::V3;
        let address = self.running.lock().manager.filter(|_| is_v3)?;
        Some(format!("http://{address}"))
    }
}

impl Drop for DevUpstream {
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
    sockets: Listeners,
) {
    let start = |listener, port| tokio::spawn(server::accept(listener, shared.clone(), port));
    running.tasks.push(start(api, Port::Api));
    running
        .tasks
        .extend(manager.map(|listener| start(listener, Port::Manager)));
    let Listeners { tcp, ws } = sockets;
    for (listener, transport) in [(tcp, Transport::Tcp), (ws, Transport::WebSocket)] {
        let serving = sockets::serve(listener, transport, shared.clone());
        running.tasks.push(tokio::spawn(serving));
    }
}
