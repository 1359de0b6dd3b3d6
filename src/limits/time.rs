//! The clock of the buckets: the real one, or one that tests set.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use governor::clock::Clock;
use governor::nanos::Nanos;

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
            nanos.fetch_add(Nanos::from(time).as_u64(), Ordering::Relaxed);
        }
    }
}

impl Clock for Time {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        match &self.0 {
            Source::Running(start) => Nanos::from(start.elapsed()),
            Source::Standing(nanos) => Nanos::new(nanos.load(Ordering::Relaxed)),
        }
    }
}
