//! The memory of recent sends: who sent which number to which channel, and what came of it. Bounded by entries and by time.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use tokio::sync::Notify;

use super::Stored;
use super::table::{Entry, Key, State, Table};
use crate::domain::{ClientMsgNo, ConversationKey, Payload, Uid};

/// What a send left behind whose outcome is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Attempt {
    /// A seq at or below which the message is not: the highest one known in the channel before it was first sent. `None` where
    /// nothing was known of the channel.
    pub(super) floor: Option<u64>,
    /// When it was first sent, in Unix milliseconds.
    pub(super) sent_ms: u64,
    /// When it was last sent.
    pub(super) last: Instant,
}

/// See the module.
pub(super) struct Ledger {
    table: Mutex<Table>,
    window: Duration,
    capacity: usize,
    hashers: [RandomState; 2],
    forgotten: Counter,
}

/// What a number that comes in means.
pub(super) enum Begin {
    /// Never seen within the window: send it.
    New(Ticket),
    /// Sent before, outcome unknown: look for it first.
    Unknown(Ticket, Attempt),
    /// Sent and stored before: this is the answer.
    Done(Stored),
    /// Used for another payload.
    Conflict,
    /// Somebody is at it: wait, then ask again.
    Busy(Busy),
}

/// Waits until the send that holds a number is over.
pub(super) struct Busy(Arc<Notify>);

impl Busy {
    pub(super) async fn wait(self) {
        // A permit is stored where the other one ended first.
        self.0.notified().await;
        self.0.notify_one();
    }
}

impl Ledger {
    pub(super) fn new(window: Duration, capacity: usize, forgotten: Counter) -> Arc<Self> {
        Arc::new(Self {
            table: Mutex::default(),
            window,
            capacity,
            hashers: [RandomState::new(), RandomState::new()],
            forgotten,
        })
    }

    /// How many sends are remembered, those under way included.
    pub(super) fn len(&self) -> usize {
        self.table.lock().len()
    }

    /// Claims the number for one send, or tells what became of an earlier one.
    pub(super) fn begin(
        self: &Arc<Self>,
        sender: &Uid,
        conversation: &ConversationKey,
        number: &ClientMsgNo,
        payload: &Payload,
    ) -> Begin {
        let parts = (sender, conversation, number);
        let [high, low] = [0, 1].map(|half: usize| u128::from(self.hashers[half].hash_one(parts)));
        let key = high << 64 | low;
        let payload = self.hashers[0].hash_one(payload.as_base64());
        let user = self.hashers[0].hash_one(sender);
        let mut table = self.table.lock();
        let now = Instant::now();
        table.drop_expired(key, now, self.window);
        let mut unknown = None;
        if let Some(entry) = table.get_mut(key) {
            match &entry.state {
                State::InFlight { done, .. } => return Begin::Busy(Busy(done.clone())),
                _ if entry.payload != payload => return Begin::Conflict,
                State::Done(stored) => return Begin::Done(*stored),
                State::Unknown(attempt) => unknown = Some(*attempt),
            }
        }
        let state = State::InFlight {
            done: Arc::default(),
            attempt: unknown,
        };
        let ticket = Ticket {
            ledger: self.clone(),
            key,
            began_unknown: unknown.is_some(),
            settled: false,
        };
        if let Some(attempt) = unknown {
            table.set(key, state, now);
            return Begin::Unknown(ticket, attempt);
        }
        while table.len() >= self.capacity && table.forget_one() {
            self.forgotten.inc();
        }
        table.insert(key, Entry::new(state, payload, user, now));
        Begin::New(ticket)
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
            (Outcome::Dropped, Some(attempt)) => table.set(key, State::Unknown(attempt), now),
            (Outcome::Forget, _) | (Outcome::Dropped, None) => table.remove(key),
        }
        drop(table);
        done.notify_one();
    }
}

enum Outcome {
    Stored(Stored),
    Forget,
    Dropped,
}

/// The right to send one number. Dropped without a word – a task that panicked, a message that was not seen – it leaves "outcome
/// unknown" behind where the message may be on its way, and nothing where it was not yet sent.
pub(super) struct Ticket {
    ledger: Arc<Ledger>,
    key: Key,
    /// An earlier attempt was never settled: whatever becomes of this one, it may still turn up.
    began_unknown: bool,
    settled: bool,
}

