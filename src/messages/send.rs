//! Sending one message in two phases: dispatch to WuKongIM, then confirmation that it is stored. A batch may dispatch several messages of a
//! channel before it confirms them.
//!
//! Both phases continue when the client disconnects, and the client_msg_no stays claimed until the outcome is known. The request waits for
//! them until just before its deadline.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::time::{timeout, timeout_at};

use super::channel_waiters::MessageMatch;
use super::confirm::{Confirmer, Pending};
use super::detach_on_drop::DetachOnDrop;
use super::idempotency::{Claim, IdempotencyStore, InFlight};
use super::{Cause, Draft, SendError, SendTask, Sent, Stored};
use crate::authorization::{Authorization, Denial, Permit};
use crate::config::{self, Confirm, DuplicateCheck};
use crate::domain::{Channel, ConversationKey, Uid};
use crate::limits::channel_limiter::ChannelLimiter;
use crate::telemetry::Metrics;
use crate::wukongim::{Accepted, Client, Error, Generation};

/// Conversations whose last acknowledged send on v3 is remembered.
const MAX_FRESH_PAIRS: usize = 10_000;
/// A request is answered this long before its deadline. The answer then has the client_msg_no for a retry, which the deadline's own answer
/// would not have.
const RESPONSE_MARGIN: Duration = Duration::from_millis(100);
/// Time limit for finding out why a message was not stored.
const EXPLAIN_TIMEOUT: Duration = Duration::from_millis(500);

/// Sends messages. Shared by all requests.
pub struct Messages {
    pub(super) client: Arc<Client>,
    pub(super) authorization: Arc<Authorization>,
    pub(super) confirmer: Arc<Confirmer>,
    pub(super) idempotency: Arc<IdempotencyStore>,
    pub(super) channel_limiter: Arc<ChannelLimiter>,
    pub(super) confirm: Confirm,
    pub(super) confirm_timeout: Duration,
    pub(super) duplicate_check: DuplicateCheck,
    /// When v3 last acknowledged a message of a conversation: v3's sync does not list a new conversation for up to 0.5 s.
    pub(super) fresh_pairs: quick_cache::sync::Cache<ConversationKey, Instant>,
    pub(super) metrics: Arc<Metrics>,
}

/// The result of the dispatch phase.
pub(super) enum Dispatched {
    /// The outcome is final.
    Settled(Result<Sent, SendError>),
    /// Sent; not yet confirmed.
    AwaitingConfirmation(Box<AwaitingConfirmation>),
}

/// What the confirmation phase needs.
pub(super) struct AwaitingConfirmation {
    pub(super) claim: Claim,
    pub(super) pending: Pending,
    pub(super) target: MessageMatch,
    pub(super) cause: Cause,
}

/// A dispatch, or the other request that is sending the same client_msg_no.
pub(super) enum DispatchAttempt {
    Ready(Dispatched),
    InFlight(InFlight),
}

impl Messages {
    /// A sender of messages without remembered sends.
    pub fn new(
        client: Arc<Client>,
        authorization: Arc<Authorization>,
        channel_limiter: Arc<ChannelLimiter>,
        settings: &config::Wukongim,
        metrics: &Arc<Metrics>,
    ) -> Self {
        Self {
            confirmer: Confirmer::new(client.clone(), settings.confirm_timeout, metrics.clone()),
            idempotency: IdempotencyStore::new(
                settings.idempotency_window,
                settings.idempotency_entries,
                metrics.idempotency.evicted.clone(),
            ),
            channel_limiter,
            confirm: settings.confirm,
            confirm_timeout: settings.confirm_timeout,
            duplicate_check: settings.duplicate_check,
            fresh_pairs: quick_cache::sync::Cache::new(MAX_FRESH_PAIRS),
            client,
            authorization,
            metrics: metrics.clone(),
        }
    }

    /// The number of remembered sends.
    pub fn remembered_sends(&self) -> usize {
        self.idempotency.len()
    }

