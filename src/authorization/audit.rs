//! The audit log: one line for each action that only the admin right permitted. Always written, regardless of `log.level`.

use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::HeaderValue;

use super::callback::Action;
use crate::context::current_request_id;
use crate::domain::{Channel, Uid};

/// One action in progress. The line is written when the outcome is recorded, or when this is dropped, so that a disconnect cannot avoid it.
pub struct Audit {
    actor: Uid,
    acts_for: Option<Uid>,
    action: Action,
    channel: Option<Channel>,
    request_id: Option<HeaderValue>,
    is_due: Arc<AtomicBool>,
    is_written: AtomicBool,
}

impl Audit {
    /// `actor` starts `action`, in `channel` if it concerns one, on behalf of or to `acts_for` if that is another user. The line is written
    /// only if `is_due` is true by then.
    pub fn new(
        actor: &Uid,
        acts_for: Option<&Uid>,
        action: Action,
        channel: Option<&Channel>,
        is_due: Arc<AtomicBool>,
    ) -> Self {
        Self {
            actor: actor.clone(),
            acts_for: acts_for.cloned(),
            action,
            channel: channel.cloned(),
            request_id: current_request_id(),
            is_due,
            is_written: false.into(),
        }
    }

    /// Writes the line with the outcome.
    pub fn record_outcome<T, E: Display>(&self, result: &Result<T, E>) {
        match result {
            Ok(_) => self.write(&"done"),
            Err(error) => self.write(error),
        }
    }

    fn write(&self, outcome: &dyn Display) {
        if self.is_written.swap(true, Ordering::SeqCst) || !self.is_due.load(Ordering::SeqCst) {
            return;
        }
        let id = self.request_id.as_ref();
        let channel = self.channel.as_ref();
        tracing::event!(
            target: "audit",
            tracing::Level::INFO,
            request.id = id.and_then(|id| id.to_str().ok()),
            audit.actor = self.actor.as_str(),
            audit.acts_for = self.acts_for.as_ref().map(Uid::as_str),
            audit.action = self.action.name(),
            audit.outcome = %outcome,
            channel.id = channel.map(Channel::id),
            channel.kind = channel.map(|channel| channel.channel_type().number()),
            "audit"
        );
    }
}

impl Drop for Audit {
    fn drop(&mut self) {
        self.write(&"interrupted");
    }
}
