//! Sending one message, in two halves: handing it to WuKongIM, and seeing it stored. A batch does all first halves of a channel
//! before the second ones.
//!
//! Both halves go on when their request is gone: a client that hangs up takes nothing with it, and the number stays claimed until
//! the outcome is known. The request waits for them until just before its deadline.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::time::{timeout, timeout_at};

use super::confirm::{Confirmer, Pending};
use super::ledger::{Busy, Ledger, Ticket};
use super::onward::Onward;
use super::watch::Sought;
use super::{Cause, Draft, Job, SendError, Sent, Stored};
use crate::authorization::{Authorization, Denial, Permit};
use crate::config::{self, Confirm, DuplicateCheck};
use crate::crowd::Crowd;
use crate::domain::{Channel, ConversationKey, Uid};
use crate::telemetry::Metrics;
use crate::wukongim::{Accepted, Client, Error, Generation};

/// Pairs whose last acknowledged send on v3 is remembered.
const FRESH_PAIRS: usize = 10_000;
/// How long before its deadline a request is answered at the latest: what is known by then is told, with the number to send again
/// with, before the deadline would tell less.
const MARGIN: Duration = Duration::from_millis(100);
/// The longest look for the reason why a message did not turn up.
const EXPLAIN: Duration = Duration::from_millis(500);

/// Sends messages. Shared by all requests.
pub struct Messages {
    pub(super) client: Arc<Client>,
    pub(super) authorization: Arc<Authorization>,
    pub(super) confirmer: Arc<Confirmer>,
    pub(super) ledger: Arc<Ledger>,
    pub(super) crowd: Arc<Crowd>,
    pub(super) confirm: Confirm,
    pub(super) confirm_timeout: Duration,
    pub(super) duplicate_check: DuplicateCheck,
    /// When a pair was last acknowledged a message by v3, whose sync does not know a new pair for up to 0.5 s.
    pub(super) fresh_pairs: quick_cache::sync::Cache<ConversationKey, Instant>,
    pub(super) metrics: Arc<Metrics>,
}

/// A message that was handed over, or whose fate is known already.
pub(super) enum Dispatched {
    /// Nothing is left to be done.
    Settled(Result<Sent, SendError>),
    /// Handed over; to be seen stored.
    Waiting(Box<Waiting>),
}

/// What is needed to see a message stored.
pub(super) struct Waiting {
    pub(super) ticket: Ticket,
    pub(super) pending: Pending,
    pub(super) sought: Sought,
    pub(super) cause: Cause,
}

/// A number that somebody else is sending just now.
pub(super) enum Claimed {
    Ready(Dispatched),
    Busy(Busy),
}

impl Messages {
    /// A sender of messages with an empty memory.
    pub fn new(
        client: Arc<Client>,
        authorization: Arc<Authorization>,
        crowd: Arc<Crowd>,
        settings: &config::Wukongim,
        metrics: &Arc<Metrics>,
    ) -> Self {
        Self {
            confirmer: Confirmer::new(client.clone(), settings.confirm_timeout, metrics.clone()),
            ledger: Ledger::new(
                settings.idempotency_window,
                settings.idempotency_entries,
                metrics.numbers.forgotten.clone(),
            ),
            crowd,
            confirm: settings.confirm,
            confirm_timeout: settings.confirm_timeout,
            duplicate_check: settings.duplicate_check,
            fresh_pairs: quick_cache::sync::Cache::new(FRESH_PAIRS),
            client,
            authorization,
            metrics: metrics.clone(),
        }
    }

    /// How many sends are remembered by their numbers.
    pub fn remembered(&self) -> usize {
        self.ledger.len()
    }

    /// When a message that was last sent then, and is not there, is not waited for any longer: 5 s after it by default. When a
    /// node of a v2 cluster was killed, messages appeared 4–5 s later (seen).
    pub(super) fn overdue_at(&self, last: Instant) -> Instant {
        last + self.confirm_timeout * 5 / 2
    }

    /// Sends one message for `sender` and answers when WuKongIM has stored it, or with [`SendError::Unconfirmed`] just before
    /// `deadline`. From the moment it may be sent it goes on without the caller, too.
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

