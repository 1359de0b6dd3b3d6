//! What a call may do on its way over the nodes: be repeated or not, go to one generation or any, follow others.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::Generation;

/// What may be repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeat {
    /// Nothing that may have arrived.
    Never,
    /// Everything, on another node or, where the connection broke and there is none, once more on the same: it changes nothing.
    Read,
    /// What came to nothing when its connection broke, in the same way: done twice it is as if done once, so long as the two come close
    /// to each other.
    IfLost,
    /// Everything, on another node or where there is none once more on the same: v3 knows a message's number again. Its index of
    /// (sender, number) lies in the channel's own log, which the channel's leader appends to whichever node is asked (source).
    Numbered,
}

/// Where the messages of one batch and channel go: v2 stores them in the order in which *one* node got them.
#[derive(Debug, Default)]
pub struct Route(AtomicUsize);

impl Route {
    /// Whether a node was found that takes them.
    pub fn is_found(&self) -> bool {
        self.0.load(Relaxed) != 0
    }

    /// Another node may be found: whatever was sent is known to be stored, or not to be.
    pub fn leave(&self) {
        self.0.store(0, Relaxed);
    }

    pub(super) fn place(&self) -> Option<usize> {
        self.0.load(Relaxed).checked_sub(1)
    }

    pub(super) fn take(&self, place: usize) {
        self.0.store(place + 1, Relaxed);
    }
}

/// What kind of call it is.
pub(super) struct Plan<'a> {
    /// Its label in metrics.
    pub(super) call: &'static str,
    pub(super) repeat: Repeat,
    /// The only generation that may be asked; whatever is spoken to at present where it is `None`.
    pub(super) wanted: Option<Generation>,
    pub(super) route: Option<&'a Route>,
}

impl Plan<'_> {
    pub(super) fn read(call: &'static str) -> Self {
        Self::of(call, Repeat::Read)
    }

    pub(super) fn write(call: &'static str) -> Self {
        Self::of(call, Repeat::Never)
    }

    fn of(call: &'static str, repeat: Repeat) -> Self {
        Self {
            call,
            repeat,
            wanted: None,
            route: None,
        }
    }
}
