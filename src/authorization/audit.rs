//! The audit: one line for each thing an admin does by being one. Always written, whatever `log.level` says.

use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::HeaderValue;

use super::callback::Action;
use crate::domain::{Channel, Uid};
use crate::wukongim::current_request_id;

/// One thing that is being done. The line is written when this is dropped, so that nobody gets round it by hanging up.
pub struct Audit {
    actor: Uid,
    acts_for: Option<Uid>,
    action: Action,
    channel: Option<Channel>,
    request_id: Option<HeaderValue>,
    due: Arc<AtomicBool>,
    outcome: Option<String>,
}

impl Audit {
    /// `actor` begins to do `action`, in `channel` where it is about one, as or to `acts_for` where that is somebody else. A line
    /// is written once `due` is true.
    pub fn new(
        actor: &Uid,
        acts_for: Option<&Uid>,
        action: Action,
        channel: Option<&Channel>,
        due: Arc<AtomicBool>,
    ) -> Self {
        Self {
            actor: actor.clone(),
            acts_for: acts_for.cloned(),
            action,
            channel: channel.cloned(),
            request_id: current_request_id(),
            due,
            outcome: None,
        }
    }

    /// What came of it; without this the line says `interrupted`.
    pub fn ended<T, E: Display>(&mut self, result: &Result<T, E>) {
        self.outcome = Some(match result {
            Ok(_) => "done".to_owned(),
            Err(error) => error.to_string(),
        });
    }
}

impl Drop for Audit {
    fn drop(&mut self) {
        if !self.due.load(Ordering::SeqCst) {
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
            audit.outcome = self.outcome.as_deref().unwrap_or("interrupted"),
            channel.id = channel.map(Channel::id),
            channel.kind = channel.map(|channel| channel.channel_type().number()),
            "audit"
        );
    }
}
