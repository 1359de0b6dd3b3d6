//! Sends a batch of messages: in order within a channel, channels in parallel, with a result for each message in time.

use std::collections::HashMap;
use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use futures_util::{StreamExt as _, stream};
use parking_lot::Mutex;
use tokio::time::{sleep, timeout_at};

use super::send::{DispatchAttempt, Dispatched, answer_by};
use super::{Cause, Draft, Messages, SendError, SendTask, Sent, spawn_in_request};
use crate::authorization::{Audit, Denial, Permit};
use crate::domain::{Channel, ConversationKey, Uid};
use crate::wukongim::{Error, Generation, NodeAffinity};

/// Channels of one batch that are processed in parallel.
const MAX_PARALLEL_CHANNELS: usize = 16;

/// Time budget for keeping the order of a channel's remaining messages: for confirming each before the next, at the speed seen so far, or
/// else for the gaps between them.
const SERIAL_BUDGET: Duration = Duration::from_secs(2);

/// The gap between two sends without confirmation in between. A v2 cluster stored 21 of 500 such pairs in swapped order without a gap, 5
/// with 2 ms, 1 with 5 ms and none with 20 ms (seen).
const SEND_GAP: Duration = Duration::from_millis(20);

/// One message of a batch, with its index.
type Item = (usize, Arc<SendTask>);

/// The result of one message, once it is known.
type Outcome = Option<Result<Sent, SendError>>;

/// The result of one message, and its audit line where an admin sends it.
struct Slot {
    outcome: Outcome,
    audit: Option<Audit>,
}

/// The results of a batch so far, by index.
#[derive(Clone)]
struct Results(Arc<Mutex<Vec<Slot>>>);

impl Results {
    fn of(tasks: &[Arc<SendTask>]) -> Self {
        let slot = |task: &Arc<SendTask>| Slot {
            outcome: None,
            audit: task.audit(),
        };
        Self(Arc::new(Mutex::new(tasks.iter().map(slot).collect())))
    }

    fn record(&self, index: usize, result: Result<Sent, SendError>) {
        if let Some(slot) = self.0.lock().get_mut(index) {
            if let Some(audit) = &mut slot.audit {
                audit.record_outcome(&result);
            }
            slot.outcome = Some(result);
        }
    }

    /// The results known by now. The audit lines of unknown ones are written when the last task is done.
    fn take(&self) -> Vec<Outcome> {
        let mut slots = self.0.lock();
        slots.iter_mut().map(|slot| slot.outcome.take()).collect()
    }
}

impl Messages {
    /// The indices of messages to oneself, which must never be sent to v3; empty on v2.
    pub async fn indices_refused_to_self(&self, drafts: &[(Uid, Draft)]) -> Vec<usize> {
        let is_to_self = |(sender, draft): &(Uid, Draft)| matches!(&draft.channel, Channel::Person(peer) if peer == sender);
        let indices = drafts.iter().enumerate();
        let mut indices: Vec<usize> = indices
            .filter(|(_, draft)| is_to_self(draft))
            .map(|(index, _)| index)
            .collect();
        // Where the generation is unknown, each message fails separately.
        if !indices.is_empty() && self.client.generation().await != Ok(Generation::V3) {
            indices.clear();
        }
        indices
    }

