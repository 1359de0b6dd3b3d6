//! Token buckets by key (GCRA). A bucket that is full again is removed, so only recently used keys are kept.

use std::hash::Hash;

use prometheus_client::metrics::counter::Counter;

use super::Time;
use super::sharded_map::ShardedMap;

/// The tokens left after a permitted call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    /// Tokens left; negative for a debt.
    pub balance: i64,
}

/// The bucket has too few tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// Tokens left; negative for a debt.
    pub balance: i64,
    /// Whole seconds, at least one, until the same call would be permitted.
    pub retry_after_s: u32,
}

/// Buckets of one size.
pub(super) struct Buckets {
    /// The time at which each bucket will be full, in nanoseconds of the clock. 17 bytes per key, and up to twice that after growing.
    full_at: ShardedMap<u64>,
    time: Time,
    per_second: u32,
    burst: u32,
    /// How long one new token takes.
    token_ns: u64,
    refusals: Counter,
}

impl Buckets {
    /// Buckets of `burst` tokens that refill by `per_second`; `refusals` counts each [`Refused`].
    pub(super) fn new(per_second: u32, burst: u32, time: Time, refusals: Counter) -> Self {
        let per_second = per_second.clamp(1, 1_000_000_000);
        Self {
            full_at: ShardedMap::default(),
            time,
            per_second,
            burst: burst.max(1),
            token_ns: 1_000_000_000 / u64::from(per_second),
            refusals,
        }
    }

    /// Takes one token of `key`, if it has one.
    pub(super) fn take(&self, key: impl Hash) -> Result<Allowance, Refused> {
        self.take_if(key, 1, 1)
            .inspect_err(|_| _ = self.refusals.inc())
    }

    /// Takes `cost` more tokens of `key`, which may leave it in debt, unless it is in debt already. A debt is only reduced by time.
    pub(super) fn take_remainder(&self, key: impl Hash, cost: u32) -> Result<Allowance, Refused> {
        self.take_if(key, 0, cost)
            .inspect_err(|_| _ = self.refusals.inc())
    }

    /// Whether `key` has a token, without taking it.
    pub(super) fn has_token(&self, key: impl Hash) -> bool {
        self.take_if(key, 1, 0).is_ok()
    }

    /// Takes `cost` tokens if there are at least `needed`.
    fn take_if(&self, key: impl Hash, needed: u32, cost: u32) -> Result<Allowance, Refused> {
        let (key, mut shard) = self.full_at.lock(key);
        let now = self.time.now_ns();
        let missing = shard
            .get(&key)
            .map_or(0, |full_at| full_at.saturating_sub(now));
        let max_missing = |needed: u32| u64::from(self.burst - needed) * self.token_ns;
        if missing > max_missing(needed) {
            // A repeated call needs one token to begin.
            let wait_ms = (missing - max_missing(1)) / 1_000_000;
            return Err(Refused {
                balance: self.balance(missing),
                retry_after_s: u32::try_from(wait_ms.div_ceil(1000).max(1)).unwrap_or(u32::MAX),
            });
        }
        let missing = missing + u64::from(cost) * self.token_ns;
        if cost > 0 {
            shard.insert(key, now + missing);
        }
        Ok(Allowance {
            balance: self.balance(missing),
        })
    }

    /// Whole tokens of a bucket that is full in `missing_ns`.
    fn balance(&self, missing_ns: u64) -> i64 {
        let missing = missing_ns.div_ceil(self.token_ns);
        i64::from(self.burst) - i64::try_from(missing).unwrap_or(i64::MAX)
    }

    /// Tokens of a full bucket.
    pub(super) fn burst(&self) -> u32 {
        self.burst
    }

    /// Whole seconds until a bucket with this many left is full.
    pub(super) fn full_in_s(&self, balance: i64) -> u64 {
        let missing = i64::from(self.burst).saturating_sub(balance);
        u64::try_from(missing)
            .unwrap_or(0)
            .div_ceil(u64::from(self.per_second))
    }

