//! The configured WuKongIM nodes: the state of each, and which one a call goes to.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use url::Url;

use super::ejection::Ejection;
use super::load::{Load, now_us};
use super::retry_budget::RetryBudget;
use super::{Error, Generation};
use crate::telemetry::{Metrics, NodeMeters};

/// How long a node counts as v3 without a successful answer. v2 permits what v3 would check, and no server restarts within this time, so a
/// v2 that replaced a v3 is detected before it gets a call.
const GENERATION_TTL: Duration = Duration::from_secs(2);
/// How often a node that is not of the active generation is probed.
const STANDBY_PROBE_INTERVAL: Duration = Duration::from_secs(5);
/// How long a v2 counts as limited to small payloads; then it is checked again, which finds an upgrade that no call noticed.
const SMALL_FOR: Duration = Duration::from_mins(1);

/// Paths without ids; their URLs are built once.
const PATHS: [&str; 8] = [
    "/message/send",
    "/channel/messagesync",
    "/user/token",
    "/channel/subscriber_add",
    "/channel/subscriber_remove",
    "/channel",
    "/health",
    "/healthz",
];

/// One WuKongIM node.
pub(super) struct Node {
    /// `n1`, `n2`, … by its position in `wukongim.api_urls`: the only name of the node that leaves the process.
    pub(super) name: Arc<str>,
    base: Url,
    urls: [(&'static str, Url); PATHS.len()],
    /// 0 unknown, 2 or 3.
    generation: AtomicU8,
    /// Payload support of a v2 node: 0 unknown, 1 large payloads, else the time in microseconds since which it is known to accept only
    /// small ones.
    accepts: AtomicU64,
    /// Whether the last log entry said that it accepts only small payloads.
    is_limited: AtomicBool,
    /// The generation is configured, and is never probed again.
    fixed: bool,
    /// When it last answered with a success, in microseconds.
    last_success_us: AtomicU64,
    /// When its generation was last probed in the background.
    last_probe_us: AtomicU64,
    /// Whether such a probe is running.
    pub(super) is_probing: AtomicBool,
    pub(super) load: Load,
    pub(super) ejection: Ejection,
    pub(super) meters: NodeMeters,
    /// One detection at a time.
    pub(super) detecting: tokio::sync::Mutex<Option<(Instant, Error)>>,
}

impl Node {
    fn new(index: usize, base: Url, fixed: Option<Generation>, metrics: &Metrics) -> Self {
        let name: Arc<str> = format!("n{}", index + 1).into();
        let meters = metrics.node(&name);
        Self {
            name,
            urls: PATHS.map(|path| (path, join_url(&base, path).unwrap_or_else(|| base.clone()))),
            base,
            generation: AtomicU8::new(generation_code(fixed)),
            accepts: AtomicU64::new(0),
            is_limited: AtomicBool::new(false),
            fixed: fixed.is_some(),
            last_success_us: AtomicU64::new(now_us()),
            last_probe_us: AtomicU64::new(0),
            is_probing: AtomicBool::new(false),
            load: Load::default(),
            ejection: Ejection::new(meters.ejections.clone(), meters.ejected.clone()),
            meters,
            detecting: tokio::sync::Mutex::new(None),
        }
    }

    /// The URL of `path_and_query` on this node.
    pub(super) fn url(&self, path_and_query: &str) -> Result<Url, Error> {
        match self.urls.iter().find(|(path, _)| *path == path_and_query) {
            Some((_, url)) => Ok(url.clone()),
            // Ids are percent-encoded before, and `.` and `..` are not valid ids, so joining cannot leave the base path.
            None => join_url(&self.base, path_and_query).ok_or(Error::Decode("url")),
        }
    }

    /// The generation, once known.
    pub(super) fn generation(&self) -> Option<Generation> {
        let age_us = || now_us().saturating_sub(self.last_success_us.load(Relaxed));
        match self.generation.load(Relaxed) {
            2 => Some(Generation::V2),
            3 if self.fixed || u128::from(age_us()) < GENERATION_TTL.as_micros() => {
                Some(Generation::V3)
            }
            _ => None,
        }
    }

    /// The node has answered: its generation is confirmed.
    pub(super) fn refresh_generation(&self) {
        self.last_success_us.store(now_us(), Relaxed);
    }

    /// Stores the generation; true where it changed.
    pub(super) fn set_generation(&self, generation: Generation) -> bool {
        let number = generation_code(Some(generation));
        self.generation.swap(number, Relaxed) != number
    }

    /// Another generation may run at this address now: probe it before the next call.
    pub(super) fn forget_generation(&self) {
        self.forget_release();
        if !self.fixed {
            self.generation.store(0, Relaxed);
        }
    }

    /// Forgets the payload support: another v2 may answer at this address from now on.
    pub(super) fn forget_release(&self) {
        self.accepts.store(0, Relaxed);
    }

    /// Whether the v2 node accepts large payloads, if known.
    pub(super) fn accepts_large_payloads(&self) -> Option<bool> {
        match self.accepts.load(Relaxed) {
            0 => None,
            1 => Some(true),
            since => {
                let age_us = now_us().saturating_sub(since);
                (u128::from(age_us) < SMALL_FOR.as_micros()).then_some(false)
            }
        }
    }

    /// Stores it; returns whether the change is worth a log entry.
    pub(super) fn set_accepts_large_payloads(&self, accepts: bool) -> bool {
        let number = if accepts { 1 } else { now_us().max(2) };
        self.accepts.store(number, Relaxed);
        self.is_limited.swap(!accepts, Relaxed) == accepts
    }

    /// Whether its generation should be probed in the background: it is unknown, or not the active one.
    fn needs_probe(&self, active_generation: u8, now: u64) -> bool {
        let generation = self.generation.load(Relaxed);
        generation == 0
            || (generation != active_generation
                && !self.fixed
                && u128::from(now.saturating_sub(self.last_probe_us.load(Relaxed)))
                    >= STANDBY_PROBE_INTERVAL.as_micros())
    }
}

fn generation_code(generation: Option<Generation>) -> u8 {
    match generation {
        None => 0,
        Some(Generation::V2) => 2,
        Some(Generation::V3) => 3,
    }
}

fn join_url(base: &Url, path_and_query: &str) -> Option<Url> {
    base.join(path_and_query.trim_start_matches('/')).ok()
}

/// All configured nodes, at least one.
///
/// Nodes of different generations share no data, so the gateway uses one generation at a time: that of the first node that answered, and
/// the other one when no node of it is left.
pub(super) struct Nodes {
    all: Vec<Arc<Node>>,
    /// The active generation; 0 before the first answer.
    active_generation: AtomicU8,
    pub(super) budget: RetryBudget,
}

/// The node to try next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Choice {
    pub(super) index: usize,
    /// Whether it is ejected, and chosen only because no better node is left.
    pub(super) ejected: bool,
}

impl Choice {
    pub(super) fn available(index: usize) -> Self {
        let ejected = false;
        Self { index, ejected }
    }
}

impl Nodes {
    pub(super) fn new(urls: &[Url], fixed: Option<Generation>, metrics: &Metrics) -> Self {
        let nodes = urls.iter().enumerate().map(|(index, url)| {
            let mut base = url.clone();
            if !base.path().ends_with('/') {
                let path = format!("{}/", base.path());
                base.set_path(&path);
            }
            Arc::new(Node::new(index, base, fixed, metrics))
        });
        Self {
            all: nodes.collect(),
            active_generation: AtomicU8::new(0),
            budget: RetryBudget::new(),
        }
    }

