//! How busy a node is and how fast it answers: what a choice between two goes by. A handful of atomics, no lock; updates that cross
//! each other may be lost and do no harm.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Calls that one node is given at the same time at the most.
const MOST: u32 = 2048;
/// Faster than this is all the same.
const FLOOR_US: u64 = 100;
/// A latency that nothing was heard of for so long counts half, and so on: a node that was slow is tried again.
const HALF_LIFE_US: u64 = 5_000_000;

static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Microseconds on the process's own clock.
pub(super) fn now_us() -> u64 {
    u64::try_from(EPOCH.elapsed().as_micros()).unwrap_or(u64::MAX)
}

/// See the module. All times are those of [`now_us`].
#[derive(Default)]
pub(super) struct Load {
    in_flight: AtomicU32,
    /// Moving average of the last dozen answers.
    latency_us: AtomicU64,
    sampled_us: AtomicU64,
    /// When it gave the last answer of any kind, or got something to answer after a rest.
    alive_us: AtomicU64,
}

impl Load {
    /// A call leaves.
    pub(super) fn begin(&self, now: u64) {
        if self.in_flight.fetch_add(1, Relaxed) == 0 {
            self.alive_us.store(now, Relaxed);
        }
    }

    /// A call ended, with an answer or without one.
    pub(super) fn end(&self, began: u64, now: u64, answered: bool) {
        self.in_flight.fetch_sub(1, Relaxed);
        let sample = now.saturating_sub(began);
        let known = self.latency_us.load(Relaxed);
        // What never came took at least that long.
        if answered || sample > known {
            let average = if self.sampled_us.load(Relaxed) == 0 {
                sample
            } else {
                (known * 7 + sample) / 8
            };
            self.latency_us.store(average, Relaxed);
            self.sampled_us.store(now.max(1), Relaxed);
        }
        if answered {
            self.alive_us.store(now, Relaxed);
        }
    }

    /// Calls under way.
    pub(super) fn in_flight(&self) -> u32 {
        self.in_flight.load(Relaxed)
    }

    /// Whether it has as many calls as it may have.
    pub(super) fn is_full(&self) -> bool {
        self.in_flight() >= MOST
    }

    /// The moving average of its answers' times; zero before the first.
    pub(super) fn latency(&self) -> Duration {
        Duration::from_micros(self.latency_us.load(Relaxed))
    }

    /// Whether nothing was heard of it since `began`, though a call was under way.
    pub(super) fn is_silent_since(&self, began: u64) -> bool {
        self.alive_us.load(Relaxed) <= began
    }

    /// What one more call would cost here: the calls under way weighed by the time they take. While a node with calls under way is
    /// silent, each further moment counts as if its answers took that long: one that hangs keeps the few calls it has.
    pub(super) fn cost(&self, now: u64) -> u64 {
        let in_flight = u64::from(self.in_flight());
        let age = now.saturating_sub(self.sampled_us.load(Relaxed)) / HALF_LIFE_US;
        let latency = self.latency_us.load(Relaxed) >> age.min(63);
        let silence = if in_flight == 0 {
            0
        } else {
            now.saturating_sub(self.alive_us.load(Relaxed))
        };
        (in_flight + 1).saturating_mul(latency.max(silence).max(FLOOR_US))
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
    fn calls_under_way_are_weighed_by_the_time_they_take() {
        let (fast, slow) = (Load::default(), Load::default());
        for turn in 0..40 {
            answer(&fast, turn * 10_000, 1000);
            answer(&slow, turn * 10_000, 4000);
        }
        let now = 400_000;
        assert!(fast.cost(now) < slow.cost(now));
        for _ in 0..5 {
            fast.begin(now);
        }
        assert!(fast.cost(now) > slow.cost(now));
    }

    #[test]
    fn one_that_is_silent_grows_dearer_and_one_that_answers_does_not() {
        let (hangs, works) = (Load::default(), Load::default());
        for load in [&hangs, &works] {
            answer(load, 0, 1000);
            load.begin(10_000);
        }
        for _ in 0..20 {
            works.begin(10_000);
        }
        assert!(hangs.cost(10_000) < works.cost(10_000));
        works.end(10_000, 200_000, true);
        assert!(hangs.cost(500_000) > hangs.cost(200_000));
        assert!(hangs.is_silent_since(10_000));
        assert!(!works.is_silent_since(10_000));
    }

    #[test]
    fn a_slow_spell_is_forgotten_and_a_call_that_was_given_up_counts() {
        let load = Load::default();
        load.begin(1);
        load.end(1, 1_000_001, false);
        let after = load.cost(1_000_001);
        assert_eq!(load.latency(), Duration::from_secs(1));
        assert!(load.cost(1_000_001 + 4 * HALF_LIFE_US) <= after / 16);
    }

    #[test]
    fn there_is_an_end_to_what_one_node_is_given() {
        let load = Load::default();
        for _ in 0..MOST {
            assert!(!load.is_full());
            load.begin(1);
        }
        assert!(load.is_full());
        load.end(1, 2, true);
        assert!(!load.is_full());
    }
}
