//! Serving: from a checked configuration to running listeners, and their graceful shutdown; and what is around every request.
//!
//! From the outermost layer inwards: `frame` (request id, CORS, shedding, deadline, panic, envelope of every failure, metrics, access log)
//! → routing → authentication and the user's limit on every route that is not listed as public → the handler's extractors (body limit,
//! JSON, fields, and the rate limit again where the cost depends on the content).

mod accept;
mod admission;
mod connection_state;
mod cors;
mod embedded;
mod fd_limit;
mod frame;
mod memory_limit;
mod ops;
mod refusal;
mod signals;
mod tcp_socket;
mod tracked_body;
mod unread_body;
mod workers;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::config::{Generation, Loaded, Settings, StoreUrl};
use crate::state::App;
use crate::store::Store;
use crate::telemetry;
use crate::wukongim::SAFE_PAYLOAD_BYTES;

use self::signals::Signals;
use self::workers::Workers;

pub use accept::{run, run_api};
pub use frame::Framed;
pub use ops::{Readiness, router as ops_router};

/// How often the gateway looks by itself how WuKongIM and the store are.
const PROBE_INTERVAL: Duration = Duration::from_secs(15);
/// How often idle users and addresses are removed from the rate limits.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Serves until a stop signal. `embedded` starts the development upstream of that generation and uses it.
///
/// With it, `introduce` is called once the gateway serves at an address.
pub async fn serve(
    loaded: Loaded,
    embedded: Option<Generation>,
    introduce: impl FnOnce(&Settings, SocketAddr),
) -> Result<(), ServeError> {
    let Loaded {
        mut settings,
        warnings,
        ..
    } = loaded;
    let _log = telemetry::init(&settings.log);
    // Before anything that may hang, so that a start can be ended by a signal as well.
    let mut signals = Signals::listen();
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    fd_limit::raise_limit(&settings);
    memory_limit::warn_if_low(settings.server.max_buffered);
    let starting = async {
        let upstream = embedded::start(embedded, &mut settings).await?;
        Ok::<_, ServeError>((upstream, Gateway::start(settings).await?))
    };
    // The upstream is held for the life of the process.
    let (_upstream, gateway) = tokio::select! {
        started = starting => started?,
        () = signals.stop_requested() => {
            tracing::info!("stop signal received while starting");
            return Ok(());
        }
    };
    if embedded.is_some() {
        introduce(&gateway.settings, gateway.address);
    }
    tracing::info!(listen = %gateway.address, ops_listen = %gateway.ops_address, "serving");
    let served = gateway.run_until_stopped(signals).await;
    tracing::info!("stopped");
    served
}

/// Why the gateway does not serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// What was asked for is not in this build.
    #[error("{0}")]
    Unsupported(&'static str),
    /// An address cannot be bound, or the store or the built-in upstream cannot be opened.
    #[error("{0}")]
    Unavailable(String),
    /// A bug, or the system refuses a required resource.
    #[error("{0}")]
    Internal(String),
    /// All WuKongIM nodes became the other generation, which only a new process uses.
    #[error(
        "all wukongim nodes are of another generation than the one in use: start again to use it"
    )]
    Replaced,
}

/// A running gateway: its listeners are bound and its workers serve.
struct Gateway {
    settings: Settings,
    address: SocketAddr,
    ops_address: SocketAddr,
    ops_listener: TcpListener,
    app: App,
    api: Workers,
    /// Ends accepting.
    stop: watch::Sender<bool>,
}

impl Gateway {
    async fn start(settings: Settings) -> Result<Self, ServeError> {
        let url = match &settings.store.url {
            StoreUrl::SqliteMemory => "sqlite::memory:".to_owned(),
            StoreUrl::Sqlite(path) => format!("sqlite://{}", path.display()),
            StoreUrl::Postgres(url) => url.clone(),
        };
        let store = Store::open(&url, settings.store.max_connections, settings.store.timeout).await;
        let store = store.map_err(|error| ServeError::Unavailable(error.to_string()))?;
        let store = Arc::new(store);
        let started = Self::start_on(settings, store.clone()).await;
        if started.is_err() {
            store.close().await;
        }
        started
    }

