//! The ledger's table: entries by key, and the finished ones in the order in which they are forgotten. Every operation is constant
//! time on average, whoever sends how much. Knows nothing of what a send is.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use tokio::sync::Notify;

use super::Stored;
use super::ledger::Attempt;

/// Beyond this many finished entries a user's own are forgotten before anybody else's.
pub(super) const FAIR_SHARE: usize = 1000;
/// Names of entries that are gone which a queue may hold beside as many of living ones.
const SLACK: usize = 16;
/// Expired entries removed in one call: all sends wait for the table's lock meanwhile.
const SWEEP_MAX: usize = 32;

/// 128 bits of (sender, channel, number) under keys of this process: nobody can choose two that are equal.
pub(super) type Key = u128;

/// What is known of a number.
#[derive(Debug)]
pub(super) enum State {
    /// Somebody is sending it; `attempt` once it has left.
    InFlight {
        done: Arc<Notify>,
        attempt: Option<Attempt>,
    },
    /// Sent, outcome unknown.
    Unknown(Attempt),
    /// Stored there.
    Done(Stored),
}

impl State {
    fn is_finished(&self) -> bool {
        !matches!(self, Self::InFlight { .. })
    }
}

/// One number of one sender in one channel.
pub(super) struct Entry {
    pub(super) state: State,
    /// A hash of the payload.
    pub(super) payload: u64,
    /// A hash of the sender.
    pub(super) user: u64,
    /// When it was begun or, later, finished.
    pub(super) since: Instant,
    /// Tells this entry's name in the queues from those of earlier ones with the same key; 0 where it has none.
    serial: u64,
}

impl Entry {
    pub(super) fn new(state: State, payload: u64, user: u64, since: Instant) -> Self {
        Self {
            state,
            payload,
            user,
            since,
            serial: 0,
        }
    }
}

/// Its keys are hashes already, which nobody can foretell: SipHash would add nothing.
type Entries = HashMap<Key, Entry, RandomState>;

/// Names of finished entries, oldest first. Those of entries that are gone stay until they are met or outnumber the others.
#[derive(Default)]
struct Queue {
    names: VecDeque<(Key, u64)>,
    living: usize,
}

impl Queue {
    fn push(&mut self, name: (Key, u64)) {
        if self.names.is_empty() {
            // Most users have one entry at a time: no room for four.
            self.names.reserve_exact(1);
        }
        self.names.push_back(name);
        self.living += 1;
    }

    /// The oldest that still lives.
    fn front(&mut self, entries: &Entries) -> Option<Key> {
        while let Some((key, serial)) = self.names.front() {
            if is_living(entries, *key, *serial) {
                return Some(*key);
            }
            self.names.pop_front();
        }
        None
    }

    /// One of the named is gone.
    fn bury(&mut self, entries: &Entries) {
        self.living -= 1;
        if self.names.len() > 2 * self.living + SLACK {
            self.names
                .retain(|(key, serial)| is_living(entries, *key, *serial));
        }
    }
}

fn is_living(entries: &Entries, key: Key, serial: u64) -> bool {
    entries
        .get(&key)
        .is_some_and(|entry| entry.serial == serial)
}

/// See the module.
#[derive(Default)]
pub(super) struct Table {
    entries: Entries,
    finished: Queue,
    of_user: HashMap<u64, Queue, RandomState>,
    /// The users above their fair share.
    heavy: BTreeSet<u64>,
    serial: u64,
}

