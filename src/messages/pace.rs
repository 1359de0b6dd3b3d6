//! When to look for a message, and what a look that found it says of how long WuKongIM takes to show one.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// The longest pause between two looks; less where little time is given for all of them.
const LONGEST_PAUSE: Duration = Duration::from_millis(250);
/// The shortest one after a look that found nothing.
const SHORTEST_PAUSE: Duration = Duration::from_micros(100);
/// tokio's timers tick in whole milliseconds: a pause shorter than this takes a timer of its own, which costs five calls to the system.
const COARSE: Duration = Duration::from_millis(4);
/// What one slow message adds at the most to a delay of nothing.
const SURPRISE: Duration = Duration::from_millis(2);

/// How many messages in a row a first look must find until less is believed: at least, and at the most.
const PATIENCE: (u32, u32) = (4, 16);

/// How long WuKongIM is believed to take until it shows a message: so that the first look finds most of them, and the later ones
/// come soon for the rest. Shared by all channels.
#[derive(Default)]
pub(super) struct Delay(Mutex<Known>);

#[derive(Default)]
struct Known {
    /// What is believed.
    delay: Duration,
    /// What was believed before that was lowered.
    before: Duration,
    /// Messages in a row that the first look found since then, and after how many the next step down is taken.
    found: u32,
    patience: u32,
    /// Steps down in a row.
    steps: u32,
}

impl Delay {
    pub(super) fn get(&self) -> Duration {
        self.0.lock().delay
    }

    /// A message was found that was handed over at `since`, by a look that began at `started`; `earlier` is when one began that did
    /// not find it.
    ///
    /// Found by the first look it was there at some time before: after some such in a row less is believed, first by a little, then
    /// sooner and by twice as much each time. Missed before, it came up between the two looks: that step down was one too many and
    /// is taken back, and the next one is longer in coming. If it came up later than was believed then, the middle counts for a
    /// quarter, a much longer one only in part, since many things can hold up one message.
    pub(super) fn learn(&self, since: Instant, earlier: Option<Instant>, started: Instant) {
        let missed = earlier.and_then(|earlier| earlier.checked_duration_since(since));
        self.0
            .lock()
            .learn(missed, started.saturating_duration_since(since));
    }
}

impl Known {
    fn learn(&mut self, missed: Option<Duration>, found: Duration) {
        let Some(missed) = missed else {
            self.found += 1;
            if self.found >= self.patience {
                self.before = self.delay;
                self.delay -= self.delay / (8 >> self.steps.min(2));
                self.found = 0;
                self.patience /= 2;
                self.steps += 1;
            }
            return;
        };
        let (least, most) = PATIENCE;
        self.patience = (self.patience * 2).clamp(least, most);
        (self.found, self.steps) = (0, 0);
        self.delay = self.delay.max(self.before);
        if missed >= self.delay {
            let middle = (missed + found) / 2;
            self.delay = (self.delay * 3 + middle.min(self.delay * 4 + SURPRISE)) / 4;
            self.before = self.delay;
        }
    }
}

/// When to look next.
pub(super) struct Pace {
    delay: Duration,
    longest: Duration,
    misses: u32,
    last: Option<Instant>,
}

impl Pace {
    /// With the usual delay, and the time after which nobody waits any longer.
    pub(super) fn new(delay: Duration, timeout: Duration) -> Self {
        Self {
            delay,
            longest: (timeout / 8).min(LONGEST_PAUSE),
            misses: 0,
            last: None,
        }
    }

    pub(super) fn missed(&mut self) {
        self.misses += 1;
    }

    /// Pauses until the next look is worth its while: when the usual delay has passed since the newest waiter began, and after a miss
    /// a quarter of it later, half as much longer each time. Waiting for the newest lets one look serve many; those before him wait
    /// at most that much longer, since whoever comes during the pause is not counted.
    pub(super) async fn pause(&mut self, newest: Instant) {
        let now = Instant::now();
        let at = match self.last {
            None => newest + self.delay,
            Some(last) => {
                let longer = 1.5_f64.powi(self.misses.min(20).cast_signed());
                let gap = (self.delay / 4).max(SHORTEST_PAUSE).mul_f64(longer);
                last + gap.min(self.longest)
            }
        };
        nap(at.saturating_duration_since(now)).await;
        self.last = Some(Instant::now());
    }
}

