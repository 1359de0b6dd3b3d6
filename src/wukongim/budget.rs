//! How many calls may be made a second time: a tenth of the traffic, so that a cluster in trouble is not given more to do. Knows
//! nothing of why.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What a repetition costs, and ten calls bring in.
const PRICE: u64 = 10;
/// What is there at the start, and the least that a quiet gateway has: it may repeat five calls, and then one a second.
const FLOOR: u64 = 5 * PRICE;
/// The most that is saved up.
const MOST: u64 = 100 * PRICE;
/// What each second brings in below the floor.
const SECOND_US: u64 = 1_000_000;

/// A bucket of repetitions that calls fill.
pub(super) struct Budget {
    tokens: AtomicU64,
    /// When a second last brought something in.
    paid_us: AtomicU64,
}

impl Budget {
    pub(super) fn new() -> Self {
        Self {
            tokens: AtomicU64::new(FLOOR),
            paid_us: AtomicU64::new(0),
        }
    }

    /// A call was made.
    pub(super) fn call(&self) {
        // Written only while it is not full: on a busy gateway nothing is shared between cores.
        if self.tokens.load(Relaxed) < MOST {
            self.tokens.fetch_add(1, Relaxed);
        }
    }

    /// Whether one call may be repeated, which is then paid for.
    pub(super) fn take(&self, now_us: u64) -> bool {
        let paid = self.paid_us.load(Relaxed);
        let is_new_second = now_us.saturating_sub(paid) >= SECOND_US;
        if is_new_second
            && self.tokens.load(Relaxed) < FLOOR
            && self
                .paid_us
                .compare_exchange(paid, now_us, Relaxed, Relaxed)
                .is_ok()
        {
            self.tokens.fetch_add(PRICE, Relaxed);
        }
        let less = |tokens: u64| tokens.checked_sub(PRICE);
        self.tokens.fetch_update(Relaxed, Relaxed, less).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repetitions_are_a_tenth_of_the_calls_and_a_few() {
        let budget = Budget::new();
        let mut taken = 0;
        for _ in 0..1000 {
            budget.call();
            taken += u64::from(budget.take(1));
        }
        assert_eq!(taken, 1000 / 10 + FLOOR / PRICE);
    }

    #[test]
    fn a_quiet_gateway_may_repeat_one_call_a_second() {
        let budget = Budget::new();
        while budget.take(1) {}
        for second in 1..10 {
            assert!(budget.take(second * SECOND_US + 1), "{second}");
            assert!(!budget.take(second * SECOND_US + 2), "{second}");
        }
    }

    #[test]
    fn no_more_than_a_hundred_are_saved_up() {
        let budget = Budget::new();
        for _ in 0..100_000 {
            budget.call();
        }
        let mut taken = 0;
        while budget.take(1) {
            taken += 1;
        }
        assert_eq!(taken, MOST / PRICE);
    }
}
