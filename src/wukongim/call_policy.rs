//! The policy of a call: whether it may be retried, and whether it is bound to a node.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// When a call may be retried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Retry {
    /// Never after it may have arrived.
    Never,
    /// After any failure, on another node; after a broken connection, on the same node if there is no other. The call changes nothing.
    Read,
    /// After a broken connection, in the same way: executing it twice in a row has the same effect as once.
    IfLost,
    /// After any failure, on another node or once more on the same one: v3 recognises a message by sender and client_msg_no. That index is
    /// part of the channel's log, to which only the channel's leader appends, whichever node gets the call (source).
    IdempotencyKey,
}

/// The node that takes one batch's messages to one channel: v2 keeps their order only if one node receives all of them.
#[derive(Debug, Default)]
pub struct NodeAffinity(AtomicUsize);

impl NodeAffinity {
    /// Whether a node has taken a message.
    pub fn is_set(&self) -> bool {
        self.0.load(Relaxed) != 0
    }

    /// Lets another node take the next message. Allowed once the outcome of all messages sent is known.
    pub fn clear(&self) {
        self.0.store(0, Relaxed);
    }

    pub(super) fn node(&self) -> Option<usize> {
        self.0.load(Relaxed).checked_sub(1)
    }

    pub(super) fn set(&self, index: usize) {
        self.0.store(index + 1, Relaxed);
    }
}

/// How one call is routed and retried.
pub(super) struct CallPolicy<'a> {
    /// The call's label in metrics.
    pub(super) call: &'static str,
    pub(super) retry: Retry,
    pub(super) affinity: Option<&'a NodeAffinity>,
}

impl CallPolicy<'_> {
    pub(super) fn read(call: &'static str) -> Self {
        Self::of(call, Retry::Read)
    }

    pub(super) fn write(call: &'static str) -> Self {
        Self::of(call, Retry::Never)
    }

    fn of(call: &'static str, retry: Retry) -> Self {
        Self {
            call,
            retry,
            affinity: None,
        }
    }
}
