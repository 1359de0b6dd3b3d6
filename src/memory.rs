//! How many bytes of request bodies and upstream answers are held at once, over all requests. Knows nobody.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// No room for more: the request is to be refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("max_buffered bytes are held already")]
pub struct Full;

/// The count, and how far it may go.
#[derive(Debug)]
pub struct Memory {
    held: AtomicUsize,
    most: usize,
}

impl Memory {
    /// Room for `most` bytes.
    pub fn new(most: usize) -> Arc<Self> {
        let held = AtomicUsize::new(0);
        Arc::new(Self { held, most })
    }

    /// Bytes held now.
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Whether there is no room for a single byte.
    pub fn is_full(&self) -> bool {
        self.held() >= self.most
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
        let memory = Memory::new(100);
        let (one, other) = (memory.share(), memory.share());
        assert_eq!(one.grow(60), Ok(()));
        assert_eq!(other.grow(41), Err(Full));
        assert_eq!(
            (memory.held(), other.bytes()),
            (60, 0),
            "a refusal holds nothing"
        );
        assert_eq!(other.grow(40), Ok(()));
        assert!(memory.is_full());
        other.grow_anyway(5);
        assert_eq!((memory.held(), other.bytes()), (105, 45));
        drop(one);
        assert_eq!(memory.held(), 45);
        drop(other);
        assert_eq!(memory.held(), 0);
    }
}
