//! The calls about WuKongIM itself and about users: is it well, what is it, where to connect, tokens and bans.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;

use super::client::Client;
use super::detect::{self, generation_of};
use super::nodes::{Node, Nodes};
use super::plan::Plan;
use super::transport::{Transport, once_more};
use super::trip::on_node;
use super::{Error, Generation, Record, RouteInfo, SystemInfo, v2, v3};
use crate::domain::{ChannelId, ChannelType, Uid};

/// For how long what was asked of all nodes is believed, counted from the asking: one round a second at most.
const HOLDS: Duration = Duration::from_secs(1);
impl Client {
    /// Whether any node is well. Asked at most once a second, however many want to know; a "no" comes within a second.
    pub async fn health(&self) -> Result<(), Error> {
        let ask = || is_any_well(Arc::clone(&self.transport), Arc::clone(&self.nodes));
        self.health.get(|_, age| age < HOLDS, ask).await
    }

    /// Looks at every node, and waits for all of them: `gateway_upstream_up` then says how each one is.
    pub async fn look_at_all(&self) {
        let looks = self.nodes.all().iter();
        let looks = looks.map(|node| detect::health(&self.transport, node));
        futures_util::future::join_all(looks).await;
    }

    /// Version, uptime and connections over all nodes that answer; an error when none does. Asked at most once a second.
    pub async fn system_info(&self) -> Result<SystemInfo, Error> {
        let ask = || sum_of_all(Arc::clone(&self.transport), Arc::clone(&self.nodes));
        self.system.get(|_, age| age < HOLDS, ask).await
    }

    /// Whether the user is banned: by a record of his own, since a group's record with an equal key says nothing of him. v3 knows no
    /// such thing and bans nobody.
    pub async fn user_is_banned(&self, uid: &Uid) -> Result<bool, Error> {
        let record = self.user_record(uid).await?;
        Ok(record.is_some_and(|record| record.id == uid.as_str() && record.banned))
    }

    /// The record that v2 goes by where it is asked about the user: his own, or that of whatever else has an equal key. `None` where
    /// nothing lies there, and on v3, which keeps none.
    pub async fn user_record(&self, uid: &Uid) -> Result<Option<Record>, Error> {
        self.record(ChannelType::Person, uid.as_str()).await
    }

    /// The record under the group's key, as in [`Self::user_record`].
    pub async fn group_record(&self, group: &ChannelId) -> Result<Option<Record>, Error> {
        self.record(ChannelType::Group, group.as_str()).await
    }

    async fn record(&self, channel_type: ChannelType, id: &str) -> Result<Option<Record>, Error> {
        on_node!(
            self,
            Plan::read("channel_state"),
            |node, generation| async {
                match generation {
                    Generation::V2 => v2::record(&self.transport, node, channel_type, id).await,
                    Generation::V3 => Ok(None),
                }
            }
        )
    }

    /// The addresses for `uid` to connect to.
    pub async fn route(&self, uid: &Uid) -> Result<RouteInfo, Error> {
        on_node!(self, Plan::read("route"), |node, _generation| v2::route(
            &self.transport,
            node,
            uid
        ))
    }
}

async fn is_any_well(transport: Arc<Transport>, nodes: Arc<Nodes>) -> Result<(), Error> {
    let probes = nodes.all().iter();
    let mut probes: FuturesUnordered<_> = probes
        .map(|node| once_more(|| detect::health(&transport, node)))
        .collect();
    let mut failure = Error::Connect;
    while let Some(health) = probes.next().await {
        match health {
            Ok(()) => return Ok(()),
            // One that refuses the gateway itself tells more than those that do not answer.
            Err(error) if failure != Error::Credentials => failure = error,
            Err(_) => {}
        }
    }
    Err(failure)
}

async fn sum_of_all(transport: Arc<Transport>, nodes: Arc<Nodes>) -> Result<SystemInfo, Error> {
    let asked = nodes
        .all()
        .iter()
        .map(|node| once_more(|| info_of(&transport, node)));
    let mut whole: Option<SystemInfo> = None;
    let mut failure = Error::Connect;
    for result in futures_util::future::join_all(asked).await {
        match (result, &mut whole) {
            (Ok(info), None) => whole = Some(info),
            (Ok(info), Some(sum)) => {
                sum.connections += info.connections;
                sum.uptime_s = sum.uptime_s.max(info.uptime_s);
                sum.version = sum.version.take().or(info.version);
            }
            (Err(error), _) => failure = error,
        }
    }
    whole.ok_or(failure)
}

async fn info_of(transport: &Transport, node: &Node) -> Result<SystemInfo, Error> {
    match generation_of(transport, node).await? {
        Generation::V2 => v2::system_info(transport, node).await,
        Generation::V3 => v3::system_info(transport, node).await,
    }
}
