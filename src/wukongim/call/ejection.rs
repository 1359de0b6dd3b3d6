//! Ejection of a node after failures, and the probes that end it. The next call starts both, so without calls no probing begins; what has
//! begun goes on until the node is healthy. Knows nothing of what the calls mean.

use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use tokio::time::Instant;

use super::node::Node;
use super::nodes::Nodes;
use crate::wukongim::Error;

/// Consecutive failures after which a node is ejected.
const FAILURE_THRESHOLD: u32 = 3;
/// The first backoff; each further one is twice as long.
const INITIAL_BACKOFF: Duration = Duration::from_millis(500);
/// The longest backoff before jitter: traffic returns within five seconds of a node's recovery.
const MAX_BACKOFF: Duration = Duration::from_secs(4);
/// A node that stayed healthy for this long after an ejection starts again with the initial backoff.
const BACKOFF_RESET: Duration = Duration::from_secs(30);

/// A slower probe for a node's generation counts as failed.
const PROBE_TIMEOUT: Duration = Duration::from_millis(900);

/// Ejects the nodes that failed too often, and starts the probes that are due.
pub(crate) fn spawn_probes(nodes: &Nodes) {
    if nodes.is_single() {
        return;
    }
    for node in nodes.all() {
        if let Some(ejection_id) = node.ejection.eject_if_due() {
            tracing::warn!(node = %node.name, "wukongim node ejected");
            let probes = probe_until_healthy(Arc::downgrade(node), ejection_id, is_healthy);
            tokio::spawn(probes);
        }
        if node.take_due_probe() {
            tokio::spawn(probe_generation(Arc::clone(node)));
        }
    }
}

async fn is_healthy(node: Arc<Node>) -> bool {
    // Another generation may run at this address by now.
    node.forget_generation();
    let health = node.health().await;
    if health.is_ok() {
        tracing::info!(node = %node.name, "wukongim node is healthy again");
    }
    // A node of the other generation gets no calls anyway.
    matches!(health, Ok(()) | Err(Error::OtherGeneration))
}

async fn probe_generation(node: Arc<Node>) {
    let probe = tokio::time::timeout(PROBE_TIMEOUT, node.probe()).await;
    if !matches!(probe, Ok(Ok(_))) {
        node.ejection.record_failure(true);
    }
}

/// Whether a node is ejected.
#[derive(Default)]
pub(crate) struct Ejection {
    ejections_total: Counter,
    ejected_gauge: Gauge,
    /// Failures since the last success.
    failures: AtomicU32,
    /// To be ejected by the next call: the probes need the node's `Arc` and a runtime, and a failure may be recorded in a drop without either.
    is_due: AtomicBool,
    ejected: AtomicBool,
    state: Mutex<EjectionState>,
}

#[derive(Default)]
struct EjectionState {
    /// Identifies the current ejection.
    ejection_id: u64,
    /// Backoffs since the last reset.
    backoff_steps: u32,
    recovered_at: Option<Instant>,
}

impl Ejection {
    /// A node without failures. `ejections_total` counts ejections; `ejected_gauge` is 1 during one.
    pub(crate) fn new(ejections_total: Counter, ejected_gauge: Gauge) -> Self {
        Self {
            ejections_total,
            ejected_gauge,
            ..Self::default()
        }
    }

    /// Records a failure of the node; `certain` where one is enough to eject it.
    pub(crate) fn record_failure(&self, certain: bool) {
        let failures = self.failures.fetch_add(1, Ordering::Relaxed) + 1;
        if certain || failures >= FAILURE_THRESHOLD {
            self.is_due.store(true, Ordering::Relaxed);
        }
    }

    /// Records a success. Only a call that was sent during the ejection ends it.
    pub(crate) fn record_success(&self, sent_while_ejected: bool) {
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
        if sent_while_ejected {
            let ejection_id = self.state.lock().ejection_id;
            self.end(ejection_id);
        }
    }

    /// Whether the node is ejected.
    pub(crate) fn is_ejected(&self) -> bool {
        self.ejected.load(Ordering::Relaxed)
    }

    /// The number of backoffs so far, as a measure of how unhealthy the node is.
    pub(crate) fn backoff_steps(&self) -> u32 {
        self.state.lock().backoff_steps
    }

    /// Starts an ejection where one is due, and returns its id.
    pub(crate) fn eject_if_due(&self) -> Option<u64> {
        if !self.is_due.load(Ordering::Relaxed) {
            return None;
        }
        let mut state = self.state.lock();
        if !self.is_due.swap(false, Ordering::Relaxed) || self.is_ejected() {
            return None;
        }
        if state
            .recovered_at
            .is_some_and(|recovered_at| recovered_at.elapsed() > BACKOFF_RESET)
        {
            state.backoff_steps = 0;
        }
        state.ejection_id += 1;
        self.ejected.store(true, Ordering::Relaxed);
        self.ejections_total.inc();
        self.ejected_gauge.set(1);
        Some(state.ejection_id)
    }

    /// Ends that ejection; false where it is over already.
    fn end(&self, ejection_id: u64) -> bool {
        let mut state = self.state.lock();
        if state.ejection_id != ejection_id || !self.is_ejected() {
            return false;
        }
        state.recovered_at = Some(Instant::now());
        self.failures.store(0, Ordering::Relaxed);
        self.is_due.store(false, Ordering::Relaxed);
        self.ejected.store(false, Ordering::Relaxed);
        self.ejected_gauge.set(0);
        true
    }

    fn is_current(&self, ejection_id: u64) -> bool {
        self.is_ejected() && self.state.lock().ejection_id == ejection_id
    }

