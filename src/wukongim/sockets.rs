//! Connections to WuKongIM's socket ports, over TCP. Knows nothing of what is spoken on them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::net::TcpStream;
use tokio::time::timeout;
use url::{Host, Url};

use super::call::Node;
use super::dialect::v2;
use super::{Client, Error, RouteInfo};
use crate::config;

/// The port of a node whose `/route` names none.
const DEFAULT_PORT: u16 = 5100;
/// A slower answer of a node's API counts as none: another node serves the socket as well.
const ROUTE_TIMEOUT: Duration = Duration::from_millis(900);
/// `/route` needs some uid and does not look at it (seen on both generations).
const ANY_UID: &str = "____gateway";

/// Where WuKongIM's socket ports are.
pub(super) struct SocketPorts {
    /// `wukongim.tcp_addrs`; empty where the nodes' APIs tell their ports.
    addresses: Vec<String>,
    connect_timeout: Duration,
    /// Whether the warning about public sockets was logged.
    is_warned: AtomicBool,
}

impl SocketPorts {
    pub(super) fn new(settings: &config::Wukongim) -> Self {
        Self {
            addresses: settings.tcp_addrs.clone(),
            connect_timeout: settings.connect_timeout,
            is_warned: AtomicBool::new(false),
        }
    }

    /// The next of the configured addresses that is not in `tried`, from a random one on.
    fn next(&self, tried: &[usize]) -> Option<usize> {
        let count = self.addresses.len();
        let first = match tried.last() {
            Some(last) => last + 1,
            None => fastrand::usize(..count),
        };
        let mut indices = (first..first + count).map(|index| index % count);
        indices.find(|index| !tried.contains(index))
    }

    async fn open(&self, address: String) -> Result<TcpStream, Error> {
        let stream = timeout(self.connect_timeout, TcpStream::connect(address)).await;
        let Ok(Ok(stream)) = stream else {
            return Err(Error::Connect);
        };
        stream.set_nodelay(true).map_err(|_| Error::Connect)?;
        Ok(stream)
    }
}

/// What a node's `/route` tells of its sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SocketRoute {
    port: u16,
    /// Whether one of its addresses is public.
    is_public: bool,
}

impl SocketRoute {
    fn of(route: &RouteInfo) -> Self {
        let tcp = route.tcp_addr.rsplit_once(':');
        let port = tcp.and_then(|(_, port)| port.parse().ok());
        let tcp = format!("http://{}", route.tcp_addr);
        let addresses = [tcp.as_str(), &route.ws_addr, &route.wss_addr];
        Self {
            port: port.filter(|port| *port != 0).unwrap_or(DEFAULT_PORT),
            is_public: addresses.into_iter().any(is_public),
        }
    }
}

/// Whether the host of this URL is neither loopback, private nor unspecified; a name without a dot is one of a private network.
fn is_public(url: &str) -> bool {
    let url = Url::parse(url);
    match url.as_ref().ok().and_then(Url::host) {
        Some(Host::Domain(name)) => name.contains('.'),
        Some(Host::Ipv4(ip)) => {
            !(ip.is_loopback() || ip.is_private() || ip.is_unspecified() || ip.is_link_local())
        }
        Some(Host::Ipv6(ip)) => {
            !(ip.is_loopback()
                || ip.is_unique_local()
                || ip.is_unspecified()
                || ip.is_unicast_link_local())
        }
        None => false,
    }
}

impl Client {
    /// A new connection to the socket port of a node of the generation in use, or to one of `wukongim.tcp_addrs`: any node serves any user.
    ///
    /// `tried` lists where the caller has connected before, and is extended here: another node is preferred to those in it. Where no
    /// connection can be made, the next node is tried until none is left. A node whose socket port refuses is not ejected.
    pub async fn connect_socket(&self, tried: &mut Vec<usize>) -> Result<TcpStream, Error> {
        self.generation().await?;
        let (mut failed, mut failure) = (Vec::new(), None);
        loop {
            let avoided = [failed.as_slice(), tried].concat();
            let untried = self.next_socket(&avoided);
            // A healthy node is better than one that was not tried.
            let untried = untried.filter(|index| self.is_healthy(*index));
            let Some(index) = untried.or_else(|| self.next_socket(&failed)) else {
                return Err(failure.unwrap_or(if self.nodes.is_full(&failed) {
                    Error::Busy
                } else {
                    Error::OtherGeneration
                }));
            };
            tried.retain(|other| *other != index);
            tried.push(index);
            match self.open_socket(index).await {
                Ok(stream) => return Ok(stream),
                Err(error) => failure = Some(error),
            }
            failed.push(index);
        }
    }

    /// Asks all nodes for their socket ports and warns, once, where one names a public address: its own sockets seem to be open then, past
    /// the gateway and its rules. Call it at the start.
    pub async fn check_socket_routes(&self) {
        let nodes = self.nodes.all().iter();
        let asked = nodes.map(|node| timeout(ROUTE_TIMEOUT, self.socket_route(node)));
        join_all(asked).await;
    }

