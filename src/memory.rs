//! How many bytes of request bodies and upstream answers are held at once, over all requests. Knows nobody.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use prometheus_client::metrics::counter::Counter;

/// No room for more: the request is to be refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("max_buffered bytes are held already")]
pub struct Full;

/// The count, and how far it may go.
#[derive(Debug)]
pub struct Memory {
    held: AtomicUsize,
    most: usize,
    refusals: Counter,
}

impl Memory {
    /// Room for `most` bytes; `refusals` counts each [`Full`].
    pub fn new(most: usize, refusals: Counter) -> Arc<Self> {
        let held = AtomicUsize::new(0);
        Arc::new(Self {
            held,
            most,
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
        Err(Full)
    }

    /// A share that holds nothing yet.
    pub fn share(self: &Arc<Self>) -> Share {
        Share {
            memory: self.clone(),
            bytes: AtomicUsize::new(0),
        }
    }
}

/// What one request holds; given back when it is dropped.
#[derive(Debug)]
pub struct Share {
    memory: Arc<Memory>,
    bytes: AtomicUsize,
}

impl Share {
    /// Counts `bytes` more, where there is room for them.
    pub fn grow(&self, bytes: usize) -> Result<(), Full> {
        let before = self.memory.held.fetch_add(bytes, Ordering::Relaxed);
        if before.saturating_add(bytes) > self.memory.most {
            self.memory.held.fetch_sub(bytes, Ordering::Relaxed);
            self.memory.refusals.inc();
            return Err(Full);
        }
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    /// Counts `bytes` more that are there already, room or not.
    pub fn grow_anyway(&self, bytes: usize) {
        self.memory.held.fetch_add(bytes, Ordering::Relaxed);
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
        self.memory.held.fetch_sub(bytes, Ordering::Relaxed);
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
        assert_eq!(other.grow(41), Err(Full));
        assert_eq!(
            (memory.held(), other.bytes()),
            (60, 0),
            "a refusal holds nothing"
        );
        assert_eq!(other.grow(40), Ok(()));
        assert_eq!(memory.has_room(), Err(Full));
        assert_eq!(refusals.get(), 2);
        other.grow_anyway(5);
        assert_eq!((memory.held(), other.bytes()), (105, 45));
        drop(one);
        assert_eq!(memory.held(), 45);
        drop(other);
        assert_eq!(memory.held(), 0);
    }
}