impl Table {
    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut Entry> {
        self.entries.get_mut(&key)
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Puts an entry in the place of the one with this key, if there is one.
    pub(super) fn insert(&mut self, key: Key, entry: Entry) {
        self.remove(key);
        self.entries.insert(key, entry);
    }

    /// Changes an entry's state, and with it whether it may be forgotten.
    pub(super) fn set(&mut self, key: Key, state: State, now: Instant) {
        self.leave_queues(key);
        let Some(entry) = self.entries.get_mut(&key) else {
            return;
        };
        entry.state = state;
        if !entry.state.is_finished() {
            return;
        }
        self.serial += 1;
        entry.serial = self.serial;
        entry.since = now;
        let name = (key, self.serial);
        self.finished.push(name);
        let own = self.of_user.entry(entry.user).or_default();
        own.push(name);
        if own.living > FAIR_SHARE {
            self.heavy.insert(entry.user);
        }
    }

    pub(super) fn remove(&mut self, key: Key) {
        self.leave_queues(key);
        self.entries.remove(&key);
    }

    /// Removes the finished entries whose window is over: that of `key` in any case, of the others at most [`SWEEP_MAX`].
    pub(super) fn drop_expired(&mut self, key: Key, now: Instant, window: Duration) {
        if self.is_expired(key, now, window) {
            self.remove(key);
        }
        for _ in 0..SWEEP_MAX {
            match self.finished.front(&self.entries) {
                Some(oldest) if self.is_expired(oldest, now, window) => self.remove(oldest),
                _ => return,
            }
        }
    }

    fn is_expired(&self, key: Key, now: Instant, window: Duration) -> bool {
        self.entries.get(&key).is_some_and(|entry| {
            entry.state.is_finished() && now.duration_since(entry.since) >= window
        })
    }

    /// Forgets the oldest finished entry: of a user above his share, else of anybody. False where all are in flight.
    pub(super) fn forget_one(&mut self) -> bool {
        let heavy = self.heavy.first();
        let queue = heavy.and_then(|user| self.of_user.get_mut(user));
        let oldest = queue.unwrap_or(&mut self.finished).front(&self.entries);
        oldest.is_some_and(|key| {
            self.remove(key);
            true
        })
    }

    fn leave_queues(&mut self, key: Key) {
        let Some(entry) = self.entries.get_mut(&key) else {
            return;
        };
        if std::mem::take(&mut entry.serial) == 0 {
            return;
        }
        let user = entry.user;
        self.finished.bury(&self.entries);
        let Some(own) = self.of_user.get_mut(&user) else {
            return;
        };
        own.bury(&self.entries);
        if own.living <= FAIR_SHARE {
            self.heavy.remove(&user);
        }
        if own.living == 0 {
            self.of_user.remove(&user);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::MessageId;

    const DONE: State = State::Done(Stored {
        id: MessageId(1),
        seq: 1,
    });

    fn add(table: &mut Table, key: Key, user: u64) {
        let now = Instant::now();
        let in_flight = State::InFlight {
            done: Arc::default(),
            attempt: None,
        };
        table.insert(key, Entry::new(in_flight, 0, user, now));
        table.set(key, DONE, now);
    }

    fn is_bounded(queue: &Queue) -> bool {
        queue.names.len() <= 2 * queue.living + SLACK
    }

    #[track_caller]
    fn holds_no_more_names_than_it_needs(table: &Table) {
        assert_eq!(table.finished.living, table.entries.len());
        assert!(is_bounded(&table.finished));
        assert!(table.of_user.values().all(is_bounded));
        let of_users: usize = table.of_user.values().map(|own| own.living).sum();
        assert_eq!(of_users, table.entries.len());
    }

    #[test]
    fn a_heavy_users_oldest_go_first_then_anybodys() {
        let mut table = Table::default();
        let share = FAIR_SHARE as Key;
        add(&mut table, 0, 1);
        for key in 1..=share + 2 {
            add(&mut table, key, 2);
        }
        let forgotten = |table: &mut Table| {
            let before: Vec<_> = table.entries.keys().copied().collect();
            assert!(table.forget_one());
            before
                .into_iter()
                .find(|key| !table.entries.contains_key(key))
        };
        assert_eq!(forgotten(&mut table), Some(1));
        assert_eq!(forgotten(&mut table), Some(2));
        assert_eq!(forgotten(&mut table), Some(0), "the share is fair again");
        assert_eq!(forgotten(&mut table), Some(3));
        holds_no_more_names_than_it_needs(&table);
    }

    #[test]
    fn what_is_in_flight_is_not_forgotten() {
        let mut table = Table::default();
        add(&mut table, 1, 1);
        let in_flight = State::InFlight {
            done: Arc::default(),
            attempt: None,
        };
        table.set(1, in_flight, Instant::now());
        assert!(!table.forget_one());
        table.set(1, DONE, Instant::now());
        assert!(table.forget_one());
        assert_eq!(table.len(), 0);
    }

    #[test]
    fn the_queues_stay_as_short_as_the_table() {
        let mut table = Table::default();
        // One user repeats few numbers, another floods, a third comes and goes, and all of it is evicted by the flood's rule.
        for round in 0..20_000_u128 {
            add(&mut table, round % 7, 1);
            add(&mut table, 1000 + round, 2);
            add(&mut table, 1_000_000 + round % 3, 3);
            table.remove(1_000_000 + round % 3);
            while table.len() > 3 * FAIR_SHARE / 2 {
                assert!(table.forget_one());
            }
        }
        holds_no_more_names_than_it_needs(&table);
        assert!(table.finished.names.len() <= 3 * FAIR_SHARE + SLACK);
        for key in 0..7 {
            assert!(table.entries.contains_key(&key), "{key} is nobody's flood");
        }
    }

    #[test]
    fn one_call_sweeps_few_of_many_expired_entries_and_never_leaves_its_own() {
        let mut table = Table::default();
        for key in 0..1000 {
            add(&mut table, key, 1);
        }
        table.drop_expired(999, Instant::now(), Duration::ZERO);
        assert_eq!(table.len(), 1000 - 1 - SWEEP_MAX);
        assert!(table.get_mut(999).is_none(), "its own window is over");
        assert!(table.get_mut(SWEEP_MAX as Key).is_some());
    }

    #[test]
    fn a_flood_costs_no_walk_through_the_table() {
        let mut table = Table::default();
        // Many calm users make the table long; each insert of the heavy one forgets one of his own.
        for user in 0..100_000_u64 {
            add(&mut table, user.into(), user);
        }
        let started = Instant::now();
        for key in 0..100_000 {
            add(&mut table, 1_000_000 + key, 7);
            if table.len() > 100_000 + FAIR_SHARE {
                assert!(table.forget_one());
            }
        }
        // A walk at every insert would be ten thousand million steps; the bound is far from both.
        let took = started.elapsed();
        assert!(took < Duration::from_secs(10), "{took:?}");
        holds_no_more_names_than_it_needs(&table);
    }
}