    /// When a message that was last sent at `last` can no longer appear: 5 s later by default. After a node of a v2 cluster was killed,
    /// messages appeared 4–5 s late (seen).
    pub(super) fn overdue_at(&self, last: Instant) -> Instant {
        last + self.confirm_timeout * 5 / 2
    }

    /// Sends one message for `sender` and returns when WuKongIM has stored it, or with [`SendError::Unconfirmed`] just before `deadline`.
    /// Once permitted, the send continues even if the caller is dropped.
    pub async fn send(
        self: &Arc<Self>,
        sender: &Uid,
        draft: Draft,
        deadline: Instant,
    ) -> Result<Sent, SendError> {
        let result = self.send_one(sender, draft, deadline).await;
        self.count(&result);
        result
    }

    /// Counts the result that a client gets.
    pub(super) fn count(&self, result: &Result<Sent, SendError>) {
        let meters = &self.metrics.messages;
        let meter = match result {
            Ok(_) => &meters.sent,
            Err(SendError::Denied(_)) => &meters.denied,
            Err(SendError::Conflict) => &meters.conflict,
            Err(SendError::Upstream(_)) => &meters.failed,
            Err(SendError::Unconfirmed { .. }) => &meters.unconfirmed,
        };
        meter.inc();
    }

    async fn send_one(
        self: &Arc<Self>,
        sender: &Uid,
        draft: Draft,
        deadline: Instant,
    ) -> Result<Sent, SendError> {
        let answer_by = answer_by(deadline);
        let task = Arc::new(SendTask::new(sender.clone(), draft, Arc::default()));
        let mut audit = task.audit();
        let Some(channel_permit) = self.channel_limiter.try_acquire(&task.conversation()) else {
            let refusal = Err(SendError::Upstream(Error::Busy));
            if let Some(audit) = &mut audit {
                audit.record_outcome(&refusal);
            }
            return refusal;
        };
        let may_send = self
            .authorization
            .may_send(&task.sender, task.actor.as_ref(), &task.channel)
            .await;
        if let (Err(_), Some(audit)) = (&may_send, &mut audit) {
            audit.record_outcome(&may_send);
        }
        let permit = may_send?;
        let (this, own) = (self.clone(), task.clone());
        let work = DetachOnDrop::new(async move {
            let _channel_permit = channel_permit;
            let dispatched = this.dispatch(&own, permit, answer_by).await;
            let result = this.settle(&own, dispatched).await;
            if let Some(audit) = &mut audit {
                audit.record_outcome(&result);
            }
            result
        });
        let answer = timeout_at(answer_by.into(), work).await;
        answer.unwrap_or_else(|_| Err(task.unconfirmed(Cause::OutOfTime)))
    }

    /// How long ago v3 acknowledged a message of this conversation, if that is remembered.
    pub fn acknowledged_ago(&self, conversation: &ConversationKey) -> Option<Duration> {
        self.fresh_pairs.get(conversation).map(|at| at.elapsed())
    }

    /// Dispatches one message, after any other send with the same client_msg_no has ended.
    pub(super) async fn dispatch(
        &self,
        task: &SendTask,
        permit: Permit,
        answer_by: Instant,
    ) -> Dispatched {
        loop {
            match self.try_dispatch(task, permit, answer_by).await {
                DispatchAttempt::Ready(dispatched) => return dispatched,
                DispatchAttempt::InFlight(in_flight) => {
                    if timeout_at(answer_by.into(), in_flight.wait())
                        .await
                        .is_err()
                    {
                        return Dispatched::Settled(Err(task.unconfirmed(Cause::OutOfTime)));
                    }
                }
            }
        }
    }

