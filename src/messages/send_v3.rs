//! Dispatch to v3, which checks, stores and de-duplicates messages itself, by sender, channel, client_msg_no and payload (seen on a running
//! server).

use std::time::Instant;

use super::idempotency::{Attempt, ClaimOutcome};
use super::send::{Messages, refused};
use super::{Cause, SendError, SendTask, Sent, Stored, unix_ms};
use crate::authorization::Permit;
use crate::domain::Channel;
use crate::wukongim::{Accepted, Error, Rejection};

impl Messages {
    /// Sends the message; the upstream client has already retried a lost answer once.
    pub(super) async fn send_v3(&self, task: &SendTask, permit: Permit) -> Result<Sent, SendError> {
        let sent_ms = unix_ms();
        let answer = self.submit(task, permit).await;
        let answer = answer.map_err(SendError::Denied)?;
        let cause = match answer {
            Ok(Accepted { id, seq: Some(seq) }) => {
                if let Channel::Person(_) = task.channel {
                    self.fresh_pairs.insert(task.conversation(), Instant::now());
                }
                return Ok(task.sent(Stored { id, seq }));
            }
            // Not an answer of v3: the outcome is unknown.
            Ok(Accepted { seq: None, .. }) => Cause::NeverSeen,
            // A conflict of a generated client_msg_no is not the client's fault.
            Err(Error::Rejected(Rejection::Conflict)) if task.is_client_key => {
                return Err(SendError::Conflict);
            }
            Err(error) if error.may_have_arrived() => Cause::NoAnswer(error),
            Err(error) => return Err(refused(&task.channel, &error)),
        };
        self.record_unknown(task, sent_ms);
        Err(task.unconfirmed(cause))
    }

    /// v3 recognises a repeated client_msg_no itself. The attempt is recorded in case a v2 takes the retry, so that it is searched for
    /// first.
    fn record_unknown(&self, task: &SendTask, sent_ms: u64) {
        let outcome = self.idempotency.claim(
            &task.sender,
            &task.conversation(),
            &task.client_msg_no,
            &task.payload,
        );
        if let ClaimOutcome::New(claim) | ClaimOutcome::Unknown(claim, _) = outcome {
            claim.mark_sent(Attempt {
                floor: None,
                sent_ms,
                last: Instant::now(),
            });
        }
    }
}
