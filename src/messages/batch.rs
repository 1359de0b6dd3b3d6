//! Sending many messages: order within a channel, channels side by side, and an answer for each in time.

use std::collections::HashMap;
use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use futures_util::{StreamExt as _, stream};
use parking_lot::Mutex;
use tokio::time::{sleep, timeout_at};

use super::send::{Claimed, Dispatched, answer_by};
use super::{Cause, Draft, Job, Messages, SendError, Sent, spawn_in_request};
use crate::authorization::{Audit, Denial, Permit};
use crate::domain::{Channel, ConversationKey, Uid};
use crate::wukongim::{Error, Generation, Route};

/// Channels of one batch that are worked on at the same time.
const SIDE_BY_SIDE: usize = 16;

/// What keeping the order may cost the messages that are left in a channel: for each to wait for the one before it, as fast as
/// those before, or else for the gaps between them.
const ORDERLY: Duration = Duration::from_secs(2);

/// The gap between two sends that do not wait for each other. A v2 cluster stored 21 of 500 such neighbours in swapped order
/// without one, 5 with 2 ms, 1 with 5 ms and none with 20 ms (seen).
const GAP: Duration = Duration::from_millis(20);

/// One message of a batch and its place in it.
type Item = (usize, Arc<Job>);

/// What became of one message, once it is known.
type Outcome = Option<Result<Sent, SendError>>;

/// What became of one message, and where that is noted of an admin's.
struct Slot {
    outcome: Outcome,
    audit: Option<Audit>,
}

/// The outcomes of a batch so far, by the messages' places.
#[derive(Clone)]
struct Results(Arc<Mutex<Vec<Slot>>>);

impl Results {
    fn of(jobs: &[Arc<Job>]) -> Self {
        let slot = |job: &Arc<Job>| Slot {
            outcome: None,
            audit: job.audit(),
        };
        Self(Arc::new(Mutex::new(jobs.iter().map(slot).collect())))
    }

    fn put(&self, place: usize, result: Result<Sent, SendError>) {
        if let Some(slot) = self.0.lock().get_mut(place) {
            if let Some(audit) = &mut slot.audit {
                audit.ended(&result);
            }
            slot.outcome = Some(result);
        }
    }

    /// All that is known by now. The audit waits for what is not: its lines are written when the last task is done.
    fn take(&self) -> Vec<Outcome> {
        let mut slots = self.0.lock();
        slots.iter_mut().map(|slot| slot.outcome.take()).collect()
    }
}

impl Messages {
    /// Which of these may not be sent since v3 is there, which must never get a message to oneself: by their places.
    pub async fn refused_to_oneself(&self, drafts: &[(Uid, Draft)]) -> Vec<usize> {
        let is_to_oneself = |(sender, draft): &(Uid, Draft)| matches!(&draft.channel, Channel::Person(peer) if peer == sender);
        let places = drafts.iter().enumerate();
        let mut places: Vec<usize> = places
            .filter(|(_, draft)| is_to_oneself(draft))
            .map(|(place, _)| place)
            .collect();
        // Where it is not known who is there, each message fails on its own.
        if !places.is_empty() && self.client.generation().await != Ok(Generation::V3) {
            places.clear();
        }
        places
    }

    /// Sends every draft for its sender; the results are in the order of the drafts, and there is one for each just before
    /// `deadline` at the latest. What was begun goes on without the caller.
    pub async fn send_batch(
        self: &Arc<Self>,
        drafts: Vec<(Uid, Draft)>,
        deadline: Instant,
    ) -> Vec<Result<Sent, SendError>> {
        let now = Instant::now();
        let answer_by = answer_by(deadline);
        // What is sent needs time to be seen stored; half of all there is goes to sending in any case.
        let half = answer_by.saturating_duration_since(now) / 2;
        let send_by = answer_by
            .checked_sub(self.confirm_timeout)
            .map_or(now + half, |send_by| send_by.max(now + half));
        let times = Times { send_by, answer_by };

        let mut routes: HashMap<ConversationKey, Arc<Route>> = HashMap::new();
        let jobs: Vec<Arc<Job>> = drafts
            .into_iter()
            .map(|(sender, draft)| {
                let route = routes.entry(ConversationKey::of(&sender, &draft.channel));
                let route = route.or_default().clone();
                Arc::new(Job::new(sender, draft, route))
            })
            .collect();
        let mut lanes: Vec<Vec<Item>> = Vec::new();
        let mut lane_of = HashMap::new();
        for (place, job) in jobs.iter().enumerate() {
            let lane = *lane_of.entry(job.conversation()).or_insert_with(|| {
                lanes.push(Vec::new());
                lanes.len() - 1
            });
            lanes[lane].push((place, job.clone()));
        }
        let results = Results::of(&jobs);
        let all = stream::iter(lanes)
            .map(|items| {
                let (this, results) = (self.clone(), results.clone());
                spawn_in_request(async move { this.send_lane(items, times, results).await })
            })
            .buffer_unordered(SIDE_BY_SIDE)
            .for_each(|_| ready(()));
        // Whether all is known or the time is up: the results say.
        let _ = timeout_at(answer_by.into(), all).await;
        results
            .take()
            .into_iter()
            .zip(&jobs)
            .map(|(result, job)| result.unwrap_or_else(|| Err(job.unconfirmed(Cause::OutOfTime))))
            .inspect(|result| self.count(result))
            .collect()
    }

