//! What the fake WuKongIM does wrong, told while it runs. Knows nothing of what its answers say.

use std::cell::Cell;
use std::time::Duration;

use tokio::sync::watch;

/// By how much [`Fault::Slow`] makes everything slower.
pub const SLOWER: u32 = 100;

/// A text that no client of the gateway may ever see.
pub const MARKER: &str = "SECRET-10.1.2.3";

/// What a node does wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    None,
    /// Each answer, and each message's appearance, takes [`SLOWER`] times as long.
    Slow,
    /// The head and half of each body, then the connection ends.
    Half,
    /// The head and half of each body, then nothing.
    Stalled,
    /// Connections are reset, in turn before and after a request is carried out.
    Reset,
    /// Nonsense of several kinds, over HTTP and not.
    Garbage,
    /// Requests are taken and answered when the fault is over, as by a process that is stopped and goes on.
    Silent,
    /// No process at all: no listener, no connections.
    Dead,
    /// Silent about this channel alone.
    Channel(Vec<u8>),
}

impl Fault {
    /// The name it is told by, and told of.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "none" => Self::None,
            "slow" => Self::Slow,
            "half" => Self::Half,
            "stalled" => Self::Stalled,
            "reset" => Self::Reset,
            "garbage" => Self::Garbage,
            "silent" => Self::Silent,
            "dead" => Self::Dead,
            _ => Self::Channel(name.strip_prefix("channel-")?.into()),
        })
    }
}

#[derive(Clone)]
struct State {
    fault: Fault,
    /// How often all connections were dropped.
    drops: u32,
}

/// One node's faults.
pub struct Faults {
    state: watch::Sender<State>,
    latency: Duration,
    turn: Cell<usize>,
}

/// How one request is answered.
pub enum Manner {
    /// In full, after this time.
    Whole(Duration),
    /// In part; then the connection ends at once, or when the fault is over.
    Part { held: bool },
    /// Not at all, carried out or not.
    Reset { carried_out: bool },
    /// With these bytes; then the connection ends.
    Nonsense(Vec<u8>),
    /// In full, when the fault is over.
    Late,
}

impl Faults {
    /// None, and answers that take `latency`.
    pub fn new(latency: Duration) -> Self {
        let state = State {
            fault: Fault::None,
            drops: 0,
        };
        Self {
            state: watch::channel(state).0,
            latency,
            turn: Cell::new(0),
        }
    }

    /// From now on.
    pub fn set(&self, fault: Fault) {
        self.state.send_modify(|state| state.fault = fault);
    }

    /// Ends all connections once.
    pub fn drop_connections(&self) {
        self.state.send_modify(|state| state.drops += 1);
    }

    /// Whether there is a process to connect to.
    pub fn is_dead(&self) -> bool {
        self.state.borrow().fault == Fault::Dead
    }

    /// Waits until all connections are to end.
    pub async fn until_dropped(&self) {
        let mut state = self.state.subscribe();
        let drops = state.borrow_and_update().drops;
        let _ = state
            .wait_for(|state| state.drops != drops || state.fault == Fault::Dead)
            .await;
    }

    /// Waits until it is not dead.
    pub async fn until_alive(&self) {
        let mut state = self.state.subscribe();
        let _ = state.wait_for(|state| state.fault != Fault::Dead).await;
    }

    /// Waits until the present fault is over.
    pub async fn until_over(&self) {
        let mut state = self.state.subscribe();
        let fault = state.borrow_and_update().fault.clone();
        let _ = state.wait_for(|state| state.fault != fault).await;
    }

    /// How this request is to be answered.
    pub fn manner(&self, request: &[u8]) -> Manner {
        let turn = self.turn.get();
        self.turn.set(turn.wrapping_add(1));
        match &self.state.borrow().fault {
            Fault::Slow => Manner::Whole(self.latency * SLOWER),
            Fault::Half => Manner::Part { held: false },
            Fault::Stalled => Manner::Part { held: true },
            Fault::Reset => Manner::Reset {
                carried_out: turn.is_multiple_of(2),
            },
            Fault::Garbage => Manner::Nonsense(nonsense(turn)),
            Fault::Silent => Manner::Late,
            Fault::Channel(id) if memchr::memmem::find(request, id).is_some() => Manner::Late,
            Fault::None | Fault::Dead | Fault::Channel(_) => Manner::Whole(self.latency),
        }
    }
}

/// The `turn`th piece of it.
fn nonsense(turn: usize) -> Vec<u8> {
    let http = |head: &str, body: &str| {
        let length = body.len();
        format!("HTTP/1.1 {head}\r\nContent-Length: {length}\r\n\r\n{body}").into_bytes()
    };
    match turn % 10 {
        0 | 5 => b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n".to_vec(),
        1 | 6 => http(
            "200 OK\r\nContent-Type: text/html",
            &format!("<html>{MARKER}</html>"),
        ),
        2 | 7 => http(
            "200 OK\r\nContent-Type: application/json",
            &format!(
                r#"{{"status":"{MARKER}","data":[7,{{}}],"messages":{{}},"ready":"{MARKER}"}}"#
            ),
        ),
        3 | 8 => http(
            "500 Internal Server Error\r\nContent-Type: text/plain",
            &format!("panic: {MARKER}\n\ngoroutine 1 [running]:"),
        ),
        4 => http(
            "200 OK\r\nContent-Type: application/json",
            r#"{"status":20"#,
        ),
        // Four megabytes of unknown length.
        _ => {
            let mut endless = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n".to_vec();
            endless.resize(endless.len() + 4 * 1024 * 1024, b'[');
            endless
        }
    }
}