/// Sleeps as long as it is told, to some tens of microseconds where the system can.
async fn nap(pause: Duration) {
    if pause.is_zero() {
        return;
    }
    #[cfg(target_os = "linux")]
    if pause < COARSE && fine_nap(pause).await.is_ok() {
        return;
    }
    tokio::time::sleep(pause).await;
}

#[cfg(target_os = "linux")]
async fn fine_nap(pause: Duration) -> std::io::Result<()> {
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
    // No pipe, but readable when its time has come, which is all that is waited for.
    Receiver::from_owned_fd_unchecked(timer)?.readable().await
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn knowing(delay: Duration) -> Delay {
        let known = Delay::default();
        known.0.lock().delay = delay;
        known
    }

    /// What a message teaches that appears after `appears`, each look `lasting` at least.
    fn message(known: &Delay, appears: Duration, lasting: Duration) -> u32 {
        let since = Instant::now();
        let (mut at, mut earlier, mut misses) = (known.get(), None, 0_u32);
        while at < appears {
            earlier = Some(since + at);
            misses += 1;
            let longer = 1.5_f64.powi(misses.cast_signed());
            at += lasting.max((known.get() / 4).max(SHORTEST_PAUSE).mul_f64(longer));
        }
        known.learn(since, earlier, since + at);
        misses + 1
    }

    #[test]
    fn a_message_is_found_with_a_look_and_a_half() {
        for appears in [MS / 2, MS, 40 * MS, 300 * MS] {
            let known = Delay::default();
            for _ in 0..100 {
                message(&known, appears, MS / 4);
            }
            let looks: u32 = (0..100).map(|_| message(&known, appears, MS / 4)).sum();
            assert!(looks <= 150, "{looks} looks for {appears:?}");
            assert!(known.get() > appears / 2, "{:?}", known.get());
            assert!(known.get() < appears * 2, "{:?}", known.get());
        }
    }

    #[test]
    fn a_slow_time_is_forgotten() {
        let known = knowing(200 * MS);
        for _ in 0..15 {
            message(&known, MS / 2, MS / 4);
        }
        assert!(known.get() < MS, "still {:?}", known.get());
    }

    #[test]
    fn a_slow_moment_or_two_do_not_count_and_a_cluster_is_known_in_a_dozen_messages() {
        let known = knowing(MS / 2);
        message(&known, 300 * MS, MS / 4);
        assert!(known.get() < 2 * MS, "{:?}", known.get());
        for _ in 0..11 {
            message(&known, 300 * MS, MS / 4);
        }
        assert!(known.get() > 150 * MS, "{:?}", known.get());
    }

    #[test]
    fn a_step_down_too_many_is_taken_back_at_once() {
        for appears in [MS / 2, 6 * MS, 200 * MS] {
            let known = knowing(appears * 5 / 4);
            let mut looks = 0;
            for _ in 0..300 {
                let before = known.get();
                let needed = message(&known, appears, MS / 4);
                looks += needed;
                assert!(needed == 1 || known.get() > before, "{before:?}");
                assert!(known.get() > appears / 4, "{:?}", known.get());
            }
            assert!(looks <= 370, "{looks} looks for {appears:?}");
        }
    }

    #[test]
    fn a_look_before_the_send_says_nothing() {
        let known = knowing(8 * MS);
        let since = Instant::now();
        known.learn(since, since.checked_sub(MS), since + 8 * MS);
        assert!(known.get() < 8 * MS);
    }

    #[tokio::test]
    async fn a_short_nap_is_no_shorter_than_asked() {
        for pause in [Duration::from_micros(300), 3 * MS, 25 * MS] {
            let began = Instant::now();
            nap(pause).await;
            assert!(began.elapsed() >= pause);
        }
    }
}