    /// Sends every draft for its sender. Returns one result per draft, in order, just before `deadline` at the latest. Sends in progress
    /// continue even if the caller is dropped.
    pub async fn send_batch(
        self: &Arc<Self>,
        drafts: Vec<(Uid, Draft)>,
        deadline: Instant,
    ) -> Vec<Result<Sent, SendError>> {
        let now = Instant::now();
        let answer_by = answer_by(deadline);
        // Confirming takes time as well; at least half of the time is for sending.
        let half = answer_by.saturating_duration_since(now) / 2;
        let send_by = answer_by
            .checked_sub(self.confirm_timeout)
            .map_or(now + half, |send_by| send_by.max(now + half));
        let deadlines = BatchDeadlines { send_by, answer_by };

        let mut affinities: HashMap<ConversationKey, Arc<NodeAffinity>> = HashMap::new();
        let tasks: Vec<Arc<SendTask>> = drafts
            .into_iter()
            .map(|(sender, draft)| {
                let affinity = affinities.entry(ConversationKey::of(&sender, &draft.channel));
                let affinity = affinity.or_default().clone();
                Arc::new(SendTask::new(sender, draft, affinity))
            })
            .collect();
        let mut sequences: Vec<Vec<Item>> = Vec::new();
        let mut sequence_of = HashMap::new();
        for (index, task) in tasks.iter().enumerate() {
            let sequence = *sequence_of.entry(task.conversation()).or_insert_with(|| {
                sequences.push(Vec::new());
                sequences.len() - 1
            });
            sequences[sequence].push((index, task.clone()));
        }
        let results = Results::of(&tasks);
        let all = stream::iter(sequences)
            .map(|items| {
                let (this, results) = (self.clone(), results.clone());
                spawn_in_request(async move { this.send_channel(items, deadlines, results).await })
            })
            .buffer_unordered(MAX_PARALLEL_CHANNELS)
            .for_each(|_| ready(()));
        // The results show whether all ended or the time was up.
        let _ = timeout_at(answer_by.into(), all).await;
        results
            .take()
            .into_iter()
            .zip(&tasks)
            .map(|(result, task)| result.unwrap_or_else(|| Err(task.unconfirmed(Cause::OutOfTime))))
            .inspect(|result| self.count(result))
            .collect()
    }

    /// Sends all messages of one channel in order.
    ///
    /// Each is confirmed before the next is sent: v2 may store two messages that follow each other closely in either order, even if it
    /// answered the first before it received the second (seen: 3 of 400 batches of 25 on a busy single node, most in a cluster). Where that
    /// would take too long for the rest, in a cluster or during a failure, they are sent with a gap between them and confirmed together.
    async fn send_channel(&self, items: Vec<Item>, deadlines: BatchDeadlines, results: Results) {
        let mut sequence = ChannelSequence {
            messages: self,
            unsettled: Vec::with_capacity(items.len()),
            results,
            has_ambiguous: false.into(),
        };
        let channel_permit = items
            .first()
            .map(|(_, task)| self.channel_limiter.try_acquire(&task.conversation()));
        let mut permissions: HashMap<(Uid, Option<Uid>), Result<Permit, Denial>> = HashMap::new();
        let mut failure = match channel_permit {
            Some(None) => Some(Error::Busy),
            _ => None,
        };
        let mut is_serial = true;
        let began = Instant::now();
        let count = u32::try_from(items.len()).unwrap_or(u32::MAX);
        let mut left = count;
        for (index, task) in items {
            if let Some(error) = &failure {
                // A message that WuKongIM did not take, or may still take, must not be overtaken by the next.
                let error = SendError::Upstream(error.clone());
                sequence.results.record(index, Err(error));
                continue;
            }
            if Instant::now() >= deadlines.send_by {
                let error = task.unconfirmed(Cause::OutOfTime);
                sequence.results.record(index, Err(error));
                continue;
            }
            let principal = (task.sender.clone(), task.actor.clone());
            let answer = match permissions.get(&principal) {
                Some(answer) => answer.clone(),
                None => {
                    let answer = self
                        .authorization
                        .may_send(&task.sender, task.actor.as_ref(), &task.channel)
                        .await;
                    permissions.insert(principal, answer.clone());
                    answer
                }
            };
            let permit = match answer {
                Ok(permit) => permit,
                Err(denial) => {
                    sequence
                        .results
                        .record(index, Err(SendError::Denied(denial)));
                    continue;
                }
            };
            if !is_serial && self.client.generation().await == Ok(Generation::V2) {
                sleep(SEND_GAP.min(SERIAL_BUDGET / left)).await;
            }
            let claimed = {
                let claiming = self.try_dispatch(&task, permit, deadlines.answer_by);
                let mut claiming = std::pin::pin!(claiming);
                match timeout_at(deadlines.send_by.into(), &mut claiming).await {
                    Ok(claimed) => claimed,
                    // The sending time is over: confirm the earlier messages while this one may still be answered.
                    Err(_) => tokio::join!(claiming, sequence.settle()).0,
                }
            };
            let mut dispatched = match claimed {
                DispatchAttempt::Ready(dispatched) => dispatched,
                DispatchAttempt::InFlight(_) => {
                    // This batch itself may hold the client_msg_no. Settling its messages before waiting prevents deadlocks between
                    // batches.
                    sequence.settle().await;
                    self.dispatch(&task, permit, deadlines.answer_by).await
                }
            };
            if dispatched.was_not_sent() && task.affinity.is_set() {
                // The node of the earlier messages is gone. Another one may take the rest once none of them can be overtaken.
                sequence.settle().await;
                if !sequence.has_ambiguous.load(Ordering::Relaxed) {
                    task.affinity.clear();
                    dispatched = self.dispatch(&task, permit, deadlines.answer_by).await;
                }
            }
            let unanswered = dispatched.unanswered();
            sequence.unsettled.push((index, task, dispatched));
            left -= 1;
            if is_serial {
                sequence.settle().await;
                is_serial = !sequence.is_unconfirmed(index)
                    && began.elapsed() * left < SERIAL_BUDGET * (count - left);
            }
            if let Some(error) = unanswered {
                sequence.settle().await;
                if !sequence.was_sent(index) {
                    failure = Some(error);
                }
            }
        }
        sequence.settle().await;
    }
}

