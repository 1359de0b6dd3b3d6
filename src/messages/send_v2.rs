//! Dispatch to v2, which stores every message it receives, duplicates included. So the idempotency store, and a search of the channel's
//! log, first tell whether the message was sent before.

use std::time::Instant;

use tokio::time::timeout_at;

use super::channel_waiters::MessageMatch;
use super::confirm::Pending;
use super::idempotency::{Attempt, Claim, ClaimOutcome};
use super::lookup::SearchResult;
use super::replicated::is_replicated;
use super::send::{
    AwaitingConfirmation, DispatchAttempt, Dispatched, Messages, complete, refused, settled,
};
use super::{Cause, SendError, SendTask, Stored, unix_ms};
use crate::authorization::{Denial, Permit};
use crate::config::{Confirm, DuplicateCheck};
use crate::wukongim::{Accepted, Error};

/// What is known about an earlier send with this client_msg_no.
enum PriorSend {
    /// There is none: send it.
    Absent,
    /// This message is stored already.
    Same(Stored),
    /// The sender used the client_msg_no for another payload.
    OtherPayload,
}

impl Messages {
    pub(super) async fn send_v2(
        &self,
        task: &SendTask,
        permit: Permit,
        answer_by: Instant,
    ) -> DispatchAttempt {
        let conversation = task.conversation();
        let outcome = self.idempotency.claim(
            &task.sender,
            &conversation,
            &task.client_msg_no,
            &task.payload,
        );
        let meters = &self.metrics.idempotency;
        let meter = match &outcome {
            ClaimOutcome::New(_) => &meters.new,
            ClaimOutcome::Done(_) => &meters.repeated,
            ClaimOutcome::Unknown(..) => &meters.unknown,
            ClaimOutcome::Conflict => &meters.conflict,
            ClaimOutcome::InFlight(_) => &meters.busy,
        };
        meter.inc();
        let (claim, attempt) = match outcome {
            ClaimOutcome::InFlight(in_flight) => return DispatchAttempt::InFlight(in_flight),
            ClaimOutcome::Conflict => return settled(Err(SendError::Conflict)),
            ClaimOutcome::Done(stored) => return settled(Ok(task.sent(stored))),
            ClaimOutcome::Unknown(claim, attempt) => (claim, Some(attempt)),
            ClaimOutcome::New(claim) => (claim, None),
        };
        if let Err(refusal) = self.owns_log(task, answer_by).await {
            return settled(Err(refusal));
        }
        // Registered before any search, so that no message that appears from here on is missed.
        let pending = self.confirmer.expect(&conversation);
        // Boxed: rarely needed, and they would enlarge the future of every send.
        let prior = match attempt {
            Some(attempt) => {
                let prior = self.find_prior_send(task, attempt, &claim, &pending, answer_by);
                Box::pin(prior).await
            }
            None if task.is_client_key && self.duplicate_check == DuplicateCheck::Upstream => {
                Box::pin(self.find_duplicate(task, answer_by)).await
            }
            None => Ok(PriorSend::Absent),
        };
        match prior {
            Ok(PriorSend::Absent) => {}
            Ok(PriorSend::Same(stored)) => return settled(Ok(complete(task, claim, stored))),
            Ok(PriorSend::OtherPayload) => {
                claim.release();
                return settled(Err(SendError::Conflict));
            }
            // The outcome of the earlier send is unknown, so nothing is sent. Dropping the claim keeps its attempt.
            Err(error) => return settled(Err(error)),
        }
        let sent_ms = unix_ms();
        claim.mark_sent(Attempt {
            floor: pending.baseline_seq(),
            sent_ms,
            last: Instant::now(),
        });
        let answer = match self.submit(task, permit).await {
            Ok(answer) => answer,
            Err(denial) => {
                claim.release();
                return settled(Err(SendError::Denied(denial)));
            }
        };
        let (target, cause) = match answer {
            Ok(Accepted { id, seq: Some(seq) }) => {
                return settled(Ok(complete(task, claim, Stored { id, seq })));
            }
            Ok(Accepted { id, seq: None }) if self.confirm == Confirm::Accepted => {
                return settled(Ok(complete(task, claim, Stored { id, seq: 0 })));
            }
            Ok(Accepted { id, seq: None }) => (MessageMatch::Id(id), Cause::NeverSeen),
            Err(error) if error.may_have_arrived() => (
                MessageMatch::ClientMsgNo { sent_ms },
                Cause::NoAnswer(error),
            ),
            Err(error) => {
                claim.release();
                return settled(Err(refused(&task.channel, &error)));
            }
        };
        DispatchAttempt::Ready(Dispatched::AwaitingConfirmation(Box::new(
            AwaitingConfirmation {
                claim,
                pending,
                target,
                cause,
            },
        )))
    }

