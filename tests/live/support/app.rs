//! A gateway of its own for each test, and ids that no other test or run has.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::net::TcpListener;
use tokio::sync::watch;
use wukongim_gateway::config::{Settings, StoreUrl};
use wukongim_gateway::state::App;
use wukongim_gateway::store::Store;

use super::actors::{Actor, http_client};
use super::server::Server;

/// The secret of every test's tokens.
pub const SECRET: &str = "a-secret-for-tests-that-is-long-enough";

/// A gateway in front of one real server. It ends when this is dropped.
pub struct TestApp {
    pub base: String,
    pub http: reqwest::Client,
    app: App,
    _stop: watch::Sender<bool>,
}

impl TestApp {
    /// The gateway as it is configured by default, without being told the generation.
    pub async fn start(server: &Server) -> Self {
        Self::start_with(server, |_| {}).await
    }

    /// A gateway that remembers no membership, for tests that change it past the gateway.
    pub async fn start_forgetful(server: &Server) -> Self {
        Self::start_with(server, |settings| {
            settings.authorization.cache_ttl = Duration::ZERO;
        })
        .await
    }

    pub async fn start_with(server: &Server, change: impl FnOnce(&mut Settings)) -> Self {
        let store = Store::open("sqlite::memory:", 1, Duration::from_secs(2))
            .await
            .expect("a store in memory opens");
        Self::start_on(server, Arc::new(store), change).await
    }

    /// A gateway with this store: one of several replicas.
    pub async fn start_on(
        server: &Server,
        store: Arc<Store>,
        change: impl FnOnce(&mut Settings),
    ) -> Self {
        // Shown by the test runner with a failure: which server it was.
        println!("{server:?}");
        let mut settings =
            Settings::builtin(&SECRET.to_owned().into()).expect("the defaults are good");
        settings.store.url = StoreUrl::SqliteMemory;
        let wukongim = &mut settings.wukongim;
        wukongim.api_urls = server
            .urls
            .iter()
            .map(|url| url.parse().expect("an address"))
            .collect();
        wukongim.manager_token = server.manager_token.clone().map(Into::into);
        if let Some((url, username, password)) = server.manager.clone() {
            wukongim.manager_url = Some(url.parse().expect("an address"));
            wukongim.manager_username = Some(username);
            wukongim.manager_password = Some(password.into());
        }
        // A test asks more of its users than people do.
        settings.limits.requests_per_second = 1_000_000;
        settings.limits.burst = 1_000_000;
        change(&mut settings);
        let app = App::new(settings, store).expect("the application is put together");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let base = format!("http://{}", listener.local_addr().expect("an address"));
        let (stop, stopped) = watch::channel(false);
        tokio::spawn(wukongim_gateway::gateway::run_api(
            listener,
            app.clone(),
            stopped,
        ));
        Self {
            app,
            base,
            http: http_client(),
            _stop: stop,
        }
    }

    /// The sample with this name and labels, as a number.
    pub fn metric(&self, name_and_labels: &str) -> Option<f64> {
        let text = self.app.metrics().render();
        let mut lines = text.lines();
        let number = lines.find_map(|line| line.strip_prefix(name_and_labels)?.strip_prefix(' '));
        number.map(|number| number.parse().expect("a number"))
    }

    /// Somebody without a token.
    pub fn anon(&self) -> Actor<'_> {
        Actor::anonymous(self)
    }

    /// The user `uid`.
    pub fn user(&self, uid: &str) -> Actor<'_> {
        Actor::user(self, uid)
    }

    /// An admin, whose uid is `root`.
    pub fn admin(&self) -> Actor<'_> {
        Actor::admin(self)
    }

    /// A new group of `owner` with these further subscribers.
    pub async fn group(&self, owner: &str, subscribers: &[&str]) -> String {
        let id = unique("群");
        self.user(owner).create_group(&id).await.ok();
        if !subscribers.is_empty() {
            self.user(owner).add(&id, subscribers).await.ok();
        }
        id
    }
}

/// An id that begins so and was never used before.
pub fn unique(name: &str) -> String {
    static RUN: LazyLock<u128> = LazyLock::new(|| {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .expect("the clock is past 1970")
            .as_millis()
    });
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{name}-{:x}-{:x}-{number}", *RUN, std::process::id())
}

/// As many new ids as there are names.
pub fn people<const N: usize>(names: [&str; N]) -> [String; N] {
    names.map(unique)
}
