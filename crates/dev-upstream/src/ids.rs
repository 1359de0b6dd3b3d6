//! Snowflake message ids: `(milliseconds - epoch) << 22 | counter`, unique and increasing, as in both generations.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Twitter's epoch in Unix milliseconds: `(id >> 22) + EPOCH_MS` is an id's time.
pub const EPOCH_MS: i64 = 1_288_834_974_657;

/// The node bits of the only node.
const NODE: i64 = 1 << 12;
const STEPS: i64 = 1 << 12;

/// Generates message ids.
#[derive(Debug, Default)]
pub(super) struct Snowflake {
    last_ms: i64,
    step: i64,
}

impl Snowflake {
    pub(super) fn next(&mut self) -> i64 {
        let now_ms = unix_ms(SystemTime::now());
        if now_ms > self.last_ms {
            self.last_ms = now_ms;
            self.step = 0;
        } else {
            self.step += 1;
            if self.step == STEPS {
                // A full millisecond borrows from the next one instead of waiting for it under the lock.
                self.last_ms += 1;
                self.step = 0;
            }
        }
        ((self.last_ms - EPOCH_MS) << 22) | NODE | self.step
    }
}

pub(super) fn unix_ms(time: SystemTime) -> i64 {
    i64::try_from(since_epoch(time).as_millis()).unwrap_or(i64::MAX)
}

pub(super) fn unix_nanos(time: SystemTime) -> i64 {
    i64::try_from(since_epoch(time).as_nanos()).unwrap_or(i64::MAX)
}

/// Unix seconds in the 32 bits that messages carry.
pub(super) fn unix_seconds(time: SystemTime) -> i32 {
    i32::try_from(since_epoch(time).as_secs()).unwrap_or(i32::MAX)
}

fn since_epoch(time: SystemTime) -> Duration {
    time.duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_rise_and_carry_their_time() {
        let mut ids = Snowflake::default();
        let before = unix_ms(SystemTime::now());
        let given: Vec<i64> = (0..20_000).map(|_| ids.next()).collect();
        assert!(given.windows(2).all(|pair| pair[0] < pair[1]));
        assert!((given[0] >> 22) + EPOCH_MS >= before);
    }
}
