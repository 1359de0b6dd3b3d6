//! Dispatch to v2, which stores every message it receives, duplicates included. So the idempotency store, and a search of the channel's
//! log, first tell whether the message was sent before.

use std::sync::Arc;
use std::time::Instant;

use tokio::time::timeout_at;

use super::{AwaitingConfirmation, Dispatched, Messages};
use crate::authorization::{Denial, Permit};
use crate::config::{Confirm, DuplicateCheck};
use crate::messages::confirm::MessageMatch;
use crate::messages::idempotency::ClaimOutcome;
use crate::messages::{Cause, SendError, SendTask, Stored, unix_ms};
use crate::wukongim::{Accepted, Error};

impl Messages {
    pub(super) async fn send_v2(
        &self,
        task: &Arc<SendTask>,
        permit: Permit,
        answer_by: Instant,
    ) -> Result<Dispatched, SendError> {
        let mut claim = match self.idempotency.claim(task) {
            ClaimOutcome::Claimed(claim) => claim,
            ClaimOutcome::Done(stored) => return Ok(Dispatched::Stored(stored)),
            ClaimOutcome::Conflict => return Err(SendError::Conflict),
            ClaimOutcome::InFlight(other) => return Ok(Dispatched::InFlight(other)),
        };
        // A claim that is dropped keeps an earlier attempt, whose outcome stays unknown.
        self.check_log_owner(task, answer_by).await?;
        // Registered before any search, so that no message that appears from here on is missed.
        let pending = self.confirmer.expect(&task.conversation);
        // Boxed: rarely needed, and they would enlarge the future of every send.
        let prior = if claim.attempt.is_some() {
            Box::pin(self.find_prior_send(task, &mut claim, &pending, answer_by)).await?
        } else if task.draft.client_msg_no.is_some()
            && self.duplicate_check == DuplicateCheck::Upstream
        {
            Box::pin(self.find_duplicate(task, answer_by)).await?
        } else {
            None
        };
        if let Some(stored) = prior {
            return Ok(Dispatched::Stored(claim.complete(stored)));
        }
        // Of a message that is sent again only this attempt is awaited, since the earlier one was overdue. If that appears after all, a
        // retry finds it: its search starts at the first attempt.
        let sent_ms = unix_ms();
        claim.mark_sent(pending.baseline_seq, sent_ms);
        let (target, cause) = match self.submit(task, permit).await {
            Ok(Accepted { id, seq: None }) if self.confirm == Confirm::Stored => {
                (MessageMatch::Id(id), Cause::NeverSeen)
            }
            Ok(Accepted { id, seq }) => {
                let seq = seq.unwrap_or(0);
                return Ok(Dispatched::Stored(claim.complete(Stored { id, seq })));
            }
            Err(SendError::Upstream(error)) if error.may_have_arrived() => (
                MessageMatch::ClientMsgNo { sent_ms },
                Cause::NoAnswer(error),
            ),
            // Certainly not stored. Also after v2's 400, its answer to a send that it has not put into its queue (source).
            Err(error) => {
                claim.release();
                return Err(error);
            }
        };
        Ok(Dispatched::Sent(Box::new(AwaitingConfirmation {
            claim,
            pending,
            target,
            cause,
        })))
    }

    /// Checks that the channel owns the log under its key: v2 has one log per key and drops other channels' messages.
    async fn check_log_owner(&self, task: &SendTask, answer_by: Instant) -> Result<(), SendError> {
        let (sender, channel) = (&task.sender, &task.draft.channel);
        if self.client.owns_log(sender, channel) {
            return Ok(());
        }
        // Boxed because it runs once per channel.
        let asked = Box::pin(self.client.log_is_foreign(sender, channel));
        match timeout_at(answer_by.into(), asked).await {
            Ok(Ok(false)) => Ok(()),
            Ok(Ok(true)) => Err(SendError::Denied(Denial::Taken)),
            Ok(Err(error)) => Err(SendError::Upstream(error)),
            Err(_) => Err(SendError::Upstream(Error::Timeout)),
        }
    }
}
