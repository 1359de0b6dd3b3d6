//! Serving: from a checked configuration to running listeners, and the graceful end of them.

mod accept;
mod activity;
mod answer;
mod banner;
mod cores;
mod crew;
mod files;
mod memory_limit;
mod ops;
mod refusal;
mod signals;
mod unread;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::app::App;
use crate::cli::{EXIT_INTERNAL, EXIT_UNAVAILABLE};
use crate::config::{Generation, HttpUrl, Loaded, Settings, StoreUrl};
use crate::embedded::{Dialect, Embedded, Options};
use crate::store::Store;
use crate::telemetry;
use crate::wukongim::SMALL_PAYLOAD;

use self::cores::Cores;
use self::signals::Signals;

pub use accept::{run, run_api};
pub use ops::{Readiness, router as ops_router};

/// How often the gateway looks by itself how WuKongIM and the store are.
const LOOK_INTERVAL: Duration = Duration::from_secs(15);
/// How often idle users and addresses are forgotten.
const SWEEP_EVERY: Duration = Duration::from_secs(5);

/// Serves until told to stop. `embedded` starts the development upstream of that generation and uses it.
///
/// Exit codes: 0 after a graceful end; 69 when an address cannot be bound or the store cannot be opened; 70 for what should
/// never happen.
pub async fn serve(loaded: Loaded, embedded: Option<Generation>) -> ExitCode {
    let Loaded {
        mut settings,
        warnings,
        ..
    } = loaded;
    telemetry::init(&settings.log);
    // Before anything that may hang: the start can be ended, too.
    let mut signals = Signals::listen();
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    files::allow(settings.server.max_connections);
    memory_limit::warn_if_low(settings.server.max_buffered);
    let starting = async {
        let upstream = start_embedded(embedded, &mut settings).await?;
        Ok::<_, Problem>((upstream, Running::start(settings).await?))
    };
    let started = tokio::select! {
        started = starting => started,
        () = signals.told_to_stop() => {
            tracing::info!("told to stop while starting");
            return ExitCode::SUCCESS;
        }
    };
    // The upstream is held for the life of the process.
    let (_upstream, running) = match started {
        Ok(started) => started,
        Err(problem) => return problem.exit(),
    };
    if embedded.is_some() {
        banner::print(&running.settings, running.address);
    }
    tracing::info!(listen = %running.address, ops_listen = %running.ops_address, "serving");
    running.until_told(signals).await;
    tracing::info!("stopped");
    ExitCode::SUCCESS
}

/// Why the gateway does not start.
struct Problem {
    text: String,
    code: u8,
}

impl Problem {
    fn unavailable(text: String) -> Self {
        Self {
            text,
            code: EXIT_UNAVAILABLE,
        }
    }

    fn exit(self) -> ExitCode {
        eprintln!("error: {}", self.text);
        ExitCode::from(self.code)
    }
}

async fn start_embedded(
    generation: Option<Generation>,
    settings: &mut Settings,
) -> Result<Option<Embedded>, Problem> {
    let Some(generation) = generation else {
        return Ok(None);
    };
    let dialect = match generation {
        Generation::V2 => Dialect::V2,
        Generation::V3 => Dialect::V3,
    };
    let options = Options::development(dialect);
    let manager = options.manager.clone();
    let started = Embedded::start(options).await;
    let upstream = started.map_err(|error| {
        Problem::unavailable(format!("cannot start the built-in upstream: {error}"))
    })?;
    let address = |url: String| -> Result<HttpUrl, Problem> {
        url.parse().map_err(|_| Problem {
            text: "the built-in upstream has no usable address".to_owned(),
            code: EXIT_INTERNAL,
        })
    };
    let wukongim = &mut settings.wukongim;
    wukongim.api_urls = vec![address(upstream.url())?];
    wukongim.version = Some(generation);
    wukongim.manager_token = None;
    // v3 only: v2 has no such port, and the gateway does without.
    wukongim.manager_url = upstream.manager_url().map(address).transpose()?;
    (wukongim.manager_username, wukongim.manager_password) = match manager {
        Some((username, password)) => (Some(username), Some(password.into())),
        None => (None, None),
    };
    Ok(Some(upstream))
}

/// A gateway whose listeners are bound and whose cores serve.
struct Running {
    settings: Settings,
    address: SocketAddr,
    ops_address: SocketAddr,
    ops_listener: TcpListener,
    app: App,
    api: Cores,
    /// Tells the cores to take no more connections.
    stop: watch::Sender<bool>,
}

