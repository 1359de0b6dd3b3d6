//! Which core's thread runs, and what each core has of its own. Knows no runtime: `server` starts those.

use std::cell::Cell;
use std::sync::OnceLock;

thread_local! {
    static NUMBER: Cell<usize> = const { Cell::new(0) };
}

/// How many threads serve requests: as many as configured, else one a core that this process may run on.
pub fn count(configured: Option<usize>) -> usize {
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    configured.unwrap_or_else(cores)
}

/// Makes the running thread that of core `number`, counted from 1. All other threads are number 0.
pub fn enter(number: usize) {
    NUMBER.set(number);
}

/// Something that each core has one of, made when it first needs it; all other threads share the first one.
pub struct PerCore<T> {
    first: T,
    of_cores: Box<[OnceLock<T>]>,
    make: Box<dyn Fn() -> Option<T> + Send + Sync>,
}

impl<T> PerCore<T> {
    /// One for each of `cores` cores and one, `first`, for everybody else. Where `make` cannot make another, `first` serves, too.
    pub fn new(
        first: T,
        cores: usize,
        make: impl Fn() -> Option<T> + Send + Sync + 'static,
    ) -> Self {
        Self {
            first,
            of_cores: (0..cores).map(|_| OnceLock::new()).collect(),
            make: Box::new(make),
        }
    }

    /// That of the running thread.
    pub fn get(&self) -> &T {
        let own = NUMBER.get().checked_sub(1);
        let Some(own) = own.and_then(|own| self.of_cores.get(own)) else {
            return &self.first;
        };
        if let Some(own) = own.get() {
            return own;
        }
        match (self.make)() {
            Some(made) => own.get_or_init(|| made),
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
    fn each_core_has_its_own_and_everybody_else_the_first() {
        let made = Arc::new(AtomicUsize::new(0));
        let counter = made.clone();
        let per_core = PerCore::new(0, 2, move || {
            let number = counter.fetch_add(1, Ordering::Relaxed) + 1;
            (number < 2).then_some(number)
        });
        let on_core = |number: usize| {
            let one = || {
                enter(number);
                (*per_core.get(), *per_core.get())
            };
            std::thread::scope(|scope| scope.spawn(one).join().unwrap())
        };
        assert_eq!(*per_core.get(), 0);
        assert_eq!(on_core(2), (1, 1));
        assert_eq!(on_core(1), (0, 0), "a second one cannot be made");
        assert_eq!(on_core(2), (1, 1));
        assert_eq!(on_core(3), (0, 0), "there is no such core");
    }

    #[test]
    fn as_many_as_configured() {
        assert_eq!(count(Some(7)), 7);
        assert!(count(None) >= 1);
    }
}
