//! Which connections a listener takes: the limits in total and of each address.

use std::net::IpAddr;
use std::sync::Arc;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::refusal::Refusals;
use crate::limits::{AddressConnections, ConnectionShare, Permit};
use crate::state::App;
use crate::telemetry::{ConnectionMeters, SocketConnect};

/// The limits of one listener.
pub(super) struct Admission {
    permits: Arc<Semaphore>,
    addresses: Arc<AddressConnections>,
    meters: ConnectionMeters,
    total_full: Counter,
    address_full: Counter,
    /// `None` where a refused connection is closed without an answer.
    refusals: Option<Refusals>,
}

/// Counts a connection until it is dropped.
pub(super) struct ConnectionPermit {
    open: Gauge,
    /// Whether the connection is from a trusted proxy, so that many clients share it.
    pub(super) is_shared: bool,
    /// Counts it for the worker that serves it.
    pub(super) worker: Option<Arc<()>>,
    _total: OwnedSemaphorePermit,
    address: Option<Arc<Permit>>,
}

impl Admission {
    /// The limits of the API.
    pub(super) fn for_app(app: &App) -> Self {
        let (settings, metrics) = (&app.settings, &app.metrics);
        Self {
            addresses: Arc::new(AddressConnections::new(&settings.server)),
            meters: metrics.connections.clone(),
            total_full: metrics.refusals("connections"),
            address_full: metrics.refusals("address_connections"),
            refusals: Some(Refusals::new(&settings.cors)),
            ..Self::uncounted(settings.server.max_connections)
        }
    }

    /// The limits of sockets over plain TCP: the places are those of all sockets, and an address has no more connections for them.
    pub(super) fn for_sockets(&self, app: &App) -> Self {
        Self {
            permits: app.sockets.permits(),
            addresses: self.addresses.clone(),
            meters: ConnectionMeters::default(),
            total_full: app.metrics.sockets.connects[SocketConnect::Full].clone(),
            address_full: self.address_full.clone(),
            refusals: None,
        }
    }

    /// Only this limit, and no metrics.
    pub(super) fn uncounted(max_connections: usize) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(max_connections)),
            addresses: Arc::default(),
            meters: ConnectionMeters::default(),
            total_full: Counter::default(),
            address_full: Counter::default(),
            refusals: Some(Refusals::default()),
        }
    }

    /// A permit for a new connection from `peer`; a connection beyond the limits is refused.
    pub(super) fn admit(
        &self,
        stream: TcpStream,
        peer: IpAddr,
    ) -> Option<(TcpStream, ConnectionPermit)> {
        let Ok(total) = self.permits.clone().try_acquire_owned() else {
            self.total_full.inc();
            self.refuse(stream);
            return None;
        };
        let Ok(address) = self.addresses.try_acquire(peer) else {
            self.address_full.inc();
            self.refuse(stream);
            return None;
        };
        self.meters.opened.inc();
        self.meters.open.inc();
        let permit = ConnectionPermit {
            open: self.meters.open.clone(),
            is_shared: self.addresses.is_shared(peer),
            worker: None,
            _total: total,
            address: address.map(Arc::new),
        };
        Some((stream, permit))
    }

    fn refuse(&self, stream: TcpStream) {
        if let Some(refusals) = &self.refusals {
            refusals.refuse(stream);
        }
    }
}

impl ConnectionPermit {
    /// The part that an upgraded connection keeps.
    pub(super) fn share(&self) -> ConnectionShare {
        ConnectionShare::new(self.address.clone(), self.worker.clone())
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.open.dec();
    }
}

#[cfg(test)]
impl ConnectionPermit {
    /// A permit from its own semaphore.
    pub(super) fn for_test() -> Self {
        Self {
            open: Gauge::default(),
            is_shared: false,
            worker: None,
            _total: Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap(),
            address: None,
        }
    }
}
