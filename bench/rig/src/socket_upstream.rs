//! WuKongIM's socket ports for the benchmarks, over TCP (for the gateway) and WebSocket (for nginx): takes every token, acknowledges every
//! SEND and delivers as many RECVs as it is asked for. Prepared answers, so that it costs less than what is measured: the built-in
//! upstream opens and seals each message.

use std::io;
use std::rc::Rc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;

use crate::wire::{self, Asked, Framing};

/// Serves both until killed.
pub async fn run(tcp: &str, websocket: &str) -> io::Result<()> {
    let (tcp, websocket) = (
        TcpListener::bind(tcp).await?,
        TcpListener::bind(websocket).await?,
    );
    tokio::try_join!(
        accept(tcp, Framing::Tcp),
        accept(websocket, Framing::WebSocket)
    )?;
    Ok(())
}

async fn accept(listener: TcpListener, framing: Framing) -> io::Result<()> {
    let connack: Rc<[u8]> = wire::connack(framing).into();
    let block: Rc<[u8]> = wire::block(framing).into();
    loop {
        let (stream, _) = listener.accept().await?;
        let (connack, block) = (connack.clone(), block.clone());
        spawn_local(async move {
            // An error is a client that is gone.
            let _ = serve(stream, framing, &connack, &block).await;
        });
    }
}

async fn serve(
    mut stream: TcpStream,
    framing: Framing,
    connack: &[u8],
    block: &[u8],
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut input = Vec::with_capacity(1024);
    if matches!(framing, Framing::WebSocket) {
        while !input.ends_with(b"\r\n\r\n") {
            if stream.read_buf(&mut input).await? == 0 {
                return Ok(());
            }
        }
        input.clear();
        let head = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {}\r\n\r\n",
            wire::ACCEPT
        );
        stream.write_all(head.as_bytes()).await?;
    }
    let mut ack = wire::sendack(framing);
    loop {
        if stream.read_buf(&mut input).await? == 0 {
            return Ok(());
        }
        let mut taken = 0;
        while let Some((begins, end)) = wire::first(framing, &input[taken..]) {
            let asked = wire::asked(&input[taken + begins..taken + end]);
            taken += end;
            match asked {
                Some(Asked::Connack) => stream.write_all(connack).await?,
                Some(Asked::Sendack(number)) => stream.write_all(ack.with(number)).await?,
                Some(Asked::Stream(count)) => {
                    stream.write_all(ack.with(count)).await?;
                    for _ in 0..count / wire::BLOCK {
                        stream.write_all(block).await?;
                    }
                }
                Some(Asked::Pong) => stream.write_all(&wkproto::PONG).await?,
                None => {}
            }
        }
        input.drain(..taken);
    }
}
