//! Handing a message to v2, which stores whatever it is given, as often as it is given it: the ledger and a look into the log say
//! first whether it was sent before.

use std::time::Instant;

use tokio::time::timeout_at;

use super::confirm::Pending;
use super::ledger::{Attempt, Begin, Ticket};
use super::lookup::Search;
use super::safe::is_safe;
use super::send::{Claimed, Dispatched, Messages, Waiting, keep, refused, settled};
use super::watch::Sought;
use super::{Cause, Job, SendError, Stored, unix_ms};
use crate::authorization::{Denial, Permit};
use crate::config::{Confirm, DuplicateCheck};
use crate::wukongim::{Accepted, Error};

/// What is known of a number before it is sent.
enum Earlier {
    /// Nothing: send it.
    Absent,
    /// This very message is stored.
    Same(Stored),
    /// The sender used the number for another payload.
    OtherPayload,
}

impl Messages {
    pub(super) async fn send_v2(&self, job: &Job, permit: Permit, answer_by: Instant) -> Claimed {
        let conversation = job.conversation();
        let begin = self
            .ledger
            .begin(&job.sender, &conversation, &job.number, &job.payload);
        let numbers = &self.metrics.numbers;
        let meter = match &begin {
            Begin::New(_) => &numbers.new,
            Begin::Done(_) => &numbers.repeated,
            Begin::Unknown(..) => &numbers.unknown,
            Begin::Conflict => &numbers.conflict,
            Begin::Busy(_) => &numbers.busy,
        };
        meter.inc();
        let (ticket, attempt) = match begin {
            Begin::Busy(busy) => return Claimed::Busy(busy),
            Begin::Conflict => return settled(Err(SendError::Conflict)),
            Begin::Done(stored) => return settled(Ok(job.sent(stored))),
            Begin::Unknown(ticket, attempt) => (ticket, Some(attempt)),
            Begin::New(ticket) => (ticket, None),
        };
        if let Err(refusal) = self.owns_its_log(job, answer_by).await {
            return settled(Err(refusal));
        }
        // Registered before anything is looked for: what turns up from here on is not missed.
        let pending = self.confirmer.expect(&conversation);
        // In boxes: seldom needed, and every send would have to carry the room for them.
        let earlier = match attempt {
            Some(attempt) => {
                let earlier = self.find_earlier(job, attempt, &ticket, &pending, answer_by);
                Box::pin(earlier).await
            }
            None if job.own_number && self.duplicate_check == DuplicateCheck::Upstream => {
                Box::pin(self.find_duplicate(job, answer_by)).await
            }
            None => Ok(Earlier::Absent),
        };
        match earlier {
            Ok(Earlier::Absent) => {}
            Ok(Earlier::Same(stored)) => return settled(Ok(keep(job, ticket, stored))),
            Ok(Earlier::OtherPayload) => {
                ticket.forget();
                return settled(Err(SendError::Conflict));
            }
            // Not known whether it is there: nothing is sent. The dropped ticket keeps what is known.
            Err(error) => return settled(Err(error)),
        }
        let sent_ms = unix_ms();
        ticket.sending(Attempt {
            floor: pending.floor(),
            sent_ms,
            last: Instant::now(),
        });
        let answer = match self.hand_over(job, permit).await {
            Ok(answer) => answer,
            Err(denial) => {
                ticket.forget();
                return settled(Err(SendError::Denied(denial)));
            }
        };
        let (sought, cause) = match answer {
            Ok(Accepted { id, seq: Some(seq) }) => {
                return settled(Ok(keep(job, ticket, Stored { id, seq })));
            }
            Ok(Accepted { id, seq: None }) if self.confirm == Confirm::Accepted => {
                return settled(Ok(keep(job, ticket, Stored { id, seq: 0 })));
            }
            Ok(Accepted { id, seq: None }) => (Sought::Id(id), Cause::NeverSeen),
            Err(error) if error.may_have_arrived() => {
                (Sought::Number { sent_ms }, Cause::NoAnswer(error))
            }
            Err(error) => {
                ticket.forget();
                return settled(Err(refused(&job.channel, &error)));
            }
        };
        Claimed::Ready(Dispatched::Waiting(Box::new(Waiting {
            ticket,
            pending,
            sought,
            cause,
        })))
    }

