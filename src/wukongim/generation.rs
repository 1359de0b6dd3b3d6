//! Which generation of WuKongIM this process uses, and whether each node is of it.
//!
//! It is settled once: by `wukongim.version`, else by most of the nodes that answer within [`SETTLE_WINDOW`] of the first; in a tie by the
//! first of them in `api_urls`. The two generations share no data, so a node of the other one is not used. Where all nodes became the other
//! one, only a new process can use them.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use http::StatusCode;
use serde::Deserialize;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::call::{Call, Eligibility, Node, Nodes, retry_once};
use super::{Client, Error, Generation};

/// How long the slower nodes are waited for after the first has told its generation.
const SETTLE_WINDOW: Duration = Duration::from_secs(2);
/// How long a failed probe is reused: while WuKongIM is down, there are at most four a second.
const FAILURE_TTL: Duration = Duration::from_millis(250);
/// A slower node counts as unhealthy, so that health reflects the state of two seconds ago at most.
const HEALTH_TIMEOUT: Duration = Duration::from_millis(900);
/// How long all nodes must have been of the other generation.
const REPLACED_AFTER: Duration = Duration::from_secs(30);
/// How often that is checked.
const REPLACED_INTERVAL: Duration = Duration::from_secs(2);

#[derive(Deserialize)]
struct Health {
    status: String,
}

impl Client {
    /// The generation in use; settles it where it is not.
    ///
    /// # Errors
    /// Where no node tells its generation.
    pub async fn generation(&self) -> Result<Generation, Error> {
        self.nodes.generation().await
    }

    /// The nodes of the other generation than the one in use, by name, and that one.
    pub fn other_nodes(&self) -> Vec<(Arc<str>, Generation)> {
        let nodes = self.nodes.all().iter();
        nodes
            .filter_map(|node| Some((Arc::clone(&node.name), node.other_generation()?)))
            .collect()
    }

    /// Returns when all nodes have been of the other generation than the one in use for half a minute.
    pub async fn replaced(&self) {
        self.replaced_for(REPLACED_AFTER, REPLACED_INTERVAL).await;
    }

    async fn replaced_for(&self, time: Duration, interval: Duration) {
        let nodes = self.nodes.all();
        let mut since = None;
        loop {
            sleep(interval).await;
            // Probes only where calls and health checks found the other generation: an unused gateway sends nothing.
            let mut is_replaced = nodes.iter().all(|node| node.other_generation().is_some());
            if is_replaced {
                let found = join_all(nodes.iter().map(Node::probe)).await;
                is_replaced = found.iter().all(Result::is_ok)
                    && nodes.iter().all(|node| node.other_generation().is_some());
            }
            let now = Instant::now();
            match since {
                _ if !is_replaced => since = None,
                None => since = Some(now),
                Some(since) if now - since >= time => return,
                Some(_) => {}
            }
        }
    }
}

impl Nodes {
    /// The generation in use; settles it where it is not. Concurrent callers share the probes.
    pub(super) async fn generation(self: &Arc<Self>) -> Result<Generation, Error> {
        match self.settled.get() {
            Some(generation) => Ok(*generation),
            None => {
                let settle = || settle(Arc::clone(self));
                let settling = self.settling.get(|_, age| age < FAILURE_TTL, settle);
                // Boxed because it is rare and would enlarge every call's future.
                Box::pin(settling).await
            }
        }
    }
}

async fn settle(nodes: Arc<Nodes>) -> Result<Generation, Error> {
    let probes = nodes.all().iter().enumerate();
    let mut probes: FuturesUnordered<_> = probes
        .map(async |(index, node)| (index, node.probe().await))
        .collect();
    let (mut found, mut failure, mut until) = (Vec::new(), Error::OtherGeneration, None::<Instant>);
    loop {
        let next = match until {
            None => probes.next().await,
            Some(until) => timeout_at(until, probes.next()).await.unwrap_or(None),
        };
        match next {
            None => break,
            Some((index, Ok(generation))) => {
                found.push((index, generation));
                until.get_or_insert_with(|| Instant::now() + SETTLE_WINDOW);
            }
            Some((_, Err(error))) => failure = failure.combine(error),
        }
    }
    let (_, first) = *found
        .iter()
        .min_by_key(|(index, _)| *index)
        .ok_or(failure)?;
    let others = found.iter().filter(|(_, generation)| *generation != first);
    let generation = match first {
        first if others.count() * 2 <= found.len() => first,
        Generation::V2 => Generation::V3,
        Generation::V3 => Generation::V2,
    };
    nodes.settle(generation);
    Ok(generation)
}

