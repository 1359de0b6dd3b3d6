//! What owning means, against the built-in upstream in every shape the gateway meets (v2, v3, v3 with its manager port): a store, an
//! upstream and one or more gateways' worth of `Channels` over them.

mod crashes;
mod create;
mod delete;
mod equal_keys;
mod gateway;
mod large;
mod members;
mod replicas;
mod rights;
mod roles;

use std::ops::Deref;
use std::sync::Arc;

use parking_lot::Mutex;
use wukongim_gateway::channels::Rules;
use wukongim_gateway::domain::{ChannelId, Uid};
use wukongim_gateway::store::{ChannelStage, Store};
use wukongim_gateway::wukongim;

pub(crate) use self::gateway::{ADMIN, Gateway, user};
use self::gateway::{RULES, client, gateway};
use crate::support::database::{self, Database};
use crate::support::prelude::*;

/// How long the gateway waits for an answer of the upstream.
pub(crate) const UPSTREAM_TIMEOUT: Duration = Duration::from_millis(400);
/// The most members of a group.
pub(crate) const GROUP_MEMBERS: usize = 5;
/// The group most tests are about.
pub(crate) const G: &str = "g-1";

/// The upstreams of this world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    V2,
    V3,
    V3Manager,
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::V2, Self::V3, Self::V3Manager];

    /// Whether this upstream tells who is a member.
    pub(crate) fn tells_members(self) -> bool {
        self != Self::V3
    }

    /// The call that adds members.
    pub(crate) fn add_path(self) -> &'static str {
        match self {
            Self::V3Manager => "/manager/channels/2/g-1/subscribers/add",
            _ => "/channel/subscriber_add",
        }
    }

    /// The call that tells whether a group exists.
    pub(crate) fn look_path(self) -> &'static str {
        match self {
            Self::V2 => "/cluster/channels?",
            Self::V3 => "/message/send",
            Self::V3Manager => "/manager/channels/2/g-1",
        }
    }
}

/// The listener's recorded notifications.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Told {
    Changed(String),
    Deleted(String),
}

#[derive(Default)]
pub(crate) struct Recorder(Mutex<Vec<Told>>, Mutex<Vec<Uid>>);

impl Recorder {
    pub(crate) fn take(&self) -> Vec<Told> {
        std::mem::take(&mut self.0.lock())
    }

    /// Lets `uid` be known as no subscriber.
    pub(crate) fn knows_as_outsider(&self, who: &str) {
        self.1.lock().push(uid(who));
    }

    pub(crate) fn told(&self) -> Vec<Told> {
        self.0.lock().clone()
    }
}

pub(crate) struct World {
    pub(crate) kind: Kind,
    pub(crate) upstream: DevUpstream,
    pub(crate) client: Arc<wukongim::Client>,
    pub(crate) store: Arc<Store>,
    pub(crate) listener: Arc<Recorder>,
    gateway: Gateway,
    pub(crate) database: Database,
}

pub(crate) fn id(text: &str) -> ChannelId {
    ChannelId::parse(text, 255).unwrap()
}

pub(crate) fn uid(text: &str) -> Uid {
    Uid::parse(text, 255).unwrap()
}

pub(crate) fn uids(texts: &[&str]) -> Vec<Uid> {
    texts.iter().map(|text| uid(text)).collect()
}

impl World {
    pub(crate) async fn start(kind: Kind) -> Self {
        Self::start_on(kind, database::Kind::Sqlite).await
    }

    pub(crate) async fn start_on(kind: Kind, database: database::Kind) -> Self {
        Self::start_with(kind, options(kind), database).await
    }

    pub(crate) async fn start_with(kind: Kind, options: Options, database: database::Kind) -> Self {
        let upstream = DevUpstream::start(options).await.unwrap();
        let database = Database::new(database).await;
        let store = open(&database).await;
        let client = Arc::new(client(&upstream));
        let listener = Arc::new(Recorder::default());
        let gateway = gateway(&client, &store, &listener, RULES);
        Self {
            kind,
            upstream,
            client,
            store,
            listener,
            gateway,
            database,
        }
    }