    /// All messages of one channel, one after the other.
    ///
    /// Each is seen stored before the next is sent, for v2 stores two that come close to each other in either order, though it has
    /// answered the first before it got the second (seen: 3 of 400 batches of 25 on a busy single node, most in a cluster). Where
    /// that would take too long for those that are left, in a cluster or while something is amiss, they are sent first, a gap
    /// between them, and then confirmed together.
    async fn send_lane(&self, items: Vec<Item>, times: Times, results: Results) {
        let mut lane = Lane {
            messages: self,
            handed_over: Vec::with_capacity(items.len()),
            results,
            is_doubtful: false.into(),
        };
        let place = items
            .first()
            .map(|(_, job)| self.crowd.enter(&job.conversation()));
        let mut allowed: HashMap<(Uid, Option<Uid>), Result<Permit, Denial>> = HashMap::new();
        let mut broken = match place {
            Some(None) => Some(Error::Busy),
            _ => None,
        };
        let mut orderly = true;
        let began = Instant::now();
        let count = u32::try_from(items.len()).unwrap_or(u32::MAX);
        let mut left = count;
        for (place, job) in items {
            if let Some(error) = &broken {
                // What follows a message that WuKongIM could not take, or may take yet, would overtake it.
                let error = SendError::Upstream(error.clone());
                lane.results.put(place, Err(error));
                continue;
            }
            if Instant::now() >= times.send_by {
                let error = job.unconfirmed(Cause::OutOfTime);
                lane.results.put(place, Err(error));
                continue;
            }
            let who = (job.sender.clone(), job.actor.clone());
            let answer = match allowed.get(&who) {
                Some(answer) => answer.clone(),
                None => {
                    let answer = self
                        .authorization
                        .may_send(&job.sender, job.actor.as_ref(), &job.channel)
                        .await;
                    allowed.insert(who, answer.clone());
                    answer
                }
            };
            let permit = match answer {
                Ok(permit) => permit,
                Err(denial) => {
                    lane.results.put(place, Err(SendError::Denied(denial)));
                    continue;
                }
            };
            if !orderly && permit.generation == Generation::V2 {
                sleep(GAP.min(ORDERLY / left)).await;
            }
            let claimed = {
                let claiming = self.try_dispatch(&job, permit, times.answer_by);
                let mut claiming = std::pin::pin!(claiming);
                match timeout_at(times.send_by.into(), &mut claiming).await {
                    Ok(claimed) => claimed,
                    // Time to settle what was sent before; this one may still be answered meanwhile.
                    Err(_) => tokio::join!(claiming, lane.settle()).0,
                }
            };
            let mut dispatched = match claimed {
                Claimed::Ready(dispatched) => dispatched,
                Claimed::Busy(_) => {
                    // Perhaps this very batch holds the number: settle its messages before waiting, and no two batches can
                    // wait for each other.
                    lane.settle().await;
                    self.dispatch(&job, permit, times.answer_by).await
                }
            };
            if dispatched.never_left() && job.route.is_found() {
                // The node that got those before is gone. Another one takes the rest once nothing of them can be overtaken.
                lane.settle().await;
                if !lane.is_doubtful.load(Ordering::Relaxed) {
                    job.route.leave();
                    dispatched = self.dispatch(&job, permit, times.answer_by).await;
                }
            }
            let unanswered = dispatched.unanswered();
            lane.handed_over.push((place, job, dispatched));
            left -= 1;
            if orderly {
                lane.settle().await;
                orderly = !lane.is_unconfirmed(place)
                    && began.elapsed() * left < ORDERLY * (count - left);
            }
            if let Some(error) = unanswered {
                lane.settle().await;
                if !lane.was_sent(place) {
                    broken = Some(error);
                }
            }
        }
        lane.settle().await;
    }
}

/// The times of one batch.
#[derive(Clone, Copy)]
struct Times {
    /// Nothing is sent after this.
    send_by: Instant,
    /// Nobody waits for anything after this.
    answer_by: Instant,
}

/// The messages of one channel that were handed over and not yet seen stored.
struct Lane<'a> {
    messages: &'a Messages,
    handed_over: Vec<(usize, Arc<Job>, Dispatched)>,
    results: Results,
    /// Whether of any of them it is not known if it is stored.
    is_doubtful: AtomicBool,
}

impl Lane<'_> {
    async fn settle(&mut self) {
        let (messages, results) = (self.messages, &self.results);
        let is_doubtful = &self.is_doubtful;
        let settling = self
            .handed_over
            .drain(..)
            .map(|(place, job, dispatched)| async move {
                let result = messages.settle(&job, dispatched).await;
                if let Err(SendError::Unconfirmed { .. }) = result {
                    is_doubtful.store(true, Ordering::Relaxed);
                }
                results.put(place, result);
            });
        join_all(settling).await;
    }

    fn is_unconfirmed(&self, place: usize) -> bool {
        let unconfirmed =
            |slot: &Slot| matches!(slot.outcome, Some(Err(SendError::Unconfirmed { .. })));
        self.results.0.lock().get(place).is_some_and(unconfirmed)
    }

    fn was_sent(&self, place: usize) -> bool {
        let sent = |slot: &Slot| matches!(slot.outcome, Some(Ok(_)));
        self.results.0.lock().get(place).is_some_and(sent)
    }
}

impl Dispatched {
    /// Whether no node has got the message.
    fn never_left(&self) -> bool {
        matches!(self, Self::Settled(Err(SendError::Upstream(error))) if error.never_left())
    }

    /// Why it is not known whether WuKongIM has taken the message, or that it has not.
    fn unanswered(&self) -> Option<Error> {
        let cause = match self {
            Self::Settled(Err(SendError::Upstream(error))) => return Some(error.clone()),
            Self::Settled(Err(SendError::Unconfirmed { cause, .. })) => cause,
            Self::Waiting(waiting) => match &waiting.cause {
                // It has answered.
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
