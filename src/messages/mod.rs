//! Sending messages: check the permission, send once, confirm that the message is stored, answer with its seq.
//!
//! The path of one send on v2:
//!  1. [`Messages::send`] takes one of the channel's slots, and asks `Authorization::may_send`.
//!  2. From here on the work outlives its request (`DetachOnDrop`). `dispatch` waits while another request sends the same client_msg_no.
//!  3. `send_v2` claims the client_msg_no (`IdempotencyStore::claim`): an earlier result, or a conflict, is the answer.
//!  4. It checks that the channel's log is its own (`check_log_owner`), and registers with `Confirmer::expect`, so that no poll passes the
//!     message unnoticed.
//!  5. Where an earlier attempt has an unknown outcome, `find_prior_send` searches for its message, and waits until it can no longer appear.
//!  6. `Claim::mark_sent`: from here on the outcome may be unknown. `submit` checks the permission again, unless it is fresh, and sends.
//!  7. `confirm` waits for the message in the channel's log (`Pending::stored_by`). One loop per channel, `Confirmer::poll`, reads the log
//!     (`LogPager`), drops what is not on a majority of nodes (`truncate_unreplicated`) and finds the waiter (`ChannelWaiters`).
//!  8. `Claim::complete` keeps the result for repetitions. A claim that is dropped instead keeps the attempt, for step 5 of the next one.
//!
//! v3 does 3 to 5 and 7 itself, also for requests with the same client_msg_no at once: its path is 1, 2 without waiting, and 6. A batch
//! (`send_batch`) runs 3 to 8 for the messages of a channel in their order.

mod confirm;
mod idempotency;
mod send;

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::authorization::callback::Action;
use crate::authorization::{Audit, Denial};
use crate::domain::{Channel, ClientMsgNo, ConversationKey, MessageId, Payload, Uid};
use crate::wukongim::{self, NodeAffinity};

pub(crate) use send::Messages;

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
    /// This request has not stored it: WuKongIM did not accept it, or was not asked. An earlier request with this client_msg_no may have.
    #[error(transparent)]
    Upstream(wukongim::Error),
    /// The client_msg_no was used for another payload.
    #[error("client_msg_no used for another payload")]
    Conflict,
    /// It is not known to be stored in time, whether it was sent, may have been, or was not begun before the time was up: sending it again
    /// with this client_msg_no is safe.
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
    /// The request's deadline passed before the outcome was known, or before the message was sent at all.
    #[error("the request's deadline passed")]
    OutOfTime,
}

/// One message to send: a draft with its sender and its client_msg_no.
struct SendTask {
    sender: Uid,
    draft: Draft,
    /// The draft's, or a generated one.
    client_msg_no: ClientMsgNo,
    conversation: ConversationKey,
    /// Shared by a batch's messages to one channel.
    affinity: Arc<NodeAffinity>,
    /// The audit line, where an admin sends as another user.
    audit: Option<Audit>,
}

impl SendTask {
    fn new(sender: Uid, draft: Draft, affinity: Arc<NodeAffinity>) -> Arc<Self> {
        let audit = draft.actor.as_ref().map(|actor| {
            let is_due = Arc::new(true.into());
            let channel = Some(&draft.channel);
            Audit::new(actor, Some(&sender), Action::MessageSend, channel, is_due)
        });
        let client_msg_no = draft.client_msg_no.clone();
        Arc::new(Self {
            conversation: ConversationKey::of(&sender, &draft.channel),
            client_msg_no: client_msg_no.unwrap_or_else(ClientMsgNo::generate),
            sender,
            draft,
            affinity,
            audit,
        })
    }

    /// The task's result, after the audit line was written.
    fn end(&self, result: Result<Stored, SendError>) -> Result<Sent, SendError> {
        if let Some(audit) = &self.audit {
            audit.record_outcome(&result);
        }
        result.map(|stored| Sent {
            stored,
            client_msg_no: self.client_msg_no.clone(),
        })
    }

    fn unconfirmed(&self, cause: Cause) -> SendError {
        SendError::Unconfirmed {
            client_msg_no: self.client_msg_no.clone(),
            cause,
        }
    }
}

/// Now, in Unix milliseconds.
fn unix_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(now.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}
