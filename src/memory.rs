//! How many bytes of request bodies and upstream answers are held at once, over all requests and by each user, and how many a
//! connection has still to write. Knows nobody.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use prometheus_client::metrics::counter::Counter;

/// No room for more: the request is to be refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// In the gateway.
    #[error("max_buffered bytes are held already")]
    All,
    /// In one user's part.
    #[error("a quarter of max_buffered is this user's already")]
    User,
}

/// The count, and how far it may go.
#[derive(Debug)]
pub struct Memory {
    held: AtomicUsize,
    most: usize,
    /// What it says when there is no room.
    full: Full,
    refusals: Counter,
}

impl Memory {
    /// Room for `most` bytes; `refusals` counts each [`Full`].
    pub fn new(most: usize, refusals: Counter) -> Arc<Self> {
        Self::saying(Full::All, most, refusals)
    }

    /// One user's part of it.
    pub fn of_user(most: usize, refusals: Counter) -> Arc<Self> {
        Self::saying(Full::User, most, refusals)
    }

    fn saying(full: Full, most: usize, refusals: Counter) -> Arc<Self> {
        let held = AtomicUsize::new(0);
        Arc::new(Self {
            held,
            most,
            full,
            refusals,
        })
    }

    /// Room for whatever comes.
    pub fn unbounded() -> Arc<Self> {
        Self::new(usize::MAX, Counter::default())
    }

    /// Bytes held now.
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Whether there is room for a single byte.
    pub fn has_room(&self) -> Result<(), Full> {
        if self.held() < self.most {
            return Ok(());
        }
        self.refusals.inc();
        Err(self.full)
    }

    fn grow(&self, bytes: usize) -> Result<(), Full> {
        let before = self.held.fetch_add(bytes, Ordering::Relaxed);
        if before.saturating_add(bytes) > self.most {
            self.held.fetch_sub(bytes, Ordering::Relaxed);
            self.refusals.inc();
            return Err(self.full);
        }
        Ok(())
    }

    /// A share that holds nothing yet.
    pub fn share(self: &Arc<Self>) -> Share {
        Share {
            memory: self.clone(),
            user: OnceLock::new(),
            bytes: AtomicUsize::new(0),
        }
    }
}

/// What one request holds; given back when it is dropped.
#[derive(Debug)]
pub struct Share {
    memory: Arc<Memory>,
    /// The part of its user, where there is one.
    user: OnceLock<Arc<Memory>>,
    bytes: AtomicUsize,
}

impl Share {
    /// Counts as this user's from here on. To be called once, while it holds nothing.
    pub fn bound_by(&self, user: Arc<Memory>) {
        debug_assert_eq!(
            self.bytes(),
            0,
            "else it would give back what it never took"
        );
        let _ = self.user.set(user);
    }

    /// Counts `bytes` more, where there is room for them.
    pub fn grow(&self, bytes: usize) -> Result<(), Full> {
        let user = self.user.get();
        user.map_or(Ok(()), |user| user.grow(bytes))?;
        if let Err(full) = self.memory.grow(bytes) {
            if let Some(user) = user {
                user.held.fetch_sub(bytes, Ordering::Relaxed);
            }
            return Err(full);
        }
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    /// Counts `bytes` more that are there already, room or not.
    pub fn grow_anyway(&self, bytes: usize) {
        for memory in self.user.get().into_iter().chain([&self.memory]) {
            memory.held.fetch_add(bytes, Ordering::Relaxed);
        }
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes held by this one.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let bytes = *self.bytes.get_mut();
        for memory in self.user.get().into_iter().chain([&self.memory]) {
            memory.held.fetch_sub(bytes, Ordering::Relaxed);
        }
    }
}

/// Bytes of answers that one connection has still to write.
#[derive(Debug, Default)]
pub struct Unwritten(AtomicUsize);

impl Unwritten {
    /// That many now.
    pub fn bytes(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// So many more are to be written.
    pub fn add(&self, bytes: usize) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }

    /// They are written, or never will be.
    pub fn remove(&self, bytes: usize) {
        self.0.fetch_sub(bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_fill_the_memory_and_give_it_back() {
        let refusals = Counter::default();
        let memory = Memory::new(100, refusals.clone());
        let (one, other) = (memory.share(), memory.share());
        assert_eq!(one.grow(60), Ok(()));
        assert_eq!(other.grow(41), Err(Full::All));
        assert_eq!(
            (memory.held(), other.bytes()),
            (60, 0),
            "a refusal holds nothing"
        );
        assert_eq!(other.grow(40), Ok(()));
        assert_eq!(memory.has_room(), Err(Full::All));
        assert_eq!(refusals.get(), 2);
        other.grow_anyway(5);
        assert_eq!((memory.held(), other.bytes()), (105, 45));
        drop(one);
        assert_eq!(memory.held(), 45);
        drop(other);
        assert_eq!(memory.held(), 0);
    }
}
