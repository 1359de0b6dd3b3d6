//! Calls about WuKongIM itself and about users: health, version and connections, connect addresses, bans.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;

use super::call::{Node, Nodes, Policy, retry_once};
use super::dialect::{v2, v3};
use super::{Client, Error, Generation, Record, RouteInfo, SystemInfo};
use crate::domain::{ChannelId, ChannelType, Uid};

/// How long an answer of all nodes is reused, counted from the start of the query: at most one query a second.
const ANSWER_TTL: Duration = Duration::from_secs(1);
impl Client {
    /// Succeeds when any node is healthy. All callers share one query a second; a failure is known within a second.
    pub async fn health(&self) -> Result<(), Error> {
        let fetch = || any_healthy(Arc::clone(&self.nodes));
        self.health.get(|_, age| age < ANSWER_TTL, fetch).await
    }

    /// Probes every node and waits for all, which updates `gateway_upstream_up`.
    pub async fn probe_all(&self) {
        join_all(self.nodes.all().iter().map(Node::health)).await;
    }

    /// Version, uptime and connections over all nodes that answer; an error when none does. Queried at most once a second.
    pub async fn system_info(&self) -> Result<SystemInfo, Error> {
        let fetch = || aggregate_info(Arc::clone(&self.nodes));
        self.system.get(|_, age| age < ANSWER_TTL, fetch).await
    }

    /// Whether the user is banned, by the user's own record: a group's record with the same key does not count. v3 has no user bans.
    pub async fn user_is_banned(&self, uid: &Uid) -> Result<bool, Error> {
        let record = self.user_record(uid).await?;
        Ok(record.is_some_and(|record| record.id == uid.as_str() && record.banned))
    }

    /// The record that v2 uses for the user: the user's own, or another channel's with the same key. `None` where there is none, and on v3,
    /// which has no records.
    pub async fn user_record(&self, uid: &Uid) -> Result<Option<Record>, Error> {
        self.record(ChannelType::Person, uid.as_str()).await
    }

    /// The record under the group's key, as in [`Self::user_record`].
    pub async fn group_record(&self, group: &ChannelId) -> Result<Option<Record>, Error> {
        self.record(ChannelType::Group, group.as_str()).await
    }

    async fn record(&self, channel_type: ChannelType, id: &str) -> Result<Option<Record>, Error> {
        if self.generation().await? == Generation::V3 {
            return Ok(None);
        }
        let record = self.on_node(Policy::read("channel_state"), |node| {
            v2::record(node, channel_type, id)
        });
        record.await
    }

    /// The addresses for `uid` to connect to.
    pub async fn route(&self, uid: &Uid) -> Result<RouteInfo, Error> {
        let route = self.on_node(Policy::read("route"), |node| v2::route(node, uid.as_str()));
        route.await
    }
}

async fn any_healthy(nodes: Arc<Nodes>) -> Result<(), Error> {
    let probes = nodes.all().iter();
    let mut probes: FuturesUnordered<_> = probes.map(|node| retry_once(|| node.health())).collect();
    let mut failure = Error::OtherGeneration;
    while let Some(health) = probes.next().await {
        match health {
            Ok(()) => return Ok(()),
            Err(error) => failure = failure.combine(error),
        }
    }
    Err(failure)
}

async fn aggregate_info(nodes: Arc<Nodes>) -> Result<SystemInfo, Error> {
    let asked = nodes
        .all()
        .iter()
        .map(|node| retry_once(|| node_info(node)));
    let mut total: Option<SystemInfo> = None;
    let mut failure = Error::OtherGeneration;
    for result in join_all(asked).await {
        match (result, &mut total) {
            (Ok(info), None) => total = Some(info),
            (Ok(info), Some(sum)) => {
                sum.connections += info.connections;
                sum.uptime_s = sum.uptime_s.max(info.uptime_s);
                sum.version = sum.version.take().or(info.version);
            }
            (Err(error), _) => failure = failure.combine(error),
        }
    }
    total.ok_or(failure)
}

async fn node_info(node: &Arc<Node>) -> Result<SystemInfo, Error> {
    match node.check_generation().await? {
        Generation::V2 => v2::system_info(node).await,
        Generation::V3 => v3::system_info(node).await,
    }
}
