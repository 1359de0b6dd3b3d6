//! The configured WuKongIM nodes, and which one a call goes to.

use std::sync::Arc;

use url::Url;

use super::load::now_us;
use super::node::{Eligibility, Node, Settled, as_directory};
use super::retry_budget::RetryBudget;
use super::transport::Transport;
use crate::wukongim::Generation;
use crate::wukongim::single_flight::SingleFlight;

/// All configured nodes, at least one.
pub(crate) struct Nodes {
    all: Vec<Arc<Node>>,
    pub(crate) settled: Settled,
    pub(crate) settling: SingleFlight<Generation>,
    pub(crate) budget: RetryBudget,
}

impl Nodes {
    pub(crate) fn new(
        urls: &[Url],
        configured: Option<Generation>,
        transport: &Arc<Transport>,
    ) -> Self {
        let settled = Settled::default();
        let nodes = urls.iter().enumerate().map(|(index, url)| {
            let base = as_directory(url);
            let (transport, settled) = (transport.clone(), settled.clone());
            Arc::new(Node::new(index, base, transport, configured, settled))
        });
        let nodes = Self {
            all: nodes.collect(),
            settled,
            settling: SingleFlight::new(),
            budget: RetryBudget::new(),
        };
        if let Some(configured) = configured {
            nodes.settle(configured);
        }
        nodes
    }

    pub(crate) fn all(&self) -> &[Arc<Node>] {
        &self.all
    }

    /// Whether only one node is configured. A single node is never ejected.
    pub(crate) fn is_single(&self) -> bool {
        self.all.len() == 1
    }

    /// Settles the generation that this process uses, for good.
    pub(crate) fn settle(&self, generation: Generation) {
        if self.settled.set(generation).is_err() {
            return;
        }
        if generation == Generation::V3 {
            tracing::warn!(
                "wukongim v3 checks no connect token: any client that reaches its ports 5100 and 5200 can connect as any user"
            );
        }
        for node in &self.all {
            node.log_generation();
        }
    }

    /// The node to try next, not one in `tried` or of the other generation.
    ///
    /// Order of preference: the cheaper of two random nodes of the generation in use; the first one of unknown generation; the ejected one
    /// with the fewest backoffs.
    pub(crate) fn choose(&self, tried: &[usize]) -> Option<usize> {
        let is_usable = |node: &Node| {
            matches!(
                node.eligibility(),
                Eligibility::Usable | Eligibility::Expired
            )
        };
        self.better_of_two(tried, is_usable)
            .or_else(|| {
                let is_unknown = |node: &Node| node.eligibility() == Eligibility::Unknown;
                self.available(tried, is_unknown).next()
            })
            .or_else(|| self.fewest_backoffs(tried))
    }

    /// Whether a node other than `index` and those in `tried` is available.
    pub(crate) fn has_another(&self, index: usize, tried: &[usize]) -> bool {
        self.available(tried, |node| node.eligibility() != Eligibility::Other)
            .any(|other| other != index)
    }

    /// Whether a node was skipped only because it is at its limit of concurrent calls.
    pub(crate) fn is_full(&self, tried: &[usize]) -> bool {
        let mut nodes = self.all.iter().enumerate();
        nodes.any(|(index, node)| !tried.contains(&index) && node.load.is_full())
    }

    /// Whether this node is neither ejected nor at its limit.
    pub(crate) fn is_available(&self, index: usize) -> bool {
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

    fn better_of_two(&self, tried: &[usize], fits: impl Fn(&Node) -> bool) -> Option<usize> {
        let count = self.available(tried, &fits).count();
        if count < 2 {
            return self.available(tried, fits).next();
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

    fn fewest_backoffs(&self, tried: &[usize]) -> Option<usize> {
        let now = now_us();
        (0..self.all.len())
            .filter(|index| {
                let node = &self.all[*index];
                let is_selectable = !tried.contains(index) && !node.load.is_full();
                is_selectable && node.eligibility() != Eligibility::Other
            })
            .min_by_key(|index| {
                let node = &self.all[*index];
                (node.ejection.backoff_steps(), node.load.cost(now))
            })
    }
}

#[cfg(test)]
pub(crate) mod tests;
