//! The stand-in as a process of its own, for gateways in other processes and containers. It keeps everything in memory.
//!
//! `cargo run --example upstream -- v2|v3 ADDRESS:PORT [MANAGER-TOKEN]`; SIGTERM and SIGINT end it.

use std::error::Error;

use dev_upstream::{DevUpstream, Dialect, Options};
use tokio::signal::unix::{SignalKind, signal};

const USAGE: &str = "usage: upstream v2|v3 ADDRESS:PORT [MANAGER-TOKEN]";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let dialect = match arguments.next().as_deref() {
        Some("v2") => Dialect::V2,
        Some("v3") => Dialect::V3,
        _ => return Err(USAGE.into()),
    };
    let listen = arguments.next().ok_or(USAGE)?.parse()?;
    let options = Options {
        listen,
        manager_token: arguments.next(),
        ..Options::development(dialect)
    };
    // Process 1 of a container gets only the signals that it listens to.
    let mut terminate = signal(SignalKind::terminate())?;
    let upstream = DevUpstream::start(options).await?;
    println!("{}", upstream.url());
    tokio::select! {
        _ = terminate.recv() => {}
        interrupted = tokio::signal::ctrl_c() => interrupted?,
    }
    Ok(())
}
