//! Leaving a node alone that fails: when that begins, for how long, and how it comes back. Knows nothing of what is called, nor of
//! the other nodes.

use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use tokio::time::Instant;

use super::nodes::Node;

/// Failures in a row, without a success between them, after which a node is left alone.
const FAILURES: u32 = 3;
/// The first rest; each further one is twice as long.
const FIRST: Duration = Duration::from_millis(500);
/// The longest rest, before it is jittered: traffic is back within five seconds of a node's recovery.
const LONGEST: Duration = Duration::from_secs(4);
/// A node that stayed well for so long after a rest begins anew with the first.
const FORGIVEN: Duration = Duration::from_secs(30);

/// Whether a node rests.
#[derive(Default)]
pub(super) struct Rest {
    began: Counter,
    now: Gauge,
    failures: AtomicU32,
    due: AtomicBool,
    resting: AtomicBool,
    course: Mutex<Course>,
}

#[derive(Default)]
struct Course {
    /// Tells one rest from the next.
    round: u64,
    /// How many pauses there were since it was last forgiven.
    pauses: u32,
    back: Option<Instant>,
}

impl Rest {
    /// Nothing has failed yet. Rests are counted in `began`; `now` is 1 during one.
    pub(super) fn new(began: Counter, now: Gauge) -> Self {
        Self {
            began,
            now,
            ..Self::default()
        }
    }

    /// A call failed by the node's fault; `certain` where one such is enough.
    pub(super) fn failed(&self, certain: bool) {
        let failures = self.failures.fetch_add(1, Ordering::Relaxed) + 1;
        if certain || failures >= FAILURES {
            self.due.store(true, Ordering::Relaxed);
        }
    }

    /// A call succeeded. What was begun before the rest does not end it.
    pub(super) fn succeeded(&self, begun_while_resting: bool) {
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
        if begun_while_resting {
            let round = self.course.lock().round;
            self.end(round);
        }
    }

    /// Whether it is left alone.
    pub(super) fn is_resting(&self) -> bool {
        self.resting.load(Ordering::Relaxed)
    }

    /// How bad it is: the number of pauses so far.
    pub(super) fn pauses(&self) -> u32 {
        self.course.lock().pauses
    }

    /// Begins a rest where one is due; its number, for whoever is to end it.
    pub(super) fn begin_if_due(&self) -> Option<u64> {
        if !self.due.load(Ordering::Relaxed) {
            return None;
        }
        let mut course = self.course.lock();
        if !self.due.swap(false, Ordering::Relaxed) || self.is_resting() {
            return None;
        }
        if course.back.is_some_and(|back| back.elapsed() > FORGIVEN) {
            course.pauses = 0;
        }
        course.round += 1;
        self.resting.store(true, Ordering::Relaxed);
        self.began.inc();
        self.now.set(1);
        Some(course.round)
    }

    /// Ends that rest; false where it is over already.
    fn end(&self, round: u64) -> bool {
        let mut course = self.course.lock();
        if course.round != round || !self.is_resting() {
            return false;
        }
        course.back = Some(Instant::now());
        self.failures.store(0, Ordering::Relaxed);
        self.due.store(false, Ordering::Relaxed);
        self.resting.store(false, Ordering::Relaxed);
        self.now.set(0);
        true
    }

    fn is_in(&self, round: u64) -> bool {
        self.is_resting() && self.course.lock().round == round
    }

    /// The pause before the next probe: twice the last one, a quarter more or less.
    fn next_pause(&self) -> Duration {
        let mut course = self.course.lock();
        let pause = FIRST
            .saturating_mul(1 << course.pauses.min(16))
            .min(LONGEST);
        course.pauses = course.pauses.saturating_add(1);
        pause.mul_f64(0.75 + fastrand::f64() / 2.0)
    }
}

/// Ends the rest where the probing does: nobody else would when its runtime is gone.
struct Ends(Weak<Node>, u64);

impl Drop for Ends {
    fn drop(&mut self) {
        if let Some(node) = self.0.upgrade() {
            node.rest.end(self.1);
        }
    }
}

