//! Clients of sockets over WebSocket, which check every byte of what they get: senders that wait for each SENDACK, receivers of streamed
//! RECVs, idle ones, and such that stop reading.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::wire::{self, Framing, Numbered};

/// RECVs of one request of a receiver.
const STREAMED: u32 = 1000;
/// 20 MB of RECVs.
const UNREAD: u32 = 80_000;
const READ_BYTES: usize = 64 * 1024;

/// What clients do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Send,
    Recv,
    Idle,
    Unread,
}

impl Kind {
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "send" => Some(Self::Send),
            "recv" => Some(Self::Recv),
            "idle" => Some(Self::Idle),
            "unread" => Some(Self::Unread),
            _ => None,
        }
    }
}

/// Connects `count` clients as the users of `tokens`, a connect token of `u000`, `u001`, … on each line. Those that send or receive do so for
/// `time` and print what came of it as bench/load.lua does; the others print `open` and are held until killed.
pub async fn run(
    kind: Kind,
    address: &str,
    count: usize,
    time: Duration,
    tokens: &str,
) -> Result<bool, Box<dyn std::error::Error>> {
    let tokens = std::fs::read_to_string(tokens)?;
    let tokens: Vec<&str> = tokens.lines().collect();
    let mut clients = Vec::with_capacity(count);
    for user in 0..count {
        let user = user % tokens.len();
        clients.push(open(address, &format!("u{user:03}"), tokens[user]).await?);
    }
    match kind {
        Kind::Send => report(clients, time, wire::send(false), None).await,
        Kind::Recv => report(clients, time, wire::send(true), Some(STREAMED)).await,
        Kind::Idle => hold(&clients).await,
        Kind::Unread => {
            for client in &mut clients {
                client.write_all(wire::send(true).with(UNREAD)).await?;
            }
            hold_unread(clients).await
        }
    }
    .map_err(Into::into)
}

/// Upgrades and connects.
async fn open(address: &str, uid: &str, token: &str) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    stream.write_all(wire::upgrade()).await?;
    let mut head = Vec::with_capacity(1024);
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read_buf(&mut head).await? == 0 {
            return Err(io::Error::other("closed before an upgrade"));
        }
    }
    let is_upgraded = head.starts_with(b"HTTP/1.1 101 ")
        && memchr::memmem::find(&head, wire::ACCEPT.as_bytes()).is_some();
    if !is_upgraded {
        let head = String::from_utf8_lossy(&head).into_owned();
        return Err(io::Error::other(head));
    }
    stream.write_all(&wire::connect(uid, token)).await?;
    let expected = wire::connack(Framing::WebSocket);
    if !gets(&mut stream, &mut [0; 1024], &expected).await? {
        return Err(io::Error::other("not the expected CONNACK"));
    }
    Ok(stream)
}

/// Reads until these bytes are there; `false` where others come.
async fn gets(stream: &mut TcpStream, buffer: &mut [u8], expected: &[u8]) -> io::Result<bool> {
    let mut rest = expected;
    while !rest.is_empty() {
        let read = stream.read(buffer).await?;
        if read == 0 {
            return Err(io::Error::other("closed"));
        }
        match rest.strip_prefix(&buffer[..read]) {
            Some(left) => rest = left,
            None => return Ok(false),
        }
    }
    Ok(true)
}

/// What came of one client's requests.
#[derive(Default)]
struct Outcome {
    /// The time of each, µs.
    times: Vec<u32>,
    bad: usize,
    broken: usize,
}

/// One client that waits for each answer: to as many streamed RECVs, or to one SEND.
async fn client(
    mut stream: TcpStream,
    end: Instant,
    mut send: Numbered,
    streamed: Option<u32>,
    block: Rc<[u8]>,
) -> Outcome {
    let mut outcome = Outcome::default();
    let mut buffer = vec![0; READ_BYTES];
    let mut ack = wire::sendack(Framing::WebSocket);
    let mut expected = Vec::new();
    if let Some(count) = streamed {
        expected.extend(ack.with(count));
        for _ in 0..count / wire::BLOCK {
            expected.extend(&*block);
        }
    }
    let mut number = 0;
    loop {
        let began = Instant::now();
        if began >= end {
            return outcome;
        }
        number += 1;
        let asked = async {
            stream
                .write_all(send.with(streamed.unwrap_or(number)))
                .await?;
            let expected = match streamed {
                Some(_) => &expected[..],
                None => ack.with(number),
            };
            gets(&mut stream, &mut buffer, expected).await
        };
        match asked.await {
            Ok(is_right) => outcome.bad += usize::from(!is_right),
            Err(_) => outcome.broken += 1,
        }
        if outcome.bad + outcome.broken > 0 {
            return outcome;
        }
        let took = began.elapsed().as_micros();
        outcome.times.push(u32::try_from(took).unwrap_or(u32::MAX));
    }
}

async fn report(
    clients: Vec<TcpStream>,
    time: Duration,
    send: Numbered,
    streamed: Option<u32>,
) -> io::Result<bool> {
    let block: Rc<[u8]> = wire::block(Framing::WebSocket).into();
    let began = Instant::now();
    let mut running = JoinSet::new();
    for stream in clients {
        let work = client(stream, began + time, send.clone(), streamed, block.clone());
        running.spawn_local(work);
    }
    let mut all = Outcome::default();
    for outcome in running.join_all().await {
        all.times.extend(outcome.times);
        all.bad += outcome.bad;
        all.broken += outcome.broken;
    }
    let took = began.elapsed().as_micros();
    all.times.sort_unstable();
    let of = |percent: usize| all.times.get(all.times.len() * percent / 100);
    // A stream counts as what it delivered.
    let requests = all.times.len() * streamed.unwrap_or(1) as usize;
    println!(
        "RESULT\t{requests}\t{}\t{}\t{requests}\t{took}\t{}\t{}",
        all.bad,
        all.broken,
        of(50).unwrap_or(&0),
        of(99).unwrap_or(&0)
    );
    Ok(true)
}

/// Holds connections on which nothing may come but WebSocket's pings.
async fn hold(clients: &[TcpStream]) -> io::Result<bool> {
    println!("open");
    let mut input = [0; 64];
    loop {
        sleep(Duration::from_secs(5)).await;
        for stream in clients {
            if matches!(stream.try_read(&mut input), Ok(0)) {
                return Err(io::Error::other("a held connection was closed"));
            }
        }
    }
}

/// Holds connections that are not read.
async fn hold_unread(clients: Vec<TcpStream>) -> io::Result<bool> {
    println!("open");
    std::future::pending::<()>().await;
    drop(clients);
    Ok(true)
}