    pub(super) fn all(&self) -> &[Arc<Node>] {
        &self.all
    }

    /// Whether only one node is configured. A single node is never ejected.
    pub(super) fn is_single(&self) -> bool {
        self.all.len() == 1
    }

    /// The active generation.
    pub(super) fn active_generation(&self) -> Option<Generation> {
        match self.active_generation.load(Relaxed) {
            2 => Some(Generation::V2),
            3 => Some(Generation::V3),
            _ => None,
        }
    }

    /// Makes this the active generation; true where another one was active before.
    pub(super) fn activate(&self, generation: Generation) -> bool {
        let number = generation_code(Some(generation));
        // Read first: a write would invalidate the other cores' cache line.
        self.active_generation.load(Relaxed) != number
            && self.active_generation.swap(number, Relaxed) != 0
    }

    /// Ejects the nodes that failed too often, and returns them with the ids of their ejections.
    pub(super) fn newly_ejected(&self) -> impl Iterator<Item = (&Arc<Node>, u64)> {
        let several = self.all.iter().filter(|_| !self.is_single());
        several.filter_map(|node| Some((node, node.ejection.eject_if_due()?)))
    }

    /// The nodes whose generation is to be probed in the background; marks them as being probed. Empty before the first answer, so that an
    /// unused gateway sends nothing.
    pub(super) fn due_for_probe(&self) -> impl Iterator<Item = &Arc<Node>> {
        let (active_generation, now) = (self.active_generation.load(Relaxed), now_us());
        let several = self
            .all
            .iter()
            .filter(move |_| !self.is_single() && active_generation != 0);
        several.filter(move |node| {
            let is_due = node.needs_probe(active_generation, now)
                && !node.ejection.is_ejected()
                && !node.is_probing.swap(true, Relaxed);
            if is_due {
                node.last_probe_us.store(now, Relaxed);
            }
            is_due
        })
    }