    async fn start_on(settings: Settings, store: Arc<Store>) -> Result<Self, ServeError> {
        let (listener, address) = bind("server.listen", settings.server.listen).await?;
        let (ops_listener, ops_address) =
            bind("server.ops_listen", settings.server.ops_listen).await?;
        let socket_address = settings
            .socket
            .tcp_listen
            .filter(|_| settings.socket.enabled);
        let socket_listener = match socket_address {
            Some(address) => Some(bind("socket.tcp_listen", address).await?),
            None => None,
        };
        let socket_listener = socket_listener.map(|(listener, address)| {
            tracing::info!(socket.listen = %address, "sockets over plain tcp");
            listener
        });
        let app = App::new(settings.clone(), store)
            .map_err(|error| ServeError::Internal(error.to_string()))?;
        app.metrics.gauges.track_runtime(Handle::current());
        let (stop, stopped) = watch::channel(false);
        let count = crate::per_worker::count(settings.server.worker_threads);
        let api = Workers::start(listener, socket_listener, &app, count, stopped)
            .map_err(|error| ServeError::Internal(format!("cannot start threads: {error}")))?;
        Ok(Self {
            settings,
            address,
            ops_address,
            ops_listener,
            app,
            api,
            stop,
        })
    }

    /// Serves until SIGTERM, SIGINT or SIGHUP, or fails: when all WuKongIM nodes became another generation, or a worker thread has ended by
    /// itself. Then drains: not ready at once, after `shutdown_delay` no new connections, running requests finish within `drain_timeout`. A
    /// second signal ends it at once.
    async fn run_until_stopped(mut self, mut signals: Signals) -> Result<(), ServeError> {
        let server = &self.settings.server;
        let draining = Arc::new(AtomicBool::new(false));
        let ready = Readiness::new(self.app.clone(), draining.clone());
        monitor_dependencies(self.app.clone(), ready.clone());
        let (ops_stop, ops_stopped) = watch::channel(false);
        let ops = tokio::spawn(accept::run(
            self.ops_listener,
            ops::router(ready),
            ops_stopped,
        ));
        sweep_limits(self.app.clone());

        let served = tokio::select! {
            () = signals.stop_requested() => {
                tracing::info!("stop signal received, draining");
                Ok(())
            }
            () = self.app.client.replaced() => {
                tracing::error!("all wukongim nodes are of another generation, draining");
                Err(ServeError::Replaced)
            }
            () = self.api.failed() => {
                tracing::error!("a worker thread has ended, draining");
                Err(ServeError::Internal("a worker thread has ended".to_owned()))
            }
        };
        draining.store(true, Ordering::Relaxed);
        self.app.sockets.refuse_new();
        let drain = async {
            tokio::time::sleep(server.shutdown_delay).await;
            let _ = self.stop.send(true);
            let finished = async {
                tokio::join!(
                    self.api.drained(),
                    self.app.sockets.close_all(server.drain_timeout)
                );
                // Deletes continue after their requests have ended.
                self.app.channels.wait_idle().await;
            };
            let drained = tokio::time::timeout(server.drain_timeout, finished);
            if drained.await.is_err() {
                tracing::warn!("drain_timeout passed, requests were aborted");
            }
            let _ = ops_stop.send(true);
            let _ = tokio::time::timeout(Duration::from_millis(500), ops).await;
        };
        tokio::select! {
            () = drain => {}
            () = signals.stop_requested() => tracing::warn!("second stop signal received, ending at once"),
        }
        self.api.end().await;
        // After the last worker that uses it has ended.
        self.app.store.close().await;
        self.app.spans.end().await;
        served
    }
}

/// Settles WuKongIM's generation before the first request, and logs a failure. Then probes WuKongIM and the store periodically, so that the
/// metrics are current on an idle gateway too.
fn monitor_dependencies(app: App, readiness: Readiness) {
    tokio::spawn(async move {
        if let Err(error) = app.client.generation().await {
            tracing::warn!(%error, "wukongim not detected yet; probing again with each request");
        } else if app.settings.limits.payload > SAFE_PAYLOAD_BYTES {
            // Logs a warning if payloads are limited.
            let _ = app.client.payload_limit().await;
        }
        if app.settings.socket.enabled {
            // Logs a warning where they are public.
            app.client.check_socket_routes().await;
        }
        let mut interval = tokio::time::interval(PROBE_INTERVAL);
        loop {
            interval.tick().await;
            tokio::join!(app.client.probe_all(), readiness.is_store_healthy());
        }
    });
}

/// Removes idle users and addresses periodically.
fn sweep_limits(app: App) {
    tokio::spawn(async move {
        let mut interval = tokio::time::interval(SWEEP_INTERVAL);
        loop {
            interval.tick().await;
            app.limits.sweep();
        }
    });
}

async fn bind(key: &str, address: SocketAddr) -> Result<(TcpListener, SocketAddr), ServeError> {
    let error = |error| ServeError::Unavailable(format!("cannot bind {key} {address}: {error}"));
    let listener = TcpListener::bind(address).await.map_err(error)?;
    let address = listener.local_addr().map_err(error)?;
    Ok((listener, address))
}
