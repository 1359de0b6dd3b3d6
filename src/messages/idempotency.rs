//! The idempotency store: recent sends by sender, channel and client_msg_no, with their outcomes. Bounded by entries and by time.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use tokio::sync::Notify;

use super::Stored;
use super::idempotency_table::{Entry, EntryTable, Key, State};
use crate::domain::{ClientMsgNo, ConversationKey, Payload, Uid};

/// A send with an unknown outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Attempt {
    /// The message is above this seq: the highest one seen in the channel before the first send. `None` where none had been seen.
    pub(super) floor: Option<u64>,
    /// When it was first sent, in Unix milliseconds.
    pub(super) sent_ms: u64,
    /// When it was last sent.
    pub(super) last: Instant,
}

/// The store of recent sends.
pub(super) struct IdempotencyStore {
    table: Mutex<EntryTable>,
    window: Duration,
    capacity: usize,
    hashers: [RandomState; 2],
    evicted: Counter,
}

/// The result of claiming a client_msg_no.
pub(super) enum ClaimOutcome {
    /// Not seen within the window: send it.
    New(Claim),
    /// Sent before with an unknown outcome: search for it first.
    Unknown(Claim, Attempt),
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
    pub(super) fn new(window: Duration, capacity: usize, evicted: Counter) -> Arc<Self> {
        Arc::new(Self {
            table: Mutex::default(),
            window,
            capacity,
            hashers: [RandomState::new(), RandomState::new()],
            evicted,
        })
    }

    /// The number of entries, including sends in flight.
    pub(super) fn len(&self) -> usize {
        self.table.lock().len()
    }

    /// Claims the client_msg_no for one send, or returns the outcome of an earlier one.
    pub(super) fn claim(
        self: &Arc<Self>,
        sender: &Uid,
        conversation: &ConversationKey,
        client_msg_no: &ClientMsgNo,
        payload: &Payload,
    ) -> ClaimOutcome {
        let parts = (sender, conversation, client_msg_no);
        let [high, low] = [0, 1].map(|half: usize| u128::from(self.hashers[half].hash_one(parts)));
        let key = high << 64 | low;
        let payload = self.hashers[0].hash_one(payload.as_base64());
        let user = self.hashers[0].hash_one(sender);
        let mut table = self.table.lock();
        let now = Instant::now();
        table.evict_expired(key, now, self.window);
        let mut unknown = None;
        if let Some(entry) = table.get_mut(key) {
            match &entry.state {
                State::InFlight { done, .. } => {
                    return ClaimOutcome::InFlight(InFlight(done.clone()));
                }
                _ if entry.payload != payload => return ClaimOutcome::Conflict,
                State::Done(stored) => return ClaimOutcome::Done(*stored),
                State::Unknown(attempt) => unknown = Some(*attempt),
            }
        }
        let state = State::InFlight {
            done: Arc::default(),
            attempt: unknown,
        };
        let claim = Claim {
            store: self.clone(),
            key,
            was_unknown: unknown.is_some(),
            is_settled: false,
        };
        if let Some(attempt) = unknown {
            table.set(key, state, now);
            return ClaimOutcome::Unknown(claim, attempt);
        }
        while table.len() >= self.capacity && table.evict_one() {
            self.evicted.inc();
        }
        table.insert(key, Entry::new(state, payload, user, now));
        ClaimOutcome::New(claim)
    }

    fn settle(&self, key: Key, outcome: Outcome) {
        let mut table = self.table.lock();
        let Some(entry) = table.get_mut(key) else {
            return;
        };
        let State::InFlight { done, attempt } = &entry.state else {
            return;
        };
        let (done, attempt) = (done.clone(), *attempt);
        let now = Instant::now();
        match (outcome, attempt) {
            (Outcome::Stored(stored), _) => table.set(key, State::Done(stored), now),
            (Outcome::Abandoned, Some(attempt)) => table.set(key, State::Unknown(attempt), now),
            (Outcome::Released, _) | (Outcome::Abandoned, None) => table.remove(key),
        }
        drop(table);
        done.notify_one();
    }
}

enum Outcome {
    Stored(Stored),
    Released,
    Abandoned,
}

/// The exclusive right to send one client_msg_no. A claim dropped without an outcome (a panic, an unconfirmed message) leaves "outcome
/// unknown" if the message may have been sent, and no entry otherwise.
pub(super) struct Claim {
    store: Arc<IdempotencyStore>,
    key: Key,
    /// An earlier attempt has an unknown outcome, and may still appear whatever this one's outcome is.
    was_unknown: bool,
    is_settled: bool,
}

