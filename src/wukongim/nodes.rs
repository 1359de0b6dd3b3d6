//! The configured WuKongIM nodes: what is known of each, and which one a call goes to.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use url::Url;

use super::budget::Budget;
use super::load::{Load, now_us};
use super::rest::Rest;
use super::{Error, Generation};
use crate::telemetry::{Metrics, NodeMeters};

/// For how long a silent node is believed to be v3 still. What v3 checks by itself v2 lets pass, and no server starts in so short a
/// time: a v2 that took its place meanwhile is found out before it is asked for anything.
const STILL_V3: Duration = Duration::from_secs(2);
/// How often a node of the generation that is not spoken to at present is asked what it is.
const OTHERS_ARE_ASKED: Duration = Duration::from_secs(5);
/// For how long a v2 is believed to bear small payloads alone: an upgrade of which no call noticed anything is found out then.
const SMALL_FOR: Duration = Duration::from_mins(1);

/// The paths that need no id: their addresses are made once.
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
    /// `n1`, `n2`, … by its place in `wukongim.api_urls`: the only name of it that leaves the process.
    pub(super) name: Arc<str>,
    base: Url,
    urls: [(&'static str, Url); PATHS.len()],
    /// 0 unknown, 2 or 3.
    generation: AtomicU8,
    /// What a v2 there bears: 0 unknown, 1 large payloads, else since when, in microseconds, it is known to bear small ones alone.
    bears: AtomicU64,
    /// Whether it was last said to bear small payloads alone.
    is_limited: AtomicBool,
    /// Set where the configuration names the generation: it is never forgotten.
    fixed: bool,
    /// When it last answered with a success, in microseconds.
    heard_us: AtomicU64,
    /// When it was last asked in the background what it is.
    asked_us: AtomicU64,
    /// Whether it is being asked so.
    pub(super) is_asked: AtomicBool,
    pub(super) load: Load,
    pub(super) rest: Rest,
    pub(super) meters: NodeMeters,
    /// One detection at a time.
    pub(super) detecting: tokio::sync::Mutex<Option<(Instant, Error)>>,
}

impl Node {
    fn new(place: usize, base: Url, fixed: Option<Generation>, metrics: &Metrics) -> Self {
        let name: Arc<str> = format!("n{}", place + 1).into();
        let meters = metrics.node(&name);
        Self {
            name,
            urls: PATHS.map(|path| (path, joined(&base, path).unwrap_or_else(|| base.clone()))),
            base,
            generation: AtomicU8::new(number(fixed)),
            bears: AtomicU64::new(0),
            is_limited: AtomicBool::new(false),
            fixed: fixed.is_some(),
            heard_us: AtomicU64::new(now_us()),
            asked_us: AtomicU64::new(0),
            is_asked: AtomicBool::new(false),
            load: Load::default(),
            rest: Rest::new(meters.ejections.clone(), meters.ejected.clone()),
            meters,
            detecting: tokio::sync::Mutex::new(None),
        }
    }

    /// The address of `path_and_query` on this node.
    pub(super) fn url(&self, path_and_query: &str) -> Result<Url, Error> {
        match self.urls.iter().find(|(path, _)| *path == path_and_query) {
            Some((_, url)) => Ok(url.clone()),
            // Ids are percent-encoded before they come here and `.`/`..` are no ids, so joining cannot leave the base.
            None => joined(&self.base, path_and_query).ok_or(Error::Decode("url")),
        }
    }

    /// The generation, once known.
    pub(super) fn generation(&self) -> Option<Generation> {
        let silent_us = || now_us().saturating_sub(self.heard_us.load(Relaxed));
        match self.generation.load(Relaxed) {
            2 => Some(Generation::V2),
            3 if self.fixed || u128::from(silent_us()) < STILL_V3.as_micros() => {
                Some(Generation::V3)
            }
            _ => None,
        }
    }

    /// The node has answered.
    pub(super) fn heard(&self) {
        self.heard_us.store(now_us(), Relaxed);
    }

    /// Notes the generation; true where it is news.
    pub(super) fn set_generation(&self, generation: Generation) -> bool {
        let number = number(Some(generation));
        self.generation.swap(number, Relaxed) != number
    }

    /// Another WuKongIM may answer at this address from now on: ask it again before the next call.
    pub(super) fn forget_generation(&self) {
        self.forget_release();
        if !self.fixed {
            self.generation.store(0, Relaxed);
        }
    }

    /// Another v2 may answer at this address from now on.
    pub(super) fn forget_release(&self) {
        self.bears.store(0, Relaxed);
    }

    /// Whether the v2 there takes large payloads, where that is known.
    pub(super) fn bears_large(&self) -> Option<bool> {
        match self.bears.load(Relaxed) {
            0 => None,
            1 => Some(true),
            since => {
                let age_us = now_us().saturating_sub(since);
                (u128::from(age_us) < SMALL_FOR.as_micros()).then_some(false)
            }
        }
    }

    /// Notes it; true where it is news to whoever reads the log.
    pub(super) fn set_bears_large(&self, bears: bool) -> bool {
        let number = if bears { 1 } else { now_us().max(2) };
        self.bears.store(number, Relaxed);
        self.is_limited.swap(!bears, Relaxed) == bears
    }

    /// Whether it might be worth asking in the background what it is: it was forgotten, or is not of the generation `spoken`.
    fn is_unsure(&self, spoken: u8, now: u64) -> bool {
        let generation = self.generation.load(Relaxed);
        generation == 0
            || (generation != spoken
                && !self.fixed
                && u128::from(now.saturating_sub(self.asked_us.load(Relaxed)))
                    >= OTHERS_ARE_ASKED.as_micros())
    }
}

fn number(generation: Option<Generation>) -> u8 {
    match generation {
        None => 0,
        Some(Generation::V2) => 2,
        Some(Generation::V3) => 3,
    }
}

fn joined(base: &Url, path_and_query: &str) -> Option<Url> {
    base.join(path_and_query.trim_start_matches('/')).ok()
}

/// All configured nodes, at least one.
///
/// Nodes of two generations share no data, so the gateway speaks to one generation at a time: to the one of the first node that
/// answered, and to the other when no node of it is left.
pub(super) struct Nodes {
    all: Vec<Arc<Node>>,
    /// The generation that is spoken to at present; 0 before the first answer.
    spoken: AtomicU8,
    pub(super) budget: Budget,
}

/// A node that is to be tried next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Choice {
    pub(super) place: usize,
    /// Whether it is left alone, and tried since nothing better is there.
    pub(super) resting: bool,
}

