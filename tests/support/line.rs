//! A line to a server that can be cut or fall silent, as networks do.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "shared by several test binaries, each of which uses a part"
)]

use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Condition {
    Good,
    Cut,
    Silent,
}

/// Listens on loopback and carries bytes to a server and back; ends when it is dropped.
pub struct Line {
    pub address: SocketAddr,
    condition: watch::Sender<Condition>,
}

impl Line {
    pub async fn to(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (condition, seen) = watch::channel(Condition::Good);
        let mut dropped = seen.clone();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    near = listener.accept() => {
                        if let Ok((near, _)) = near {
                            tokio::spawn(carry(near, server.clone(), seen.clone()));
                        }
                    }
                    _ = dropped.wait_for(|_| false) => return,
                }
            }
        });
        Self { address, condition }
    }

    /// A line to the server of this URL, and the URL by way of it.
    pub async fn to_database(url: &str) -> (String, Self) {
        let mut url = url::Url::parse(url).unwrap();
        let host = url.host_str().unwrap();
        let line = Self::to(format!("{host}:{}", url.port().unwrap_or(5432))).await;
        url.set_ip_host(line.address.ip()).unwrap();
        url.set_port(Some(line.address.port())).unwrap();
        (url.into(), line)
    }

    /// Ends all connections, and each new one at once.
    pub fn cut(&self) {
        self.condition.send_replace(Condition::Cut);
    }

    /// Carries nothing more: neither over the connections there are, which stay dead for ever, nor over new ones.
    pub fn silence(&self) {
        self.condition.send_replace(Condition::Silent);
    }

    /// New connections work again.
    pub fn mend(&self) {
        self.condition.send_replace(Condition::Good);
    }
}

async fn carry(mut near: TcpStream, server: String, mut condition: watch::Receiver<Condition>) {
    let now = *condition.borrow_and_update();
    let bad = match now {
        Condition::Good => {
            let Ok(mut far) = TcpStream::connect(server).await else {
                return;
            };
            tokio::select! {
                _ = tokio::io::copy_bidirectional(&mut near, &mut far) => return,
                _ = condition.changed() => *condition.borrow(),
            }
        }
        bad => bad,
    };
    if bad == Condition::Silent {
        // Until the line is dropped.
        let _ = condition.wait_for(|_| false).await;
    }
}
