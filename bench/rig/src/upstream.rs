//! The WuKongIM of the benchmarks: the built-in upstream with the groups and the history that they use, and, for the storm, with what is to
//! go wrong (`Upstream::fault`).

use std::cell::Cell;
use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use dev_upstream::{DevUpstream, Dialect, Fault, GROUP, Options, Rule, StoredMessage};
use tokio::runtime::Runtime;

use crate::gateway::Stage;

/// A text that no client of the gateway may ever see.
pub const MARKER: &str = "SECRET-10.1.2.3";

/// Users that are members of every group: `u000`, `u001`, …
const USERS: usize = 64;
/// Messages that are in the group `history` from the beginning.
const HISTORY: usize = 200;
/// Messages kept of a channel: more than any look reaches back.
const KEPT: usize = 2000;
/// How long v2 takes to show a message: as a real one.
const VISIBLE_AFTER: Duration = Duration::from_micros(500);
/// By how much the fault `slow` makes everything slower.
const SLOWER: u32 = 100;
/// `{"type":1,"content":"a message of the benchmark, as long as people write them"}`
const PAYLOAD: &[u8] =
    br#"{"type":1,"content":"a message of the benchmark, as long as people write them"}"#;

fn options(v3: bool, listen: SocketAddr) -> Options {
    Options {
        listen,
        visible_after: VISIBLE_AFTER,
        whole_history: Some(KEPT),
        record_calls: false,
        ..Options::new(if v3 { Dialect::V3 } else { Dialect::V2 })
    }
}

async fn start(v3: bool, listen: SocketAddr) -> io::Result<DevUpstream> {
    let upstream = DevUpstream::start(options(v3, listen)).await?;
    let state = upstream.state();
    let groups = (1..=50).map(|group| format!("bench-group{group:03}"));
    let others = ["bench-group000", "bench-hot", "history"].map(str::to_owned);
    for group in groups.chain(others) {
        // Makes the group's record.
        state.ban_group(&group, false);
        for user in 0..USERS {
            state.join(&group, &format!("u{user:03}"));
        }
    }
    for n in 0..HISTORY {
        state.store_message(StoredMessage {
            channel_id: "history".to_owned(),
            channel_type: GROUP,
            from_uid: format!("u{:03}", n % USERS),
            client_msg_no: format!("history-{n:06}"),
            payload: PAYLOAD.to_vec(),
            ..StoredMessage::default()
        });
    }
    Ok(upstream)
}

/// Serves at `listen` until killed. Tells whoever connects to `sends` how many sends it took.
pub fn run(v3: bool, listen: SocketAddr, sends: SocketAddr) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let upstream = Arc::new(runtime.block_on(start(v3, listen))?);
    let told = upstream.clone();
    let sends = TcpListener::bind(sends)?;
    std::thread::spawn(move || {
        for mut stream in sends.incoming().flatten() {
            // An error is a client that is gone.
            let _ = writeln!(stream, "{}", told.state().received());
        }
    });
    runtime.block_on(std::future::pending())
}

/// A WuKongIM on a thread of its own.
pub struct Upstream {
    /// The addresses of its nodes.
    pub nodes: Vec<String>,
    /// They share their data.
    servers: Arc<[DevUpstream]>,
    latency: Duration,
    /// Whether the last fault was `dead`.
    dead: Cell<bool>,
    runtime: Option<Runtime>,
}

impl Drop for Upstream {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Upstream {
    /// Starts one of as many nodes at ports from `index` on; each answer takes `latency`.
    pub async fn start(
        stage: &Stage,
        v3: bool,
        index: u16,
        nodes: u16,
        latency: Duration,
    ) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let nodes: Vec<String> = (0..nodes).map(|node| stage.address(index + node)).collect();
        let listen: Result<Vec<SocketAddr>, _> = nodes.iter().map(|node| node.parse()).collect();
        let listen = listen.map_err(io::Error::other)?;
        let started = runtime.spawn(async move {
            let mut servers = vec![start(v3, listen[0]).await?];
            for address in &listen[1..] {
                servers.push(servers[0].start_twin(options(v3, *address)).await?);
            }
            Ok::<_, io::Error>(servers)
        });
        let upstream = Self {
            nodes,
            servers: started.await??.into(),
            latency,
            dead: Cell::default(),
            runtime: Some(runtime),
        };
        upstream.fault(0, "none").await?;
        Ok(upstream)
    }

