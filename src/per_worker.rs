//! The number of the running worker thread, and values of which each worker has its own. Knows no runtime: `gateway` starts those.

use std::cell::Cell;
use std::sync::OnceLock;

thread_local! {
    static WORKER: Cell<usize> = const { Cell::new(0) };
}

/// The number of worker threads: as configured, else one for each core available to this process.
pub(crate) fn count(configured: Option<usize>) -> usize {
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    configured.unwrap_or_else(cores)
}

/// Marks the running thread as worker `number`, counted from 1. Other threads have number 0.
pub(crate) fn set_worker(number: usize) {
    WORKER.set(number);
}

/// A value that each worker has its own of, created on first use. All other threads share the first one.
pub(crate) struct PerWorker<T> {
    first: T,
    workers: Box<[OnceLock<T>]>,
    make: Box<dyn Fn() -> Option<T> + Send + Sync>,
}

impl<T> PerWorker<T> {
    /// One value for each of `cores` workers, and `first` for all other threads. A worker uses `first` too where `make` returns `None`.
    pub(crate) fn new(
        first: T,
        cores: usize,
        make: impl Fn() -> Option<T> + Send + Sync + 'static,
    ) -> Self {
        Self {
            first,
            workers: (0..cores).map(|_| OnceLock::new()).collect(),
            make: Box::new(make),
        }
    }

    /// The running thread's value.
    pub(crate) fn get(&self) -> &T {
        let worker = WORKER.get().checked_sub(1);
        let Some(worker) = worker.and_then(|worker| self.workers.get(worker)) else {
            return &self.first;
        };
        if let Some(worker) = worker.get() {
            return worker;
        }
        match (self.make)() {
            Some(made) => worker.get_or_init(|| made),
            None => &self.first,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn each_worker_has_its_own_and_other_threads_share_the_first() {
        let made = Arc::new(AtomicUsize::new(0));
        let counter = made.clone();
        let per_worker = PerWorker::new(0, 2, move || {
            let number = counter.fetch_add(1, Ordering::Relaxed) + 1;
            (number < 2).then_some(number)
        });
        let on_worker = |number: usize| {
            let one = || {
                set_worker(number);
                (*per_worker.get(), *per_worker.get())
            };
            std::thread::scope(|scope| scope.spawn(one).join().unwrap())
        };
        assert_eq!(*per_worker.get(), 0);
        assert_eq!(on_worker(2), (1, 1));
        assert_eq!(on_worker(1), (0, 0), "a second one cannot be made");
        assert_eq!(on_worker(2), (1, 1));
        assert_eq!(on_worker(3), (0, 0), "there is no such core");
    }

    #[test]
    fn as_many_as_configured() {
        assert_eq!(count(Some(7)), 7);
        assert!(count(None) >= 1);
    }
}
