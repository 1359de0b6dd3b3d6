//! Sending one message in two phases: dispatch to WuKongIM, then confirmation that it is stored. A batch may dispatch several messages of a
//! channel before it confirms them.
//!
//! Both phases continue when the client disconnects, and the client_msg_no stays claimed until the outcome is known. The request waits for
//! them until just before its deadline.

mod batch;
mod detach_on_drop;
mod search;
mod v2;

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::time::{timeout, timeout_at};

use super::confirm::{Confirmer, MessageMatch, Pending};
use super::idempotency::{Claim, IdempotencyStore, InFlight};
use super::{Cause, Draft, SendError, SendTask, Sent, Stored};
use crate::authorization::{Authorization, Denial, Permit};
use crate::config::{self, Confirm, DuplicateCheck};
use crate::domain::{Channel, ConversationKey, Uid};
use crate::limits::channel_limiter::ChannelLimiter;
use crate::telemetry::Metrics;
use crate::wukongim::{Accepted, Client, Error, Generation, Outgoing, Rejection};
use detach_on_drop::DetachOnDrop;

/// Conversations whose last acknowledged send on v3 is remembered.
const MAX_FRESH_PAIRS: usize = 10_000;
/// A request is answered this long before its deadline. The answer then has the client_msg_no for a retry, which the deadline's own answer
/// would not have.
const RESPONSE_MARGIN: Duration = Duration::from_millis(100);
/// Time limit for finding out why a message was not stored.
const EXPLAIN_TIMEOUT: Duration = Duration::from_millis(500);

/// Sends messages. Shared by all requests.
pub struct Messages {
    client: Arc<Client>,
    authorization: Arc<Authorization>,
    confirmer: Arc<Confirmer>,
    idempotency: Arc<IdempotencyStore>,
    channel_limiter: Arc<ChannelLimiter>,
    confirm: Confirm,
    confirm_timeout: Duration,
    duplicate_check: DuplicateCheck,
    /// When v3 last acknowledged a message of a conversation: v3's sync does not list a new conversation for up to 0.5 s.
    fresh_pairs: quick_cache::sync::Cache<ConversationKey, Instant>,
    metrics: Arc<Metrics>,
}

/// How far a message got in the dispatch phase.
enum Dispatched {
    Stored(Stored),
    /// Sent; not yet confirmed.
    Sent(Box<AwaitingConfirmation>),
    /// Not sent, since another request is sending the same client_msg_no. Only `try_dispatch` returns this; `dispatch` waits.
    InFlight(InFlight),
}

