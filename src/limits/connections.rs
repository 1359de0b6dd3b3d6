//! The limit of connections per client address.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::address::{is_one_of, rate_limit_key};
use super::sharded_map::{Counts, Permit};
use crate::config::{self, Cidr};

/// Minimum time between two warnings about an address over the limit.
const LOG_INTERVAL: Duration = Duration::from_mins(1);

/// Counts the open connections of each address; by default without a limit.
#[derive(Default)]
pub struct AddressConnections {
    /// Maximum per address; 0 for no limit.
    max: usize,
    /// Connections from these carry many clients and are not counted.
    trusted_proxies: Vec<Cidr>,
    open: Arc<Counts>,
    last_logged: Mutex<Option<Instant>>,
}

/// What a connection that became a socket goes on counting in, once it has left `server.max_connections`: its address and its worker. The
/// listener leaves it in each request's extensions.
#[derive(Clone, Default)]
pub struct ConnectionShare {
    _address: Option<Arc<Permit>>,
    _worker: Option<Arc<()>>,
}

impl ConnectionShare {
    /// A share of these two, as far as they are counted.
    pub fn new(address: Option<Arc<Permit>>, worker: Option<Arc<()>>) -> Self {
        Self {
            _address: address,
            _worker: worker,
        }
    }
}

/// The address has its maximum of connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressFull;

impl AddressConnections {
    /// With the limit of these settings.
    pub fn new(settings: &config::Server) -> Self {
        // At least one, since a quarter of less than four is 0, which would mean no limit.
        let quarter = (settings.max_connections / 4).max(1);
        Self {
            max: settings.max_connections_per_address.unwrap_or(quarter),
            trusted_proxies: settings.trusted_proxies.clone(),
            ..Self::default()
        }
    }

    /// Whether `peer` is a trusted proxy, whose connections many clients share.
    pub fn is_shared(&self, peer: IpAddr) -> bool {
        is_one_of(peer, &self.trusted_proxies)
    }

    /// Counts a connection from `peer`, the socket's remote address; forwarding headers are not known yet. `None` where the address is not
    /// counted.
    pub fn try_acquire(&self, peer: IpAddr) -> Result<Option<Permit>, AddressFull> {
        if self.max == 0 || self.is_shared(peer) {
            return Ok(None);
        }
        let permit = self.open.try_acquire(rate_limit_key(peer), self.max);
        if permit.is_none() {
            self.warn(peer);
        }
        permit.map(Some).ok_or(AddressFull)
    }

    fn warn(&self, peer: IpAddr) {
        let mut last_logged = self.last_logged.lock();
        if last_logged.is_some_and(|at| at.elapsed() < LOG_INTERVAL) {
            return;
        }
        *last_logged = Some(Instant::now());
        drop(last_logged);
        tracing::warn!(
            client.address = %peer.to_canonical(),
            connections = self.max,
            "an address has as many connections as server.max_connections_per_address allows; a proxy belongs into server.trusted_proxies"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connections(max: Option<usize>, total: usize) -> AddressConnections {
        let mut server = config::Settings::for_tests().server;
        server.max_connections = total;
        server.max_connections_per_address = max;
        server.trusted_proxies = vec!["10.0.0.0/8".parse().unwrap()];
        AddressConnections::new(&server)
    }

    fn acquire_all(connections: &AddressConnections, address: &str) -> Vec<Permit> {
        let address = address.parse().unwrap();
        let permits = std::iter::from_fn(|| connections.try_acquire(address).ok());
        permits.take(100).flatten().collect()
    }

    #[test]
    fn an_address_has_a_quarter_by_default_and_releases_it() {
        for (max, total, expected) in [(None, 40, 10), (None, 3, 1), (Some(7), 40, 7)] {
            let connections = connections(max, total);
            let permits = acquire_all(&connections, "192.0.2.1");
            assert_eq!(permits.len(), expected);
            assert_eq!(
                acquire_all(&connections, "::ffff:192.0.2.1").len(),
                0,
                "the same"
            );
            assert_eq!(acquire_all(&connections, "192.0.2.2").len(), expected);
            drop(permits);
            assert_eq!(connections.open.len(), 0, "nothing is remembered");
        }
    }

    #[test]
    fn an_ipv6_prefix_of_64_bits_is_one_address() {
        let connections = connections(Some(2), 40);
        let one = acquire_all(&connections, "2001:db8::1");
        assert_eq!(one.len(), 2);
        assert_eq!(acquire_all(&connections, "2001:db8::2").len(), 0);
        assert_eq!(acquire_all(&connections, "2001:db8:0:1::1").len(), 2);
    }

    #[test]
    fn trusted_proxies_are_not_counted_and_zero_disables_the_limit() {
        let some = connections(None, 40);
        for address in ["10.1.2.3", "::ffff:10.1.2.3"] {
            let address = address.parse().unwrap();
            assert!((0..100).all(|_| matches!(some.try_acquire(address), Ok(None))));
        }
        let off = connections(Some(0), 40);
        let address = "192.0.2.1".parse().unwrap();
        assert!((0..100).all(|_| matches!(off.try_acquire(address), Ok(None))));
    }
}
