//! On how many nodes of a v2 cluster a message is stored.
//!
//! v2 shows a message as soon as the channel's leader has written it. If only the leader has it and fails, the others elect a leader
//! without it, and the message is truncated when the old leader returns (source; seen for hundreds of messages that only one node had
//! shown, for up to half a minute, and for none of 2,991 that two of three nodes had).

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use http::StatusCode;
use parking_lot::Mutex;
use serde::Deserialize;
use tokio::time::timeout;

use super::call::{Call, Node, Policy};
use super::dialect::v2;
use super::{Client, Error};
use crate::domain::MessageId;

/// How long the cluster's list of nodes is reused.
const TOPOLOGY_TTL: Duration = Duration::from_secs(10);
/// How long one node may take to answer whether it has a message.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(500);
/// After this time without an answer one more node is queried.
const HEDGE_AFTER: Duration = Duration::from_millis(50);
/// Limit of the answer: one message, and v2 accepts larger ones than the gateway sends.
const MAX_MESSAGE_BYTES: usize = 4 * 1024 * 1024;

/// The ids of the nodes of a v2 cluster that store messages; empty for a cluster that does not report them.
#[derive(Default)]
pub(super) struct Topology {
    nodes: Vec<u64>,
    /// The number of nodes that must have a message.
    quorum: usize,
    /// The leader's node id of each slot, by slot number; 0 for none.
    slot_leaders: Vec<u64>,
}

impl Topology {
    /// Whether it has more than one node.
    pub(super) fn is_multi_node(&self) -> bool {
        self.nodes.len() > 1
    }

    /// Whether so many of its nodes have, together, each message that is stored.
    pub(super) fn has_all_messages(&self, nodes: usize) -> bool {
        self.nodes.len().saturating_sub(nodes) < self.quorum
    }

    /// The leader of this id's slot; `None` for a single node or a slot without leader.
    pub(super) fn slot_leader(&self, id: &str) -> Option<u64> {
        let slots = u32::try_from(self.slot_leaders.len()).ok()?;
        let slot = crc32fast::hash(id.as_bytes()).checked_rem(slots)?;
        let leader = self.slot_leaders[slot as usize];
        (leader != 0 && self.is_multi_node()).then_some(leader)
    }
}

/// The topology, and when it was last fetched.
pub(super) type TopologyCache = Mutex<Option<(Instant, Arc<Topology>)>>;

impl Client {
    /// Whether more than half of the channel's replicas have this message, so that it survives the loss of any one node. A single node is
    /// its own quorum and is not queried.
    ///
    /// # Errors
    /// When the cluster's topology cannot be fetched.
    pub async fn is_replicated(&self, id: MessageId, seq: u64) -> Result<bool, Error> {
        let topology = self.topology().await?;
        if topology.quorum <= 1 {
            return Ok(true);
        }
        let (count, first) = (
            topology.nodes.len(),
            fastrand::usize(..topology.nodes.len()),
        );
        let indices = (0..count).map(|index| (first + index) % count);
        let mut queries =
            indices.map(|index| self.node_has_message(topology.nodes[index], id, seq));
        // Query no more nodes than needed: dropping an unfinished call costs its connection.
        let mut asked: FuturesUnordered<_> = queries.by_ref().take(topology.quorum).collect();
        let mut found = 0;
        loop {
            match timeout(HEDGE_AFTER, asked.next()).await {
                Ok(None) => return Ok(false),
                Ok(Some(true)) => found += 1,
                Ok(Some(false)) | Err(_) => asked.extend(queries.next()),
            }
            if found == topology.quorum {
                return Ok(true);
            }
        }
    }

    /// Whether this member of the cluster has the message; any node forwards the query to it. Not retried: the poll that found the message
    /// runs again anyway.
    async fn node_has_message(&self, member: u64, id: MessageId, seq: u64) -> bool {
        let query = self.on_node(Policy::write("message_copy"), |node| {
            query_message(node, member, id, seq)
        });
        matches!(timeout(ANSWER_TIMEOUT, query).await, Ok(Ok(true)))
    }