    /// Dispatches one message, unless another request is sending the same client_msg_no. Sends nothing after `answer_by`.
    pub(super) async fn try_dispatch(
        &self,
        task: &SendTask,
        permit: Permit,
        answer_by: Instant,
    ) -> DispatchAttempt {
        if Instant::now() >= answer_by {
            return settled(Err(task.unconfirmed(Cause::OutOfTime)));
        }
        match self.client.generation().await {
            Ok(Generation::V3) => settled(self.send_v3(task, permit).await),
            Ok(Generation::V2) => self.send_v2(task, permit, answer_by).await,
            Err(error) => settled(Err(SendError::Upstream(error))),
        }
    }

    /// Sends the message to WuKongIM; all sends pass here. Directly before each attempt the permission is checked again, unless it was
    /// checked just now; without it, nothing is sent.
    pub(super) async fn submit(
        &self,
        task: &SendTask,
        permit: Permit,
    ) -> Result<Result<Accepted, Error>, Denial> {
        let late_denial = Mutex::new(None);
        let is_still_permitted = || async {
            if self.authorization.is_still_valid(permit, &task.channel) {
                return true;
            }
            let (sender, actor) = (&task.sender, task.actor.as_ref());
            // Boxed because it is seldom needed and would enlarge every send's future.
            let asked = Box::pin(self.authorization.may_send(sender, actor, &task.channel));
            let denial = asked.await.err();
            let may = denial.is_none();
            *late_denial.lock() = denial;
            may
        };
        let outgoing = task.outgoing();
        match self.client.send(&outgoing, is_still_permitted).await {
            Err(Error::Withdrawn) => Err(late_denial.into_inner().unwrap_or(Denial::Forbidden)),
            answer => Ok(answer),
        }
    }

    /// Confirms that a dispatched message is stored, or finds out why it is not.
    pub(super) async fn settle(
        &self,
        task: &SendTask,
        dispatched: Dispatched,
    ) -> Result<Sent, SendError> {
        let awaiting = match dispatched {
            Dispatched::Settled(result) => return result,
            Dispatched::AwaitingConfirmation(awaiting) => *awaiting,
        };
        let AwaitingConfirmation {
            claim,
            pending,
            target,
            cause,
        } = awaiting;
        match pending.stored(target, task).await {
            Some(stored) => Ok(complete(task, claim, stored)),
            // Dropping the claim records the attempt: a retry with this client_msg_no looks for the message before it sends.
            None => match Box::pin(self.explain_silence(&task.channel)).await {
                Some(denial) => Err(SendError::Denied(denial)),
                None => Err(task.unconfirmed(cause)),
            },
        }
    }

    /// v2 drops what is sent to a banned or disbanded group after it answered 200 (seen on a running server).
    async fn explain_silence(&self, channel: &Channel) -> Option<Denial> {
        let Channel::Group(group) = channel else {
            return None;
        };
        let state = timeout(EXPLAIN_TIMEOUT, self.client.group_state(group)).await;
        let denial = match state.ok()?.ok()? {
            state if state.disbanded || !state.exists => Denial::ChannelNotFound,
            state if state.banned => Denial::ChannelBanned,
            _ => return None,
        };
        // The cached state of this group permitted the message, so it is outdated.
        self.authorization.group_changed(group);
        Some(denial)
    }
}

/// The latest time to answer a request with this deadline.
pub(super) fn answer_by(deadline: Instant) -> Instant {
    deadline.checked_sub(RESPONSE_MARGIN).unwrap_or(deadline)
}

/// Completes the claim where the client may repeat its client_msg_no, else releases it.
pub(super) fn complete(task: &SendTask, claim: Claim, stored: Stored) -> Sent {
    if task.is_client_key {
        claim.complete(stored);
    } else {
        claim.release();
    }
    task.sent(stored)
}

/// Maps a refusal by WuKongIM.
pub(super) fn refused(channel: &Channel, error: &Error) -> SendError {
    match Denial::of_send_refusal(channel, error) {
        Denial::Upstream(error) => SendError::Upstream(error),
        denial => SendError::Denied(denial),
    }
}

pub(super) fn settled(result: Result<Sent, SendError>) -> DispatchAttempt {
    DispatchAttempt::Ready(Dispatched::Settled(result))
}
