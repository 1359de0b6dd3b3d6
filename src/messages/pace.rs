//! When to look for a message, and what a look that found it says of how long WuKongIM takes to show one.

use std::time::{Duration, Instant};

/// Below this the upstream counts as immediate: looks follow each other without a pause (timers tick in milliseconds).
const IMMEDIATE: Duration = Duration::from_millis(2);
/// The longest pause between two looks.
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

/// When a look began, and when the one before it did that had not found the message.
#[derive(Clone, Copy)]
pub(super) struct Look {
    pub(super) earlier: Option<Instant>,
    pub(super) started: Instant,
}

impl Look {
    /// How long a message took to appear that was handed over at `since`: it came up between the two looks, so the middle. The
    /// later end alone would be a delay of the gateway's own making: timers round up, so that a pause of three quarters of 6 ms
    /// takes 6 ms, and one slow moment would be believed for ever (seen: 6.5 ms a message where 0.5 ms would do).
    pub(super) fn delay_of(self, since: Instant) -> Duration {
        let latest = self.started.saturating_duration_since(since);
        let earliest = self.earlier.map_or(Duration::ZERO, |earlier| {
            earlier.saturating_duration_since(since)
        });
        (earliest + latest) / 2
    }
}

/// What is believed of the delay after a message that took `sample`. Down fast, up slowly: many things can hold up one message, and
/// a pause that was not needed costs more than a look that was.
pub(super) fn learnt(known: Duration, sample: Duration) -> Duration {
    if sample < known {
        (known + sample) / 2
    } else {
        let believable = sample.min(known * 4 + IMMEDIATE);
        (known * 3 + believable) / 4
    }
}

/// When to look next.
pub(super) struct Pace {
    delay: Duration,
    misses: u32,
    last: Option<Instant>,
}

impl Pace {
    pub(super) fn new(delay: Duration) -> Self {
        Self {
            delay,
            misses: 0,
            last: None,
        }
    }

    pub(super) fn missed(&mut self) {
        self.misses += 1;
    }

    /// Pauses until the next look is worth its while: not before three quarters of the usual delay have passed since the newest
    /// waiter began, and after a miss a quarter of it later, half as much longer each time. Waiting for the newest lets one look
    /// serve many; those before him wait at most that much longer, since whoever comes during the pause is not counted.
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What the average becomes when each message is really there at once, and each pause ends at the next whole millisecond.
    #[test]
    fn one_slow_moment_is_forgotten() {
        let since = Instant::now();
        let mut delay = Duration::from_millis(200);
        let mut messages = 0;
        while delay >= IMMEDIATE {
            let paused_ms = (delay * 3 / 4).as_millis() + 1;
            let paused = Duration::from_millis(u64::try_from(paused_ms).unwrap());
            let look = Look {
                earlier: None,
                started: since + paused + Duration::from_micros(500),
            };
            delay = learnt(delay, look.delay_of(since));
            messages += 1;
            assert!(messages < 100, "still {delay:?}");
        }
    }

    #[test]
    fn a_slow_moment_or_two_do_not_count_and_a_cluster_is_known_in_a_dozen_messages() {
        let slow = Duration::from_millis(300);
        let mut delay = Duration::from_micros(500);
        delay = learnt(delay, slow);
        assert!(delay < IMMEDIATE, "{delay:?}");
        for _ in 0..11 {
            delay = learnt(delay, slow);
        }
        assert!(delay > slow / 2, "{delay:?}");
    }

    #[test]
    fn a_message_appeared_between_the_look_that_missed_it_and_the_one_that_found_it() {
        let since = Instant::now();
        let ms = |ms| since + Duration::from_millis(ms);
        let look = |earlier, started| Look { earlier, started }.delay_of(since);
        assert_eq!(look(None, ms(8)), Duration::from_millis(4));
        assert_eq!(look(Some(ms(100)), ms(140)), Duration::from_millis(120));
        assert_eq!(
            look(Some(since), ms(8)),
            Duration::from_millis(4),
            "a look before the send says nothing"
        );
    }
}
