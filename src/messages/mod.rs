//! Sending messages: check the permission, send once, confirm that the message is stored, answer with its seq.

mod batch;
mod channel_waiters;
mod confirm;
mod detach_on_drop;
mod idempotency;
mod idempotency_table;
mod log_pager;
mod lookup;
mod poll_schedule;
mod replicated;
mod send;
mod send_v2;
mod send_v3;

use std::future::Future;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::task::JoinHandle;

use crate::authorization::callback::Action;
use crate::authorization::{Audit, Denial};
use crate::context::{inherit_context, inherit_identity};
use crate::domain::{Channel, ClientMsgNo, ConversationKey, MessageId, Payload, Uid};
use crate::wukongim::{self, NodeAffinity};

pub use send::Messages;

/// A message as a client submits it.
#[derive(Debug, Clone)]
pub struct Draft {
    /// The admin that sends it on the sender's behalf.
    pub actor: Option<Uid>,
    /// The destination.
    pub channel: Channel,
    /// The content.
    pub payload: Payload,
    /// The client's idempotency key; generated where the client gave none.
    pub client_msg_no: Option<ClientMsgNo>,
}

/// Where a message is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// WuKongIM's id.
    pub id: MessageId,
    /// Its seq in the channel, 1 or more; 0 only with `wukongim.confirm = "accepted"` on v2.
    pub seq: u64,
}

/// A message that was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// Where it is stored.
    pub stored: Stored,
    /// The client's idempotency key, or the generated one.
    pub client_msg_no: ClientMsgNo,
}

/// Why a message was not sent, or not confirmed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SendError {
    /// The sender is not permitted.
    #[error(transparent)]
    Denied(#[from] Denial),
    /// WuKongIM did not accept it: it is not stored.
    #[error(transparent)]
    Upstream(wukongim::Error),
    /// The client_msg_no was used for another payload.
    #[error("client_msg_no used for another payload")]
    Conflict,
    /// It was sent, or may have been, and was not confirmed in time: sending it again with this client_msg_no is safe.
    #[error("sent but not seen stored: {cause}")]
    Unconfirmed {
        /// The client_msg_no for the retry.
        client_msg_no: ClientMsgNo,
        /// The reason.
        cause: Cause,
    },
}

/// Why a message is unconfirmed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Cause {
    /// WuKongIM accepted it, and it did not appear in the channel's log.
    #[error("accepted and never seen")]
    NeverSeen,
    /// No usable answer came.
    #[error(transparent)]
    NoAnswer(wukongim::Error),
    /// The request's deadline passed before the outcome was known.
    #[error("the request's deadline passed")]
    OutOfTime,
}

/// One message to send: a draft with its sender and its client_msg_no.
#[derive(Debug)]
struct SendTask {
    /// The admin that sends it on behalf of `sender`.
    actor: Option<Uid>,
    sender: Uid,
    channel: Channel,
    payload: Payload,
    client_msg_no: ClientMsgNo,
    /// Whether the client chose the client_msg_no, and so may repeat it after a success.
    is_client_key: bool,
    /// Shared by a batch's messages to one channel.
    affinity: Arc<NodeAffinity>,
}

impl SendTask {
    fn new(sender: Uid, draft: Draft, affinity: Arc<NodeAffinity>) -> Self {
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
            affinity,
            is_client_key: client_msg_no.is_some(),
            client_msg_no: client_msg_no.unwrap_or_else(ClientMsgNo::generate),
        }
    }

    fn conversation(&self) -> ConversationKey {
        ConversationKey::of(&self.sender, &self.channel)
    }

    /// The audit line, where an admin sends as another user.
    fn audit(&self) -> Option<Audit> {
        let actor = self.actor.as_ref()?;
        let acts_for = Some(&self.sender);
        let is_due = Arc::new(true.into());
        Some(Audit::new(
            actor,
            acts_for,
            Action::MessageSend,
            Some(&self.channel),
            is_due,
        ))
    }

    /// The upstream message.
    fn outgoing(&self) -> wukongim::Outgoing<'_> {
        wukongim::Outgoing {
            from: &self.sender,
            channel: &self.channel,
            payload: &self.payload,
            client_msg_no: &self.client_msg_no,
            affinity: &self.affinity,
        }
    }

    fn sent(&self, stored: Stored) -> Sent {
        Sent {
            stored,
            client_msg_no: self.client_msg_no.clone(),
        }
    }

    fn unconfirmed(&self, cause: Cause) -> SendError {
        SendError::Unconfirmed {
            client_msg_no: self.client_msg_no.clone(),
            cause,
        }
    }
}

/// Runs a request's `work` in its own task, which outlives a dropped request. The request's bytes stay reserved until it ends.
fn spawn_in_request<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> JoinHandle<T> {
    tokio::spawn(inherit_context(Box::pin(work)))
}

/// Runs `work` whose result several requests share in its own task. Its calls carry the id of the request that started it.
fn spawn_shared<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> JoinHandle<T> {
    // Boxed: a task moves its future whenever its state changes.
    tokio::spawn(inherit_identity(Box::pin(work)))
}

/// Now, in Unix milliseconds.
fn unix_ms() -> u64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}