    /// The backoff before the next probe: twice the last one, with a jitter of ±25 %.
    fn next_backoff(&self) -> Duration {
        let mut state = self.state.lock();
        let backoff = INITIAL_BACKOFF
            .saturating_mul(1 << state.backoff_steps.min(16))
            .min(MAX_BACKOFF);
        state.backoff_steps = state.backoff_steps.saturating_add(1);
        backoff.mul_f64(0.75 + fastrand::f64() / 2.0)
    }
}

/// Ends the ejection when the probing task ends, even if its runtime is dropped: nothing else would end it then.
struct EjectionGuard(Weak<Node>, u64);

impl Drop for EjectionGuard {
    fn drop(&mut self) {
        if let Some(node) = self.0.upgrade() {
            node.ejection.end(self.1);
        }
    }
}

/// Probes an ejected node with growing backoff until it is healthy, a call succeeds, or the node is dropped.
pub(crate) async fn probe_until_healthy<P, F>(node: Weak<Node>, ejection_id: u64, probe: P)
where
    P: Fn(Arc<Node>) -> F,
    F: Future<Output = bool>,
{
    let guard = EjectionGuard(node, ejection_id);
    loop {
        let Some(backoff) = guard.0.upgrade().map(|node| node.ejection.next_backoff()) else {
            return;
        };
        tokio::time::sleep(backoff).await;
        match guard.0.upgrade() {
            Some(node) if node.ejection.is_current(ejection_id) => {
                if probe(node).await {
                    return;
                }
            }
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;
    use crate::wukongim::call::nodes::tests::nodes;

    /// Ejects `node`; the ejection's id.
    fn eject(node: &Node) -> u64 {
        node.ejection.record_failure(true);
        node.ejection.eject_if_due().unwrap()
    }

    /// Ejects `node`, and then probes it; no probe finds it healthy.
    fn probe_without_success(node: &Arc<Node>) -> impl Future<Output = ()> + use<> {
        let ejection_id = eject(node);
        probe_until_healthy(Arc::downgrade(node), ejection_id, |_| async { false })
    }

    /// Ejects `node`, and returns the times between its probes until one of them finds it healthy.
    async fn backoff_steps(node: &Arc<Node>, healthy_at: usize) -> Vec<Duration> {
        let ejection_id = eject(node);
        let at = Mutex::new(vec![Instant::now()]);
        let count = AtomicUsize::new(0);
        probe_until_healthy(Arc::downgrade(node), ejection_id, |_| {
            at.lock().push(Instant::now());
            let healthy = count.fetch_add(1, Ordering::Relaxed) + 1 == healthy_at;
            async move { healthy }
        })
        .await;
        let at = at.into_inner();
        at.windows(2).map(|pair| pair[1] - pair[0]).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_stays_down_is_probed_at_growing_intervals_up_to_five_seconds() {
        let nodes = nodes(2);
        let node = &nodes.all()[0];
        let backoff_steps = backoff_steps(node, 12).await;
        assert_eq!(backoff_steps.len(), 12);
        for (index, backoff) in backoff_steps.iter().enumerate() {
            let expected = (INITIAL_BACKOFF * (1 << index.min(10))).min(MAX_BACKOFF);
            assert!(*backoff >= expected.mul_f64(0.75), "{backoff_steps:?}");
            // A paused clock ticks in milliseconds.
            let most = expected.mul_f64(1.25) + Duration::from_millis(1);
            assert!(*backoff <= most, "{backoff_steps:?}");
        }
        assert!(!node.ejection.is_ejected());
    }

    #[tokio::test(start_paused = true)]
    async fn a_flapping_node_is_ejected_longer_each_time_until_it_stays_healthy() {
        let nodes = nodes(2);
        let node = &nodes.all()[0];
        let mut backoffs = Vec::new();
        for _ in 0..4 {
            let all = backoff_steps(node, 1).await;
            backoffs.push(all[0]);
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        assert!(backoffs.is_sorted(), "{backoffs:?}");
        assert!(backoffs[3] > backoffs[0] * 3, "{backoffs:?}");
        tokio::time::sleep(BACKOFF_RESET).await;
        assert!(backoff_steps(node, 1).await[0] < INITIAL_BACKOFF * 2);
    }

    #[tokio::test]
    async fn single_failures_between_successes_eject_no_node() {
        let ejection = Ejection::default();
        for _ in 0..10 {
            ejection.record_failure(false);
            ejection.record_failure(false);
            ejection.record_success(false);
            assert_eq!(ejection.eject_if_due(), None);
        }
        for _ in 0..FAILURE_THRESHOLD {
            ejection.record_failure(false);
        }
        assert!(ejection.eject_if_due().is_some());
        assert_eq!(ejection.eject_if_due(), None, "once");
        // This call was sent before the ejection.
        ejection.record_success(false);
        assert!(ejection.is_ejected());
        ejection.record_success(true);
        assert!(!ejection.is_ejected());
    }

    #[tokio::test(start_paused = true)]
    async fn probing_stops_when_the_ejection_ends_and_an_aborted_probe_ends_the_ejection() {
        let nodes = nodes(2);
        let node = &nodes.all()[0];
        let probing = tokio::spawn(probe_without_success(node));
        tokio::time::sleep(Duration::from_mins(1)).await;
        assert!(node.ejection.is_ejected());
        node.ejection.record_success(true);
        probing.await.unwrap();
        let probing = tokio::spawn(probe_without_success(node));
        tokio::time::sleep(Duration::from_secs(1)).await;
        probing.abort();
        assert!(probing.await.is_err());
        assert!(!node.ejection.is_ejected());
    }
}
