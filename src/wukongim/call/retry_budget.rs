//! A token bucket for retries, so that they do not overload a cluster that is failing: a retry takes one token, a call earns a tenth of
//! one. An idle gateway has five, and one more a second. What needs no token is not bounded here: going on to the next node where nothing
//! was done, and what is repeated on a new connection to the only node, but for v3's sends. Knows nothing of the calls.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A token, in the tenths that each call earns.
const TOKEN: u64 = 10;
/// The tenths at the start, and the level to which an idle gateway refills.
const MIN_TENTHS: u64 = 5 * TOKEN;
/// The most tenths that accumulate.
const MAX_TENTHS: u64 = 100 * TOKEN;
/// Below [`MIN_TENTHS`], a token is added each second.
const REFILL_INTERVAL_US: u64 = 1_000_000;

/// The token bucket; calls fill it.
pub(crate) struct RetryBudget {
    tenths: AtomicU64,
    /// When the bucket was last refilled by time.
    last_refill_us: AtomicU64,
}

impl RetryBudget {
    pub(crate) fn new() -> Self {
        Self {
            tenths: AtomicU64::new(MIN_TENTHS),
            last_refill_us: AtomicU64::new(0),
        }
    }

    /// Earns a call's tenth.
    pub(crate) fn deposit(&self) {
        // Written only while the bucket is not full: on a busy gateway the cores do not contend for the cache line.
        if self.tenths.load(Relaxed) < MAX_TENTHS {
            self.tenths.fetch_add(1, Relaxed);
        }
    }

    /// Takes a retry's token; false where there is none.
    pub(crate) fn try_withdraw(&self, now_us: u64) -> bool {
        let last_refill = self.last_refill_us.load(Relaxed);
        let is_refill_due = now_us.saturating_sub(last_refill) >= REFILL_INTERVAL_US;
        if is_refill_due
            && self.tenths.load(Relaxed) < MIN_TENTHS
            && self
                .last_refill_us
                .compare_exchange(last_refill, now_us, Relaxed, Relaxed)
                .is_ok()
        {
            self.tenths.fetch_add(TOKEN, Relaxed);
        }
        let withdraw = |tenths: u64| tenths.checked_sub(TOKEN);
        self.tenths.fetch_update(Relaxed, Relaxed, withdraw).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_are_a_tenth_of_the_calls_plus_the_initial_tokens() {
        let budget = RetryBudget::new();
        let mut taken = 0;
        for _ in 0..1000 {
            budget.deposit();
            taken += u64::from(budget.try_withdraw(1));
        }
        assert_eq!(taken, 1000 / 10 + MIN_TENTHS / TOKEN);
    }

    #[test]
    fn an_idle_gateway_may_retry_one_call_a_second() {
        let budget = RetryBudget::new();
        while budget.try_withdraw(1) {}
        for second in 1..10 {
            assert!(
                budget.try_withdraw(second * REFILL_INTERVAL_US + 1),
                "{second}"
            );
            assert!(
                !budget.try_withdraw(second * REFILL_INTERVAL_US + 2),
                "{second}"
            );
        }
    }

    #[test]
    fn at_most_a_hundred_retries_accumulate() {
        let budget = RetryBudget::new();
        for _ in 0..100_000 {
            budget.deposit();
        }
        let mut taken = 0;
        while budget.try_withdraw(1) {
            taken += 1;
        }
        assert_eq!(taken, MAX_TENTHS / TOKEN);
    }
}
