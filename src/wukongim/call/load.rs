//! A node's load and latency, by which calls are balanced. A few atomics and no lock; concurrent updates may be lost, which does no harm.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Maximum concurrent calls to one node.
const MAX_IN_FLIGHT: u32 = 2048;
/// Latencies below this are treated as equal.
const MIN_LATENCY_US: u64 = 100;
/// A latency without a new sample halves in this time, so that a node that was slow is tried again.
const HALF_LIFE_US: u64 = 5_000_000;

static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Microseconds on the process's own clock.
pub(crate) fn now_us() -> u64 {
    u64::try_from(EPOCH.elapsed().as_micros()).unwrap_or(u64::MAX)
}

/// A node's load. All times are those of [`now_us`].
#[derive(Default)]
pub(crate) struct Load {
    in_flight: AtomicU32,
    /// Moving average over about a dozen answers.
    latency_us: AtomicU64,
    sampled_us: AtomicU64,
    last_answer_us: AtomicU64,
    /// When the first of the calls in flight was sent.
    busy_since_us: AtomicU64,
}

impl Load {
    /// Records the start of a call.
    pub(crate) fn begin(&self, now: u64) {
        if self.in_flight.fetch_add(1, Relaxed) == 0 {
            self.busy_since_us.store(now, Relaxed);
        }
    }

    /// Records the end of a call.
    pub(crate) fn end(&self, began: u64, now: u64, answered: bool) {
        self.in_flight.fetch_sub(1, Relaxed);
        let sample = now.saturating_sub(began);
        let previous = self.latency_us.load(Relaxed);
        // A missing answer would have taken at least this long.
        if answered || sample > previous {
            let average = if self.sampled_us.load(Relaxed) == 0 {
                sample
            } else {
                (previous * 7 + sample) / 8
            };
            self.latency_us.store(average, Relaxed);
            self.sampled_us.store(now.max(1), Relaxed);
        }
        if answered {
            self.last_answer_us.store(now, Relaxed);
        }
    }

    /// Calls in flight.
    pub(crate) fn in_flight(&self) -> u32 {
        self.in_flight.load(Relaxed)
    }

    /// Whether the node is at its limit of concurrent calls.
    pub(crate) fn is_full(&self) -> bool {
        self.in_flight() >= MAX_IN_FLIGHT
    }

    /// The moving average of its answers' times; zero before the first.
    pub(crate) fn latency(&self) -> Duration {
        Duration::from_micros(self.latency_us.load(Relaxed))
    }

    /// Whether the node has answered nothing since `began`.
    pub(crate) fn is_silent_since(&self, began: u64) -> bool {
        self.last_answer_us.load(Relaxed) <= began
    }

    /// The expected cost of one more call: calls in flight times latency. While a node with calls in flight is silent, its silence counts
    /// as latency, so that a hanging node receives few further calls.
    pub(crate) fn cost(&self, now: u64) -> u64 {
        let in_flight = u64::from(self.in_flight());
        let age = now.saturating_sub(self.sampled_us.load(Relaxed)) / HALF_LIFE_US;
        let latency = self.latency_us.load(Relaxed) >> age.min(63);
        let silence = if in_flight == 0 {
            0
        } else {
            let last_answer = self.last_answer_us.load(Relaxed);
            now.saturating_sub(last_answer.max(self.busy_since_us.load(Relaxed)))
        };
        (in_flight + 1).saturating_mul(latency.max(silence).max(MIN_LATENCY_US))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(load: &Load, began: u64, took: u64) {
        load.begin(began);
        load.end(began, began + took, true);
    }

    #[test]
    fn in_flight_calls_are_weighted_by_latency() {
        let (fast, slow) = (Load::default(), Load::default());
        for round in 0..40 {
            answer(&fast, round * 10_000, 1000);
            answer(&slow, round * 10_000, 4000);
        }
        let now = 400_000;
        assert!(fast.cost(now) < slow.cost(now));
        for _ in 0..5 {
            fast.begin(now);
        }
        assert!(fast.cost(now) > slow.cost(now));
    }

    #[test]
    fn a_silent_nodes_cost_grows_and_a_responsive_ones_does_not() {
        let (hangs, works) = (Load::default(), Load::default());
        for load in [&hangs, &works] {
            answer(load, 0, 1000);
            // A call begins a little after the attempt that makes it.
            load.begin(10_003);
        }
        for _ in 0..20 {
            works.begin(10_000);
        }
        assert!(hangs.cost(10_003) < works.cost(10_003));
        works.end(10_003, 200_000, true);
        assert!(hangs.cost(500_000) > hangs.cost(200_000));
        assert!(hangs.is_silent_since(10_000));
        assert!(!works.is_silent_since(10_000));
    }

    #[test]
    fn latency_decays_and_a_cancelled_call_counts() {
        let load = Load::default();
        load.begin(1);
        load.end(1, 1_000_001, false);
        let after = load.cost(1_000_001);
        assert_eq!(load.latency(), Duration::from_secs(1));
        assert!(load.cost(1_000_001 + 4 * HALF_LIFE_US) <= after / 16);
    }

    #[test]
    fn in_flight_calls_of_a_node_are_bounded() {
        let load = Load::default();
        for _ in 0..MAX_IN_FLIGHT {
            assert!(!load.is_full());
            load.begin(1);
        }
        assert!(load.is_full());
        load.end(1, 2, true);
        assert!(!load.is_full());
    }
}
