//! One worker thread per core, each with its own runtime, so that a request stays on one core and wakes no other thread (figures in
//! docs/PERFORMANCE.md). The main thread accepts connections and passes each to the worker that has the fewest: workers that accept from one
//! listener themselves share them badly, and connections are long-lived.

use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{OptionFuture, join_all, select_all};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use super::accept::{Server, accept};
use super::admission::{Admission, ConnectionPermit};
use super::tcp_socket;
use crate::per_worker;
use crate::state::App;

/// How long a stopping worker waits for blocking tasks, such as name resolution.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);

/// A connection that is not registered with a runtime.
struct Connection {
    stream: std::net::TcpStream,
    peer: IpAddr,
    permit: ConnectionPermit,
    speaks: Speaks,
}

/// What a listener's connections speak.
#[derive(Debug, Clone, Copy)]
enum Speaks {
    /// HTTP, from which a WebSocket may begin.
    Http,
    /// The sockets' own protocol over plain TCP.
    Wkproto,
}

/// The worker threads that serve the API.
pub(super) struct Workers {
    accepting: JoinHandle<()>,
    /// For the sockets over plain TCP, if they have a listener.
    accepting_sockets: Option<JoinHandle<()>>,
    end: watch::Sender<bool>,
    /// Closed when the last request of the last worker has been answered.
    drained: mpsc::Receiver<Infallible>,
    /// Each is ready when its thread has ended.
    threads: Vec<oneshot::Receiver<Infallible>>,
}

/// Where new connections go.
struct Worker {
    sender: mpsc::UnboundedSender<Connection>,
    /// Each of its connections holds a reference.
    load: Arc<()>,
}

impl Workers {
    /// Serves the API of `app`, and sockets on a listener of their own where there is one, on `count` threads until `stop` turns true.
    pub(super) fn start(
        listener: TcpListener,
        socket_listener: Option<TcpListener>,
        app: &App,
        count: usize,
        stop: watch::Receiver<bool>,
    ) -> io::Result<Self> {
        let (end, ending) = watch::channel(false);
        let (until_drained, drained) = mpsc::channel(1);
        let (mut workers, mut threads) = (Vec::new(), Vec::new());
        for number in 1..=count {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            app.metrics.gauges.track_runtime(runtime.handle().clone());
            let (sender, receiver) = mpsc::unbounded_channel();
            workers.push(Worker {
                sender,
                load: Arc::default(),
            });
            let (app, until_drained, mut ending) =
                (app.clone(), until_drained.clone(), ending.clone());
            let work = async move {
                tokio::select! {
                    () = serve(&app, receiver, until_drained) => {}
                    _ = ending.wait_for(|end| *end) => {}
                }
                // Other workers may still need tasks of this runtime: shared lookups, connections to the store.
                let _ = ending.wait_for(|end| *end).await;
            };
            threads.push(spawn(number, runtime, work)?);
        }
        let workers = Arc::new(workers);
        let placing = |speaks| {
            let workers = Arc::clone(&workers);
            move |stream, peer, permit| place(&workers, stream, peer, permit, speaks)
        };
        let admission = Admission::for_app(app);
        let accepting_sockets = socket_listener.map(|listener| {
            let admission = admission.for_sockets(app);
            let placing = placing(Speaks::Wkproto);
            tokio::spawn(accept(listener, admission, stop.clone(), placing))
        });
        let accepting = accept(listener, admission, stop, placing(Speaks::Http));
        Ok(Self {
            accepting: tokio::spawn(accepting),
            accepting_sockets,
            end,
            drained,
            threads,
        })
    }

    /// Waits until a thread ends by itself, or no more connections are accepted: before a stop both are bugs.
    pub(super) async fn failed(&mut self) {
        tokio::select! {
            _ = select_all(&mut self.threads) => {}
            _ = &mut self.accepting => {}
            _ = OptionFuture::from(self.accepting_sockets.as_mut()), if self.accepting_sockets.is_some() => {}
        }
    }

    /// After a stop, waits until the last request has been answered.
    pub(super) async fn drained(&mut self) {
        self.drained.recv().await;
    }

    /// Ends the threads, even with running tasks.
    pub(super) async fn end(mut self) {
        let _ = self.end.send(true);
        // Not one that `failed` saw.
        self.threads.retain(|thread| !thread.is_terminated());
        let _ = tokio::time::timeout(2 * SHUTDOWN_TIMEOUT, join_all(self.threads)).await;
    }
}

