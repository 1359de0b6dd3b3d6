//! What sending means: checked, sent once, seen stored, answered with the real seq.

mod batch;
mod confirm;
mod ledger;
mod lookup;
mod onward;
mod pace;
mod safe;
mod send;
mod send_v2;
mod send_v3;
mod table;
mod walk;
mod watch;

use std::future::Future;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::task::JoinHandle;

use crate::authorization::callback::Action;
use crate::authorization::{Audit, Denial};
use crate::domain::{Channel, ClientMsgNo, ConversationKey, MessageId, Payload, Uid};
use crate::wukongim::{self, Generation, Route, begun_by_this_request, in_this_request};

pub use send::Messages;

/// A message as a client hands it in.
#[derive(Debug, Clone)]
pub struct Draft {
    /// The admin who sends it for its sender.
    pub actor: Option<Uid>,
    /// Where to.
    pub channel: Channel,
    /// The content.
    pub payload: Payload,
    /// The client's number; a new one is made where it gave none.
    pub client_msg_no: Option<ClientMsgNo>,
}

/// Where a message is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// WuKongIM's id.
    pub id: MessageId,
    /// Its number in the channel, 1 or more; 0 only with `wukongim.confirm = "accepted"` on v2.
    pub seq: u64,
}

/// A message that was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// Where it is stored.
    pub stored: Stored,
    /// The client's number, or the one made for it.
    pub client_msg_no: ClientMsgNo,
}

/// Why a message was not sent, or not seen to be.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SendError {
    /// The sender may not.
    #[error(transparent)]
    Denied(#[from] Denial),
    /// WuKongIM did not take it: it is not stored.
    #[error(transparent)]
    Upstream(wukongim::Error),
    /// The number was used for another payload.
    #[error("client_msg_no used for another payload")]
    Conflict,
    /// It was sent, or may have been, and was not seen stored in time: sending it again with this number is safe.
    #[error("sent but not seen stored: {cause}")]
    Unconfirmed {
        /// The number to send again with.
        client_msg_no: ClientMsgNo,
        /// What went wrong.
        cause: Cause,
    },
}

/// How a message came to be unconfirmed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Cause {
    /// WuKongIM gave it an id, and it never turned up.
    #[error("accepted and never seen")]
    NeverSeen,
    /// No usable answer came.
    #[error(transparent)]
    NoAnswer(wukongim::Error),
    /// The request's time was up before anything was known.
    #[error("the request's time was up")]
    OutOfTime,
}

/// One message on its way: a draft with its sender, and with a number in any case.
#[derive(Debug)]
struct Job {
    /// The admin who sends it for `sender`.
    actor: Option<Uid>,
    sender: Uid,
    channel: Channel,
    payload: Payload,
    number: ClientMsgNo,
    /// Whether the client brought the number, and may bring it again after a success.
    own_number: bool,
    /// Shared by a batch's messages to one channel.
    route: Arc<Route>,
}

impl Job {
    fn new(sender: Uid, draft: Draft, route: Arc<Route>) -> Self {
        let Draft {
            actor,
            channel,
            payload,
            client_msg_no,
        } = draft;
        Self {
            actor,
            sender,
            channel,
            payload,
            route,
            own_number: client_msg_no.is_some(),
            number: client_msg_no.unwrap_or_else(ClientMsgNo::generate),
        }
    }

    fn conversation(&self) -> ConversationKey {
        ConversationKey::of(&self.sender, &self.channel)
    }

    /// The audit's line, where an admin sends as somebody else.
    fn audit(&self) -> Option<Audit> {
        let actor = self.actor.as_ref()?;
        let acts_for = Some(&self.sender);
        let due = Arc::new(true.into());
        Some(Audit::new(
            actor,
            acts_for,
            Action::MessageSend,
            Some(&self.channel),
            due,
        ))
    }

    /// For the generation that permitted it, and no other.
    fn outgoing(&self, permitted_by: Generation) -> wukongim::Outgoing<'_> {
        wukongim::Outgoing {
            from: &self.sender,
            channel: &self.channel,
            payload: &self.payload,
            client_msg_no: &self.number,
            permitted_by,
            route: &self.route,
        }
    }

    fn sent(&self, stored: Stored) -> Sent {
        Sent {
            stored,
            client_msg_no: self.number.clone(),
        }
    }

    fn unconfirmed(&self, cause: Cause) -> SendError {
        SendError::Unconfirmed {
            client_msg_no: self.number.clone(),
            cause,
        }
    }
}

/// Runs a request's `work` in a task of its own, which goes on when the request is gone: until then what it holds stays counted.
fn spawn_in_request<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> JoinHandle<T> {
    tokio::spawn(in_this_request(Box::pin(work)))
}

/// Runs `work` that other requests wait for, too, in a task of its own. Its calls are made in the name of the one that
/// began it.
fn spawn<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    // In a box: a task copies its future as often as it changes its state.
    tokio::spawn(begun_by_this_request(Box::pin(work)))
}

/// Now, in Unix milliseconds.
fn unix_ms() -> u64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}