/// What the confirmation phase needs.
struct AwaitingConfirmation {
    claim: Claim,
    pending: Pending,
    /// How its message is recognised: by id where WuKongIM has answered, else by client_msg_no.
    target: MessageMatch,
    /// What is reported if it is not seen.
    cause: Cause,
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
        let window = settings.idempotency_window;
        Self {
            confirmer: Confirmer::new(client.clone(), settings.confirm_timeout, metrics.clone()),
            idempotency: IdempotencyStore::new(
                window,
                settings.idempotency_entries,
                metrics.clone(),
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

    /// How long ago v3 acknowledged a message of this conversation, if that is remembered.
    pub fn acknowledged_ago(&self, conversation: &ConversationKey) -> Option<Duration> {
        self.fresh_pairs.get(conversation).map(|at| at.elapsed())
    }

    /// Sends one message for `sender` and returns when WuKongIM has stored it, or with [`SendError::Unconfirmed`] just before `deadline`.
    /// Once permitted, the send continues even if the caller is dropped.
    pub async fn send(
        self: &Arc<Self>,
        sender: &Uid,
        draft: Draft,
        deadline: Instant,
    ) -> Result<Sent, SendError> {
        let task = SendTask::new(sender.clone(), draft, Arc::default());
        let result = match self.channel_limiter.try_acquire(&task.conversation) {
            None => Err(SendError::Upstream(Error::Busy)),
            Some(channel_slot) => match self.may_send(&task).await {
                Err(denial) => Err(denial.into()),
                Ok(permit) => {
                    let answer_by = answer_by(deadline);
                    let (this, task_of_work) = (self.clone(), task.clone());
                    let work = DetachOnDrop::new(async move {
                        let (task, _channel_slot) = (task_of_work, channel_slot);
                        let dispatched = this.dispatch(&task, permit, answer_by).await;
                        task.end(this.confirm(&task, dispatched).await)
                    });
                    // At the deadline this drops `work`, which detaches it: it continues in a task of its own.
                    let answer = timeout_at(answer_by.into(), work).await;
                    let answer = answer.unwrap_or_else(|_| Err(task.unconfirmed(Cause::OutOfTime)));
                    self.count(&answer);
                    return answer;
                }
            },
        };
        let refused = task.end(result);
        self.count(&refused);
        refused
    }

    /// Counts the result that a client gets.
    fn count(&self, result: &Result<Sent, SendError>) {
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

    async fn may_send(&self, task: &SendTask) -> Result<Permit, Denial> {
        let (actor, channel) = (task.draft.actor.as_ref(), &task.draft.channel);
        self.authorization
            .may_send(&task.sender, actor, channel)
            .await
    }

    /// Dispatches one message, after any other send with the same client_msg_no has ended.
    async fn dispatch(
        &self,
        task: &Arc<SendTask>,
        permit: Permit,
        answer_by: Instant,
    ) -> Result<Dispatched, SendError> {
        loop {
            match self.try_dispatch(task, permit, answer_by).await {
                Ok(Dispatched::InFlight(other)) => {
                    // After `answer_by` nothing is dispatched.
                    let _ = timeout_at(answer_by.into(), other.wait()).await;
                }
                dispatched => return dispatched,
            }
        }
    }

    /// Dispatches one message, unless another request is sending the same client_msg_no. Sends nothing after `answer_by`.
    async fn try_dispatch(
        &self,
        task: &Arc<SendTask>,
        permit: Permit,
        answer_by: Instant,
    ) -> Result<Dispatched, SendError> {
        if Instant::now() >= answer_by {
            return Err(task.unconfirmed(Cause::OutOfTime));
        }
        match self.client.generation().await {
            Ok(Generation::V3) => self.send_v3(task, permit).await,
            Ok(Generation::V2) => self.send_v2(task, permit, answer_by).await,
            Err(error) => Err(SendError::Upstream(error)),
        }
    }

    /// Sends to v3, which checks, stores and de-duplicates messages itself, by sender, channel, client_msg_no and payload (seen on a running
    /// server). The upstream client has already retried a lost answer once.
    async fn send_v3(&self, task: &SendTask, permit: Permit) -> Result<Dispatched, SendError> {
        let cause = match self.submit(task, permit).await {
            Ok(Accepted { id, seq: Some(seq) }) => {
                if let Channel::Person(_) = task.draft.channel {
                    let conversation = task.conversation.clone();
                    self.fresh_pairs.insert(conversation, Instant::now());
                }
                return Ok(Dispatched::Stored(Stored { id, seq }));
            }
            // Not an answer of v3: the outcome is unknown.
            Ok(Accepted { seq: None, .. }) => Cause::NeverSeen,
            // A conflict of a generated client_msg_no is not the client's fault.
            Err(SendError::Upstream(Error::Rejected(Rejection::Conflict)))
                if task.draft.client_msg_no.is_some() =>
            {
                return Err(SendError::Conflict);
            }
            Err(SendError::Upstream(error)) if error.may_have_arrived() => Cause::NoAnswer(error),
            Err(error) => return Err(error),
        };
        Err(task.unconfirmed(cause))
    }

    /// Sends the message to WuKongIM; all sends pass here. Directly before each attempt the permission is checked again, unless it was
    /// checked just now; without it, nothing is sent.
    async fn submit(&self, task: &SendTask, permit: Permit) -> Result<Accepted, SendError> {
        let channel = &task.draft.channel;
        let late_denial = Mutex::new(None);
        let is_still_permitted = || async {
            if self.authorization.is_still_valid(permit, channel) {
                return true;
            }
            // Boxed because it is seldom needed and would enlarge every send's future.
            let denial = Box::pin(self.may_send(task)).await.err();
            let may = denial.is_none();
            *late_denial.lock() = denial;
            may
        };
        let outgoing = Outgoing {
            from: &task.sender,
            channel,
            payload: &task.draft.payload,
            client_msg_no: &task.client_msg_no,
            affinity: &task.affinity,
        };
        let answer = self.client.send(&outgoing, is_still_permitted).await;
        answer.map_err(|error| match error {
            Error::Withdrawn => late_denial.into_inner().unwrap_or(Denial::Forbidden).into(),
            error => match Denial::of_send_refusal(channel, &error) {
                Denial::Upstream(error) => SendError::Upstream(error),
                denial => denial.into(),
            },
        })
    }

    /// Confirms that a dispatched message is stored, or finds out why it is not.
    async fn confirm(
        &self,
        task: &Arc<SendTask>,
        dispatched: Result<Dispatched, SendError>,
    ) -> Result<Stored, SendError> {
        let AwaitingConfirmation {
            claim,
            pending,
            target,
            cause,
        } = match dispatched? {
            Dispatched::Stored(stored) => return Ok(stored),
            Dispatched::InFlight(_) => return Err(task.unconfirmed(Cause::OutOfTime)),
            Dispatched::Sent(awaiting) => *awaiting,
        };
        let until = Instant::now() + self.confirm_timeout;
        match pending.stored_by(until, target, task).await {
            Some(stored) => Ok(claim.complete(stored)),
            // Dropping the claim records the attempt: a retry with this client_msg_no looks for the message before it sends. Also after a
            // denial, since the group may have been banned after v2 took the message, which then still appears.
            None => match Box::pin(self.find_denial(&task.draft.channel)).await {
                Some(denial) => Err(denial.into()),
                None => Err(task.unconfirmed(cause)),
            },
        }
    }

    /// Why an unconfirmed message is not stored, if its group's state tells: v2 drops what is sent to a banned or disbanded group after it
    /// answered 200 (seen on a running server).
    async fn find_denial(&self, channel: &Channel) -> Option<Denial> {
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
fn answer_by(deadline: Instant) -> Instant {
    deadline.checked_sub(RESPONSE_MARGIN).unwrap_or(deadline)
}