impl Node {
    /// The node's generation, which is the one in use where that is settled. Probes the node where it is not known.
    ///
    /// # Errors
    /// [`Error::OtherGeneration`] where the node is of the other one.
    pub(super) async fn check_generation(self: &Arc<Self>) -> Result<Generation, Error> {
        let used = self.settled.get().copied();
        let found = match (self.eligibility(), used) {
            (Eligibility::Usable, Some(used)) => return Ok(used),
            (Eligibility::Other, _) => return Err(Error::OtherGeneration),
            _ => self.probe().await?,
        };
        if used.is_none_or(|used| used == found) {
            Ok(found)
        } else {
            Err(Error::OtherGeneration)
        }
    }

    /// Probes the node for its generation. Concurrent callers share one probe, and for [`FAILURE_TTL`] its failure.
    pub(super) async fn probe(self: &Arc<Self>) -> Result<Generation, Error> {
        let probe = || {
            let node = Arc::clone(self);
            async move {
                node.record_probe();
                let found = match (retry_once(|| ask_generation(&node)).await, node.configured) {
                    // An answer that tells nothing, such as a proxy's, does not contradict the configuration.
                    (Err(Error::Status(_)), Some(configured)) => configured,
                    (found, _) => found?,
                };
                node.set_generation(found);
                Ok(found)
            }
        };
        let is_fresh = |outcome: &Result<_, _>, age| outcome.is_err() && age < FAILURE_TTL;
        self.probing.get(is_fresh, probe).await
    }

    /// Whether the node reports itself healthy within [`HEALTH_TIMEOUT`], by its generation's own endpoint.
    pub(super) async fn health(self: &Arc<Self>) -> Result<(), Error> {
        let health = timeout(HEALTH_TIMEOUT, ask_health(self)).await;
        let health = health.unwrap_or(Err(Error::Timeout));
        self.meters.up.set(health.is_ok().into());
        health
    }
}

/// v2 alone answers `/health` (500 when its cluster is unwell), v3 alone `/healthz`; seen on running servers.
async fn ask_generation(node: &Node) -> Result<Generation, Error> {
    let answer = node.call(Call::get("detect", "/health")).await?;
    match answer.status {
        StatusCode::OK | StatusCode::INTERNAL_SERVER_ERROR if answer.json::<Health>().is_ok() => {
            return Ok(Generation::V2);
        }
        StatusCode::NOT_FOUND => {}
        status => return Err(Error::Status(status.as_u16())),
    }
    let answer = node.call(Call::get("detect", "/healthz")).await?;
    match answer.status {
        StatusCode::OK if answer.json::<Health>().is_ok() => Ok(Generation::V3),
        status => Err(Error::Status(status.as_u16())),
    }
}

async fn ask_health(node: &Arc<Node>) -> Result<(), Error> {
    #[derive(Deserialize)]
    struct Ready {
        ready: bool,
    }
    let generation = node.check_generation().await?;
    let path = match generation {
        Generation::V2 => "/health",
        Generation::V3 => "/readyz",
    };
    let answer = node.call(Call::get("health", path)).await?;
    let is_healthy = match generation {
        Generation::V2 => answer.json().is_ok_and(|Health { status }| status == "ok"),
        Generation::V3 => answer.json().is_ok_and(|Ready { ready }| ready),
    };
    match answer.status {
        StatusCode::OK if is_healthy => return Ok(()),
        StatusCode::NOT_FOUND => {
            node.forget_generation();
            node.check_generation().await?;
        }
        _ => {}
    }
    Err(Error::Status(answer.status.as_u16()))
}
