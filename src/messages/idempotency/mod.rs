//! The idempotency store: recent sends by sender, channel and client_msg_no, with their outcomes. Bounded by entries and by time.

mod table;
#[cfg(test)]
mod tests;

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{SendTask, Stored};
use crate::telemetry::Metrics;
use table::{EntryTable, Key, State};

/// A send with an unknown outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Attempt {
    /// The message is above this seq: the highest one seen in the channel before the first send. `None` where none had been seen.
    pub(super) floor: Option<u64>,
    /// When it was first sent, in Unix milliseconds.
    pub(super) sent_ms: u64,
    /// When it was last sent.
    pub(super) last_sent: Instant,
}

/// The store of recent sends.
pub(super) struct IdempotencyStore {
    table: Mutex<EntryTable>,
    window: Duration,
    capacity: usize,
    hashers: [RandomState; 2],
    metrics: Arc<Metrics>,
}

/// The result of claiming a client_msg_no.
pub(super) enum ClaimOutcome {
    /// Not stored within the window, as far as is known: send it, after a search where the claim has an earlier attempt.
    Claimed(Claim),
    /// Stored before: this is the answer.
    Done(Stored),
    /// Used for another payload.
    Conflict,
    /// Another request is sending it: wait, then claim again.
    InFlight(InFlight),
}

/// Waits for the send that holds the claim.
pub(super) struct InFlight(Arc<Notify>);

impl InFlight {
    pub(super) async fn wait(self) {
        // `Notify` stores a permit if the other send has ended already; it is passed on to the next waiter.
        self.0.notified().await;
        self.0.notify_one();
    }
}

impl IdempotencyStore {
    pub(super) fn new(window: Duration, capacity: usize, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            table: Mutex::default(),
            window,
            capacity,
            hashers: [RandomState::new(), RandomState::new()],
            metrics,
        })
    }

    /// The number of entries, including sends in flight.
    pub(super) fn len(&self) -> usize {
        self.table.lock().len()
    }

    /// Claims the task's client_msg_no for one send, or returns the outcome of an earlier one.
    pub(super) fn claim(self: &Arc<Self>, task: &SendTask) -> ClaimOutcome {
        let parts = (&task.sender, &task.conversation, &task.client_msg_no);
        let [high, low] = [0, 1].map(|half: usize| u128::from(self.hashers[half].hash_one(parts)));
        let key = high << 64 | low;
        let payload = self.hashers[0].hash_one(task.draft.payload.as_base64());
        let user = self.hashers[0].hash_one(&task.sender);
        let meters = &self.metrics.idempotency;
        let mut table = self.table.lock();
        let now = Instant::now();
        table.evict_expired(key, now, self.window);
        let done: Arc<Notify> = Arc::default();
        let attempt = match table.get(key) {
            None => {
                while table.len() >= self.capacity && table.evict_one() {
                    meters.evicted.inc();
                }
                table.insert(key, State::InFlight(done.clone()), payload, user, now);
                meters.new.inc();
                None
            }
            // Before the payloads are compared: if that message is not stored, its client_msg_no is free for another payload.
            Some((State::InFlight(done), _)) => {
                meters.busy.inc();
                return ClaimOutcome::InFlight(InFlight(done.clone()));
            }
            Some((_, other)) if other != payload => {
                meters.conflict.inc();
                return ClaimOutcome::Conflict;
            }
            Some((State::Done(stored), _)) => {
                meters.repeated.inc();
                return ClaimOutcome::Done(*stored);
            }
            Some((State::Unknown(attempt), _)) => {
                let attempt = *attempt;
                table.set(key, State::InFlight(done.clone()), now);
                meters.unknown.inc();
                Some(attempt)
            }
        };
        ClaimOutcome::Claimed(Claim {
            store: self.clone(),
            key,
            done,
            is_client_key: task.draft.client_msg_no.is_some(),
            was_unknown: attempt.is_some(),
            attempt,
            stored: None,
        })
    }
}

/// The exclusive right to send one client_msg_no. A claim dropped without an outcome (a panic, an unconfirmed message) leaves "outcome
/// unknown" if the message may have been sent, and no entry otherwise.
pub(super) struct Claim {
    store: Arc<IdempotencyStore>,
    key: Key,
    done: Arc<Notify>,
    /// Whether the client chose the client_msg_no, and so may repeat it after a success.
    is_client_key: bool,
    /// An earlier attempt has an unknown outcome, and may still appear whatever this one's outcome is.
    was_unknown: bool,
    /// What is known about this attempt, or an earlier one.
    pub(super) attempt: Option<Attempt>,
    stored: Option<Stored>,
}

impl Claim {
    /// The message is being sent, and is above `floor`: from here on its outcome may be unknown.
    pub(super) fn mark_sent(&mut self, floor: Option<u64>, sent_ms: u64) {
        let last_sent = Instant::now();
        let new = Attempt {
            floor,
            sent_ms,
            last_sent,
        };
        // A retry keeps the first attempt's floor: either message may appear above it.
        self.attempt.get_or_insert(new).last_sent = last_sent;
    }

    /// The earlier attempt is not at or below this seq.
    pub(super) fn advance_floor(&mut self, up_to: u64) {
        if let Some(attempt) = &mut self.attempt {
            attempt.floor = attempt.floor.max(Some(up_to));
        }
    }

    /// The message is stored; the same client_msg_no gets this answer for the rest of the window, if the client can repeat it.
    pub(super) fn complete(mut self, stored: Stored) -> Stored {
        if self.is_client_key {
            self.stored = Some(stored);
        } else {
            self.attempt = None;
        }
        stored
    }

    /// This attempt was certainly not stored. An earlier attempt that may still appear is kept.
    pub(super) fn release(mut self) {
        if !self.was_unknown {
            self.attempt = None;
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let state = match (self.stored, self.attempt) {
            (Some(stored), _) => Some(State::Done(stored)),
            (None, attempt) => attempt.map(State::Unknown),
        };
        let mut table = self.store.table.lock();
        match state {
            Some(state) => table.set(self.key, state, Instant::now()),
            None => table.remove(self.key),
        }
        drop(table);
        self.done.notify_one();
    }
}