    /// The node to try next, not one in `tried`: of the generation `required`, or of the active one where that is `None`.
    ///
    /// Order of preference: the cheaper of two random nodes of that generation; the first one of unknown generation; the ejected one with
    /// the fewest failures; where any generation will do, a node of the other one.
    pub(super) fn choose(&self, required: Option<Generation>, tried: &[usize]) -> Option<Choice> {
        if self.is_single() {
            let node = &self.all[0];
            let fits = required.is_none_or(|_| {
                node.has_generation(generation_code(required)) || node.has_generation(0)
            });
            let is_free = tried.is_empty() && fits && !node.load.is_full();
            return is_free.then_some(Choice::available(0));
        }
        let target = match required {
            None => self.active_generation.load(Relaxed),
            Some(_) => generation_code(required),
        };
        let available = self
            .better_of_two(tried, |node| target != 0 && node.has_generation(target))
            .or_else(|| self.first(tried, |node| node.has_generation(0)));
        let ejected = |index| Choice {
            index,
            ejected: true,
        };
        let any = |_: &Node| required.is_none();
        available
            .map(Choice::available)
            // An ejected node may only have been slow, which is no reason to switch the generation.
            .or_else(|| {
                let index = self.least_failed(tried, |node| {
                    node.has_generation(target) || node.has_generation(0)
                });
                index.map(ejected)
            })
            .or_else(|| self.better_of_two(tried, any).map(Choice::available))
            .or_else(|| self.least_failed(tried, any).map(ejected))
    }

    /// Whether a node other than `index` and those in `tried` is available for such a call.
    pub(super) fn has_another(
        &self,
        index: usize,
        generation: Generation,
        tried: &[usize],
    ) -> bool {
        let target = generation_code(Some(generation));
        self.available(tried, |node| {
            node.has_generation(target) || node.has_generation(0)
        })
        .any(|other| other != index)
    }

    /// Whether a node was skipped only because it is at its limit of concurrent calls.
    pub(super) fn is_full(&self, tried: &[usize]) -> bool {
        let mut nodes = self.all.iter().enumerate();
        nodes.any(|(index, node)| !tried.contains(&index) && node.load.is_full())
    }

    /// Whether this node is neither ejected nor at its limit.
    pub(super) fn is_available(&self, index: usize) -> bool {
        let node = &self.all[index];
        !node.ejection.is_ejected() && !node.load.is_full()
    }

    fn available(
        &self,
        tried: &[usize],
        fits: impl Fn(&Node) -> bool,
    ) -> impl Iterator<Item = usize> {
        (0..self.all.len()).filter(move |index| {
            !tried.contains(index) && self.is_available(*index) && fits(&self.all[*index])
        })
    }

    fn first(&self, tried: &[usize], fits: impl Fn(&Node) -> bool) -> Option<usize> {
        self.available(tried, fits).next()
    }

    fn better_of_two(&self, tried: &[usize], fits: impl Fn(&Node) -> bool) -> Option<usize> {
        let count = self.available(tried, &fits).count();
        if count < 2 {
            return self.first(tried, fits);
        }
        let one = fastrand::usize(..count);
        let other = (one + fastrand::usize(1..count)) % count;
        let now = now_us();
        // Nodes may become unavailable in between and shorten the list: then the one that is left is taken.
        let mut indices = self.available(tried, fits);
        let first = indices.nth(one.min(other));
        let second = indices.nth(one.abs_diff(other) - 1);
        match (first, second) {
            (Some(a), Some(b)) => {
                let (cost_a, cost_b) = (self.all[a].load.cost(now), self.all[b].load.cost(now));
                let b_is_better = cost_b < cost_a || (cost_a == cost_b && other < one);
                Some(if b_is_better { b } else { a })
            }
            (first, _) => first,
        }
    }

    fn least_failed(&self, tried: &[usize], fits: impl Fn(&Node) -> bool) -> Option<usize> {
        let now = now_us();
        (0..self.all.len())
            .filter(|index| {
                let node = &self.all[*index];
                !tried.contains(index) && !node.load.is_full() && fits(node)
            })
            .min_by_key(|index| {
                let node = &self.all[*index];
                (node.ejection.backoff_steps(), node.load.cost(now))
            })
    }
}

impl Node {
    pub(super) fn export_generation(&self) {
        let number = self.generation.load(Relaxed);
        self.meters.generation.set(number.into());
    }

    fn has_generation(&self, number: u8) -> bool {
        self.generation.load(Relaxed) == number
    }
}

#[cfg(test)]
pub(super) mod tests;
