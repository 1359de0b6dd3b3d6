//! The memory of recent sends: who sent which number to which channel, and what came of it. Bounded by entries and by time.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use tokio::sync::Notify;

use super::Stored;
use crate::domain::{ClientMsgNo, ConversationKey, Payload, Uid};

/// Beyond this many entries a user's own are forgotten before anybody else's.
const FAIR_SHARE: usize = 1000;

/// What a send left behind whose outcome is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Attempt {
    /// The highest seq known in the channel before it was sent; `None` where nothing was known of the channel.
    pub(super) floor: Option<u64>,
    /// When it was sent, in Unix milliseconds.
    pub(super) sent_ms: u64,
}

/// 128 bits of (sender, channel, number) under keys of this process: nobody can choose two that are equal.
type Key = u128;

#[derive(Debug)]
enum State {
    InFlight {
        done: Arc<Notify>,
        attempt: Option<Attempt>,
    },
    Unknown(Attempt),
    Done(Stored),
}

struct Entry {
    state: State,
    payload: u64,
    user: u64,
    since: Instant,
    /// Tells this entry from an earlier one with the same key in the queues.
    serial: u64,
}

#[derive(Default)]
struct Table {
    entries: HashMap<Key, Entry>,
    /// Oldest first; may name entries that are gone.
    order: VecDeque<(Key, u64)>,
    per_user: HashMap<u64, usize>,
    /// The users above their fair share, with their entries oldest first.
    heavy: HashMap<u64, VecDeque<(Key, u64)>>,
    heavy_users: BTreeSet<u64>,
    serial: u64,
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
        table.drop_expired(now, self.window);
        let mut unknown = None;
        if let Some(entry) = table.entries.get_mut(&key)
            && (matches!(entry.state, State::InFlight { .. })
                || now.duration_since(entry.since) < self.window)
        {
            match &entry.state {
                State::InFlight { done, .. } => return Begin::Busy(Busy(done.clone())),
                _ if entry.payload != payload => return Begin::Conflict,
                State::Done(stored) => return Begin::Done(*stored),
                State::Unknown(attempt) => unknown = Some(*attempt),
            }
        }
        let done = Arc::new(Notify::new());
        let state = State::InFlight {
            done,
            attempt: unknown,
        };
        if let (Some(_), Some(entry)) = (unknown, table.entries.get_mut(&key)) {
            entry.state = state;
        } else {
            table.remove(key);
            while table.entries.len() >= self.capacity && table.forget_one() {
                self.forgotten.inc();
            }
            table.insert(
                key,
                Entry {
                    state,
                    payload,
                    user,
                    since: now,
                    serial: 0,
                },
            );
        }
        let ticket = Ticket {
            ledger: self.clone(),
            key,
            settled: false,
        };
        match unknown {
            Some(attempt) => Begin::Unknown(ticket, attempt),
            None => Begin::New(ticket),
        }
    }

    fn settle(&self, key: Key, outcome: Outcome) {
        let mut table = self.table.lock();
        let Some(entry) = table.entries.get_mut(&key) else {
            return;
        };
        let State::InFlight { done, attempt } = &entry.state else {
            return;
        };
        let (done, attempt) = (done.clone(), *attempt);
        match (outcome, attempt) {
            (Outcome::Stored(stored), _) => entry.state = State::Done(stored),
            (Outcome::Dropped, Some(attempt)) => entry.state = State::Unknown(attempt),
            (Outcome::Forget, _) | (Outcome::Dropped, None) => table.remove(key),
        }
        drop(table);
        done.notify_one();
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.table.lock().entries.len()
    }
}

enum Outcome {
    Stored(Stored),
    Forget,
    Dropped,
}

impl Table {
    fn insert(&mut self, key: Key, mut entry: Entry) {
        self.serial += 1;
        entry.serial = self.serial;
        let user = entry.user;
        self.order.push_back((key, self.serial));
        self.entries.insert(key, entry);
        let count = self.per_user.entry(user).or_insert(0);
        *count += 1;
        if let Some(own) = self.heavy.get_mut(&user) {
            own.push_back((key, self.serial));
        } else if *count > FAIR_SHARE {
            // Once every thousand sends of one user: gather what he has.
            let entries = &self.entries;
            let own = |(key, serial): &&(Key, u64)| {
                entries
                    .get(key)
                    .is_some_and(|entry| entry.serial == *serial && entry.user == user)
            };
            let own: VecDeque<_> = self.order.iter().filter(own).copied().collect();
            self.heavy.insert(user, own);
            self.heavy_users.insert(user);
        }
    }

