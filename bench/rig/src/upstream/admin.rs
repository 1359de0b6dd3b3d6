//! Telling the fake WuKongIM what to do wrong, while it runs. GET, below `/bench/`: `fault/NODE/NAME` (NODE from 1, or 0 for all of
//! them; NAME as in `Fault::named`), `drop` (ends all connections once), `sends` (how many were taken).

use std::cell::RefCell;
use std::io;
use std::rc::Rc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::answers::Server;
use super::faults::{Fault, Faults, SLOWER};
use crate::http::{self, answer};

/// One connection of whoever switches faults.
pub async fn serve(
    server: &RefCell<Server>,
    nodes: &[Rc<Faults>],
    mut stream: TcpStream,
) -> io::Result<()> {
    let mut input = Vec::new();
    let mut output = Vec::new();
    while stream.read_buf(&mut input).await? > 0 {
        let Some(request) = http::parse(&input)? else {
            continue;
        };
        let target = String::from_utf8_lossy(&input[request.target.clone()]);
        let words: Vec<&str> = target.trim_start_matches('/').split('/').collect();
        let told = match *words {
            ["bench", "fault", node, name] => told_fault(server, nodes, node, name),
            ["bench", "drop"] => {
                for node in nodes {
                    node.drop_connections();
                }
                Some("dropped".to_owned())
            }
            ["bench", "sends"] => Some(server.borrow().sends.to_string()),
            _ => None,
        };
        match told {
            Some(told) => answer(&mut output, "200 OK", told.as_bytes()),
            None => answer(&mut output, "404 Not Found", b"{}"),
        }
        stream.write_all(&output).await?;
        output.clear();
        input.drain(..request.body.end);
    }
    Ok(())
}

fn told_fault(
    server: &RefCell<Server>,
    nodes: &[Rc<Faults>],
    node: &str,
    name: &str,
) -> Option<String> {
    let fault = Fault::named(name)?;
    let node: usize = node.parse().ok()?;
    let nodes = match node.checked_sub(1) {
        None => nodes,
        Some(index) => nodes.get(index..=index)?,
    };
    server.borrow_mut().slower = if fault == Fault::Slow { SLOWER } else { 1 };
    for node in nodes {
        node.set(fault.clone());
    }
    Some(name.to_owned())
}
