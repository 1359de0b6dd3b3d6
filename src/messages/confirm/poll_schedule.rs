//! Schedules the polls for a message, and learns from them how long WuKongIM takes to show one.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// The longest pause between two polls; shorter if the timeout is short.
const MAX_PAUSE: Duration = Duration::from_millis(250);
/// The shortest pause after a poll that found nothing.
const MIN_PAUSE: Duration = Duration::from_micros(100);
/// tokio's timers have millisecond resolution: pauses below this use a timerfd, which costs five system calls.
const TIMER_RESOLUTION_LIMIT: Duration = Duration::from_millis(4);
/// The most that one slow message adds to an estimate of zero.
const MAX_STEP_UP: Duration = Duration::from_millis(2);

/// The n-th consecutive message that the first poll found lowers the estimate by `delay / 2^(16 - n)`; from this one on each halves it.
const HITS_UNTIL_HALVED: u32 = 15;

/// The estimated time until WuKongIM shows a message, such that the first poll finds most messages and the next ones follow soon for the
/// rest. Shared by all channels.
#[derive(Default)]
pub(super) struct VisibilityDelay(Mutex<DelayEstimate>);

#[derive(Default)]
struct DelayEstimate {
    delay: Duration,
    /// Consecutive messages found by the first poll.
    hits: u32,
}

impl VisibilityDelay {
    pub(super) fn get(&self) -> Duration {
        self.0.lock().delay
    }

    /// Learns from a message whose waiter began at `since`, after WuKongIM's answer (in a batch that is confirmed together, long after it),
    /// and that was found by a poll that began at `started`; `missed_at` is the start of a poll that did not find it.
    ///
    /// If the first poll found it, it had appeared earlier: the estimate is lowered, hardly at first, and by twice as much with each such
    /// message in a row. If a poll missed it, and not before the estimated time, it appeared between the two: the estimate is raised by a
    /// quarter at once, or by a quarter of the way to their midpoint. Of a far longer time only a part counts, since a single message may be
    /// slow for many reasons.
    pub(super) fn observe(&self, since: Instant, missed_at: Option<Instant>, started: Instant) {
        let estimate = &mut *self.0.lock();
        let delay = estimate.delay;
        let Some(missed) = missed_at.and_then(|missed_at| missed_at.checked_duration_since(since))
        else {
            estimate.hits = HITS_UNTIL_HALVED.min(estimate.hits + 1);
            estimate.delay -= delay / (2 << (HITS_UNTIL_HALVED - estimate.hits));
            return;
        };
        estimate.hits = 0;
        if missed >= delay {
            let middle = (missed + started.saturating_duration_since(since)) / 2;
            let middle = middle.min(delay * 4 + MAX_STEP_UP);
            estimate.delay = ((delay * 3 + middle) / 4).max(delay + delay / 4);
        }
    }
}

/// When to poll next.
pub(super) struct PollSchedule {
    delay: Duration,
    max_pause: Duration,
    misses: u32,
    last: Option<Instant>,
}

impl PollSchedule {
    /// With the estimated delay, and the timeout of the waiters.
    pub(super) fn new(delay: Duration, timeout: Duration) -> Self {
        Self {
            delay,
            max_pause: (timeout / 8).min(MAX_PAUSE),
            misses: 0,
            last: None,
        }
    }

    pub(super) fn record_miss(&mut self) {
        self.misses += 1;
    }

    /// Sleeps until the next poll: first until the estimated delay has passed since the newest waiter began, after a miss for a quarter of
    /// the delay, and half as much longer each time. Timing by the newest waiter lets one poll serve many; earlier waiters wait at most one
    /// delay longer, since those that arrive during the pause are not considered.
    pub(super) async fn pause(&mut self, newest_since: Instant) {
        let now = Instant::now();
        let at = match self.last {
            None => newest_since + self.delay,
            Some(last) => {
                let longer = 1.5_f64.powi(self.misses.min(20).cast_signed());
                let gap = (self.delay / 4).max(MIN_PAUSE).mul_f64(longer);
                last + gap.min(self.max_pause)
            }
        };
        sleep_precise(at.saturating_duration_since(now)).await;
        self.last = Some(Instant::now());
    }
}

