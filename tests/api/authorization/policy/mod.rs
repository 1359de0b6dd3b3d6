//! The policy by itself: rules, avoided upstream calls, and races. Here an built-in upstream, a client, an empty store and the policy over them.

mod members;
mod open;
mod races;
mod tombstones;
mod v3;

use std::sync::Arc;
use std::time::Duration;

use dev_upstream::{DevUpstream, Dialect, Options};
use wukongim_gateway::authorization::{Authorization, Denial, Mode, Rules};
use wukongim_gateway::config;
use wukongim_gateway::domain::{Channel, ChannelId, Uid};
use wukongim_gateway::store::Store;
use wukongim_gateway::telemetry::Metrics;
use wukongim_gateway::wukongim::{Client, MemberChange};

/// Denylists of persons and of groups.
pub(crate) const PERSON: u8 = 1;
pub(crate) const GROUP: u8 = 2;

pub(crate) struct Fixture {
    pub(crate) upstream: DevUpstream,
    pub(crate) client: Arc<Client>,
    pub(crate) store: Arc<Store>,
    pub(crate) authorization: Arc<Authorization>,
    metrics: Arc<Metrics>,
}

/// What a test may want to be otherwise.
pub(crate) struct Plan {
    pub(crate) options: Options,
    pub(crate) rules: Rules,
    pub(crate) store_url: String,
}

impl Plan {
    pub(crate) fn new(dialect: Dialect, mode: Mode) -> Self {
        Self {
            options: Options::new(dialect),
            rules: Rules {
                mode,
                cache_ttl: Duration::from_mins(5),
                cache_members: 10_000,
            },
            store_url: "sqlite::memory:".to_owned(),
        }
    }

    pub(crate) async fn start(self) -> Fixture {
        let upstream = DevUpstream::start(self.options).await.unwrap();
        let metrics = Arc::new(Metrics::new());
        let client = Client::new(&settings(&upstream), Arc::clone(&metrics)).unwrap();
        let client = Arc::new(client);
        let store = Store::open(&self.store_url, 2, Duration::from_secs(2));
        let store = Arc::new(store.await.unwrap());
        let authorization = Authorization::new(
            Arc::clone(&client),
            Arc::clone(&store),
            self.rules,
            Arc::clone(&metrics),
        );
        Fixture {
            upstream,
            client,
            store,
            authorization: Arc::new(authorization),
            metrics,
        }
    }
}

fn settings(upstream: &DevUpstream) -> config::Wukongim {
    let url = |text: String| text.parse::<config::HttpUrl>().unwrap();
    config::Wukongim {
        api_urls: vec![url(upstream.url())],
        version: None,
        manager_token: None,
        manager_url: upstream.manager_url().map(url),
        manager_username: Some("manager".to_owned()),
        manager_password: Some("secret".to_owned().into()),
        connect_timeout: Duration::from_secs(1),
        timeout: Duration::from_secs(2),
        confirm: config::Confirm::Stored,
        confirm_timeout: Duration::from_secs(1),
        idempotency_window: Duration::from_mins(1),
        idempotency_entries: 100,
        duplicate_check: config::DuplicateCheck::Memory,
        v2_payload_limit: None,
    }
}

impl Fixture {
    pub(crate) async fn members_v2() -> Self {
        Plan::new(Dialect::V2, Mode::Members).start().await
    }

    pub(crate) async fn new(dialect: Dialect, mode: Mode) -> Self {
        Plan::new(dialect, mode).start().await
    }

    /// A group with these members; the calls that made it are forgotten.
    pub(crate) async fn group(&self, id: &str, members: &[&str]) -> Channel {
        let group_id = group_id(id);
        let first = uid(members[0]);
        self.client.create_group(&group_id, &first).await.unwrap();
        let change = self
            .client
            .change_subscribers(MemberChange::Add, &group_id, members, None);
        change.await.unwrap();
        self.upstream.clear_calls();
        Channel::Group(group_id)
    }

    pub(crate) async fn remove(&self, id: &str, member: &str) {
        self.client
            .change_subscribers(MemberChange::Remove, &group_id(id), &[member], None)
            .await
            .unwrap();
    }

    pub(crate) async fn may_send(&self, who: &str, channel: &Channel) -> Result<(), Denial> {
        let may = self.authorization.may_send(&uid(who), None, channel).await;
        may.map(drop)
    }

    pub(crate) async fn may_read(&self, who: &str, channel: &Channel) -> Result<(), Denial> {
        let may = self.authorization.may_read(&uid(who), channel).await;
        may.map(drop)
    }

    /// The paths asked since the last time, sorted; without the probe for the generation.
    pub(crate) fn asked(&self) -> Vec<String> {
        let calls = self.upstream.calls();
        self.upstream.clear_calls();
        let mut paths: Vec<String> = calls
            .into_iter()
            .map(|call| call.path)
            .filter(|path| !path.starts_with("/health"))
            .collect();
        paths.sort();
        paths
    }

    /// How often `cache` was asked, as (hits, misses).
    pub(crate) fn looked_up(&self, cache: &str) -> (u64, u64) {
        let text = self.metrics.render();
        let count = |outcome: &str| {
            let line = format!("cache=\"{cache}\",outcome=\"{outcome}\"}} ");
            let found = text.lines().find_map(|text| text.split_once(&line));
            found.map_or(0, |(_, count)| count.parse().unwrap())
        };
        (count("hit"), count("miss"))
    }
}

pub(crate) fn uid(text: &str) -> Uid {
    Uid::parse(text, 255).unwrap()
}

pub(crate) fn group_id(text: &str) -> ChannelId {
    ChannelId::parse(text, 255).unwrap()
}

pub(crate) fn group(text: &str) -> Channel {
    Channel::Group(group_id(text))
}

pub(crate) fn person(text: &str) -> Channel {
    Channel::Person(uid(text))
}
