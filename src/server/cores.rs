//! A thread for each core, with a runtime of its own: what a request needs stays on one core, and no other thread is woken for it
//! (figures in docs/PERFORMANCE.md). All of them accept from the one listener that was bound.

use std::convert::Infallible;
use std::io;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, watch};

use super::accept::{crew_of, run_api_at};
use crate::app::App;
use crate::cores;

/// How long a thread that is told to end waits for what blocks it: names that are being looked up.
const END: Duration = Duration::from_secs(1);

/// The threads that serve the API.
pub(super) struct Cores {
    end: watch::Sender<bool>,
    /// Closed when the last request of the last core has been answered.
    drained: mpsc::Receiver<Infallible>,
    /// Closed when the last thread has ended.
    ended: mpsc::Receiver<Infallible>,
}

impl Cores {
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
        for (place, post) in crew_of(app, count).into_iter().enumerate() {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            app.metrics().levels.watch(runtime.handle().clone());
            let listener = listener.try_clone()?;
            let (app, stop, mut ending) = (app.clone(), stop.clone(), ending.clone());
            let (until_drained, until_ended) = (until_drained.clone(), until_ended.clone());
            let serve = async move {
                let served = async {
                    match TcpListener::from_std(listener) {
                        Ok(listener) => run_api_at(post, listener, &app, stop).await,
                        Err(error) => tracing::error!(%error, "a core cannot accept connections"),
                    }
                    drop(until_drained);
                };
                tokio::select! {
                    () = served => {}
                    _ = ending.wait_for(|end| *end) => {}
                }
                // The other cores may still need what runs here: look-ups for all who ask, connections to the store.
                let _ = ending.wait_for(|end| *end).await;
            };
            std::thread::Builder::new()
                .name(format!("core-{}", place + 1))
                .spawn(move || {
                    cores::enter(place + 1);
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

    /// Waits until the last request has been answered, once told to stop.
    pub(super) async fn drained(&mut self) {
        self.drained.recv().await;
    }

    /// Ends the threads, whatever they do.
    pub(super) async fn end(mut self) {
        let _ = self.end.send(true);
        let _ = tokio::time::timeout(2 * END, self.ended.recv()).await;
    }
}

fn run(runtime: Runtime, serve: impl Future<Output = ()>) {
    runtime.block_on(serve);
    runtime.shutdown_timeout(END);
}