    /// Whether what is sent to the channel can be stored at all: v2 keeps one channel's log under each key, and drops what others send.
    async fn owns_its_log(&self, job: &Job, answer_by: Instant) -> Result<(), SendError> {
        if self.client.owns_its_log(&job.sender, &job.channel) {
            return Ok(());
        }
        // In a box: asked once a channel.
        let asked = Box::pin(self.client.log_is_foreign(&job.sender, &job.channel));
        match timeout_at(answer_by.into(), asked).await {
            Ok(Ok(false)) => Ok(()),
            Ok(Ok(true)) => Err(SendError::Denied(Denial::Taken)),
            Ok(Err(error)) => Err(SendError::Upstream(error)),
            Err(_) => Err(SendError::Upstream(Error::Timeout)),
        }
    }

    /// Looks for a message that another process may have sent.
    async fn find_duplicate(&self, job: &Job, answer_by: Instant) -> Result<Earlier, SendError> {
        match timeout_at(answer_by.into(), self.find_newest(job)).await {
            Ok(Ok(Search::Same(stored))) if is_safe(&self.client, stored).await => {
                Ok(Earlier::Same(stored))
            }
            Ok(Ok(Search::Same(_))) => Err(job.unconfirmed(Cause::NeverSeen)),
            Ok(Ok(Search::OtherPayload)) => Ok(Earlier::OtherPayload),
            Ok(Ok(Search::Absent | Search::Unfinished)) => Ok(Earlier::Absent),
            Ok(Err(error)) => Err(SendError::Upstream(error)),
            Err(_) => Err(SendError::Upstream(Error::Timeout)),
        }
    }

    /// Looks for an earlier attempt whose outcome is not known. Where it is not there, yet young enough to turn up, it is waited for
    /// as a new message is; only what is overdue is sent again.
    ///
    /// A v2 cluster that has just lost a node refuses some channels' reads with 400 for seconds (seen): no word on the message that was
    /// sent before.
    async fn find_earlier(
        &self,
        job: &Job,
        attempt: Attempt,
        ticket: &Ticket,
        pending: &Pending,
        answer_by: Instant,
    ) -> Result<Earlier, SendError> {
        let overdue_at = self.overdue_at(attempt.last);
        loop {
            // Asked before the look, so that what was overdue then had been so for the whole of it.
            let overdue = Instant::now() >= overdue_at;
            let search = self.find_attempt(job, attempt, |up_to| ticket.searched(up_to));
            let cause = match timeout_at(answer_by.into(), search).await {
                Ok(Ok(Search::Same(stored))) if is_safe(&self.client, stored).await => {
                    return Ok(Earlier::Same(stored));
                }
                Ok(Ok(Search::OtherPayload)) => return Ok(Earlier::OtherPayload),
                Ok(Ok(Search::Absent)) if overdue => return Ok(Earlier::Absent),
                Ok(Ok(found @ (Search::Same(_) | Search::Absent))) => {
                    let sought = Sought::Number {
                        sent_ms: attempt.sent_ms,
                    };
                    let until = match found {
                        // It is there, and is not sent again as long as it is.
                        Search::Same(_) => answer_by,
                        _ => overdue_at.min(answer_by),
                    };
                    if let Some(stored) = pending.stored_by(until, sought, job).await {
                        return Ok(Earlier::Same(stored));
                    }
                    if Instant::now() < answer_by {
                        continue;
                    }
                    Cause::NeverSeen
                }
                Ok(Ok(Search::Unfinished)) | Err(_) => Cause::OutOfTime,
                Ok(Err(error @ (Error::Rejected(_) | Error::Status(_)))) => Cause::NoAnswer(error),
                Ok(Err(error)) => return Err(SendError::Upstream(error)),
            };
            return Err(job.unconfirmed(cause));
        }
    }
}