    pub(super) async fn topology(&self) -> Result<Arc<Topology>, Error> {
        let cached = match &mut *self.topology.lock() {
            Some((asked, topology)) if asked.elapsed() < TOPOLOGY_TTL => {
                return Ok(topology.clone());
            }
            // The first caller refreshes the topology; the others use the cached one meanwhile.
            Some((asked, topology)) => {
                *asked = Instant::now();
                Some(topology.clone())
            }
            None => None,
        };
        let answer = self.on_node(Policy::read("cluster"), |node| fetch_topology(node));
        let answer = answer.await;
        // An old server, or one whose cluster endpoints are blocked for the gateway: a single node needs no others.
        let alone = Error::Status(StatusCode::NOT_FOUND.as_u16());
        let answer = match answer {
            Err(error) if error == alone && self.nodes.is_single() => {
                self.warn_unknown_cluster(&error);
                Ok(Topology::default())
            }
            Ok(topology) => {
                self.cluster_warned.store(false, Relaxed);
                Ok(topology)
            }
            Err(error) => Err(error),
        };
        match answer {
            Ok(topology) => {
                let topology = Arc::new(topology);
                *self.topology.lock() = Some((Instant::now(), topology.clone()));
                Ok(topology)
            }
            Err(error) => {
                self.warn_unknown_cluster(&error);
                cached.ok_or(error)
            }
        }
    }

    /// Warns once, until it is known again, that the number of voters is unknown.
    fn warn_unknown_cluster(&self, error: &Error) {
        if !self.cluster_warned.swap(true, Relaxed) {
            let alone = self.nodes.is_single() && *error == Error::Status(404);
            tracing::warn!(
                %error,
                "wukongim does not tell its nodes (/cluster/info): {}",
                if alone {
                    "what this one shows counts as stored"
                } else {
                    "no message sent to a v2 is seen stored until it does"
                }
            );
        }
    }
}

/// `GET /cluster/info`; every node forwards it to the cluster's leader.
async fn fetch_topology(node: &Node) -> Result<Topology, Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Info {
        channel_replica_count: usize,
        nodes: Vec<Member>,
        #[serde(default)]
        slots: Vec<Slot>,
    }
    /// A zero is left out.
    #[derive(Deserialize)]
    struct Slot {
        #[serde(default)]
        id: usize,
        #[serde(default)]
        leader: u64,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Member {
        id: u64,
        /// False for nodes that only proxy and store nothing.
        #[serde(default)]
        allow_vote: bool,
    }
    let answer = node.call(Call::get("cluster", "/cluster/info")).await?;
    let info: Info = v2::data(&answer)?;
    let voters = info.nodes.into_iter().filter(|member| member.allow_vote);
    let nodes: Vec<u64> = voters.map(|member| member.id).collect();
    if nodes.is_empty() {
        return Err(Error::Decode(answer.call));
    }
    let mut slot_leaders = vec![0; info.slots.len()];
    for slot in info.slots {
        if let Some(leader) = slot_leaders.get_mut(slot.id) {
            *leader = slot.leader;
        }
    }
    Ok(Topology {
        slot_leaders,
        quorum: info.channel_replica_count.min(nodes.len()) / 2 + 1,
        nodes,
    })
}

/// `GET /cluster/messages`: one message from that node's own storage. Id and seq must both match, since another message may have been
/// written at this position since.
async fn query_message(node: &Node, member: u64, id: MessageId, seq: u64) -> Result<bool, Error> {
    #[derive(Deserialize)]
    struct Found<'a> {
        #[serde(borrow)]
        data: Vec<Row<'a>>,
    }
    #[derive(Deserialize)]
    struct Row<'a> {
        #[serde(borrow)]
        message_id: Cow<'a, str>,
        message_seq: u64,
    }
    let path = format!("/cluster/messages?node_id={member}&message_id={}", id.0);
    let call = Call::get("message_copy", path).max_bytes(MAX_MESSAGE_BYTES);
    let answer = node.call(call).await?;
    let found: Found<'_> = v2::data(&answer)?;
    let is_it = |row: &Row<'_>| row.message_id.parse() == Ok(id.0) && row.message_seq == seq;
    Ok(found.data.iter().any(is_it))
}
