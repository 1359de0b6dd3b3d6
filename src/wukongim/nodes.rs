//! The configured WuKongIM nodes: which one a call goes to, and which generation each is. One node is the usual case; with
//! several, calls stay on the first that can be reached.

use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use url::Url;

use super::{Error, Generation};

/// How long a node that could not be reached is passed over while others can be.
const REST: Duration = Duration::from_secs(1);

/// For how long a silent node is believed to be v3 still. What v3 checks by itself v2 lets pass, and no server starts in so short a
/// time: a v2 that took its place meanwhile is found out before it is asked for anything.
const STILL_V3: Duration = Duration::from_secs(2);

/// One WuKongIM node.
pub(super) struct Node {
    /// `n1`, `n2`, … by its place in `wukongim.api_urls`: the only name of it that leaves the process.
    pub(super) name: String,
    base: Url,
    /// 0 unknown, 2 or 3.
    generation: AtomicU8,
    /// Set where the configuration names the generation: it is never forgotten.
    fixed: bool,
    rests_until: Mutex<Option<Instant>>,
    /// When it answered anything last.
    heard: Mutex<Instant>,
    /// One detection at a time.
    pub(super) detecting: tokio::sync::Mutex<Option<(Instant, Error)>>,
}

impl Node {
    fn new(place: usize, base: Url, fixed: Option<Generation>) -> Self {
        let generation = match fixed {
            None => 0,
            Some(Generation::V2) => 2,
            Some(Generation::V3) => 3,
        };
        Self {
            name: format!("n{}", place + 1),
            base,
            generation: AtomicU8::new(generation),
            fixed: fixed.is_some(),
            rests_until: Mutex::new(None),
            heard: Mutex::new(Instant::now()),
            detecting: tokio::sync::Mutex::new(None),
        }
    }

    /// The address of `path_and_query` on this node.
    pub(super) fn url(&self, path_and_query: &str) -> Result<Url, Error> {
        // Ids are percent-encoded before they come here and `.`/`..` are no ids, so joining cannot leave the base.
        self.base
            .join(path_and_query.trim_start_matches('/'))
            .map_err(|_| Error::Decode("url"))
    }

    /// The generation, once known.
    pub(super) fn generation(&self) -> Option<Generation> {
        match self.generation.load(Ordering::Relaxed) {
            2 => Some(Generation::V2),
            3 if self.fixed || self.heard.lock().elapsed() < STILL_V3 => Some(Generation::V3),
            _ => None,
        }
    }

    /// The node has answered.
    pub(super) fn heard(&self) {
        *self.heard.lock() = Instant::now();
    }

    /// Notes the generation; true where it is news.
    pub(super) fn set_generation(&self, generation: Generation) -> bool {
        let number = if generation == Generation::V2 { 2 } else { 3 };
        self.generation.swap(number, Ordering::Relaxed) != number
    }

    /// Another WuKongIM may answer at this address from now on: ask it again before the next call.
    pub(super) fn forget_generation(&self) {
        if !self.fixed {
            self.generation.store(0, Ordering::Relaxed);
        }
    }

    fn rest(&self) {
        *self.rests_until.lock() = Some(Instant::now() + REST);
    }

    fn is_resting(&self) -> bool {
        self.rests_until
            .lock()
            .is_some_and(|until| until > Instant::now())
    }
}

/// All configured nodes, at least one.
pub(super) struct Nodes(Vec<Node>);

impl Nodes {
    pub(super) fn new(urls: &[Url], fixed: Option<Generation>) -> Self {
        let nodes = urls.iter().enumerate().map(|(place, url)| {
            let mut base = url.clone();
            if !base.path().ends_with('/') {
                let path = format!("{}/", base.path());
                base.set_path(&path);
            }
            Node::new(place, base, fixed)
        });
        Self(nodes.collect())
    }

    pub(super) fn all(&self) -> &[Node] {
        &self.0
    }

    /// The nodes in the order in which a call tries them, each once: those that rest come last. Judged at the beginning, since
    /// the call itself sends nodes to rest.
    pub(super) fn in_order(&self) -> impl Iterator<Item = &Node> {
        let (awake, resting): (Vec<&Node>, Vec<&Node>) =
            self.0.iter().partition(|node| !node.is_resting());
        awake.into_iter().chain(resting)
    }

    /// Passes over `node` for a moment: it could not be reached.
    pub(super) fn rest(&self, node: &Node) {
        if self.0.len() > 1 {
            node.rest();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_node_is_tried_once_though_all_go_to_rest_meanwhile() {
        let url = |port: u16| Url::parse(&format!("http://127.0.0.1:{port}")).unwrap();
        let nodes = Nodes::new(&[url(1), url(2), url(3)], None);
        nodes.rest(&nodes.all()[0]);
        let mut tried = Vec::new();
        for node in nodes.in_order() {
            tried.push(node.name.clone());
            nodes.rest(node);
        }
        assert_eq!(tried, ["n2", "n3", "n1"]);
    }
}
