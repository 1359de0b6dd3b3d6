//! Budgets for the bytes of request bodies and upstream answers that are in memory, in total and per user, and the count of a connection's
//! unwritten bytes.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use prometheus_client::metrics::counter::Counter;

/// The budget is exhausted; the request must be refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// The gateway's budget.
    #[error("max_buffered bytes are held already")]
    All,
    /// One user's budget.
    #[error("a quarter of max_buffered is this user's already")]
    User,
}

/// The bytes reserved now, and their limit.
#[derive(Debug)]
pub struct ByteBudget {
    held: AtomicUsize,
    max: usize,
    /// The error when the budget is used up.
    full: Full,
    refusals: Counter,
}

impl ByteBudget {
    /// A budget of `max` bytes, which fails with `full`; `refusals` counts that.
    pub fn new(full: Full, max: usize, refusals: Counter) -> Arc<Self> {
        let held = AtomicUsize::new(0);
        Arc::new(Self {
            held,
            max,
            full,
            refusals,
        })
    }

    /// A budget without a limit.
    pub fn unbounded() -> Arc<Self> {
        Self::new(Full::All, usize::MAX, Counter::default())
    }

    /// Bytes reserved now.
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Fails when the budget is used up to its last byte.
    pub fn check_room(&self) -> Result<(), Full> {
        if self.held() < self.max {
            return Ok(());
        }
        self.refusals.inc();
        Err(self.full)
    }

    fn try_reserve(&self, bytes: usize) -> Result<(), Full> {
        let before = self.held.fetch_add(bytes, Ordering::Relaxed);
        if before.saturating_add(bytes) > self.max {
            self.held.fetch_sub(bytes, Ordering::Relaxed);
            self.refusals.inc();
            return Err(self.full);
        }
        Ok(())
    }

    /// An empty reservation.
    pub fn new_reservation(self: &Arc<Self>) -> Reservation {
        Reservation {
            budget: self.clone(),
            user: OnceLock::new(),
            bytes: AtomicUsize::new(0),
        }
    }
}

/// The bytes reserved for one request; released when it is dropped.
#[derive(Debug)]
pub struct Reservation {
    budget: Arc<ByteBudget>,
    /// The budget of its user, if it has one.
    user: OnceLock<Arc<ByteBudget>>,
    bytes: AtomicUsize,
}

impl Reservation {
    /// Also counts for this user from now on. Call it once, while the reservation is empty.
    pub fn assign_user(&self, user: Arc<ByteBudget>) {
        debug_assert_eq!(
            self.bytes(),
            0,
            "else it would give back what it never took"
        );
        let _ = self.user.set(user);
    }

    /// Reserves `bytes` more, if the budget has them.
    pub fn try_reserve(&self, bytes: usize) -> Result<(), Full> {
        let user = self.user.get();
        user.map_or(Ok(()), |user| user.try_reserve(bytes))?;
        if let Err(full) = self.budget.try_reserve(bytes) {
            if let Some(user) = user {
                user.held.fetch_sub(bytes, Ordering::Relaxed);
            }
            return Err(full);
        }
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    /// Reserves `bytes` more even beyond the limit, for bytes that are in memory already.
    pub fn force_reserve(&self, bytes: usize) {
        for budget in self.user.get().into_iter().chain([&self.budget]) {
            budget.held.fetch_add(bytes, Ordering::Relaxed);
        }
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Gives back all but `bytes`.
    pub fn shrink_to(&self, bytes: usize) {
        let held = self.bytes.fetch_min(bytes, Ordering::Relaxed);
        for budget in self.user.get().into_iter().chain([&self.budget]) {
            budget
                .held
                .fetch_sub(held.saturating_sub(bytes), Ordering::Relaxed);
        }
    }

    /// Bytes held by this reservation.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let bytes = *self.bytes.get_mut();
        for budget in self.user.get().into_iter().chain([&self.budget]) {
            budget.held.fetch_sub(bytes, Ordering::Relaxed);
        }
    }
}

/// The bytes of answers that one connection has not written yet.
#[derive(Debug, Default)]
pub struct UnwrittenBytes(pub AtomicUsize);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reservations_fill_the_budget_and_release_it() {
        let refusals = Counter::default();
        let budget = ByteBudget::new(Full::All, 100, refusals.clone());
        let (one, other) = (budget.new_reservation(), budget.new_reservation());
        assert_eq!(one.try_reserve(60), Ok(()));
        assert_eq!(other.try_reserve(41), Err(Full::All));
        assert_eq!(
            (budget.held(), other.bytes()),
            (60, 0),
            "a refused reservation holds nothing"
        );
        assert_eq!(other.try_reserve(40), Ok(()));
        assert_eq!(budget.check_room(), Err(Full::All));
        assert_eq!(refusals.get(), 2);
        other.force_reserve(5);
        assert_eq!((budget.held(), other.bytes()), (105, 45));
        drop(one);
        assert_eq!(budget.held(), 45);
        other.shrink_to(50);
        assert_eq!((budget.held(), other.bytes()), (45, 45));
        other.shrink_to(20);
        assert_eq!((budget.held(), other.bytes()), (20, 20));
        drop(other);
        assert_eq!(budget.held(), 0);
    }
}