    /// Removes the full buckets and frees their memory.
    pub(super) fn sweep(&self) {
        let now = self.time.now_ns();
        self.full_at.retain(|full_at| *full_at > now);
    }

    /// The number of buckets that were not full at the last sweep.
    pub(super) fn len(&self) -> usize {
        self.full_at.len()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn buckets(per_second: u32, burst: u32) -> (Buckets, Time) {
        let time = Time::standing();
        (
            Buckets::new(per_second, burst, time.clone(), Counter::default()),
            time,
        )
    }

    fn left(result: Result<Allowance, Refused>) -> i64 {
        result.expect("let through").balance
    }

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let (buckets, time) = buckets(50, 100);
        for remaining in (0..100).rev() {
            assert_eq!(left(buckets.take("a")), remaining);
        }
        let refused = Refused {
            balance: 0,
            retry_after_s: 1,
        };
        assert_eq!(buckets.take("a"), Err(refused));
        assert_eq!(left(buckets.take("b")), 99, "others have their own");
        time.pass(Duration::from_millis(19));
        assert_eq!(buckets.take("a"), Err(refused));
        time.pass(Duration::from_millis(1));
        assert_eq!(left(buckets.take("a")), 0);
        assert!(buckets.take("a").is_err());
        time.pass(Duration::from_secs(2));
        assert_eq!(left(buckets.take("a")), 99, "full, and no fuller");
    }

    #[test]
    fn one_call_may_put_a_bucket_into_debt() {
        let (buckets, time) = buckets(10, 20);
        for _ in 0..20 {
            buckets.take("a").unwrap();
        }
        assert_eq!(left(buckets.take_remainder("a", 999)), -999);
        let refused = Refused {
            balance: -999,
            retry_after_s: 100,
        };
        assert_eq!(buckets.take("a"), Err(refused));
        assert_eq!(
            buckets.take_remainder("a", 1),
            Err(refused),
            "nor a second one"
        );
        time.pass(Duration::from_millis(99_900));
        let refused = Refused {
            balance: 0,
            retry_after_s: 1,
        };
        assert_eq!(buckets.take("a"), Err(refused), "nothing was forgiven");
        time.pass(Duration::from_millis(100));
        assert_eq!(left(buckets.take("a")), 0);
    }

    #[test]
    fn a_bucket_with_enough_tokens_gets_no_debt() {
        let (buckets, _) = buckets(10, 20);
        assert_eq!(left(buckets.take("a")), 19);
        assert_eq!(left(buckets.take_remainder("a", 6)), 13);
    }

    #[test]
    fn peeking_takes_nothing() {
        let (buckets, _) = buckets(1, 2);
        assert!(buckets.has_token("a"));
        assert_eq!(buckets.len(), 0, "and leaves nothing behind");
        assert_eq!(left(buckets.take("a")), 1);
        assert!(buckets.has_token("a"));
        assert_eq!(left(buckets.take("a")), 0);
        assert!(!buckets.has_token("a"));
    }

    #[test]
    fn seconds_until_full_are_rounded_up_and_include_debt() {
        let (buckets, _) = buckets(50, 100);
        let shown: Vec<_> = [100, 99, 50, 49, 0, -1, -100]
            .map(|left| buckets.full_in_s(left))
            .into();
        assert_eq!(shown, [0, 1, 1, 2, 2, 3, 4]);
    }

    #[test]
    fn a_million_keys_are_gone_with_their_memory_once_idle() {
        let (buckets, time) = buckets(50, 100);
        for key in 0..1_000_000_u32 {
            buckets.take(key).unwrap();
        }
        buckets.take_remainder("busy", 100).unwrap();
        assert_eq!(buckets.len(), 1_000_001);
        buckets.sweep();
        assert_eq!(buckets.len(), 1_000_001, "none is full again");
        let capacity = || buckets.full_at.capacity();
        assert!(capacity() >= 1_000_000);
        time.pass(Duration::from_millis(100));
        buckets.sweep();
        assert_eq!(buckets.len(), 1);
        assert!(capacity() < 100);
        assert_eq!(
            left(buckets.take("busy")),
            4,
            "and the busy one is remembered"
        );
    }
}
