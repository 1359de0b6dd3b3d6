//! What sending means: checked, sent once, seen stored, answered with the real seq.

mod batch;
mod confirm;
mod ledger;
mod lookup;
mod pace;
mod send;

use std::time::{SystemTime, UNIX_EPOCH};

use crate::authorization::Denial;
use crate::domain::{Channel, ClientMsgNo, MessageId, Payload, Uid};
use crate::wukongim;

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
}

/// Now, in Unix milliseconds.
fn unix_ms() -> u64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}
