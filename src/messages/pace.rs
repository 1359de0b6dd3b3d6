//! When to look for a message that is not to be seen yet. Knows no channel and no WuKongIM, only its delay.

use std::time::{Duration, Instant};

/// Below this the upstream counts as immediate: looks follow each other without a pause (timers tick in milliseconds).
const IMMEDIATE: Duration = Duration::from_millis(2);
/// The longest pause between two looks.
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

/// When to look next.
pub(super) struct Pace {
    delay: Duration,
    misses: u32,
    last: Option<Instant>,
}

impl Pace {
    /// The pace where a message usually shows after `delay`.
    pub(super) fn new(delay: Duration) -> Self {
        Self {
            delay,
            misses: 0,
            last: None,
        }
    }

    /// A look found nothing.
    pub(super) fn missed(&mut self) {
        self.misses += 1;
    }

    /// Pauses until the next look is worth its while: not before three quarters of the usual delay have passed since the
    /// newest waiter began (at `newest`), and after a miss a quarter of it later, half as much longer each time. Waiting for
    /// the newest lets one look serve many; those before him wait at most that much longer, since whoever comes during the
    /// pause is not counted.
    pub(super) async fn pause(&mut self, newest: Instant) {
        let now = Instant::now();
        let at = if self.delay < IMMEDIATE {
            match self.misses {
                0..4 => now,
                misses => now + Duration::from_millis(1 << (misses - 4).min(5)),
            }
        } else {
            let patient = newest + self.delay * 3 / 4;
            let gap = (self.delay / 4)
                .mul_f64(1.5_f64.powi(self.misses.min(8).cast_signed()))
                .min(LONGEST_PAUSE);
            match self.last {
                None => patient,
                Some(last) => (last + gap).max(now),
            }
        };
        if at > now {
            tokio::time::sleep_until(at.into()).await;
        }
        self.last = Some(Instant::now());
    }
}