    /// Counts what a client is told of a message.
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
        let job = Arc::new(Job::new(sender.clone(), draft, Arc::default()));
        let mut audit = job.audit();
        let Some(place) = self.crowd.enter(&job.conversation()) else {
            let refusal = Err(SendError::Upstream(Error::Busy));
            if let Some(audit) = &mut audit {
                audit.ended(&refusal);
            }
            return refusal;
        };
        let may_send = self
            .authorization
            .may_send(&job.sender, job.actor.as_ref(), &job.channel)
            .await;
        if let (Err(_), Some(audit)) = (&may_send, &mut audit) {
            audit.ended(&may_send);
        }
        let permit = may_send?;
        let (this, own) = (self.clone(), job.clone());
        let work = Onward::new(async move {
            let _place = place;
            let dispatched = this.dispatch(&own, permit, answer_by).await;
            let result = this.settle(&own, dispatched).await;
            if let Some(audit) = &mut audit {
                audit.ended(&result);
            }
            result
        });
        let answer = timeout_at(answer_by.into(), work).await;
        answer.unwrap_or_else(|_| Err(job.unconfirmed(Cause::OutOfTime)))
    }

    /// How long ago v3 acknowledged a message of this conversation, if that was lately.
    pub fn acknowledged_ago(&self, conversation: &ConversationKey) -> Option<Duration> {
        self.fresh_pairs.get(conversation).map(|at| at.elapsed())
    }

    /// Hands one message over, waiting for whoever is sending the same number just now.
    pub(super) async fn dispatch(
        &self,
        job: &Job,
        permit: Permit,
        answer_by: Instant,
    ) -> Dispatched {
        loop {
            match self.try_dispatch(job, permit, answer_by).await {
                Claimed::Ready(dispatched) => return dispatched,
                Claimed::Busy(busy) => {
                    if timeout_at(answer_by.into(), busy.wait()).await.is_err() {
                        return Dispatched::Settled(Err(job.unconfirmed(Cause::OutOfTime)));
                    }
                }
            }
        }
    }

    /// Hands one message over unless somebody is sending the same number just now; to the generation that permitted it alone.
    /// Nothing leaves after `answer_by`.
    pub(super) async fn try_dispatch(
        &self,
        job: &Job,
        permit: Permit,
        answer_by: Instant,
    ) -> Claimed {
        if Instant::now() >= answer_by {
            return settled(Err(job.unconfirmed(Cause::OutOfTime)));
        }
        match permit.generation {
            Generation::V3 => settled(self.send_v3(job, permit).await),
            Generation::V2 => self.send_v2(job, permit, answer_by).await,
        }
    }

    /// Hands the message to WuKongIM: the one place where messages leave. Directly before each attempt it is asked whether the sender may
    /// still send, unless that was asked just now; where he may not, nothing is sent.
    pub(super) async fn hand_over(
        &self,
        job: &Job,
        permit: Permit,
    ) -> Result<Result<Accepted, Error>, Denial> {
        let withdrawn = Mutex::new(None);
        let may_go = || async {
            if self.authorization.still_holds(permit, &job.channel) {
                return true;
            }
            let (sender, actor) = (&job.sender, job.actor.as_ref());
            // In a box: seldom needed, and every send would have to carry the room for it.
            let asked = Box::pin(self.authorization.may_send(sender, actor, &job.channel));
            let denial = asked.await.err();
            let may = denial.is_none();
            *withdrawn.lock() = denial;
            may
        };
        let outgoing = job.outgoing(permit.generation);
        match self.client.send(&outgoing, may_go).await {
            Err(Error::Withdrawn) => Err(withdrawn.into_inner().unwrap_or(Denial::Forbidden)),
            answer => Ok(answer),
        }
    }

    /// Sees a message stored that was handed over, or finds out why it was not.
    pub(super) async fn settle(
        &self,
        job: &Job,
        dispatched: Dispatched,
    ) -> Result<Sent, SendError> {
        let waiting = match dispatched {
            Dispatched::Settled(result) => return result,
            Dispatched::Waiting(waiting) => *waiting,
        };
        let Waiting {
            ticket,
            pending,
            sought,
            cause,
        } = waiting;
        match pending.stored(sought, job).await {
            Some(stored) => Ok(keep(job, ticket, stored)),
            // The ticket is dropped: the next one with this number looks for the message before it sends.
            None => match Box::pin(self.explain_silence(&job.channel)).await {
                Some(denial) => Err(SendError::Denied(denial)),
                None => Err(job.unconfirmed(cause)),
            },
        }
    }

    /// v2 drops what is sent to a banned or disbanded group after it answered 200 (seen on a running server).
    async fn explain_silence(&self, channel: &Channel) -> Option<Denial> {
        let Channel::Group(group) = channel else {
            return None;
        };
        let state = timeout(EXPLAIN, self.client.group_state(group)).await;
        let denial = match state.ok()?.ok()? {
            state if state.disbanded || !state.exists => Denial::ChannelNotFound,
            state if state.banned => Denial::ChannelBanned,
            _ => return None,
        };
        // What was believed of this group let the message through: believe it no longer.
        self.authorization.group_changed(group);
        Some(denial)
    }
}

/// When a request with this deadline is answered at the latest.
pub(super) fn answer_by(deadline: Instant) -> Instant {
    deadline.checked_sub(MARGIN).unwrap_or(deadline)
}

/// Remembers a message that was sent, where its client can ask for it again.
pub(super) fn keep(job: &Job, ticket: Ticket, stored: Stored) -> Sent {
    if job.own_number {
        ticket.stored(stored);
    } else {
        ticket.forget();
    }
    job.sent(stored)
}

/// What WuKongIM's "no" means.
pub(super) fn refused(channel: &Channel, error: &Error) -> SendError {
    match Denial::of_send_refusal(channel, error) {
        Denial::Upstream(error) => SendError::Upstream(error),
        denial => SendError::Denied(denial),
    }
}

pub(super) fn settled(result: Result<Sent, SendError>) -> Claimed {
    Claimed::Ready(Dispatched::Settled(result))
}