impl Claim {
    /// The message is being sent: from here on its outcome may be unknown.
    pub(super) fn mark_sent(&self, attempt: Attempt) {
        self.change(|known| match known {
            // A retry keeps the first attempt's floor: either message may appear above it.
            Some(first) => first.last = attempt.last,
            None => *known = Some(attempt),
        });
    }

    /// The earlier attempt is not at or below this seq.
    pub(super) fn advance_floor(&self, up_to: u64) {
        self.change(|known| {
            if let Some(attempt) = known {
                attempt.floor = attempt.floor.max(Some(up_to));
            }
        });
    }

    fn change(&self, change: impl FnOnce(&mut Option<Attempt>)) {
        let mut table = self.store.table.lock();
        if let Some(entry) = table.get_mut(self.key)
            && let State::InFlight { attempt, .. } = &mut entry.state
        {
            change(attempt);
        }
    }

    /// The message is stored; the same client_msg_no gets this answer for the rest of the window.
    pub(super) fn complete(mut self, stored: Stored) {
        self.is_settled = true;
        self.store.settle(self.key, Outcome::Stored(stored));
    }

    /// This attempt was certainly not stored, or cannot be repeated by the client. An earlier attempt that may still appear is kept.
    pub(super) fn release(mut self) {
        if !self.was_unknown {
            self.is_settled = true;
            self.store.settle(self.key, Outcome::Released);
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.is_settled {
            self.store.settle(self.key, Outcome::Abandoned);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Channel, ChannelId, MessageId};
    use crate::messages::idempotency_table::USER_QUOTA;

    fn store(window: Duration, capacity: usize) -> Arc<IdempotencyStore> {
        IdempotencyStore::new(window, capacity, Counter::default())
    }

    const LONG: Duration = Duration::from_mins(10);

    fn attempt(floor: u64, sent_ms: u64) -> Attempt {
        Attempt {
            floor: Some(floor),
            sent_ms,
            last: Instant::now(),
        }
    }

    fn claim_key(
        store: &Arc<IdempotencyStore>,
        user: &str,
        client_msg_no: &str,
        payload: &str,
    ) -> ClaimOutcome {
        let user = Uid::parse(user, 99).unwrap();
        let channel = Channel::Group(ChannelId::parse("g", 9).unwrap());
        let key = ConversationKey::of(&user, &channel);
        let client_msg_no = ClientMsgNo::parse(client_msg_no, 99).unwrap();
        store.claim(
            &user,
            &key,
            &client_msg_no,
            &Payload::parse(payload, 99).unwrap(),
        )
    }

    fn stored(seq: u64) -> Stored {
        Stored {
            id: MessageId(seq),
            seq,
        }
    }

    fn leave_unknown(store: &Arc<IdempotencyStore>, attempt: Attempt) {
        match claim_key(store, "a", "n", "YQ==") {
            ClaimOutcome::New(claim) => claim.mark_sent(attempt),
            _ => panic!("not new"),
        }
    }

    fn send(store: &Arc<IdempotencyStore>, user: &str, client_msg_no: &str, seq: u64) {
        match claim_key(store, user, client_msg_no, "YQ==") {
            ClaimOutcome::New(claim) => claim.complete(stored(seq)),
            _ => panic!("{user} {client_msg_no} is not new"),
        }
    }

    #[test]
    fn the_same_client_msg_no_gets_the_first_answer_and_another_payload_a_conflict() {
        let store = store(LONG, 10);
        send(&store, "a", "n", 5);
        assert!(
            matches!(claim_key(&store, "a", "n", "YQ=="), ClaimOutcome::Done(answer) if answer == stored(5))
        );
        assert!(matches!(
            claim_key(&store, "a", "n", "Yg=="),
            ClaimOutcome::Conflict
        ));
        assert!(
            matches!(claim_key(&store, "b", "n", "Yg=="), ClaimOutcome::New(_)),
            "another sender's client_msg_no is separate"
        );
    }

    #[test]
    fn an_abandoned_claim_leaves_the_attempt() {
        let store = store(LONG, 10);
        let ClaimOutcome::New(claim) = claim_key(&store, "a", "n", "YQ==") else {
            panic!()
        };
        drop(claim);
        // It was never sent.
        let first = attempt(7, 1);
        leave_unknown(&store, first);
        let ClaimOutcome::Unknown(claim, known) = claim_key(&store, "a", "n", "YQ==") else {
            panic!()
        };
        assert_eq!(known, first);
        let second = attempt(99, 2);
        claim.mark_sent(second);
        drop(claim);
        let ClaimOutcome::Unknown(_, known) = claim_key(&store, "a", "n", "YQ==") else {
            panic!()
        };
        assert_eq!(
            (known.floor, known.sent_ms),
            (Some(7), 1),
            "the first attempt's floor is kept"
        );
        assert_eq!(known.last, second.last);
        assert!(matches!(
            claim_key(&store, "a", "n", "Yg=="),
            ClaimOutcome::Conflict
        ));
    }

    #[test]
    fn a_refused_retry_does_not_forget_the_first_attempt() {
        let store = store(LONG, 10);
        let first = attempt(7, 1);
        leave_unknown(&store, first);
        for _ in 0..2 {
            let ClaimOutcome::Unknown(claim, known) = claim_key(&store, "a", "n", "YQ==") else {
                panic!("the first attempt is forgotten")
            };
            assert_eq!(known, first);
            claim.release();
        }
    }

    #[test]
    fn a_search_resumes_at_the_floor_the_last_one_reached() {
        let store = store(LONG, 10);
        leave_unknown(&store, attempt(7, 1));
        for (up_to, expected) in [(500, 7), (300, 500), (900, 500)] {
            let ClaimOutcome::Unknown(claim, known) = claim_key(&store, "a", "n", "YQ==") else {
                panic!()
            };
            assert_eq!(known.floor, Some(expected));
            claim.advance_floor(up_to);
        }
    }

    #[test]
    fn an_entry_ends_with_the_window() {
        let store = store(Duration::ZERO, 10);
        send(&store, "a", "n", 1);
        send(&store, "a", "n", 2);
        assert_eq!(store.len(), 1);
    }

    #[test]
    fn a_full_store_evicts_the_oldest_finished_entry() {
        let store = store(LONG, 3);
        let ClaimOutcome::New(held) = claim_key(&store, "a", "held", "YQ==") else {
            panic!()
        };
        send(&store, "a", "1", 1);
        send(&store, "a", "2", 2);
        send(&store, "a", "3", 3);
        assert_eq!((store.len(), store.evicted.get()), (3, 1));
        assert!(matches!(
            claim_key(&store, "a", "held", "YQ=="),
            ClaimOutcome::InFlight(_)
        ));
        assert!(matches!(
            claim_key(&store, "a", "3", "YQ=="),
            ClaimOutcome::Done(_)
        ));
        drop(held);
        send(&store, "a", "1", 4);
    }

    #[test]
    fn a_user_over_quota_is_evicted_before_others() {
        let store = store(LONG, 2 * USER_QUOTA);
        for n in 0..USER_QUOTA / 2 {
            send(&store, "calm", &n.to_string(), 1);
        }
        for n in 0..5 * USER_QUOTA {
            send(&store, "loud", &n.to_string(), 1);
        }
        for n in 0..USER_QUOTA / 2 {
            assert!(
                matches!(
                    claim_key(&store, "calm", &n.to_string(), "YQ=="),
                    ClaimOutcome::Done(_)
                ),
                "{n}"
            );
        }
        assert_eq!(store.len(), 2 * USER_QUOTA);
        assert_eq!(
            store.evicted.get(),
            7 * USER_QUOTA as u64 / 2,
            "each eviction is counted"
        );
    }

    #[tokio::test]
    async fn a_duplicate_waits_for_the_first() {
        let store = store(LONG, 10);
        let ClaimOutcome::New(claim) = claim_key(&store, "a", "n", "YQ==") else {
            panic!()
        };
        let awaiting: Vec<_> = (0..3)
            .map(|_| match claim_key(&store, "a", "n", "YQ==") {
                ClaimOutcome::InFlight(in_flight) => tokio::spawn(in_flight.wait()),
                _ => panic!(),
            })
            .collect();
        claim.complete(stored(9));
        for task in awaiting {
            task.await.unwrap();
        }
        assert!(matches!(
            claim_key(&store, "a", "n", "YQ=="),
            ClaimOutcome::Done(_)
        ));
    }
}