    fn remove(&mut self, key: Key) {
        let Some(entry) = self.entries.remove(&key) else {
            return;
        };
        let Some(count) = self.per_user.get_mut(&entry.user) else {
            return;
        };
        *count -= 1;
        let count = *count;
        if count == 0 {
            self.per_user.remove(&entry.user);
        }
        if count <= FAIR_SHARE && self.heavy.remove(&entry.user).is_some() {
            self.heavy_users.remove(&entry.user);
        }
        // The queues name it still; they are shortened as they are walked, and here before they outgrow the table.
        if self.order.len() > 2 * self.entries.len() + 64 {
            let entries = &self.entries;
            self.order.retain(|(key, serial)| {
                entries
                    .get(key)
                    .is_some_and(|entry| entry.serial == *serial)
            });
        }
    }

    fn drop_expired(&mut self, now: Instant, window: Duration) {
        while let Some((key, serial)) = self.order.front().copied() {
            match self.entries.get(&key) {
                Some(entry) if entry.serial == serial => {
                    let over = now.duration_since(entry.since) >= window;
                    if !over || matches!(entry.state, State::InFlight { .. }) {
                        return;
                    }
                    self.order.pop_front();
                    self.remove(key);
                }
                _ => drop(self.order.pop_front()),
            }
        }
    }

    /// Forgets the oldest finished entry: of a user above his share, else of anybody. False where all are in flight.
    fn forget_one(&mut self) -> bool {
        let heavy = self.heavy_users.first().copied();
        if let Some(user) = heavy
            && let Some(mut own) = self.heavy.remove(&user)
        {
            let found = self.first_finished(&mut own);
            self.heavy.insert(user, own);
            if let Some(key) = found {
                self.remove(key);
                return true;
            }
        }
        let mut order = std::mem::take(&mut self.order);
        let found = self.first_finished(&mut order);
        self.order = order;
        found.is_some_and(|key| {
            self.remove(key);
            true
        })
    }

    fn first_finished(&self, queue: &mut VecDeque<(Key, u64)>) -> Option<Key> {
        for _ in 0..queue.len() {
            let (key, serial) = queue.pop_front()?;
            match self.entries.get(&key) {
                Some(entry) if entry.serial == serial => {
                    if !matches!(entry.state, State::InFlight { .. }) {
                        return Some(key);
                    }
                    queue.push_back((key, serial));
                }
                _ => {}
            }
        }
        None
    }
}

/// The right to send one number. Dropped without a word – a client that hung up, a panic – it leaves "outcome unknown" behind
/// where the message may be on its way, and nothing where it was not yet sent.
pub(super) struct Ticket {
    ledger: Arc<Ledger>,
    key: Key,
    settled: bool,
}

impl Ticket {
    /// The message goes out now; from here on its outcome may be unknown.
    pub(super) fn sending(&self, attempt: Attempt) {
        let mut table = self.ledger.table.lock();
        if let Some(entry) = table.entries.get_mut(&self.key)
            && let State::InFlight { attempt: known, .. } = &mut entry.state
        {
            // A second try keeps the floor of the first: both may turn up above it.
            known.get_or_insert(attempt);
        }
    }

    /// It is stored; the same number gets this answer for the rest of the window.
    pub(super) fn stored(mut self, stored: Stored) {
        self.settled = true;
        self.ledger.settle(self.key, Outcome::Stored(stored));
    }

    /// It was certainly not stored, or nobody can ask for it again.
    pub(super) fn forget(mut self) {
        self.settled = true;
        self.ledger.settle(self.key, Outcome::Forget);
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

    fn ledger(window: Duration, capacity: usize) -> Arc<Ledger> {
        Ledger::new(window, capacity, Counter::default())
    }

    const LONG: Duration = Duration::from_mins(10);
    const ATTEMPT: Attempt = Attempt {
        floor: Some(7),
        sent_ms: 1,
    };

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
        let Begin::New(ticket) = begin(&ledger, "a", "n", "YQ==") else {
            panic!("never sent")
        };
        ticket.sending(ATTEMPT);
        drop(ticket);
        let Begin::Unknown(ticket, attempt) = begin(&ledger, "a", "n", "YQ==") else {
            panic!()
        };
        assert_eq!(attempt, ATTEMPT);
        ticket.sending(Attempt {
            floor: Some(99),
            sent_ms: 2,
        });
        drop(ticket);
        assert!(
            matches!(begin(&ledger, "a", "n", "YQ=="), Begin::Unknown(_, ATTEMPT)),
            "the first floor holds"
        );
        assert!(matches!(begin(&ledger, "a", "n", "Yg=="), Begin::Conflict));
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
        let table = ledger.table.lock();
        assert!(table.order.len() <= 2 * table.entries.len() + 64);
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
