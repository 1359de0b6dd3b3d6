//! Token buckets by key. A bucket that is full again is forgotten, so what is kept are the keys of the last seconds.

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher, RandomState};
use std::num::NonZeroU32;

use governor::clock::Clock as _;
use governor::middleware::{StateInformationMiddleware, StateSnapshot};
use governor::nanos::Nanos;
use governor::state::StateStore;
use governor::state::keyed::ShrinkableKeyedStateStore;
use governor::{Quota, RateLimiter};
use parking_lot::Mutex;

use super::Time;

/// What is left after a call that was let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    /// Tokens left.
    pub remaining: u32,
}

/// The bucket has not enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// Tokens left all the same.
    pub remaining: u32,
    /// Whole seconds, at least one, until the same call would be let through.
    pub retry_after_s: u32,
}

/// Buckets of one size.
pub(super) struct Buckets {
    limiter: RateLimiter<Ask, Shards, Time, StateInformationMiddleware>,
    time: Time,
    per_second: u32,
    burst: u32,
    /// Keys are kept as hashes that nobody outside can foretell: two with one hash would share a bucket.
    hash: RandomState,
}

impl Buckets {
    /// Buckets of `burst` tokens that get `per_second` new ones.
    pub(super) fn new(per_second: u32, burst: u32, time: Time) -> Self {
        let whole = |number| NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN);
        let (per_second, burst) = (whole(per_second), whole(burst));
        let quota = Quota::per_second(per_second).allow_burst(burst);
        Self {
            limiter: RateLimiter::new(quota, Shards::default(), time.clone()),
            time,
            per_second: per_second.get(),
            burst: burst.get(),
            hash: RandomState::new(),
        }
    }

    /// Takes `cost` tokens of `key`; what is dearer than the bucket takes a full one.
    pub(super) fn take(&self, key: impl Hash, cost: u32) -> Result<Allowance, Refused> {
        self.ask(Ask::Take(self.hash.hash_one(key)), cost)
    }

    /// Whether `key` has a token, without taking it.
    pub(super) fn look(&self, key: impl Hash) -> Result<Allowance, Refused> {
        let left = self.ask(Ask::Look(self.hash.hash_one(key)), 1)?;
        Ok(Allowance {
            remaining: left.remaining + 1,
        })
    }

    fn ask(&self, ask: Ask, cost: u32) -> Result<Allowance, Refused> {
        let cost = cost.clamp(1, self.burst);
        let n = NonZeroU32::new(cost).unwrap_or(NonZeroU32::MIN);
        match self.limiter.check_key_n(&ask, n) {
            Ok(Ok(snapshot)) => Ok(Allowance {
                remaining: StateSnapshot::remaining_burst_capacity(&snapshot),
            }),
            Ok(Err(until)) => {
                let wait = until.wait_time_from(self.time.now());
                let missing = wait
                    .as_nanos()
                    .div_ceil(u128::from(1_000_000_000 / self.per_second));
                let retry_after_s = wait.as_millis().div_ceil(1000).max(1);
                Err(Refused {
                    remaining: cost.saturating_sub(u32::try_from(missing).unwrap_or(u32::MAX)),
                    retry_after_s: u32::try_from(retry_after_s).unwrap_or(u32::MAX),
                })
            }
            // No cost is larger than the bucket.
            Err(_) => Ok(Allowance { remaining: 0 }),
        }
    }

    /// Tokens of a full bucket.
    pub(super) fn burst(&self) -> u32 {
        self.burst
    }

    /// Whole seconds until a bucket with this many left is full.
    pub(super) fn full_in_s(&self, remaining: u32) -> u32 {
        self.burst
            .saturating_sub(remaining)
            .div_ceil(self.per_second)
    }

    /// Forgets the full ones, and gives their memory back.
    pub(super) fn sweep(&self) {
        self.limiter.retain_recent();
    }

    /// How many are not known to be full.
    pub(super) fn len(&self) -> usize {
        self.limiter.len()
    }
}

/// A question to the store: governor itself can only take.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Ask {
    Take(u64),
    Look(u64),
}

const SHARDS: usize = 64;

type Shard = HashMap<u64, Nanos, BuildHasherDefault<Hashed>>;

/// When each bucket would be full, behind many small locks. 17 bytes a key, and up to twice that after growing.
struct Shards([Mutex<Shard>; SHARDS]);

impl Default for Shards {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Mutex::default()))
    }
}

impl StateStore for Shards {
    type Key = Ask;

    fn measure_and_replace<T, F, E>(&self, ask: &Ask, f: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let (Ask::Take(key) | Ask::Look(key)) = *ask;
        // Not the bits at either end: the map itself goes by those.
        let mut shard = self.0[(key >> 32) as usize % SHARDS].lock();
        let (outcome, after) = f(shard.get(&key).copied())?;
        if matches!(ask, Ask::Take(_)) {
            shard.insert(key, after);
        }
        Ok(outcome)
    }
}

