//! A gateway on a real listener in this process, in front of whatever its settings name.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use wukongim_gateway::config::{Settings, StoreUrl};
use wukongim_gateway::limits::Time;
use wukongim_gateway::state::App;
use wukongim_gateway::store::Store;

use super::actors::{Actor, http_client};

/// The secret of every test's tokens.
pub const SECRET: &str = "a-secret-for-tests-that-is-long-enough";

/// A running gateway; it ends when this is dropped.
pub struct Served {
    pub app: App,
    pub settings: Settings,
    pub store: Arc<Store>,
    pub base: String,
    pub http: reqwest::Client,
    /// The clock of its limits.
    pub time: Time,
    _stop: watch::Sender<bool>,
}

/// The defaults with a store in memory, and so large limits that only a test of limits meets them.
pub fn settings() -> Settings {
    let mut settings = Settings::builtin(&SECRET.to_owned().into()).expect("the defaults are good");
    settings.store.url = StoreUrl::SqliteMemory;
    settings.limits.requests_per_second = 1_000_000;
    settings.limits.burst = 1_000_000;
    settings.limits.anonymous_per_second = 1_000_000;
    settings
}

pub async fn open_store(url: &str) -> Arc<Store> {
    let store = Store::open(url, 4, Duration::from_secs(5)).await;
    Arc::new(store.expect("a store opens"))
}

pub async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    (listener, url)
}

/// An address of its own on loopback, for a server that stops and starts again: nobody else takes its port meanwhile. Where the system
/// has only one (macOS), that one.
pub fn own_loopback(index: u8) -> SocketAddr {
    let own = SocketAddr::from(([127, 0, 3, index], 0));
    match std::net::TcpListener::bind(own) {
        Ok(_) => own,
        Err(_) => SocketAddr::from(([127, 0, 0, 1], 0)),
    }
}

impl Served {
    pub async fn start(settings: Settings, store: Arc<Store>, time: Time) -> Self {
        let app = App::with_time(settings.clone(), store.clone(), &time)
            .expect("the application is put together");
        let (listener, base) = listen().await;
        let (stop, stopped) = watch::channel(false);
        let serving = wukongim_gateway::gateway::run_api(listener, app.clone(), stopped);
        tokio::spawn(serving);
        Self {
            app,
            settings,
            store,
            base,
            http: http_client(),
            time,
            _stop: stop,
        }
    }

    /// Somebody without a token.
    pub fn anon(&self) -> Actor<'_> {
        Actor::anonymous(self)
    }

    /// The user `uid`.
    pub fn user(&self, uid: &str) -> Actor<'_> {
        Actor::user(self, uid)
    }

    /// These users, in this order.
    pub fn users<const N: usize>(&self, uids: [&str; N]) -> [Actor<'_>; N] {
        uids.map(|uid| self.user(uid))
    }

    /// An admin, whose uid is `root`.
    pub fn admin(&self) -> Actor<'_> {
        Actor::admin(self)
    }

    /// The sample with this name and labels, as a number.
    pub fn metric(&self, name_and_labels: &str) -> Option<f64> {
        let text = self.app.metrics_text();
        text.lines()
            .find_map(|line| line.strip_prefix(name_and_labels)?.strip_prefix(' '))
            .map(|number| number.parse().expect("a number"))
    }
}
