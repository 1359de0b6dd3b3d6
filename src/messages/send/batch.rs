//! Sends a batch of messages: in order within a channel, channels in parallel, with a result for each message in time.

use std::collections::HashMap;
use std::future::ready;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use futures_util::{StreamExt as _, stream};
use parking_lot::Mutex;
use tokio::time::{sleep, timeout_at};

use super::{Dispatched, Messages, answer_by};
use crate::context::inherit_context;
use crate::domain::{Channel, ConversationKey, Uid};
use crate::messages::{Cause, Draft, SendError, SendTask, Sent, Stored};
use crate::wukongim::{Error, Generation};

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

/// The results of a batch so far, by index.
type Results = Arc<Mutex<Vec<Option<Result<Sent, SendError>>>>>;

/// The deadlines of one batch.
#[derive(Clone, Copy)]
struct BatchDeadlines {
    /// No message is begun after this; one that was begun may be sent until `answer_by`.
    send_by: Instant,
    /// Nothing is awaited after this.
    answer_by: Instant,
}

impl Messages {
    /// The indices of messages to oneself, which must never be sent to v3; empty on v2.
    pub async fn indices_refused_to_self(&self, drafts: &[(Uid, Draft)]) -> Vec<usize> {
        let is_to_self = |(sender, draft): &(Uid, Draft)| matches!(&draft.channel, Channel::Person(peer) if peer == sender);
        let indices = (0..drafts.len()).filter(|index| is_to_self(&drafts[*index]));
        let indices: Vec<usize> = indices.collect();
        // Where the generation is unknown, each message fails separately.
        if indices.is_empty() || self.client.generation().await == Ok(Generation::V3) {
            indices
        } else {
            Vec::new()
        }
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
        let half = now + answer_by.saturating_duration_since(now) / 2;
        let send_by = answer_by.checked_sub(self.confirm_timeout);
        let deadlines = BatchDeadlines {
            send_by: send_by.map_or(half, |send_by| send_by.max(half)),
            answer_by,
        };
        let mut tasks = Vec::with_capacity(drafts.len());
        let mut sequences: Vec<Vec<Item>> = Vec::new();
        let mut sequence_of = HashMap::new();
        for (index, (sender, draft)) in drafts.into_iter().enumerate() {
            let conversation = ConversationKey::of(&sender, &draft.channel);
            let sequence = *sequence_of.entry(conversation).or_insert_with(|| {
                sequences.push(Vec::new());
                sequences.len() - 1
            });
            let sequence = &mut sequences[sequence];
            let affinity = sequence.first().map(|(_, first)| first.affinity.clone());
            let task = SendTask::new(sender, draft, affinity.unwrap_or_default());
            tasks.push(task.clone());
            sequence.push((index, task));
        }
        let results: Results = Arc::new(Mutex::new(vec![None; tasks.len()]));
        let all = stream::iter(sequences)
            .map(|items| {
                let (this, results) = (self.clone(), results.clone());
                let work = async move { this.send_channel(items, deadlines, results).await };
                // The request's bytes stay reserved until it ends. Boxed: a task moves its future whenever its state changes.
                tokio::spawn(inherit_context(Box::pin(work)))
            })
            .buffer_unordered(MAX_PARALLEL_CHANNELS)
            .for_each(|_| ready(()));
        // The results show whether all ended or the time was up.
        let _ = timeout_at(answer_by.into(), all).await;
        let mut results = results.lock();
        let results = results.iter_mut().map(Option::take).zip(&tasks);
        results
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
            dispatched: Vec::with_capacity(items.len()),
            results,
            has_ambiguous: false,
        };
        let channel_slot = items
            .first()
            .map(|(_, task)| self.channel_limiter.try_acquire(&task.conversation));
        let mut failure = matches!(channel_slot, Some(None)).then_some(Error::Busy);
        let mut permissions = HashMap::new();
        let mut is_serial = true;
        let began = Instant::now();
        let (mut sent, mut left) = (0, u32::try_from(items.len()).unwrap_or(u32::MAX));
        for (index, task) in items {
            left -= 1;
            if let Some(error) = &failure {
                // The rest is refused: a message that WuKongIM did not take, or may still take, must not be overtaken by a later one.
                sequence.record(index, &task, Err(SendError::Upstream(error.clone())));
                continue;
            }
            if Instant::now() >= deadlines.send_by {
                sequence.record(index, &task, Err(task.unconfirmed(Cause::OutOfTime)));
                continue;
            }
            // All senders but the caller have the caller as the actor.
            if !permissions.contains_key(&task.sender) {
                permissions.insert(task.sender.clone(), self.may_send(&task).await);
            }
            let permit = match &permissions[&task.sender] {
                Ok(permit) => *permit,
                Err(denial) => {
                    sequence.record(index, &task, Err(denial.clone().into()));
                    continue;
                }
            };
            if !is_serial && self.client.generation().await == Ok(Generation::V2) {
                sleep(SEND_GAP.min(SERIAL_BUDGET / (left + 1))).await;
            }
            let mut dispatched = {
                let dispatching = self.try_dispatch(&task, permit, deadlines.answer_by);
                let mut dispatching = std::pin::pin!(dispatching);
                match timeout_at(deadlines.send_by.into(), &mut dispatching).await {
                    Ok(dispatched) => dispatched,
                    // The sending time is over: confirm the earlier messages while this one may still be answered.
                    Err(_) => tokio::join!(dispatching, sequence.confirm_all()).0,
                }
            };
            if let Ok(Dispatched::InFlight(_)) = dispatched {
                // This batch itself may hold the client_msg_no. Confirming its messages before waiting prevents deadlocks between batches.
                sequence.confirm_all().await;
                dispatched = self.dispatch(&task, permit, deadlines.answer_by).await;
            }
            let was_not_sent = matches!(&dispatched, Err(SendError::Upstream(error)) if error.can_go_to_next_node());
            if was_not_sent && task.affinity.is_set() {
                // The node of the earlier messages cannot be reached, or is full. Another one may take the rest once none of them can be
                // overtaken.
                sequence.confirm_all().await;
                if !sequence.has_ambiguous {
                    task.affinity.clear();
                    dispatched = self.dispatch(&task, permit, deadlines.answer_by).await;
                }
            }
            let unanswered = unanswered(&dispatched);
            sequence.dispatched.push((index, task, dispatched));
            sent += 1;
            if is_serial || unanswered.is_some() {
                let result = sequence.confirm_all().await;
                is_serial &= !matches!(result, Some(Err(SendError::Unconfirmed { .. })))
                    && began.elapsed() / sent * left < SERIAL_BUDGET;
                failure = unanswered.filter(|_| !matches!(result, Some(Ok(_))));
            }
        }
        sequence.confirm_all().await;
    }
}