/// Passes a connection to the worker that has the fewest.
fn place(
    workers: &[Worker],
    stream: TcpStream,
    peer: IpAddr,
    mut permit: ConnectionPermit,
    speaks: Speaks,
) {
    let fewest = workers
        .iter()
        .min_by_key(|worker| Arc::strong_count(&worker.load));
    // Otherwise the connection is broken, or the process is ending since that worker has ended.
    if let (Some(worker), Ok(stream)) = (fewest, stream.into_std()) {
        permit.worker = Some(worker.load.clone());
        let _ = worker.sender.send(Connection {
            stream,
            peer,
            permit,
            speaks,
        });
    }
}

/// Serves a worker's connections until no more come and all requests are answered.
async fn serve(
    app: &App,
    mut receiver: mpsc::UnboundedReceiver<Connection>,
    _until_drained: mpsc::Sender<Infallible>,
) {
    let server = Server::for_app(app);
    while let Some(connection) = receiver.recv().await {
        let Connection { peer, permit, .. } = connection;
        let Ok(stream) = TcpStream::from_std(connection.stream) else {
            continue;
        };
        match connection.speaks {
            Speaks::Http => server.serve(stream, peer, permit),
            Speaks::Wkproto => {
                let app = app.clone();
                tokio::spawn(tcp_socket::serve(app, stream, peer, permit));
            }
        }
    }
    server.shut_down().await;
}

/// Runs `work` on a thread of its own. The result is ready when the thread has ended, however it ends.
fn spawn(
    number: usize,
    runtime: Runtime,
    work: impl Future<Output = ()> + Send + 'static,
) -> io::Result<oneshot::Receiver<Infallible>> {
    let (until_ended, ended) = oneshot::channel();
    let thread = std::thread::Builder::new().name(format!("core-{number}"));
    thread.spawn(move || {
        let _until_ended = until_ended;
        per_worker::set_worker(number);
        runtime.block_on(work);
        runtime.shutdown_timeout(SHUTDOWN_TIMEOUT);
    })?;
    Ok(ended)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_connection_goes_to_the_worker_that_has_the_fewest() {
        let (workers, mut receivers): (Vec<_>, Vec<_>) = (0..3)
            .map(|_| {
                let (sender, receiver) = mpsc::unbounded_channel();
                let load = Arc::default();
                (Worker { sender, load }, receiver)
            })
            .unzip();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let admission = Admission::uncounted(10);
        let mut clients = Vec::new();
        let mut open = async || {
            clients.push(TcpStream::connect(address).await.unwrap());
            let (stream, peer) = listener.accept().await.unwrap();
            let admitted = admission.admit(stream, peer.ip());
            let is_admitted = admitted.is_some();
            if let Some((stream, permit)) = admitted {
                place(&workers, stream, peer.ip(), permit, Speaks::Http);
            }
            is_admitted
        };
        for _ in 0..9 {
            assert!(open().await);
        }
        let held: Vec<Vec<_>> = receivers
            .iter_mut()
            .map(|receiver| std::iter::from_fn(|| receiver.try_recv().ok()).collect())
            .collect();
        assert_eq!(held.iter().map(Vec::len).collect::<Vec<_>>(), [3, 3, 3]);
        let [_first, mut second, _third] = <[_; 3]>::try_from(held).ok().unwrap();
        second.truncate(1);
        for expected in [true, true, true, false] {
            assert_eq!(open().await, expected, "ten at the most");
        }
        let received = receivers.iter_mut().map(|receiver| {
            let all = std::iter::from_fn(|| receiver.try_recv().ok());
            all.count()
        });
        assert_eq!(received.collect::<Vec<_>>(), [1, 2, 0]);
    }

    #[tokio::test]
    async fn a_thread_that_ends_by_itself_is_noticed() {
        let runtime = || Builder::new_current_thread().build().unwrap();
        let (end, mut ending) = watch::channel(false);
        let waiting = async move { drop(ending.wait_for(|end| *end).await) };
        let panicking = async {
            tokio::task::yield_now().await;
            panic!("a bug");
        };
        let mut workers = Workers {
            accepting: tokio::spawn(std::future::pending()),
            accepting_sockets: None,
            end,
            drained: mpsc::channel(1).1,
            threads: vec![
                spawn(1, runtime(), waiting).unwrap(),
                spawn(2, runtime(), panicking).unwrap(),
            ],
        };
        workers.failed().await;
        workers.end().await;
    }
}