/// Probes a resting node with growing pauses until it is well, answers somebody, or is not needed any more.
pub(super) async fn bring_back<P, F>(node: Weak<Node>, round: u64, probe: P)
where
    P: Fn(Arc<Node>) -> F,
    F: Future<Output = bool>,
{
    let ends = Ends(node, round);
    loop {
        let Some(pause) = ends.0.upgrade().map(|node| node.rest.next_pause()) else {
            return;
        };
        tokio::time::sleep(pause).await;
        match ends.0.upgrade() {
            Some(node) if node.rest.is_in(round) => {
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
    use crate::wukongim::nodes::tests::nodes;

    /// Lets `node` fail, and gives the times between its probes until one of them finds it well.
    async fn pauses(node: &Arc<Node>, well_at: usize) -> Vec<Duration> {
        node.rest.failed(true);
        let round = node.rest.begin_if_due().unwrap();
        let at = Mutex::new(vec![Instant::now()]);
        let count = AtomicUsize::new(0);
        bring_back(Arc::downgrade(node), round, |_| {
            at.lock().push(Instant::now());
            let well = count.fetch_add(1, Ordering::Relaxed) + 1 == well_at;
            async move { well }
        })
        .await;
        let at = at.into_inner();
        at.windows(2).map(|pair| pair[1] - pair[0]).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_stays_down_is_probed_at_growing_intervals_up_to_five_seconds() {
        let nodes = nodes(2);
        let node = &nodes.all()[0];
        let pauses = pauses(node, 12).await;
        assert_eq!(pauses.len(), 12);
        for (place, pause) in pauses.iter().enumerate() {
            let usual = (FIRST * (1 << place.min(10))).min(LONGEST);
            assert!(*pause >= usual.mul_f64(0.75), "{pauses:?}");
            // A paused clock ticks in milliseconds.
            let most = usual.mul_f64(1.25) + Duration::from_millis(1);
            assert!(*pause <= most, "{pauses:?}");
        }
        assert!(!node.rest.is_resting());
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_flaps_rests_longer_each_time_and_is_forgiven_after_staying_well() {
        let nodes = nodes(2);
        let node = &nodes.all()[0];
        let mut rests = Vec::new();
        for _ in 0..4 {
            let all = pauses(node, 1).await;
            rests.push(all[0]);
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        assert!(rests.is_sorted(), "{rests:?}");
        assert!(rests[3] > rests[0] * 3, "{rests:?}");
        tokio::time::sleep(FORGIVEN).await;
        assert!(pauses(node, 1).await[0] < FIRST * 2);
    }

    #[tokio::test]
    async fn single_failures_between_successes_send_nobody_to_rest() {
        let rest = Rest::default();
        for _ in 0..10 {
            rest.failed(false);
            rest.failed(false);
            rest.succeeded(false);
            assert_eq!(rest.begin_if_due(), None);
        }
        for _ in 0..FAILURES {
            rest.failed(false);
        }
        assert!(rest.begin_if_due().is_some());
        assert_eq!(rest.begin_if_due(), None, "once");
        // It was begun before.
        rest.succeeded(false);
        assert!(rest.is_resting());
        rest.succeeded(true);
        assert!(!rest.is_resting());
    }

    #[tokio::test(start_paused = true)]
    async fn a_rest_that_is_over_is_probed_no_more_and_one_whose_prober_dies_ends() {
        let nodes = nodes(2);
        let node = &nodes.all()[0];
        node.rest.failed(true);
        let round = node.rest.begin_if_due().unwrap();
        let probing = tokio::spawn(bring_back(Arc::downgrade(node), round, |_| async { false }));
        tokio::time::sleep(Duration::from_mins(1)).await;
        assert!(node.rest.is_resting());
        node.rest.succeeded(true);
        probing.await.unwrap();
        node.rest.failed(true);
        let round = node.rest.begin_if_due().unwrap();
        let probing = tokio::spawn(bring_back(Arc::downgrade(node), round, |_| async { false }));
        tokio::time::sleep(Duration::from_secs(1)).await;
        probing.abort();
        assert!(probing.await.is_err());
        assert!(!node.rest.is_resting());
    }
}
