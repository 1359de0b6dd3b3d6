//! A token bucket for retries: at most a tenth of the calls, so that retries do not overload a cluster that is failing. Knows nothing of
//! the calls.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Tokens per retry; each call earns 1.
const RETRY_COST: u64 = 10;
/// Tokens at the start, and the level to which an idle gateway refills: five retries, then one a second.
const MIN_TOKENS: u64 = 5 * RETRY_COST;
/// The most tokens that accumulate.
const MAX_TOKENS: u64 = 100 * RETRY_COST;
/// Below [`MIN_TOKENS`], one retry is added each second.
const REFILL_INTERVAL_US: u64 = 1_000_000;

/// The token bucket; calls fill it.
pub(crate) struct RetryBudget {
    tokens: AtomicU64,
    /// When the bucket was last refilled by time.
    last_refill_us: AtomicU64,
}

impl RetryBudget {
    pub(crate) fn new() -> Self {
        Self {
            tokens: AtomicU64::new(MIN_TOKENS),
            last_refill_us: AtomicU64::new(0),
        }
    }

    /// Earns a token for a call.
    pub(crate) fn deposit(&self) {
        // Written only while the bucket is not full: on a busy gateway the cores do not contend for the cache line.
        if self.tokens.load(Relaxed) < MAX_TOKENS {
            self.tokens.fetch_add(1, Relaxed);
        }
    }

    /// Takes the tokens of one retry; false where there are too few.
    pub(crate) fn try_withdraw(&self, now_us: u64) -> bool {
        let last_refill = self.last_refill_us.load(Relaxed);
        let is_refill_due = now_us.saturating_sub(last_refill) >= REFILL_INTERVAL_US;
        if is_refill_due
            && self.tokens.load(Relaxed) < MIN_TOKENS
            && self
                .last_refill_us
                .compare_exchange(last_refill, now_us, Relaxed, Relaxed)
                .is_ok()
        {
            self.tokens.fetch_add(RETRY_COST, Relaxed);
        }
        let withdraw = |tokens: u64| tokens.checked_sub(RETRY_COST);
        self.tokens.fetch_update(Relaxed, Relaxed, withdraw).is_ok()
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
        assert_eq!(taken, 1000 / 10 + MIN_TOKENS / RETRY_COST);
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
        assert_eq!(taken, MAX_TOKENS / RETRY_COST);
    }
}
