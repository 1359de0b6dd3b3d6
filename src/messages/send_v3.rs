//! Handing a message to v3, which checks, stores and de-duplicates by itself: by sender, channel, number and payload (seen on a
//! running server).

use std::time::Instant;

use super::ledger::{Attempt, Begin};
use super::send::{Messages, refused};
use super::{Cause, Job, SendError, Sent, Stored, unix_ms};
use crate::authorization::Permit;
use crate::domain::Channel;
use crate::wukongim::{Accepted, Error, Rejection};

impl Messages {
    /// A lost answer has been asked for once more by the client.
    pub(super) async fn send_v3(&self, job: &Job, permit: Permit) -> Result<Sent, SendError> {
        let sent_ms = unix_ms();
        let answer = self.hand_over(job, permit).await;
        let answer = answer.map_err(SendError::Denied)?;
        let cause = match answer {
            Ok(Accepted { id, seq: Some(seq) }) => {
                if let Channel::Person(_) = job.channel {
                    self.fresh_pairs.insert(job.conversation(), Instant::now());
                }
                return Ok(job.sent(Stored { id, seq }));
            }
            // Another generation answered: nothing is known of the message.
            Ok(Accepted { seq: None, .. }) => Cause::NeverSeen,
            // Of a number of the gateway's own it is not the client's doing.
            Err(Error::Rejected(Rejection::Conflict)) if job.own_number => {
                return Err(SendError::Conflict);
            }
            Err(error) if error.may_have_arrived() => Cause::NoAnswer(error),
            Err(error) => return Err(refused(&job.channel, &error)),
        };
        self.note_unknown(job, sent_ms);
        Err(job.unconfirmed(cause))
    }

    /// v3 itself knows a number again. Should a v2 answer there by the time of the retry, it is looked for before it is sent.
    fn note_unknown(&self, job: &Job, sent_ms: u64) {
        let begin = self
            .ledger
            .begin(&job.sender, &job.conversation(), &job.number, &job.payload);
        if let Begin::New(ticket) | Begin::Unknown(ticket, _) = begin {
            ticket.sending(Attempt {
                floor: None,
                sent_ms,
                last: Instant::now(),
            });
        }
    }
}