    /// Lets a node, or all with 0, do one thing wrong and nothing else: none, slow, half, stalled, reset, garbage, silent, dead, or
    /// channel-ID, silent about this channel alone.
    pub async fn fault(&self, node: usize, name: &str) -> io::Result<()> {
        let faults = match name {
            "none" | "slow" | "dead" => None,
            "half" => Some(Rule::new("/", Fault::HalfAnswer)),
            "stalled" => Some(Rule::new("/", Fault::StalledAnswer)),
            "reset" => Some(Rule::new(
                "/",
                Fault::InTurn(vec![Fault::ResetAfter, Fault::Reset]),
            )),
            "garbage" => Some(Rule::new("/", Fault::InTurn(garbage()))),
            "silent" => Some(Rule::new("/", Fault::Hold(name.to_owned()))),
            _ => {
                let channel = name.strip_prefix("channel-");
                let channel = channel.ok_or_else(|| io::Error::other("no such fault"))?;
                Some(Rule::new("/", Fault::Hold(name.to_owned())).containing(channel))
            }
        };
        let slower = if name == "slow" { SLOWER } else { 1 };
        let chosen = match node.checked_sub(1) {
            None => 0..self.servers.len(),
            Some(index) => index..index + 1,
        };
        for server in &self.servers[chosen.clone()] {
            server.faults().clear();
            server.state().set_visible_after(VISIBLE_AFTER * slower);
            let latency = self.latency * slower;
            if !latency.is_zero() {
                server.faults().always("/", Fault::Delay(latency));
            }
            if let Some(rule) = faults.clone() {
                server.faults().add(rule);
            }
        }
        let dead = name == "dead";
        if self.dead.replace(dead) != dead {
            self.each(chosen, dead).await?;
        }
        Ok(())
    }

    /// Ends all connections to it.
    pub async fn drop_connections(&self) -> io::Result<()> {
        self.each(0..self.servers.len(), false).await
    }

    /// Stops these nodes, and starts them again unless they stay `dead`.
    async fn each(&self, nodes: std::ops::Range<usize>, dead: bool) -> io::Result<()> {
        let servers = self.servers.clone();
        let work = async move {
            for server in &servers[nodes] {
                if dead {
                    server.stop().await;
                } else {
                    server.restart().await?;
                }
            }
            Ok(())
        };
        match &self.runtime {
            // What a server starts runs where it was started.
            Some(runtime) => runtime.spawn(work).await?,
            None => Ok(()),
        }
    }

    /// Sends it took.
    pub fn sends(&self) -> u64 {
        self.servers[0].state().received()
    }
}

/// Nonsense of several kinds, over HTTP and not.
fn garbage() -> Vec<Fault> {
    let http = |head: &str, body: &str| {
        let length = body.len();
        let text = format!("HTTP/1.1 {head}\r\nContent-Length: {length}\r\n\r\n{body}");
        Fault::Raw(text.into_bytes().into())
    };
    // Four megabytes of unknown length.
    let mut endless = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n".to_vec();
    endless.resize(endless.len() + 4 * 1024 * 1024, b'[');
    vec![
        Fault::Raw(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"[..].into()),
        http(
            "200 OK\r\nContent-Type: text/html",
            &format!("<html>{MARKER}</html>"),
        ),
        http(
            "200 OK\r\nContent-Type: application/json",
            &format!(
                r#"{{"status":"{MARKER}","data":[7,{{}}],"messages":{{}},"ready":"{MARKER}"}}"#
            ),
        ),
        http(
            "500 Internal Server Error\r\nContent-Type: text/plain",
            &format!("panic: {MARKER}\n\ngoroutine 1 [running]:"),
        ),
        http(
            "200 OK\r\nContent-Type: application/json",
            r#"{"status":20"#,
        ),
        Fault::Raw(endless.into()),
    ]
}