    fn next_socket(&self, tried: &[usize]) -> Option<usize> {
        if self.sockets.addresses.is_empty() {
            self.nodes.choose(tried)
        } else {
            self.sockets.next(tried)
        }
    }

    /// Nothing is known of configured addresses.
    fn is_healthy(&self, index: usize) -> bool {
        !self.sockets.addresses.is_empty() || self.nodes.is_available(index)
    }

    async fn open_socket(&self, index: usize) -> Result<TcpStream, Error> {
        if let Some(address) = self.sockets.addresses.get(index) {
            return self.sockets.open(address.clone()).await;
        }
        let node = &self.nodes.all()[index];
        let route = async {
            node.check_generation().await?;
            self.socket_route(node).await
        };
        let route = timeout(ROUTE_TIMEOUT, route).await;
        let SocketRoute { port, .. } = route.unwrap_or(Err(Error::Timeout))?;
        let stream = self.sockets.open(format!("{}:{port}", node.host())).await;
        if stream.is_err() {
            // It may have another port when it is back.
            node.socket_route.forget_if(|_, _| true);
        }
        stream
    }

    async fn socket_route(&self, node: &Arc<Node>) -> Result<SocketRoute, Error> {
        let ask = || {
            let node = Arc::clone(node);
            async move {
                match v2::route(&node, ANY_UID).await {
                    Ok(route) => Ok(SocketRoute::of(&route)),
                    // It is there, and does not tell.
                    Err(error) if error.is_unexpected() => {
                        Ok(SocketRoute::of(&RouteInfo::default()))
                    }
                    Err(error) => Err(error),
                }
            }
        };
        let route = node.socket_route.get(|route, _| route.is_ok(), ask).await?;
        if route.is_public && !self.sockets.is_warned.swap(true, Relaxed) {
            tracing::warn!(
                node = %node.name,
                "wukongim's /route names a public address: its own sockets seem to be open, past the gateway and its rules"
            );
        }
        Ok(route)
    }
}

#[cfg(test)]
mod tests {
    use super::super::call::nodes_at;
    use super::*;

    fn route(tcp: &str, ws: &str, wss: &str) -> SocketRoute {
        SocketRoute::of(&RouteInfo {
            tcp_addr: tcp.into(),
            ws_addr: ws.into(),
            wss_addr: wss.into(),
        })
    }

    #[test]
    fn the_port_is_the_one_in_the_answer_else_5100() {
        for (answer, port) in [
            ("127.0.0.1:7100", 7100),
            ("0.0.0.0:5101", 5101),
            ("im.example.com:5102", 5102),
            ("[::]:5103", 5103),
            (":5104", 5104),
            ("", 5100),
            ("127.0.0.1", 5100),
            ("127.0.0.1:", 5100),
            ("127.0.0.1:0", 5100),
            ("127.0.0.1:65536", 5100),
            ("127.0.0.1:tcp", 5100),
        ] {
            assert_eq!(route(answer, "", "").port, port, "{answer}");
        }
    }

    #[test]
    fn public_is_what_others_can_reach() {
        for public in [
            "203.0.113.7",
            "im.example.com",
            "[2001:db8::1]",
            "172.32.0.1",
        ] {
            let [tcp, ws, wss] = ["", "ws://", "wss://"].map(|it| format!("{it}{public}:5100"));
            assert!(route(&tcp, "", "").is_public, "{public}");
            assert!(route("", &ws, "").is_public, "{public}");
            assert!(route("", "", &wss).is_public, "{public}");
        }
        for private in [
            "",
            "127.0.0.1",
            "0.0.0.0",
            "10.0.0.1",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.0.1",
            "[::]",
            "[::1]",
            "[fd00::1]",
            "[fe80::1]",
            "localhost",
            "wukongim",
        ] {
            let [tcp, ws, wss] = ["", "ws://", "wss://"].map(|it| format!("{it}{private}:5100"));
            assert!(!route(&tcp, &ws, &wss).is_public, "{private}");
        }
        assert!(!route("", "", "").is_public);
    }

    #[test]
    fn the_host_is_that_of_the_api() {
        for (url, host) in [
            ("http://[::1]:5001/im", "[::1]"),
            ("https://im.example.com", "im.example.com"),
            ("http://10.0.0.1:5001", "10.0.0.1"),
        ] {
            assert_eq!(nodes_at(&[url.to_owned()]).all()[0].host(), host);
        }
    }

    #[test]
    fn configured_addresses_take_turns() {
        let mut settings = config::Settings::for_tests().wukongim;
        settings.tcp_addrs = ["a:1", "b:2", "c:3"].map(String::from).into();
        let ports = SocketPorts::new(&settings);
        let mut firsts = std::collections::BTreeSet::new();
        for _ in 0..1000 {
            let mut tried = Vec::new();
            while let Some(next) = ports.next(&tried) {
                tried.push(next);
            }
            let first = tried[0];
            assert_eq!(tried, [first, (first + 1) % 3, (first + 2) % 3]);
            firsts.insert(first);
        }
        assert_eq!(firsts.len(), 3, "one begins at random");
    }
}
