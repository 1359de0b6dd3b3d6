//! On how many nodes of a v2 cluster a message is stored.
//!
//! v2 shows a message as soon as the node that leads its channel has written it. What no other node has is lost with that one: the
//! others elect a leader without it, and it is cut off when its node comes back (source; seen for hundreds of messages that one
//! node alone had shown, for half a minute on end, and for none of 2,991 that two of three nodes had).

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

use super::nodes::Node;
use super::plan::Plan;
use super::transport::{Call, Transport};
use super::trip::on_node;
use super::{Client, Error, Generation, v2};
use crate::domain::MessageId;

/// For how long the cluster is believed to have the nodes it had.
const BELIEVED: Duration = Duration::from_secs(10);
/// How long one node may take to say whether it has a message.
const ANSWER: Duration = Duration::from_millis(500);
/// How long nothing may be heard before one more node is asked.
const SLOW: Duration = Duration::from_millis(50);
/// The largest answer: one message, and v2 takes larger ones than the gateway sends.
const MESSAGE_BYTES: usize = 4 * 1024 * 1024;

/// The nodes of a v2 cluster that keep messages, by the numbers it gives them; of one that does not tell, none.
#[derive(Default)]
pub(super) struct Cluster {
    nodes: Vec<u64>,
    /// On how many of them a message is safe.
    enough: usize,
    /// The numbers of the nodes that lead its slots, by the slots' numbers; 0 where none does.
    slot_leaders: Vec<u64>,
}

impl Cluster {
    /// Whether it has more than one node.
    pub(super) fn has_several(&self) -> bool {
        self.nodes.len() > 1
    }

    /// The node that leads the slot of this id; `None` where there is one node alone, or none leads.
    pub(super) fn slot_leader(&self, id: &str) -> Option<u64> {
        let slots = u32::try_from(self.slot_leaders.len()).ok()?;
        let slot = crc32fast::hash(id.as_bytes()).checked_rem(slots)?;
        let leader = self.slot_leaders[slot as usize];
        (leader != 0 && self.has_several()).then_some(leader)
    }
}

/// What is known of the cluster, and when it was last asked for.
pub(super) type Known = Mutex<Option<(Instant, Arc<Cluster>)>>;

impl Client {
    /// Whether a message that v2 shows in this place is on so many of its nodes that it outlives each of them: on more than half of those
    /// that keep its channel. A single node is enough for itself, and is asked nothing.
    ///
    /// # Errors
    /// Where the cluster does not say what nodes it has.
    pub async fn is_replicated(&self, id: MessageId, seq: u64) -> Result<bool, Error> {
        let cluster = self.cluster().await?;
        if cluster.enough <= 1 {
            return Ok(true);
        }
        let (count, first) = (cluster.nodes.len(), fastrand::usize(..cluster.nodes.len()));
        let places = (0..count).map(|place| (first + place) % count);
        let mut others = places.map(|place| self.has(cluster.nodes[place], id, seq));
        // No more than are needed: an answer that nobody waits for costs its connection.
        let mut asked: FuturesUnordered<_> = others.by_ref().take(cluster.enough).collect();
        let mut found = 0;
        loop {
            match timeout(SLOW, asked.next()).await {
                Ok(None) => return Ok(false),
                Ok(Some(true)) => found += 1,
                Ok(Some(false)) | Err(_) => asked.extend(others.next()),
            }
            if found == cluster.enough {
                return Ok(true);
            }
        }
    }

    /// Whether this node of the cluster has the message; whichever is asked passes the question on. The look that found the message
    /// comes again, so this is not repeated.
    async fn has(&self, member: u64, id: MessageId, seq: u64) -> bool {
        let asking = async {
            let plan = Plan {
                wanted: Some(Generation::V2),
                ..Plan::write("message_copy")
            };
            on_node!(self, plan, |node, _v2| has(
                &self.transport,
                node,
                member,
                id,
                seq
            ))
        };
        matches!(timeout(ANSWER, asking).await, Ok(Ok(true)))
    }

    pub(super) async fn cluster(&self) -> Result<Arc<Cluster>, Error> {
        let known = match &mut *self.cluster.lock() {
            Some((asked, cluster)) if asked.elapsed() < BELIEVED => return Ok(cluster.clone()),
            // Whoever comes first asks; the others go on with what is known.
            Some((asked, cluster)) => {
                *asked = Instant::now();
                Some(cluster.clone())
            }
            None => None,
        };
        let plan = Plan {
            wanted: Some(Generation::V2),
            ..Plan::read("cluster")
        };
        let answer = on_node!(self, plan, |node, _v2| nodes_of(&self.transport, node));
        // An old server, or one whose cluster calls are kept from the gateway: alone it can speak for itself.
        let alone = Error::Status(StatusCode::NOT_FOUND.as_u16());
        let answer = match answer {
            Err(error) if error == alone && self.nodes.is_one() => {
                self.warn_of_cluster(&error);
                Ok(Cluster::default())
            }
            Ok(cluster) => {
                self.cluster_warned.store(false, Relaxed);
                Ok(cluster)
            }
            Err(error) => Err(error),
        };
        match answer {
            Ok(cluster) => {
                let cluster = Arc::new(cluster);
                *self.cluster.lock() = Some((Instant::now(), cluster.clone()));
                Ok(cluster)
            }
            Err(error) => {
                self.warn_of_cluster(&error);
                known.ok_or(error)
            }
        }
    }

    /// Says once, until it is known again, why it is not known how many nodes must have a message.
    fn warn_of_cluster(&self, error: &Error) {
        if !self.cluster_warned.swap(true, Relaxed) {
            let alone = self.nodes.is_one() && *error == Error::Status(404);
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

/// `GET /cluster/info`, which the cluster's leader answers whichever node is asked.
async fn nodes_of(transport: &Transport, node: &Node) -> Result<Cluster, Error> {
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
        /// Not set for those that only pass on what others keep.
        #[serde(default)]
        allow_vote: bool,
    }
    let answer = transport
        .call(node, Call::get("cluster", "/cluster/info"))
        .await?;
    let info: Info = v2::data(&answer)?;
    let keep = info.nodes.into_iter().filter(|member| member.allow_vote);
    let nodes: Vec<u64> = keep.map(|member| member.id).collect();
    if nodes.is_empty() {
        return Err(Error::Decode(answer.call));
    }
    let mut slot_leaders = vec![0; info.slots.len()];
    for slot in info.slots {
        if let Some(leader) = slot_leaders.get_mut(slot.id) {
            *leader = slot.leader;
        }
    }
    Ok(Cluster {
        slot_leaders,
        enough: info.channel_replica_count.min(nodes.len()) / 2 + 1,
        nodes,
    })
}

/// `GET /cluster/messages`: one message from that node's own storage. By its id alone v2 finds whatever has taken its place since.
async fn has(
    transport: &Transport,
    node: &Node,
    member: u64,
    id: MessageId,
    seq: u64,
) -> Result<bool, Error> {
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
    let call = Call::get("message_copy", path).max_bytes(MESSAGE_BYTES);
    let answer = transport.call(node, call).await?;
    let found: Found<'_> = v2::data(&answer)?;
    let is_it = |row: &Row<'_>| row.message_id.parse() == Ok(id.0) && row.message_seq == seq;
    Ok(found.data.iter().any(is_it))
}