impl Running {
    async fn start(settings: Settings) -> Result<Self, Problem> {
        let url = match &settings.store.url {
            StoreUrl::SqliteMemory => "sqlite::memory:".to_owned(),
            StoreUrl::Sqlite(path) => format!("sqlite://{}", path.display()),
            StoreUrl::Postgres(url) => url.clone(),
        };
        let store = Store::open(&url, settings.store.max_connections, settings.store.timeout).await;
        let store = store.map_err(|error| Problem::unavailable(error.to_string()))?;
        let store = Arc::new(store);
        let started = Self::start_on(settings, store.clone()).await;
        if started.is_err() {
            store.close().await;
        }
        started
    }

    async fn start_on(settings: Settings, store: Arc<Store>) -> Result<Self, Problem> {
        let (listener, address) = bind("server.listen", settings.server.listen).await?;
        let (ops_listener, ops_address) =
            bind("server.ops_listen", settings.server.ops_listen).await?;
        let app = App::new(settings.clone(), store).map_err(|error| Problem {
            text: error.to_string(),
            code: EXIT_INTERNAL,
        })?;
        app.metrics().levels.watch(Handle::current());
        let (stop, stopped) = watch::channel(false);
        let count = crate::cores::count(settings.server.worker_threads);
        let api = Cores::start(listener, &app, count, &stopped).map_err(|error| Problem {
            text: format!("cannot start threads: {error}"),
            code: EXIT_INTERNAL,
        })?;
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

    /// Serves until SIGTERM, SIGINT or SIGHUP, then drains: not ready at once, `shutdown_delay`, no new connections, what runs is
    /// finished within `drain_timeout`. A second signal ends it at once.
    async fn until_told(mut self, mut signals: Signals) {
        let server = &self.settings.server;
        let draining = Arc::new(AtomicBool::new(false));
        let ready = Readiness::new(self.app.clone(), draining.clone());
        keep_looking(self.app.clone(), ready.clone());
        let (ops_stop, ops_stopped) = watch::channel(false);
        let ops = tokio::spawn(accept::run(
            self.ops_listener,
            ops::router(ready),
            ops_stopped,
        ));
        sweep_limits(self.app.clone());

        signals.told_to_stop().await;
        draining.store(true, Ordering::Relaxed);
        tracing::info!("told to stop, draining");
        let drain = async {
            tokio::time::sleep(server.shutdown_delay).await;
            let _ = self.stop.send(true);
            let finished = async {
                self.api.drained().await;
                // Deletes go on when nobody waits for them any longer.
                self.app.channels().idle().await;
            };
            let drained = tokio::time::timeout(server.drain_timeout, finished);
            if drained.await.is_err() {
                tracing::warn!("drain_timeout passed, requests were cut off");
            }
            let _ = ops_stop.send(true);
            let _ = tokio::time::timeout(Duration::from_millis(500), ops).await;
        };
        tokio::select! {
            () = drain => {}
            () = signals.told_to_stop() => tracing::warn!("told again, ending at once"),
        }
        self.api.end().await;
        // After the last thread that asks it.
        self.app.store().close().await;
        self.app.spans().end().await;
    }
}

/// Finds WuKongIM before the first request asks for it, and says so when it cannot. Then looks at it and at the store for as long as
/// the process runs, so that the metrics tell the truth of a gateway that nobody calls.
fn keep_looking(app: App, readiness: Readiness) {
    tokio::spawn(async move {
        if let Err(error) = app.client().generation().await {
            tracing::warn!(%error, "wukongim not found yet; looking again with each request");
        } else if app.settings().limits.payload > SMALL_PAYLOAD {
            // It says so in the log where it finds that payloads are limited.
            let _ = app.client().payload_limit().await;
        }
        let mut interval = tokio::time::interval(LOOK_INTERVAL);
        loop {
            interval.tick().await;
            tokio::join!(app.client().look_at_all(), readiness.store_is_well());
        }
    });
}

/// Forgets idle users and addresses for as long as the process runs.
fn sweep_limits(app: App) {
    tokio::spawn(async move {
        let mut turns = tokio::time::interval(SWEEP_EVERY);
        loop {
            turns.tick().await;
            app.limits().sweep();
        }
    });
}

async fn bind(key: &str, address: SocketAddr) -> Result<(TcpListener, SocketAddr), Problem> {
    let problem = |error| Problem::unavailable(format!("cannot bind {key} {address}: {error}"));
    let listener = TcpListener::bind(address).await.map_err(problem)?;
    let address = listener.local_addr().map_err(problem)?;
    Ok((listener, address))
}