impl Choice {
    pub(super) fn awake(place: usize) -> Self {
        let resting = false;
        Self { place, resting }
    }
}

impl Nodes {
    pub(super) fn new(urls: &[Url], fixed: Option<Generation>, metrics: &Metrics) -> Self {
        let nodes = urls.iter().enumerate().map(|(place, url)| {
            let mut base = url.clone();
            if !base.path().ends_with('/') {
                let path = format!("{}/", base.path());
                base.set_path(&path);
            }
            Arc::new(Node::new(place, base, fixed, metrics))
        });
        Self {
            all: nodes.collect(),
            spoken: AtomicU8::new(0),
            budget: Budget::new(),
        }
    }

    pub(super) fn all(&self) -> &[Arc<Node>] {
        &self.all
    }

    /// Whether there is one node alone: it has no rest, since nobody else would do its work.
    pub(super) fn is_one(&self) -> bool {
        self.all.len() == 1
    }

    /// The generation that is spoken to at present.
    pub(super) fn spoken(&self) -> Option<Generation> {
        match self.spoken.load(Relaxed) {
            2 => Some(Generation::V2),
            3 => Some(Generation::V3),
            _ => None,
        }
    }

    /// This generation is spoken to from now on; true where that is another one than before.
    pub(super) fn speak(&self, generation: Generation) -> bool {
        let number = number(Some(generation));
        // A write would take the line away from the other cores.
        self.spoken.load(Relaxed) != number && self.spoken.swap(number, Relaxed) != 0
    }

    /// The nodes that failed too often, which rest from now on, with the numbers of their rests.
    pub(super) fn newly_resting(&self) -> impl Iterator<Item = (&Arc<Node>, u64)> {
        let several = self.all.iter().filter(|_| !self.is_one());
        several.filter_map(|node| Some((node, node.rest.begin_if_due()?)))
    }

    /// The nodes that are to be asked in the background what they are, and are marked as being asked. None before the first answer:
    /// what is not needed is not called.
    pub(super) fn to_be_asked(&self) -> impl Iterator<Item = &Arc<Node>> {
        let (spoken, now) = (self.spoken.load(Relaxed), now_us());
        let several = self
            .all
            .iter()
            .filter(move |_| !self.is_one() && spoken != 0);
        several.filter(move |node| {
            let is_due = node.is_unsure(spoken, now)
                && !node.rest.is_resting()
                && !node.is_asked.swap(true, Relaxed);
            if is_due {
                node.asked_us.store(now, Relaxed);
            }
            is_due
        })
    }

