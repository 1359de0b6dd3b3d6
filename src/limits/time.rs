//! The clock of the buckets: the real one, or one that tests set.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A clock that only goes forward. Clones show the same time.
#[derive(Debug, Clone)]
pub struct Time(Source);

#[derive(Debug, Clone)]
enum Source {
    Running(Instant),
    /// Nanoseconds, moved by hand.
    Standing(Arc<AtomicU64>),
}

impl Time {
    /// The system's monotonic clock.
    pub fn running() -> Self {
        Self(Source::Running(Instant::now()))
    }

    /// A clock that moves only when told to, for tests.
    pub fn standing() -> Self {
        Self(Source::Standing(Arc::default()))
    }

    /// Moves a standing clock; a running one is left alone.
    pub fn pass(&self, time: Duration) {
        if let Source::Standing(nanos) = &self.0 {
            nanos.fetch_add(whole_ns(time), Ordering::Relaxed);
        }
    }

    /// Nanoseconds since it began.
    pub(super) fn now_ns(&self) -> u64 {
        match &self.0 {
            Source::Running(start) => whole_ns(start.elapsed()),
            Source::Standing(nanos) => nanos.load(Ordering::Relaxed),
        }
    }
}

/// 584 years fit.
fn whole_ns(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