impl Ticket {
    /// The message goes out now; from here on its outcome may be unknown.
    pub(super) fn sending(&self, attempt: Attempt) {
        self.change(|known| match known {
            // A second try keeps the floor of the first: both may turn up above it.
            Some(first) => first.last = attempt.last,
            None => *known = Some(attempt),
        });
    }

    /// The earlier attempt was looked for up to this seq, in vain.
    pub(super) fn searched(&self, up_to: u64) {
        self.change(|known| {
            if let Some(attempt) = known {
                attempt.floor = attempt.floor.max(Some(up_to));
            }
        });
    }

    fn change(&self, change: impl FnOnce(&mut Option<Attempt>)) {
        let mut table = self.ledger.table.lock();
        if let Some(entry) = table.get_mut(self.key)
            && let State::InFlight { attempt, .. } = &mut entry.state
        {
            change(attempt);
        }
    }

    /// It is stored; the same number gets this answer for the rest of the window.
    pub(super) fn stored(mut self, stored: Stored) {
        self.settled = true;
        self.ledger.settle(self.key, Outcome::Stored(stored));
    }

    /// This attempt was certainly not stored, or nobody can ask for it again. An earlier one that may turn up is kept.
    pub(super) fn forget(mut self) {
        if !self.began_unknown {
            self.settled = true;
            self.ledger.settle(self.key, Outcome::Forget);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.settled {
            self.ledger.settle(self.key, Outcome::Dropped);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Channel, ChannelId, MessageId};
    use crate::messages::table::FAIR_SHARE;

    fn ledger(window: Duration, capacity: usize) -> Arc<Ledger> {
        Ledger::new(window, capacity, Counter::default())
    }

    const LONG: Duration = Duration::from_mins(10);

    fn attempt(floor: u64, sent_ms: u64) -> Attempt {
        Attempt {
            floor: Some(floor),
            sent_ms,
            last: Instant::now(),
        }
    }

    fn begin(ledger: &Arc<Ledger>, user: &str, number: &str, payload: &str) -> Begin {
        let user = Uid::parse(user, 99).unwrap();
        let channel = Channel::Group(ChannelId::parse("g", 9).unwrap());
        let key = ConversationKey::of(&user, &channel);
        let number = ClientMsgNo::parse(number, 99).unwrap();
        ledger.begin(&user, &key, &number, &Payload::parse(payload, 99).unwrap())
    }

    fn stored(seq: u64) -> Stored {
        Stored {
            id: MessageId(seq),
            seq,
        }
    }

    fn leave_unknown(ledger: &Arc<Ledger>, attempt: Attempt) {
        match begin(ledger, "a", "n", "YQ==") {
            Begin::New(ticket) => ticket.sending(attempt),
            _ => panic!("not new"),
        }
    }

    fn send(ledger: &Arc<Ledger>, user: &str, number: &str, seq: u64) {
        match begin(ledger, user, number, "YQ==") {
            Begin::New(ticket) => ticket.stored(stored(seq)),
            _ => panic!("{user} {number} is not new"),
        }
    }

    #[test]
    fn the_same_number_gets_the_first_answer_and_another_payload_a_conflict() {
        let ledger = ledger(LONG, 10);
        send(&ledger, "a", "n", 5);
        assert!(
            matches!(begin(&ledger, "a", "n", "YQ=="), Begin::Done(answer) if answer == stored(5))
        );
        assert!(matches!(begin(&ledger, "a", "n", "Yg=="), Begin::Conflict));
        assert!(
            matches!(begin(&ledger, "b", "n", "Yg=="), Begin::New(_)),
            "another sender's number is his own"
        );
    }

    #[test]
    fn a_dropped_ticket_leaves_what_is_known() {
        let ledger = ledger(LONG, 10);
        let Begin::New(ticket) = begin(&ledger, "a", "n", "YQ==") else {
            panic!()
        };
        drop(ticket);
        // It was never sent.
        let first = attempt(7, 1);
        leave_unknown(&ledger, first);
        let Begin::Unknown(ticket, known) = begin(&ledger, "a", "n", "YQ==") else {
            panic!()
        };
        assert_eq!(known, first);
        let second = attempt(99, 2);
        ticket.sending(second);
        drop(ticket);
        let Begin::Unknown(_, known) = begin(&ledger, "a", "n", "YQ==") else {
            panic!()
        };
        assert_eq!(
            (known.floor, known.sent_ms),
            (Some(7), 1),
            "the first floor holds"
        );
        assert_eq!(known.last, second.last);
        assert!(matches!(begin(&ledger, "a", "n", "Yg=="), Begin::Conflict));
    }

    #[test]
    fn a_refused_retry_does_not_forget_the_first_attempt() {
        let ledger = ledger(LONG, 10);
        let first = attempt(7, 1);
        leave_unknown(&ledger, first);
        for _ in 0..2 {
            let Begin::Unknown(ticket, known) = begin(&ledger, "a", "n", "YQ==") else {
                panic!("the first attempt is forgotten")
            };
            assert_eq!(known, first);
            ticket.forget();
        }
    }

    #[test]
    fn a_search_goes_on_where_the_last_one_stopped() {
        let ledger = ledger(LONG, 10);
        leave_unknown(&ledger, attempt(7, 1));
        for (reached, expected) in [(500, 7), (300, 500), (900, 500)] {
            let Begin::Unknown(ticket, known) = begin(&ledger, "a", "n", "YQ==") else {
                panic!()
            };
            assert_eq!(known.floor, Some(expected));
            ticket.searched(reached);
        }
    }

    #[test]
    fn an_entry_ends_with_the_window() {
        let ledger = ledger(Duration::ZERO, 10);
        send(&ledger, "a", "n", 1);
        send(&ledger, "a", "n", 2);
        assert_eq!(ledger.len(), 1);
    }

    #[test]
    fn a_full_table_forgets_the_oldest_finished() {
        let ledger = ledger(LONG, 3);
        let Begin::New(held) = begin(&ledger, "a", "held", "YQ==") else {
            panic!()
        };
        send(&ledger, "a", "1", 1);
        send(&ledger, "a", "2", 2);
        send(&ledger, "a", "3", 3);
        assert_eq!((ledger.len(), ledger.forgotten.get()), (3, 1));
        assert!(matches!(
            begin(&ledger, "a", "held", "YQ=="),
            Begin::Busy(_)
        ));
        assert!(matches!(begin(&ledger, "a", "3", "YQ=="), Begin::Done(_)));
        drop(held);
        send(&ledger, "a", "1", 4);
    }

    #[test]
    fn one_users_flood_is_forgotten_before_anybody_elses() {
        let ledger = ledger(LONG, 2 * FAIR_SHARE);
        for n in 0..FAIR_SHARE / 2 {
            send(&ledger, "calm", &n.to_string(), 1);
        }
        for n in 0..5 * FAIR_SHARE {
            send(&ledger, "loud", &n.to_string(), 1);
        }
        for n in 0..FAIR_SHARE / 2 {
            assert!(
                matches!(
                    begin(&ledger, "calm", &n.to_string(), "YQ=="),
                    Begin::Done(_)
                ),
                "{n}"
            );
        }
        assert_eq!(ledger.len(), 2 * FAIR_SHARE);
        assert_eq!(
            ledger.forgotten.get(),
            7 * FAIR_SHARE as u64 / 2,
            "each eviction is counted"
        );
    }

    #[tokio::test]
    async fn a_duplicate_waits_for_the_first() {
        let ledger = ledger(LONG, 10);
        let Begin::New(ticket) = begin(&ledger, "a", "n", "YQ==") else {
            panic!()
        };
        let waiting: Vec<_> = (0..3)
            .map(|_| match begin(&ledger, "a", "n", "YQ==") {
                Begin::Busy(busy) => tokio::spawn(busy.wait()),
                _ => panic!(),
            })
            .collect();
        ticket.stored(stored(9));
        for task in waiting {
            task.await.unwrap();
        }
        assert!(matches!(begin(&ledger, "a", "n", "YQ=="), Begin::Done(_)));
    }
}
