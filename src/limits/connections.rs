//! How many connections one address has. Knows no listener.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::address::{counted, is_one_of};
use crate::config::{self, Cidr};

/// How often it is logged that an address has too many.
const LOG_INTERVAL: Duration = Duration::from_mins(1);

/// An address, or the /64 of IPv6.
type Key = (bool, u64);

/// The connections of every address that has some.
pub struct AddressConnections {
    /// The most of one address; 0 for any number.
    max: usize,
    /// Behind these are many clients.
    trusted_proxies: Vec<Cidr>,
    open: Mutex<HashMap<Key, usize>>,
    logged: Mutex<Option<Instant>>,
}

/// One connection of an address, until it is dropped.
pub struct AddressPermit {
    connections: Arc<AddressConnections>,
    key: Key,
}

/// The address has as many connections as one may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressFull;

impl AddressConnections {
    /// As many as these settings allow.
    pub fn new(settings: &config::Server) -> Arc<Self> {
        // At least one: a quarter of less than four is none, and 0 is no limit.
        let quarter = (settings.max_connections / 4).max(1);
        Arc::new(Self {
            max: settings.max_connections_per_address.unwrap_or(quarter),
            trusted_proxies: settings.trusted_proxies.clone(),
            open: Mutex::default(),
            logged: Mutex::default(),
        })
    }

    /// Any number of each.
    pub fn unlimited() -> Arc<Self> {
        Arc::new(Self {
            max: 0,
            trusted_proxies: Vec::new(),
            open: Mutex::default(),
            logged: Mutex::default(),
        })
    }

    /// Whether a connection from `peer` is many clients'.
    pub fn is_shared(&self, peer: IpAddr) -> bool {
        is_one_of(peer, &self.trusted_proxies)
    }

    /// Counts a connection from `peer`, the other end as the system sees it: what is told of it comes later, if ever. Nothing to hold
    /// where its address is not counted.
    pub fn try_acquire(
        self: &Arc<Self>,
        peer: IpAddr,
    ) -> Result<Option<AddressPermit>, AddressFull> {
        if self.max == 0 || self.is_shared(peer) {
            return Ok(None);
        }
        let key = counted(peer);
        let mut open = self.open.lock();
        let count = open.entry(key).or_default();
        if *count >= self.max {
            drop(open);
            self.log(peer);
            return Err(AddressFull);
        }
        *count += 1;
        let connections = self.clone();
        Ok(Some(AddressPermit { connections, key }))
    }

    fn log(&self, peer: IpAddr) {
        let mut logged = self.logged.lock();
        if logged.is_some_and(|at| at.elapsed() < LOG_INTERVAL) {
            return;
        }
        *logged = Some(Instant::now());
        drop(logged);
        tracing::warn!(
            client.address = %peer.to_canonical(),
            connections = self.max,
            "an address has as many connections as server.max_connections_per_address allows; a proxy belongs into server.trusted_proxies"
        );
    }
}

impl Drop for AddressPermit {
    fn drop(&mut self) {
        let mut open = self.connections.open.lock();
        if let Some(count) = open.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connections(max: Option<usize>, total: usize) -> Arc<AddressConnections> {
        let mut server = config::Settings::for_tests().server;
        server.max_connections = total;
        server.max_connections_per_address = max;
        server.trusted_proxies = vec!["10.0.0.0/8".parse().unwrap()];
        AddressConnections::new(&server)
    }

    fn taken(connections: &Arc<AddressConnections>, address: &str) -> Vec<AddressPermit> {
        let address = address.parse().unwrap();
        let permits = std::iter::from_fn(|| connections.try_acquire(address).ok());
        permits.take(100).flatten().collect()
    }

    #[test]
    fn an_address_has_a_quarter_unless_told_otherwise_and_gives_it_back() {
        for (max, total, expected) in [(None, 40, 10), (None, 3, 1), (Some(7), 40, 7)] {
            let connections = connections(max, total);
            let permits = taken(&connections, "192.0.2.1");
            assert_eq!(permits.len(), expected);
            assert_eq!(taken(&connections, "::ffff:192.0.2.1").len(), 0, "the same");
            assert_eq!(taken(&connections, "192.0.2.2").len(), expected);
            drop(permits);
            assert!(connections.open.lock().is_empty(), "nothing is remembered");
        }
    }

    #[test]
    fn a_customer_of_ipv6_is_one_address() {
        let connections = connections(Some(2), 40);
        let one = taken(&connections, "2001:db8::1");
        assert_eq!(one.len(), 2);
        assert_eq!(taken(&connections, "2001:db8::2").len(), 0);
        assert_eq!(taken(&connections, "2001:db8:0:1::1").len(), 2);
    }

    #[test]
    fn trusted_proxies_are_not_counted_and_zero_counts_nobody() {
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