impl ShrinkableKeyedStateStore<Ask> for Shards {
    fn retain_recent(&self, drop_below: Nanos) {
        for shard in &self.0 {
            let mut shard = shard.lock();
            shard.retain(|_, full_at| *full_at > drop_below);
            if shard.capacity() > 4 * shard.len() {
                shard.shrink_to_fit();
            }
        }
    }

    fn len(&self) -> usize {
        self.0.iter().map(|shard| shard.lock().len()).sum()
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The keys are hashes already.
#[derive(Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn buckets(per_second: u32, burst: u32) -> (Buckets, Time) {
        let time = Time::standing();
        (Buckets::new(per_second, burst, time.clone()), time)
    }

    fn left(result: Result<Allowance, Refused>) -> u32 {
        result.expect("let through").remaining
    }

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let (buckets, time) = buckets(50, 100);
        assert_eq!(left(buckets.take("a", 1)), 99);
        assert_eq!(left(buckets.take("a", 99)), 0);
        let refused = Refused {
            remaining: 0,
            retry_after_s: 1,
        };
        assert_eq!(buckets.take("a", 1), Err(refused));
        assert_eq!(left(buckets.take("b", 1)), 99, "others have their own");
        time.pass(Duration::from_millis(20));
        assert_eq!(left(buckets.take("a", 1)), 0);
        assert!(buckets.take("a", 1).is_err());
        time.pass(Duration::from_secs(2));
        assert_eq!(left(buckets.take("a", 1)), 99, "full, and no fuller");
    }

    #[test]
    fn a_refusal_takes_nothing_and_says_when_it_would_not_be_one() {
        let (buckets, time) = buckets(10, 100);
        assert_eq!(left(buckets.take("a", 70)), 30);
        for _ in 0..3 {
            let refused = Refused {
                remaining: 30,
                retry_after_s: 5,
            };
            assert_eq!(buckets.take("a", 80), Err(refused));
        }
        time.pass(Duration::from_millis(4_950));
        assert_eq!(
            buckets.take("a", 80),
            Err(Refused {
                remaining: 79,
                retry_after_s: 1,
            })
        );
        time.pass(Duration::from_millis(50));
        assert_eq!(left(buckets.take("a", 80)), 0);
    }

    #[test]
    fn what_is_dearer_than_the_bucket_takes_a_full_one() {
        let (buckets, time) = buckets(10, 20);
        assert_eq!(left(buckets.take("a", 1000)), 0);
        assert_eq!(buckets.take("a", 1000).unwrap_err().retry_after_s, 2);
        time.pass(Duration::from_millis(1_999));
        assert!(buckets.take("a", 1000).is_err());
        time.pass(Duration::from_millis(1));
        assert_eq!(left(buckets.take("a", 1000)), 0);
    }

    #[test]
    fn looking_takes_nothing() {
        let (buckets, _) = buckets(1, 2);
        assert_eq!(left(buckets.look("a")), 2);
        assert_eq!(left(buckets.look("a")), 2);
        assert_eq!(buckets.len(), 0, "and leaves nothing behind");
        assert_eq!(left(buckets.take("a", 1)), 1);
        assert_eq!(left(buckets.look("a")), 1);
        assert_eq!(left(buckets.take("a", 1)), 0);
        assert!(buckets.look("a").is_err());
    }

    #[test]
    fn seconds_until_full_are_rounded_up() {
        let (buckets, _) = buckets(50, 100);
        let shown: Vec<_> = [100, 99, 50, 49, 0]
            .map(|left| buckets.full_in_s(left))
            .into();
        assert_eq!(shown, [0, 1, 1, 2, 2]);
    }

    #[test]
    fn a_million_keys_are_gone_with_their_memory_once_idle() {
        let (buckets, time) = buckets(50, 100);
        for key in 0..1_000_000_u32 {
            buckets.take(key, 1).unwrap();
        }
        buckets.take("busy", 100).unwrap();
        assert_eq!(buckets.len(), 1_000_001);
        buckets.sweep();
        assert_eq!(buckets.len(), 1_000_001, "none is full again");
        time.pass(Duration::from_millis(100));
        buckets.sweep();
        assert_eq!(buckets.len(), 1);
        assert!(buckets.take("busy", 6).is_err(), "and the busy one knows");
        let room = |shards: &Shards| -> usize {
            shards.0.iter().map(|shard| shard.lock().capacity()).sum()
        };
        let state = Shards::default();
        assert_eq!(room(&state), 0);
        for key in 0..100_000 {
            let put = state
                .measure_and_replace(&Ask::Take(key << 32), |_| Ok::<_, ()>(((), Nanos::new(5))));
            put.unwrap();
        }
        assert!(room(&state) >= 100_000);
        state.retain_recent(Nanos::new(5));
        assert_eq!(room(&state), 0);
    }
}