    /// The node to be tried next for a call to `wanted`, or else to whatever generation is spoken to, but none of those in `tried`.
    ///
    /// Of two picked at random among those known to be right, the one on which the call costs less; else one of which it is not
    /// known, in their order; else the one that rests and is the least bad; else one of the other generation, where any will do.
    pub(super) fn choose(&self, wanted: Option<Generation>, tried: &[usize]) -> Option<Choice> {
        if self.is_one() {
            let node = &self.all[0];
            let fits = wanted.is_none_or(|_| node.is(number(wanted)) || node.is(0));
            let is_free = tried.is_empty() && fits && !node.load.is_full();
            return is_free.then_some(Choice::awake(0));
        }
        let right = match wanted {
            None => self.spoken.load(Relaxed),
            Some(_) => number(wanted),
        };
        let awake = self
            .better_of_two(tried, |node| right != 0 && node.is(right))
            .or_else(|| self.first(tried, |node| node.is(0)));
        let resting = |place| Choice {
            place,
            resting: true,
        };
        let any = |_: &Node| wanted.is_none();
        awake
            .map(Choice::awake)
            // One that may only have been slow is no reason to speak another generation.
            .or_else(|| {
                let place = self.least_bad(tried, |node| node.is(right) || node.is(0));
                place.map(resting)
            })
            .or_else(|| self.better_of_two(tried, any).map(Choice::awake))
            .or_else(|| self.least_bad(tried, any).map(resting))
    }

    /// Whether a node that does not rest is there for such a call, other than `place` and those in `tried`.
    pub(super) fn has_another(
        &self,
        place: usize,
        generation: Generation,
        tried: &[usize],
    ) -> bool {
        let right = number(Some(generation));
        self.awake(tried, |node| node.is(right) || node.is(0))
            .any(|other| other != place)
    }

    /// Whether a node would have been chosen, had it not its fill of calls.
    pub(super) fn is_full(&self, tried: &[usize]) -> bool {
        let mut nodes = self.all.iter().enumerate();
        nodes.any(|(place, node)| !tried.contains(&place) && node.load.is_full())
    }

    /// Whether this node can be tried now.
    pub(super) fn is_awake(&self, place: usize) -> bool {
        let node = &self.all[place];
        !node.rest.is_resting() && !node.load.is_full()
    }

    fn awake(&self, tried: &[usize], fits: impl Fn(&Node) -> bool) -> impl Iterator<Item = usize> {
        (0..self.all.len()).filter(move |place| {
            !tried.contains(place) && self.is_awake(*place) && fits(&self.all[*place])
        })
    }

    fn first(&self, tried: &[usize], fits: impl Fn(&Node) -> bool) -> Option<usize> {
        self.awake(tried, fits).next()
    }

    fn better_of_two(&self, tried: &[usize], fits: impl Fn(&Node) -> bool) -> Option<usize> {
        let count = self.awake(tried, &fits).count();
        if count < 2 {
            return self.first(tried, fits);
        }
        let one = fastrand::usize(..count);
        let other = (one + fastrand::usize(1..count)) % count;
        let now = now_us();
        // What rests or fills up in between makes the list shorter: then the one that is left will do.
        let mut places = self.awake(tried, fits);
        let first = places.nth(one.min(other));
        let second = places.nth(one.abs_diff(other) - 1);
        match (first, second) {
            (Some(a), Some(b)) => {
                let (cost_a, cost_b) = (self.all[a].load.cost(now), self.all[b].load.cost(now));
                let b_is_better = cost_b < cost_a || (cost_a == cost_b && other < one);
                Some(if b_is_better { b } else { a })
            }
            (first, _) => first,
        }
    }

    fn least_bad(&self, tried: &[usize], fits: impl Fn(&Node) -> bool) -> Option<usize> {
        let now = now_us();
        (0..self.all.len())
            .filter(|place| {
                let node = &self.all[*place];
                !tried.contains(place) && !node.load.is_full() && fits(node)
            })
            .min_by_key(|place| {
                let node = &self.all[*place];
                (node.rest.pauses(), node.load.cost(now))
            })
    }
}

impl Node {
    pub(super) fn show_generation(&self) {
        let number = self.generation.load(Relaxed);
        self.meters.generation.set(number.into());
    }

    fn is(&self, number: u8) -> bool {
        self.generation.load(Relaxed) == number
    }
}

#[cfg(test)]
pub(super) mod tests;
