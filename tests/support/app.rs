//! `TestApp::builder().upstream(V2).config(|settings| ..).start().await`.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use dev_upstream::{Call, DevUpstream, Dialect, Fault, Faults, Options, Rule, State, V2Release};
use wukongim_gateway::config::Settings;
use wukongim_gateway::limits::Time;
use wukongim_gateway::store::Store;

use super::database::{self, Database};
use super::served::{self, Served, open_store};

/// A gateway, its upstream, and ways to speak to both. Everything ends when it is dropped.
pub struct TestApp {
    pub upstream: DevUpstream,
    /// The other nodes of its cluster.
    pub others: Vec<DevUpstream>,
    /// Whether this gateway's upstream is v2.
    pub dialect: Dialect,
    served: Served,
    database: Option<Database>,
}

impl Deref for TestApp {
    type Target = Served;

    fn deref(&self) -> &Served {
        &self.served
    }
}

/// What to start.
pub struct Builder {
    options: Options,
    others: usize,
    change: Box<dyn FnOnce(&mut Settings)>,
    version_known: bool,
    store: Option<Arc<Store>>,
    database: Option<Database>,
}

impl TestApp {
    pub fn builder() -> Builder {
        let mut options = Options::new(Dialect::V2);
        options.visible_after = Duration::ZERO;
        Builder {
            options,
            others: 0,
            change: Box::new(|_| {}),
            version_known: false,
            store: None,
            database: None,
        }
    }

    /// The usual gateway in front of one dialect.
    pub async fn start(dialect: Dialect) -> Self {
        Box::pin(Self::builder().upstream(dialect).start()).await
    }

    /// The usual gateway in front of each dialect, to be tested one after the other; the output says which one is.
    pub async fn both() -> impl Iterator<Item = Self> {
        let apps = [
            Self::start(Dialect::V2).await,
            Self::start(Dialect::V3).await,
        ];
        apps.into_iter().inspect(Self::say)
    }

    /// Says which dialect is tested from here on.
    fn say(&self) {
        println!("{:?}", self.dialect);
    }

    /// The usual gateway with the group `g` of alice and these other subscribers; no call is recorded yet.
    pub async fn with_group(dialect: Dialect, others: &[&str]) -> Self {
        let app = Self::start(dialect).await;
        app.group("g", "alice", others).await;
        app
    }

    /// As [`Self::both`], with [`Self::with_group`].
    pub async fn both_with_group(others: &[&str]) -> impl Iterator<Item = Self> {
        let both = Self::both().await.collect::<Vec<_>>();
        for app in &both {
            app.group("g", "alice", others).await;
        }
        both.into_iter().inspect(Self::say)
    }

    /// A gateway in front of one dialect with these settings.
    pub async fn with(dialect: Dialect, change: impl FnOnce(&mut Settings) + 'static) -> Self {
        let builder = Self::builder().upstream(dialect).config(change);
        Box::pin(builder.start()).await
    }

    /// The usual gateway in front of this release of v2.
    pub async fn release(release: V2Release) -> Self {
        let builder = Self::builder().options(move |options| options.release = release);
        Box::pin(builder.start()).await
    }

    /// Another gateway on the same upstream and store: a replica, or the same one after a restart.
    pub async fn beside(&self, change: impl FnOnce(&mut Settings)) -> Served {
        let mut settings = self.settings.clone();
        change(&mut settings);
        Served::start(settings, self.store.clone(), Time::standing()).await
    }

    /// What the upstream has.
    pub fn state(&self) -> &State {
        self.upstream.state()
    }

    /// What the upstream does wrong.
    pub fn faults(&self) -> &Faults {
        self.upstream.faults()
    }

    /// Every call to a path that begins so meets this.
    pub fn always(&self, path_prefix: &str, fault: Fault) {
        self.faults().always(path_prefix, fault);
    }

    /// The next call to a path that begins so meets this.
    pub fn once(&self, path_prefix: &str, fault: Fault) {
        self.faults().once(path_prefix, fault);
    }

    /// Calls meet faults by this rule as well.
    pub fn add_fault(&self, rule: Rule) {
        self.faults().add(rule);
    }

    /// The store's database, where it was asked for.
    pub fn database(&self) -> &Database {
        self.database.as_ref().expect("a database was asked for")
    }

    /// All nodes, in the order in which the gateway knows them.
    pub fn nodes(&self) -> Vec<&DevUpstream> {
        std::iter::once(&self.upstream)
            .chain(&self.others)
            .collect()
    }

    /// The calls the upstream got to paths that begin so.
    pub fn calls_to(&self, path_prefix: &str) -> Vec<Call> {
        self.upstream.calls_to(path_prefix)
    }

