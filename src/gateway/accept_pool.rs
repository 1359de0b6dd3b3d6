//! The workers that accept from one listener: the limit of connections, and which worker serves which.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use prometheus_client::metrics::gauge::Gauge;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::refusal::Refusals;
use crate::limits::{AddressConnections, AddressPermit};
use crate::telemetry::ConnectionMeters;

/// How many connections more than the least loaded worker a worker may have before it passes new ones on. Passing one on registers it with
/// a second runtime.
const IMBALANCE: usize = 2;

/// What the accept loops of all workers share.
struct AcceptPool {
    permits: Arc<Semaphore>,
    addresses: Arc<AddressConnections>,
    meters: ConnectionMeters,
    refusals: Refusals,
    workers: Vec<Worker>,
}

/// One worker, as the others see it.
struct Worker {
    connections: Arc<AtomicUsize>,
    sender: mpsc::UnboundedSender<HandedConnection>,
}

/// A connection that another worker accepted.
type HandedConnection = (std::net::TcpStream, IpAddr, ConnectionPermit);

/// Counts a connection in total and for its worker, until it is dropped.
pub(super) struct ConnectionPermit {
    connections: Arc<AtomicUsize>,
    open: Gauge,
    is_shared: bool,
    _permits: Permits,
}

/// The permits of a connection: of the total, and of its address.
type Permits = (OwnedSemaphorePermit, Option<AddressPermit>);

impl ConnectionPermit {
    fn new(
        connections: Arc<AtomicUsize>,
        meters: &ConnectionMeters,
        is_shared: bool,
        permits: Permits,
    ) -> Self {
        connections.fetch_add(1, Ordering::Relaxed);
        meters.opened.inc();
        meters.open.inc();
        Self {
            connections,
            open: meters.open.clone(),
            is_shared,
            _permits: permits,
        }
    }

    /// Whether the connection is from a trusted proxy, so that many clients share it.
    pub(super) fn is_shared(&self) -> bool {
        self.is_shared
    }

    /// A permit from its own semaphore.
    #[cfg(test)]
    pub(super) fn for_test() -> Self {
        let semaphore_permit = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        let meters = ConnectionMeters::default();
        Self::new(Arc::default(), &meters, false, (semaphore_permit, None))
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
        self.open.dec();
    }
}

/// The acceptors of `count` workers with at most `max_connections` in total, and per address at most what `addresses` allows.
pub(super) fn accept_pool(
    count: usize,
    max_connections: usize,
    addresses: Arc<AddressConnections>,
    refusals: Refusals,
) -> Vec<Acceptor> {
    let channels = (0..count).map(|_| {
        let (sender, handed) = mpsc::unbounded_channel();
        let connections = Arc::default();
        (
            Worker {
                connections,
                sender,
            },
            handed,
        )
    });
    let (workers, handed): (Vec<_>, Vec<_>) = channels.unzip();
    let pool = Arc::new(AcceptPool {
        permits: Arc::new(Semaphore::new(max_connections)),
        addresses,
        meters: refusals.connection_meters(),
        refusals,
        workers,
    });
    let acceptors = handed
        .into_iter()
        .enumerate()
        .map(|(index, handed)| Acceptor {
            pool: pool.clone(),
            index,
            receiver: handed,
        });
    acceptors.collect()
}

/// One worker's part of the pool.
pub(super) struct Acceptor {
    pool: Arc<AcceptPool>,
    index: usize,
    receiver: mpsc::UnboundedReceiver<HandedConnection>,
}

impl Acceptor {
    /// Places a connection that this worker accepted: returns it to be served here, or `None` where it was refused or passed to a clearly
    /// less loaded worker. Connections are long-lived, so an imbalance would not even out by itself.
    pub(super) fn place(
        &self,
        stream: TcpStream,
        peer: IpAddr,
    ) -> Option<(TcpStream, ConnectionPermit)> {
        let pool = &*self.pool;
        let Ok(semaphore_permit) = pool.permits.clone().try_acquire_owned() else {
            pool.refusals.refuse(stream, "connections");
            return None;
        };
        let Ok(address_permit) = pool.addresses.try_acquire(peer) else {
            pool.refusals.refuse(stream, "address_connections");
            return None;
        };
        let permits = (semaphore_permit, address_permit);
        let is_shared = pool.addresses.is_shared(peer);
        let load = |worker: &Worker| worker.connections.load(Ordering::Relaxed);
        let own_worker = &pool.workers[self.index];
        let least = pool.workers.iter().min_by_key(|worker| load(worker));
        let Some(least) = least.filter(|least| load(own_worker) > load(least) + IMBALANCE) else {
            let permit = ConnectionPermit::new(
                own_worker.connections.clone(),
                &pool.meters,
                is_shared,
                permits,
            );
            return Some((stream, permit));
        };
        let permit =
            ConnectionPermit::new(least.connections.clone(), &pool.meters, is_shared, permits);
        // Otherwise the connection is broken, or that worker has closed since the process is shutting down.
        if let Ok(stream) = stream.into_std() {
            let _ = least.sender.send((stream, peer, permit));
        }
        None
    }

    /// The next connection that another worker passed to this one.
    pub(super) async fn receive(&mut self) -> (TcpStream, IpAddr, ConnectionPermit) {
        loop {
            match self.receiver.recv().await {
                Some(handed) => {
                    if let Some(handed) = register(handed) {
                        return handed;
                    }
                }
                // Cannot happen while this acceptor holds the pool.
                None => std::future::pending().await,
            }
        }
    }

    /// Accepts no more, and returns connections that were passed on and not served yet.
    pub(super) fn close(mut self) -> Vec<(TcpStream, IpAddr, ConnectionPermit)> {
        self.receiver.close();
        let handed = std::iter::from_fn(|| self.receiver.try_recv().ok());
        handed.filter_map(register).collect()
    }
}

fn register(
    (stream, peer, permit): HandedConnection,
) -> Option<(TcpStream, IpAddr, ConnectionPermit)> {
    let stream = TcpStream::from_std(stream).ok()?;
    Some((stream, peer, permit))
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn connections_are_balanced_over_workers_and_counted_together() {
        let addresses = AddressConnections::unlimited();
        let mut acceptors = accept_pool(2, 8, addresses, Refusals::without_app());
        let mut idle = acceptors.pop().unwrap();
        let busy = acceptors.pop().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (mut clients, mut own, mut others) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..8 {
            clients.push(TcpStream::connect(address).await.unwrap());
            let (stream, peer) = listener.accept().await.unwrap();
            match busy.place(stream, peer.ip()) {
                Some(served) => own.push(served),
                None => others.push(idle.receive().await),
            }
        }
        assert_eq!((own.len(), others.len()), (5, 3));
        let one_more = async || {
            let client = TcpStream::connect(address).await.unwrap();
            let (stream, peer) = listener.accept().await.unwrap();
            (client, busy.place(stream, peer.ip()).is_some())
        };
        assert!(!one_more().await.1, "eight at the most");
        others.pop();
        assert!(!one_more().await.1);
        assert_eq!(idle.close().len(), 1, "handed over again");
    }
}
