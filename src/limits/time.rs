//! The clock of the buckets: the system's, or one that tests advance.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A monotonic clock. Clones share their time.
#[derive(Debug, Clone)]
pub struct Time(Source);

#[derive(Debug, Clone)]
enum Source {
    Running(Instant),
    /// Nanoseconds, advanced by tests.
    Standing(Arc<AtomicU64>),
}

impl Time {
    /// The system's monotonic clock.
    pub fn running() -> Self {
        Self(Source::Running(Instant::now()))
    }

    /// A clock that tests advance.
    pub fn standing() -> Self {
        Self(Source::Standing(Arc::default()))
    }

    /// Advances a standing clock; does nothing to a running one.
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
