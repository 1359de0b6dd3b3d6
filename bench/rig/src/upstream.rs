//! A fake WuKongIM, as cheap as can be: one thread, answers made by hand (`answers`). Faults can be switched on while it runs (`faults`,
//! `admin`).

mod admin;
mod answers;
mod faults;

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use self::answers::Server;
pub use self::faults::MARKER;
use self::faults::{Faults, Manner};
use crate::http;

/// Where it listens and how it behaves.
pub struct Options<'a> {
    pub v3: bool,
    /// Of each of its nodes, which share their messages.
    pub addresses: Vec<&'a str>,
    /// v2 shows a message that long after it was sent.
    pub visible_after: Duration,
    /// How long each answer takes.
    pub latency: Duration,
    /// Where faults are told, see `admin`.
    pub admin: Option<&'a str>,
}

/// Serves until killed.
pub fn run(options: &Options<'_>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let server = Server::new(options.v3, options.visible_after);
    let server = Rc::new(RefCell::new(server));
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let mut nodes = Vec::new();
        let mut listening = JoinSet::new();
        for address in &options.addresses {
            let faults = Rc::new(Faults::new(options.latency));
            nodes.push(faults.clone());
            let (server, address) = (server.clone(), (*address).to_owned());
            listening.spawn_local(async move { listen(&server, &faults, &address).await });
        }
        if let Some(admin) = options.admin {
            let admin = TcpListener::bind(admin).await?;
            listening.spawn_local(async move {
                loop {
                    let (stream, _) = admin.accept().await?;
                    if let Err(error) = admin::serve(&server, &nodes, stream).await {
                        eprintln!("fake upstream: {error}");
                    }
                }
            });
        }
        match listening.join_next().await {
            Some(Ok(outcome)) => outcome,
            _ => Err(io::Error::other("a listener broke")),
        }
    })
}

/// One node: listens whenever it is not dead.
async fn listen(
    server: &Rc<RefCell<Server>>,
    faults: &Rc<Faults>,
    address: &str,
) -> io::Result<()> {
    loop {
        let listener = TcpListener::bind(address).await?;
        let mut connections = JoinSet::new();
        while !faults.is_dead() {
            tokio::select! {
                accepted = listener.accept() => {
                    let (server, faults, stream) = (server.clone(), faults.clone(), accepted?.0);
                    connections.spawn_local(async move {
                        if let Err(error) = serve(&server, &faults, stream).await {
                            eprintln!("fake upstream: {error}");
                        }
                    });
                }
                Some(_) = connections.join_next() => {}
                () = faults.until_dropped() => connections.abort_all(),
            }
        }
        drop(listener);
        connections.shutdown().await;
        faults.until_alive().await;
    }
}

async fn serve(server: &RefCell<Server>, faults: &Faults, mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut input, mut output) = (Vec::with_capacity(16 * 1024), Vec::with_capacity(16 * 1024));
    loop {
        match stream.read_buf(&mut input).await {
            Ok(0) => return Ok(()),
            Err(error) => return gone(error),
            Ok(_) => {}
        }
        let mut done = 0;
        while let Some(request) = http::parse(&input[done..])? {
            let bytes = &input[done..];
            let answer = |output: &mut _| server.borrow_mut().answer(bytes, &request, output);
            match faults.manner(bytes) {
                Manner::Whole(Duration::ZERO) => answer(&mut output),
                Manner::Whole(latency) => {
                    answer(&mut output);
                    tokio::time::sleep(latency).await;
                }
                Manner::Late => {
                    faults.until_over().await;
                    answer(&mut output);
                }
                Manner::Part { held } => {
                    answer(&mut output);
                    let head = memchr::memmem::find(&output, b"\r\n\r\n").map_or(0, |at| at + 4);
                    let part = usize::midpoint(head, output.len());
                    let written = stream.write_all(&output[..part]).await;
                    if held {
                        faults.until_over().await;
                    }
                    return written.or_else(gone);
                }
                Manner::Reset { carried_out } => {
                    if carried_out {
                        answer(&mut output);
                    }
                    return stream.set_zero_linger();
                }
                Manner::Nonsense(bytes) => {
                    let written = stream.write_all(&bytes).await;
                    return written.or_else(gone);
                }
            }
            done += request.body.end;
        }
        input.drain(..done);
        if !output.is_empty() {
            if let Err(error) = stream.write_all(&output).await {
                return gone(error);
            }
            output.clear();
        }
    }
}

/// Whoever gives a call up, or is told to end, drops its connection.
fn gone(error: io::Error) -> io::Result<()> {
    match error.kind() {
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Ok(()),
        _ => Err(error),
    }
}