    /// Checks that the channel owns the log under its key: v2 has one log per key and drops other channels' messages.
    async fn owns_log(&self, task: &SendTask, answer_by: Instant) -> Result<(), SendError> {
        if self.client.owns_log(&task.sender, &task.channel) {
            return Ok(());
        }
        // Boxed because it runs once per channel.
        let asked = Box::pin(self.client.log_is_foreign(&task.sender, &task.channel));
        match timeout_at(answer_by.into(), asked).await {
            Ok(Ok(false)) => Ok(()),
            Ok(Ok(true)) => Err(SendError::Denied(Denial::Taken)),
            Ok(Err(error)) => Err(SendError::Upstream(error)),
            Err(_) => Err(SendError::Upstream(Error::Timeout)),
        }
    }

    /// Searches for a message that another process may have sent.
    async fn find_duplicate(
        &self,
        task: &SendTask,
        answer_by: Instant,
    ) -> Result<PriorSend, SendError> {
        match timeout_at(answer_by.into(), self.find_newest(task)).await {
            Ok(Ok(SearchResult::Same(stored))) if is_replicated(&self.client, stored).await => {
                Ok(PriorSend::Same(stored))
            }
            Ok(Ok(SearchResult::Same(_))) => Err(task.unconfirmed(Cause::NeverSeen)),
            Ok(Ok(SearchResult::OtherPayload)) => Ok(PriorSend::OtherPayload),
            Ok(Ok(SearchResult::Absent | SearchResult::Unfinished)) => Ok(PriorSend::Absent),
            Ok(Err(error)) => Err(SendError::Upstream(error)),
            Err(_) => Err(SendError::Upstream(Error::Timeout)),
        }
    }

    /// Searches for an earlier attempt with an unknown outcome. If it is absent but may still appear, it is awaited like a new message. It
    /// is sent again only after it is overdue.
    ///
    /// A v2 cluster that has just lost a node refuses reads of some channels with 400 for seconds (seen), which says nothing about the
    /// earlier attempt.
    async fn find_prior_send(
        &self,
        task: &SendTask,
        attempt: Attempt,
        claim: &Claim,
        pending: &Pending,
        answer_by: Instant,
    ) -> Result<PriorSend, SendError> {
        let overdue_at = self.overdue_at(attempt.last);
        loop {
            // Read before the search: the attempt must have been overdue during the whole search.
            let overdue = Instant::now() >= overdue_at;
            let search = self.find_attempt(task, attempt, |up_to| claim.advance_floor(up_to));
            let cause = match timeout_at(answer_by.into(), search).await {
                Ok(Ok(SearchResult::Same(stored))) if is_replicated(&self.client, stored).await => {
                    return Ok(PriorSend::Same(stored));
                }
                Ok(Ok(SearchResult::OtherPayload)) => return Ok(PriorSend::OtherPayload),
                Ok(Ok(SearchResult::Absent)) if overdue => return Ok(PriorSend::Absent),
                Ok(Ok(result @ (SearchResult::Same(_) | SearchResult::Absent))) => {
                    let target = MessageMatch::ClientMsgNo {
                        sent_ms: attempt.sent_ms,
                    };
                    let until = match result {
                        // It is visible but not replicated: it is not sent again while it is there.
                        SearchResult::Same(_) => answer_by,
                        _ => overdue_at.min(answer_by),
                    };
                    if let Some(stored) = pending.stored_by(until, target, task).await {
                        return Ok(PriorSend::Same(stored));
                    }
                    if Instant::now() < answer_by {
                        continue;
                    }
                    Cause::NeverSeen
                }
                Ok(Ok(SearchResult::Unfinished)) | Err(_) => Cause::OutOfTime,
                Ok(Err(error @ (Error::Rejected(_) | Error::Status(_)))) => Cause::NoAnswer(error),
                Ok(Err(error)) => return Err(SendError::Upstream(error)),
            };
            return Err(task.unconfirmed(cause));
        }
    }
}