    /// One more gateway on the same database and upstream. SQLite serves one process, so there the replicas share the store.
    pub(crate) async fn replica(&self) -> Gateway {
        let store = match self.database.kind {
            database::Kind::Sqlite => self.store.clone(),
            database::Kind::Postgres => open(&self.database).await,
        };
        gateway(&self.client, &store, &self.listener, RULES)
    }

    /// A gateway with other rules on the same store and upstream.
    fn with_rules(&self, rules: Rules) -> Gateway {
        gateway(&self.client, &self.store, &self.listener, rules)
    }

    /// A gateway in mode `open`.
    pub(crate) fn open_mode(&self) -> Gateway {
        self.with_rules(Rules {
            open: true,
            ..RULES
        })
    }

    /// A gateway whose subscribers may invite.
    pub(crate) fn inviting(&self) -> Gateway {
        self.with_rules(Rules {
            members_may_invite: true,
            ..RULES
        })
    }

    /// The managers in the store.
    pub(crate) async fn managers(&self) -> Vec<Uid> {
        self.store.channel(&id(G)).await.unwrap().unwrap().managers
    }

    /// The stage in the store.
    pub(crate) async fn stage(&self) -> Option<ChannelStage> {
        let record = self.store.channel(&id(G)).await.unwrap();
        record.map(|record| record.state)
    }

    pub(crate) async fn owner(&self) -> Option<Uid> {
        self.store.channel(&id(G)).await.unwrap()?.owner
    }

    /// The members upstream, sorted.
    pub(crate) fn members(&self) -> Vec<String> {
        let mut members = self.upstream.state().members(G);
        members.sort();
        members
    }

    pub(crate) fn is_disbanded(&self) -> bool {
        let flags = self.upstream.state().flags(2, G);
        flags.is_some_and(|flags| flags.disband)
    }

    /// Makes the group upstream past the gateway.
    pub(crate) async fn made_by_somebody_else(&self, member: &str) {
        self.client
            .create_group(&id(G), &uid(member))
            .await
            .unwrap();
        self.upstream.clear_calls();
    }

    /// The paths of the calls that changed a channel, in order.
    pub(crate) fn writes(&self) -> Vec<String> {
        let calls = self.upstream.calls().into_iter().map(|call| call.path);
        calls
            .filter(|path| {
                path.starts_with("/channel") && path.contains("subscriber_")
                    || path == "/channel"
                    || path == "/channel/delete"
                    || path.ends_with("/subscribers/add")
                    || path.ends_with("/subscribers/remove")
            })
            .collect()
    }

    pub(crate) fn fault(&self, rule: Rule) {
        self.upstream.faults().add(rule);
    }
}

fn options(kind: Kind) -> Options {
    match kind {
        Kind::V2 => Options::new(Dialect::V2),
        Kind::V3 => Options::new(Dialect::V3),
        Kind::V3Manager => Options {
            manager: Some(("admin".into(), "secret".into())),
            ..Options::new(Dialect::V3)
        },
    }
}

async fn open(database: &Database) -> Arc<Store> {
    let store = Store::open(&database.url, 4, Duration::from_secs(5)).await;
    Arc::new(store.unwrap())
}

impl Deref for World {
    type Target = Gateway;

    fn deref(&self) -> &Gateway {
        &self.gateway
    }
}

/// Every kind of world there can be here.
pub(crate) fn worlds() -> Vec<(Kind, database::Kind)> {
    let on = |database| Kind::ALL.map(|kind| (kind, database));
    database::kinds().into_iter().flat_map(on).collect()
}

/// Runs a test in every kind of world.
macro_rules! in_every_world {
    ($(async fn $name:ident($world:ident) $body:block)*) => {$(
        #[tokio::test]
        async fn $name() {
            for (kind, database) in $crate::channels::ownership::worlds() {
                println!("{kind:?} {database:?}");
                let $world = $crate::channels::ownership::World::start_on(kind, database).await;
                $body
            }
        }
    )*};
}
pub(crate) use in_every_world;

/// Asserts that a result matches a pattern, and says what it was.
macro_rules! assert_is {
    ($result:expr, $pattern:pat) => {{
        let result = $result;
        assert!(
            matches!(result, $pattern),
            "{result:?} is not {}",
            stringify!($pattern)
        );
    }};
}
pub(crate) use assert_is;