/// The messages of one channel that were dispatched and not yet confirmed.
struct ChannelSequence<'a> {
    messages: &'a Messages,
    dispatched: Vec<(usize, Arc<SendTask>, Result<Dispatched, SendError>)>,
    results: Results,
    /// Whether the outcome of any of them is unknown.
    has_ambiguous: bool,
}

impl ChannelSequence<'_> {
    /// Confirms all, and returns the result of the last one.
    async fn confirm_all(&mut self) -> Option<Result<Stored, SendError>> {
        let messages = self.messages;
        let dispatched = std::mem::take(&mut self.dispatched);
        let this = &*self;
        let confirming = dispatched
            .into_iter()
            .map(|(index, task, dispatched)| async move {
                let result = messages.confirm(&task, dispatched).await;
                this.record(index, &task, result.clone());
                result
            });
        let results = join_all(confirming).await;
        let is_unconfirmed = |result: &_| matches!(result, Err(SendError::Unconfirmed { .. }));
        self.has_ambiguous |= results.iter().any(is_unconfirmed);
        results.into_iter().next_back()
    }

    fn record(&self, index: usize, task: &SendTask, result: Result<Stored, SendError>) {
        let result = task.end(result);
        if let Some(slot) = self.results.lock().get_mut(index) {
            *slot = Some(result);
        }
    }
}

/// The error where WuKongIM has not taken the message, or may not have.
fn unanswered(dispatched: &Result<Dispatched, SendError>) -> Option<Error> {
    let cause = match dispatched {
        Err(SendError::Upstream(error)) => return Some(error.clone()),
        Err(SendError::Unconfirmed { cause, .. }) => cause,
        // WuKongIM has answered.
        Ok(Dispatched::Sent(awaiting)) if awaiting.cause == Cause::NeverSeen => return None,
        Ok(Dispatched::Sent(awaiting)) => &awaiting.cause,
        Ok(Dispatched::InFlight(_)) => &Cause::OutOfTime,
        Ok(Dispatched::Stored(_)) | Err(_) => return None,
    };
    Some(match cause {
        Cause::NoAnswer(error) => error.clone(),
        Cause::NeverSeen | Cause::OutOfTime => Error::Timeout,
    })
}