/// Sleeps with a precision of some tens of microseconds where the system supports it.
async fn sleep_precise(pause: Duration) {
    if pause.is_zero() {
        return;
    }
    #[cfg(target_os = "linux")]
    if pause < TIMER_RESOLUTION_LIMIT && sleep_timerfd(pause).await.is_ok() {
        return;
    }
    tokio::time::sleep(pause).await;
}

#[cfg(target_os = "linux")]
async fn sleep_timerfd(pause: Duration) -> std::io::Result<()> {
    use rustix::time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
        timerfd_settime,
    };
    use tokio::net::unix::pipe::Receiver;

    let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
    let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
    let never = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    let once = Itimerspec {
        it_interval: never,
        it_value: Timespec {
            tv_nsec: pause.subsec_nanos().into(),
            ..never
        },
    };
    timerfd_settime(&timer, TimerfdTimerFlags::empty(), &once)?;
    // A timerfd is not a pipe, but becomes readable when it expires, which is all that is used.
    Receiver::from_owned_fd_unchecked(timer)?.readable().await
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn with_delay(delay: Duration) -> VisibilityDelay {
        let estimate = VisibilityDelay::default();
        estimate.0.lock().delay = delay;
        estimate
    }

    /// Observes a message that appears after `appears`, with polls that last at least `lasting`; returns the number of polls.
    fn message(estimate: &VisibilityDelay, appears: Duration, lasting: Duration) -> u32 {
        let since = Instant::now();
        let (mut at, mut missed_at, mut misses) = (estimate.get(), None, 0_u32);
        while at < appears {
            missed_at = Some(since + at);
            misses += 1;
            let longer = 1.5_f64.powi(misses.cast_signed());
            at += lasting.max((estimate.get() / 4).max(MIN_PAUSE).mul_f64(longer));
        }
        estimate.observe(since, missed_at, since + at);
        misses + 1
    }

    #[test]
    fn a_message_is_found_in_one_and_a_half_polls() {
        for appears in [MS / 2, MS, 40 * MS, 300 * MS] {
            let estimate = VisibilityDelay::default();
            for _ in 0..100 {
                message(&estimate, appears, MS / 4);
            }
            let polls: u32 = (0..100).map(|_| message(&estimate, appears, MS / 4)).sum();
            assert!(polls <= 150, "{polls} polls for {appears:?}");
            assert!(estimate.get() > appears / 2, "{:?}", estimate.get());
            assert!(estimate.get() < appears * 2, "{:?}", estimate.get());
        }
    }

    #[test]
    fn the_estimate_falls_again_after_a_slow_period() {
        let estimate = with_delay(200 * MS);
        for _ in 0..25 {
            message(&estimate, MS / 2, MS / 4);
        }
        assert!(estimate.get() < MS, "still {:?}", estimate.get());
    }

    #[test]
    fn one_slow_message_hardly_counts_and_a_dozen_do() {
        let estimate = with_delay(MS / 2);
        message(&estimate, 300 * MS, MS / 4);
        assert!(estimate.get() < 2 * MS, "{:?}", estimate.get());
        for _ in 0..11 {
            message(&estimate, 300 * MS, MS / 4);
        }
        assert!(estimate.get() > 150 * MS, "{:?}", estimate.get());
    }

    #[test]
    fn a_step_down_that_missed_is_reverted_at_once() {
        for appears in [MS / 2, 6 * MS, 200 * MS] {
            let estimate = with_delay(appears * 5 / 4);
            let mut polls = 0;
            for _ in 0..300 {
                let previous = estimate.get();
                let needed = message(&estimate, appears, MS / 4);
                polls += needed;
                assert!(needed == 1 || estimate.get() > previous, "{previous:?}");
                assert!(estimate.get() > appears / 4, "{:?}", estimate.get());
            }
            assert!(polls <= 370, "{polls} polls for {appears:?}");
        }
    }

    #[test]
    fn a_poll_before_the_send_is_ignored() {
        let estimate = with_delay(8 * MS);
        let since = Instant::now();
        estimate.observe(since, since.checked_sub(MS), since + 8 * MS);
        assert!(estimate.get() < 8 * MS);
    }

    #[tokio::test]
    async fn a_short_sleep_lasts_as_long_as_asked() {
        for pause in [Duration::from_micros(300), 3 * MS, 25 * MS] {
            let began = Instant::now();
            sleep_precise(pause).await;
            assert!(began.elapsed() >= pause);
        }
    }
}