    /// The next message that is sent meets this.
    pub fn next_send(&self, fault: Fault) {
        self.faults().once("/message/send", fault);
    }

    /// Each message that contains this text when it is sent meets this.
    pub fn each_send(&self, text: &str, fault: Fault) {
        let rule = Rule::new("/message/send", fault).containing(text);
        self.faults().add(rule);
    }

    /// Forgets the calls so far.
    pub fn clear_calls(&self) {
        self.upstream.clear_calls();
    }

    /// Asserts that the upstream was told to change nothing and got no message.
    #[track_caller]
    pub fn nothing_was_written(&self) {
        let reads = [
            "/channel/messagesync",
            "/conversation/",
            "/channel/max_message_seq",
            "/manager/login",
        ];
        let written: Vec<_> = self
            .upstream
            .calls()
            .into_iter()
            .filter(|call| {
                call.method == "POST" && !reads.iter().any(|read| call.path.starts_with(read))
            })
            // v3's probe for a group: refused always, stored never.
            .filter(|call| call.body["from_uid"] != "____gateway")
            .collect();
        assert!(written.is_empty(), "{written:#?}");
    }

    /// A group of `owner` with these further subscribers, made through the gateway; the upstream's call log starts anew.
    pub async fn group(&self, id: &str, owner: &str, subscribers: &[&str]) {
        self.user(owner).create_group(id).await.ok();
        if !subscribers.is_empty() {
            self.user(owner).add(id, subscribers).await.ok();
        }
        for node in self.nodes() {
            node.clear_calls();
        }
    }
}

impl Builder {
    pub fn upstream(mut self, dialect: Dialect) -> Self {
        self.options.dialect = dialect;
        self
    }

    /// So many nodes, which are a cluster: they share their data.
    pub fn nodes(mut self, count: usize) -> Self {
        self.others = count - 1;
        self
    }

    /// Changes the upstream's options.
    pub fn options(mut self, change: impl FnOnce(&mut Options)) -> Self {
        change(&mut self.options);
        self
    }

    /// Changes the gateway's settings.
    pub fn config(mut self, change: impl FnOnce(&mut Settings) + 'static) -> Self {
        let before = self.change;
        self.change = Box::new(move |settings| {
            before(settings);
            change(settings);
        });
        self
    }

    /// v3 with its manager port, known to the gateway.
    pub fn manager_port(mut self) -> Self {
        self.options.manager = Some(("admin".into(), "manager-password".into()));
        self.version_known = true;
        self
    }

    /// The same where `is_known`.
    pub fn manager_port_if(self, is_known: bool) -> Self {
        if is_known { self.manager_port() } else { self }
    }

    /// A store that exists already: another replica, or the same gateway after a restart.
    pub fn store(mut self, store: Arc<Store>) -> Self {
        self.store = Some(store);
        self
    }

    /// A store of its own in a database of this kind, instead of one in memory.
    pub async fn database(mut self, kind: database::Kind) -> Self {
        let database = Database::new(kind).await;
        self.store = Some(open_store(&database.url).await);
        self.database = Some(database);
        self
    }

    pub async fn start(self) -> TestApp {
        let upstream = DevUpstream::start(self.options.clone()).await;
        let upstream = upstream.expect("the built-in upstream starts");
        Box::pin(self.start_on(upstream)).await
    }

    /// Starts the gateway in front of this upstream.
    pub async fn start_on(self, upstream: DevUpstream) -> TestApp {
        let mut settings = served::settings();
        let mut others = Vec::new();
        for _ in 0..self.others {
            let other = upstream.start_beside(self.options.clone()).await;
            others.push(other.expect("another node starts"));
        }
        let urls = std::iter::once(&upstream)
            .chain(&others)
            .map(DevUpstream::url);
        settings.wukongim.api_urls = urls.map(|url| url.parse().expect("an address")).collect();
        settings.public.tcp_addr = None;
        if let (true, Some(url)) = (self.version_known, upstream.manager_url()) {
            settings.wukongim.manager_url = Some(url.parse().expect("an address"));
            settings.wukongim.manager_username = Some("admin".into());
            settings.wukongim.manager_password = Some("manager-password".to_owned().into());
        }
        (self.change)(&mut settings);
        let store = match self.store {
            Some(store) => store,
            None => open_store("sqlite::memory:").await,
        };
        // The clock stands, so that a test of something else must not use up what one of limits has.
        let served = Box::pin(Served::start(settings, store, Time::standing())).await;
        TestApp {
            upstream,
            others,
            dialect: self.options.dialect,
            served,
            database: self.database,
        }
    }
}
