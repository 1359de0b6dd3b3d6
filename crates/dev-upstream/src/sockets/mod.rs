//! The sockets for clients, over TCP and WebSocket: wkproto in both dialects, with the quirks that were seen on real servers. What a client
//! says goes to the same state as the API's calls.
//!
//! JSON-RPC is not spoken: v3 refuses it, and the gateway never uses v2's.

mod connect;
mod link;
mod send;
mod session;

use std::{io, net::SocketAddr, sync::Arc};

use tokio::net::TcpListener;

use super::{
    Dialect,
    server::{self, Shared},
};

#[cfg(feature = "testing")]
pub(super) use self::connect::{Connected, connect};
pub(super) use self::session::serve;

/// The two transports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transport {
    Tcp,
    WebSocket,
}

/// Where clients connect.
#[derive(Debug, Clone, Copy)]
pub(super) struct Addresses {
    pub(super) tcp: SocketAddr,
    pub(super) ws: SocketAddr,
}

/// The bound listeners of both transports.
#[derive(Debug)]
pub(super) struct Listeners {
    pub(super) tcp: TcpListener,
    pub(super) ws: TcpListener,
}

impl Listeners {
    pub(super) async fn bind(tcp: SocketAddr, ws: SocketAddr) -> io::Result<Self> {
        Ok(Self {
            tcp: server::bind(tcp).await?,
            ws: server::bind(ws).await?,
        })
    }

    pub(super) fn addresses(&self) -> io::Result<Addresses> {
        Ok(Addresses {
            tcp: self.tcp.local_addr()?,
            ws: self.ws.local_addr()?,
        })
    }
}

/// What all sessions of a server share.
pub(super) type Server = Arc<Shared>;

fn is_v2(shared: &Shared) -> bool {
    shared.state.dialect() == Dialect::V2
}
