//! The guarded socket: a client's connection for live messages, over WebSocket or TCP, and what may pass between it and WuKongIM. Knows no
//! route and no listener.
//!
//! The life of a socket:
//!  1. `routes` answers the upgrade and calls [`serve_websocket`]; the listener for plain TCP calls [`serve_tcp`].
//!  2. `handshake` reads CONNECT within `socket.connect_timeout`, checks the connect token, and connects to WuKongIM by TCP with a CONNECT
//!     of its own (`upstream`), so that no client chooses its device id.
//!  3. `session` passes frames on until one side ends. Each SEND is judged by `rules`; a JSON-RPC client's is translated by `json_rpc`.
//!  4. `end` says what the client is told.
//!
//! The payload stays sealed between client and WuKongIM, but for JSON-RPC, which has no sealing.

mod end;
mod handshake;
mod json_rpc;
mod rules;
mod session;
mod traffic;
mod transport;
mod upstream;

use std::net::IpAddr;

use hyper::upgrade::Upgraded;
use tokio::net::TcpStream;
use tokio::time::Instant;

use self::handshake::Refusal;
use self::session::Session;
use self::transport::{CloseCode, Transport};
use crate::state::App;
use crate::telemetry::{ACCESS_LOG, LabelValue as _, SocketConnect};

/// Serves a connection that was upgraded to WebSocket, until it is closed. Failures are charged to `address`.
pub(crate) async fn serve_websocket(app: App, upgraded: Upgraded, address: IpAddr) {
    let max_bytes = app.settings.socket_frame_bytes();
    let transport = Transport::websocket(upgraded, max_bytes).await;
    serve(app, transport, address).await;
}

/// Serves a connection of an SDK that speaks wkproto over plain TCP, until it is closed.
pub(crate) async fn serve_tcp(app: App, stream: TcpStream, address: IpAddr) {
    serve(app, Transport::tcp(stream), address).await;
}

async fn serve(app: App, mut transport: Transport, address: IpAddr) {
    let began = Instant::now();
    let opened = tokio::select! {
        // Boxed: it is over when the session begins, whose task would keep its size.
        opened = Box::pin(handshake::open(&app, &mut transport, address)) => opened,
        () = app.sockets.closing() => Err(Refusal::bare(SocketConnect::Upstream, CloseCode::Restart)),
    };
    let sockets = &app.metrics.sockets;
    let parts = match opened {
        Ok(parts) => parts,
        Err(refusal) => {
            let outcome = refusal.outcome;
            sockets.connects[outcome].inc();
            tracing::event!(
                target: ACCESS_LOG,
                tracing::Level::INFO,
                client.address = %address,
                socket.outcome = outcome.name(),
                "socket refused"
            );
            if let Some(answer) = refusal.answer {
                let limit = app.settings.socket.write_timeout;
                let _ = transport.send([answer], limit).await;
            }
            transport.close(refusal.code).await;
            return;
        }
    };
    sockets.connects[SocketConnect::Ok].inc();
    let mut session = Session::new(&app, transport, parts);
    let protocol = session.protocol();
    sockets.open[protocol].inc();
    let end = session.run().await;
    sockets.open[protocol].dec();
    sockets.ends[end.cause()].inc();
    tracing::event!(
        target: ACCESS_LOG,
        tracing::Level::INFO,
        user.id = %session.uid,
        device.flag = session.device.number(),
        socket.protocol = protocol.name(),
        duration_s = began.elapsed().as_secs(),
        socket.frames_in = session.traffic.frames_in,
        socket.frames_out = session.traffic.frames_out,
        socket.bytes_in = session.traffic.bytes_in,
        socket.bytes_out = session.traffic.bytes_out,
        socket.cause = end.cause().name(),
        "socket ended"
    );
    session.close(end).await;
}