/// The deadlines of one batch.
#[derive(Clone, Copy)]
struct BatchDeadlines {
    /// Nothing is sent after this.
    send_by: Instant,
    /// Nothing is awaited after this.
    answer_by: Instant,
}

/// The messages of one channel that were dispatched and not yet confirmed.
struct ChannelSequence<'a> {
    messages: &'a Messages,
    unsettled: Vec<(usize, Arc<SendTask>, Dispatched)>,
    results: Results,
    /// Whether the outcome of any of them is unknown.
    has_ambiguous: AtomicBool,
}

impl ChannelSequence<'_> {
    async fn settle(&mut self) {
        let (messages, results) = (self.messages, &self.results);
        let has_ambiguous = &self.has_ambiguous;
        let settling = self
            .unsettled
            .drain(..)
            .map(|(index, task, dispatched)| async move {
                let result = messages.settle(&task, dispatched).await;
                if let Err(SendError::Unconfirmed { .. }) = result {
                    has_ambiguous.store(true, Ordering::Relaxed);
                }
                results.record(index, result);
            });
        join_all(settling).await;
    }

    fn is_unconfirmed(&self, index: usize) -> bool {
        let unconfirmed =
            |slot: &Slot| matches!(slot.outcome, Some(Err(SendError::Unconfirmed { .. })));
        self.results.0.lock().get(index).is_some_and(unconfirmed)
    }

    fn was_sent(&self, index: usize) -> bool {
        let sent = |slot: &Slot| matches!(slot.outcome, Some(Ok(_)));
        self.results.0.lock().get(index).is_some_and(sent)
    }
}

impl Dispatched {
    /// Whether no node has received the message.
    fn was_not_sent(&self) -> bool {
        matches!(self, Self::Settled(Err(SendError::Upstream(error))) if error.was_not_sent())
    }

    /// The error where WuKongIM has not taken the message, or may not have.
    fn unanswered(&self) -> Option<Error> {
        let cause = match self {
            Self::Settled(Err(SendError::Upstream(error))) => return Some(error.clone()),
            Self::Settled(Err(SendError::Unconfirmed { cause, .. })) => cause,
            Self::AwaitingConfirmation(awaiting) => match &awaiting.cause {
                // WuKongIM has answered.
                Cause::NeverSeen => return None,
                cause => cause,
            },
            Self::Settled(_) => return None,
        };
        Some(match cause {
            Cause::NoAnswer(error) => error.clone(),
            Cause::NeverSeen | Cause::OutOfTime => Error::Timeout,
        })
    }
}
