//! The cores that accept from one listener: how many connections there may be, and which core serves which.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use prometheus_client::metrics::gauge::Gauge;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::refusal::Refusals;
use crate::limits::{AddressConnections, AddressPermit};
use crate::telemetry::ConnectionMeters;

/// By how many connections more than another core one may have, before that one gets the next. A connection that changes its core
/// is registered twice.
const SLACK: usize = 2;

/// What the accept loops of all cores share.
struct Crew {
    places: Arc<Semaphore>,
    addresses: Arc<AddressConnections>,
    meters: ConnectionMeters,
    refusals: Refusals,
    cores: Vec<Core>,
}

/// One core, as the others see it.
struct Core {
    connections: Arc<AtomicUsize>,
    post: mpsc::UnboundedSender<Handed>,
}

/// A connection that another core accepted.
type Handed = (std::net::TcpStream, IpAddr, Place);

/// A connection's place among all and among those of its core, until it is dropped.
pub(super) struct Place {
    connections: Arc<AtomicUsize>,
    open: Gauge,
    is_shared: bool,
    _permits: Permits,
}

/// That it may be there: among all, and among those of its address.
type Permits = (OwnedSemaphorePermit, Option<AddressPermit>);

impl Place {
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

    /// Whether many clients come over this connection: it is a trusted proxy's.
    pub(super) fn is_shared(&self) -> bool {
        self.is_shared
    }

    /// One of its own.
    #[cfg(test)]
    pub(super) fn only() -> Self {
        let permit = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        let meters = ConnectionMeters::default();
        Self::new(Arc::default(), &meters, false, (permit, None))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
        self.open.dec();
    }
}

/// The posts of `count` cores that hold at most `max_connections` together, of each address as many as `addresses` says.
pub(super) fn crew(
    count: usize,
    max_connections: usize,
    addresses: Arc<AddressConnections>,
    refusals: Refusals,
) -> Vec<Post> {
    let channels = (0..count).map(|_| {
        let (post, handed) = mpsc::unbounded_channel();
        let connections = Arc::default();
        (Core { connections, post }, handed)
    });
    let (cores, handed): (Vec<_>, Vec<_>) = channels.unzip();
    let crew = Arc::new(Crew {
        places: Arc::new(Semaphore::new(max_connections)),
        addresses,
        meters: refusals.taken(),
        refusals,
        cores,
    });
    let posts = handed.into_iter().enumerate().map(|(own, handed)| Post {
        crew: crew.clone(),
        own,
        handed,
    });
    posts.collect()
}

/// One core's place in the crew.
pub(super) struct Post {
    crew: Arc<Crew>,
    own: usize,
    handed: mpsc::UnboundedReceiver<Handed>,
}

impl Post {
    /// A connection that this core accepted: to be served here with its place, or nothing, where it was refused or another core
    /// has clearly fewer. Connections stay, so that an uneven share of them would not even out by itself.
    pub(super) fn take(&self, stream: TcpStream, peer: IpAddr) -> Option<(TcpStream, Place)> {
        let crew = &*self.crew;
        let Ok(permit) = crew.places.clone().try_acquire_owned() else {
            crew.refusals.refuse(stream, "connections");
            return None;
        };
        let Ok(of_address) = crew.addresses.try_acquire(peer) else {
            crew.refusals.refuse(stream, "address_connections");
            return None;
        };
        let permits = (permit, of_address);
        let is_shared = crew.addresses.is_shared(peer);
        let load = |core: &Core| core.connections.load(Ordering::Relaxed);
        let own = &crew.cores[self.own];
        let least = crew.cores.iter().min_by_key(|core| load(core));
        let Some(least) = least.filter(|least| load(own) > load(least) + SLACK) else {
            let place = Place::new(own.connections.clone(), &crew.meters, is_shared, permits);
            return Some((stream, place));
        };
        let place = Place::new(least.connections.clone(), &crew.meters, is_shared, permits);
        // Else the connection is broken already, or that core takes no more: the process is ending, and so is this.
        if let Ok(stream) = stream.into_std() {
            let _ = least.post.send((stream, peer, place));
        }
        None
    }

    /// The next connection that another core accepted for this one.
    pub(super) async fn handed(&mut self) -> (TcpStream, IpAddr, Place) {
        loop {
            match self.handed.recv().await {
                Some(handed) => {
                    if let Some(handed) = registered(handed) {
                        return handed;
                    }
                }
                // Not while this post itself is there.
                None => std::future::pending().await,
            }
        }
    }

    /// Takes no more, and gives those that were handed over and not served yet.
    pub(super) fn leave(mut self) -> Vec<(TcpStream, IpAddr, Place)> {
        self.handed.close();
        let handed = std::iter::from_fn(|| self.handed.try_recv().ok());
        handed.filter_map(registered).collect()
    }
}

fn registered((stream, peer, place): Handed) -> Option<(TcpStream, IpAddr, Place)> {
    let stream = TcpStream::from_std(stream).ok()?;
    Some((stream, peer, place))
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn connections_are_shared_evenly_whoever_accepts_them_and_counted_together() {
        let addresses = AddressConnections::unlimited();
        let mut posts = crew(2, 8, addresses, Refusals::uncounted());
        let mut idle = posts.pop().unwrap();
        let busy = posts.pop().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (mut clients, mut own, mut others) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..8 {
            clients.push(TcpStream::connect(address).await.unwrap());
            let (stream, peer) = listener.accept().await.unwrap();
            match busy.take(stream, peer.ip()) {
                Some(served) => own.push(served),
                None => others.push(idle.handed().await),
            }
        }
        assert_eq!((own.len(), others.len()), (5, 3));
        let one_more = async || {
            let client = TcpStream::connect(address).await.unwrap();
            let (stream, peer) = listener.accept().await.unwrap();
            (client, busy.take(stream, peer.ip()).is_some())
        };
        assert!(!one_more().await.1, "eight at the most");
        others.pop();
        assert!(!one_more().await.1);
        assert_eq!(idle.leave().len(), 1, "handed over again");
    }
}
