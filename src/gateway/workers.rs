//! One worker thread per core, each with its own runtime, so that a request stays on one core and wakes no other thread (figures in
//! docs/PERFORMANCE.md). All workers accept from the same listener.

use std::convert::Infallible;
use std::io;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, watch};

use super::accept::{accept_pool_for, run_api_at};
use crate::per_worker;
use crate::state::App;

/// How long a stopping worker waits for blocking tasks, such as name resolution.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);

/// The worker threads that serve the API.
pub(super) struct Workers {
    end: watch::Sender<bool>,
    /// Closed when the last request of the last worker has been answered.
    drained: mpsc::Receiver<Infallible>,
    /// Closed when the last thread has ended.
    ended: mpsc::Receiver<Infallible>,
}

impl Workers {
    /// Serves the API of `app` on `count` threads until `stop` turns true.
    pub(super) fn start(
        listener: TcpListener,
        app: &App,
        count: usize,
        stop: &watch::Receiver<bool>,
    ) -> io::Result<Self> {
        let (end, ending) = watch::channel(false);
        let (until_drained, drained) = mpsc::channel(1);
        let (until_ended, ended) = mpsc::channel(1);
        let listener = listener.into_std()?;
        for (index, acceptor) in accept_pool_for(app, count).into_iter().enumerate() {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            app.metrics.gauges.track_runtime(runtime.handle().clone());
            let listener = listener.try_clone()?;
            let (app, stop, mut ending) = (app.clone(), stop.clone(), ending.clone());
            let (until_drained, until_ended) = (until_drained.clone(), until_ended.clone());
            let serve = async move {
                let served = async {
                    match TcpListener::from_std(listener) {
                        Ok(listener) => run_api_at(acceptor, listener, &app, stop).await,
                        Err(error) => tracing::error!(%error, "a worker cannot accept connections"),
                    }
                    drop(until_drained);
                };
                tokio::select! {
                    () = served => {}
                    _ = ending.wait_for(|end| *end) => {}
                }
                // Other workers may still need tasks of this runtime: shared lookups, connections to the store.
                let _ = ending.wait_for(|end| *end).await;
            };
            std::thread::Builder::new()
                .name(format!("core-{}", index + 1))
                .spawn(move || {
                    per_worker::set_worker(index + 1);
                    run(runtime, serve);
                    drop(until_ended);
                })?;
        }
        Ok(Self {
            end,
            drained,
            ended,
        })
    }

    /// After a stop, waits until the last request has been answered.
    pub(super) async fn drained(&mut self) {
        self.drained.recv().await;
    }

    /// Ends the threads, even with running tasks.
    pub(super) async fn end(mut self) {
        let _ = self.end.send(true);
        let _ = tokio::time::timeout(2 * SHUTDOWN_TIMEOUT, self.ended.recv()).await;
    }
}

fn run(runtime: Runtime, serve: impl Future<Output = ()>) {
    runtime.block_on(serve);
    runtime.shutdown_timeout(SHUTDOWN_TIMEOUT);
}
