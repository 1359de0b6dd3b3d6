//! The idempotency store's table: entries by key, and those not in flight in the order of eviction. Every operation takes logarithmic time,
//! however uneven the senders are. Knows nothing of sending.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use tokio::sync::Notify;

use super::Attempt;
use crate::messages::Stored;

/// A user with more evictable entries than this has its own evicted first.
pub(super) const USER_QUOTA: usize = 1000;
/// Maximum expired entries removed in one call, because all sends wait for the table's lock meanwhile.
const MAX_SWEEP: usize = 32;

/// A 128-bit hash of (sender, channel, client_msg_no), keyed by this process so that clients cannot construct collisions.
pub(super) type Key = u128;

/// The state of one client_msg_no.
#[derive(Debug)]
pub(super) enum State {
    /// A request is sending it, and notifies when it ends.
    InFlight(Arc<Notify>),
    /// Sent, outcome unknown.
    Unknown(Attempt),
    /// Stored at this position.
    Done(Stored),
}

/// One client_msg_no of one sender in one channel.
struct Entry {
    state: State,
    /// A hash of the payload.
    payload: u64,
    /// A hash of the sender.
    user: u64,
    /// When it was claimed or, later, became evictable.
    since: Instant,
    /// Its number in the order of eviction; `None` while it is in flight.
    serial: Option<u64>,
}

/// Entries by key, with their eviction order.
#[derive(Default)]
pub(super) struct EntryTable {
    /// The keys are keyed hashes already, so SipHash would add nothing.
    entries: HashMap<Key, Entry, RandomState>,
    /// The evictable entries by serial: the oldest is first.
    evictable: BTreeMap<u64, Key>,
    /// The same by user and serial.
    by_user: BTreeMap<(u64, u64), Key>,
    /// The number of each user's evictable entries.
    counts: HashMap<u64, usize, RandomState>,
    /// The users above their quota.
    over_quota: BTreeSet<u64>,
    next_serial: u64,
}

impl EntryTable {
    /// The state of an entry, and its payload's hash.
    pub(super) fn get(&self, key: Key) -> Option<(&State, u64)> {
        self.entries
            .get(&key)
            .map(|entry| (&entry.state, entry.payload))
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Inserts an entry for a key that has none.
    pub(super) fn insert(&mut self, key: Key, state: State, payload: u64, user: u64, now: Instant) {
        let entry = Entry {
            state,
            payload,
            user,
            since: now,
            serial: None,
        };
        self.entries.insert(key, entry);
    }

    /// Changes an entry's state; one that is not in flight is evictable. Evicting an unknown outcome lets a retry send the message again.
    pub(super) fn set(&mut self, key: Key, state: State, now: Instant) {
        self.dequeue(key);
        let Some(entry) = self.entries.get_mut(&key) else {
            return;
        };
        entry.state = state;
        if let State::InFlight(_) = entry.state {
            return;
        }
        let (serial, user) = (self.next_serial, entry.user);
        self.next_serial += 1;
        (entry.serial, entry.since) = (Some(serial), now);
        self.evictable.insert(serial, key);
        self.by_user.insert((user, serial), key);
        let count = self.counts.entry(user).or_default();
        *count += 1;
        if *count > USER_QUOTA {
            self.over_quota.insert(user);
        }
    }

    pub(super) fn remove(&mut self, key: Key) {
        self.dequeue(key);
        self.entries.remove(&key);
    }

    /// Removes evictable entries that are older than the window: the one of `key` always, and at most [`MAX_SWEEP`] others.
    pub(super) fn evict_expired(&mut self, key: Key, now: Instant, window: Duration) {
        if self.is_expired(key, now, window) {
            self.remove(key);
        }
        for _ in 0..MAX_SWEEP {
            match self.evictable.first_key_value() {
                Some((_, oldest)) if self.is_expired(*oldest, now, window) => self.remove(*oldest),
                _ => return,
            }
        }
    }

    fn is_expired(&self, key: Key, now: Instant, window: Duration) -> bool {
        self.entries.get(&key).is_some_and(|entry| {
            entry.serial.is_some() && now.duration_since(entry.since) >= window
        })
    }

    /// Evicts the oldest evictable entry: of a user above its quota if there is one, else of all. False where all entries are in flight.
    pub(super) fn evict_one(&mut self) -> bool {
        let oldest = match self.over_quota.first() {
            Some(user) => self.by_user.range((*user, 0)..).next().map(|(_, key)| *key),
            None => self.evictable.first_key_value().map(|(_, key)| *key),
        };
        oldest.is_some_and(|key| {
            self.remove(key);
            true
        })
    }

    /// Takes an entry out of the order of eviction, if it is in it.
    fn dequeue(&mut self, key: Key) {
        let Some(entry) = self.entries.get_mut(&key) else {
            return;
        };
        let Some(serial) = entry.serial.take() else {
            return;
        };
        let user = entry.user;
        self.evictable.remove(&serial);
        self.by_user.remove(&(user, serial));
        if let Some(count) = self.counts.get_mut(&user) {
            *count -= 1;
            if *count <= USER_QUOTA {
                self.over_quota.remove(&user);
            }
            if *count == 0 {
                self.counts.remove(&user);
            }
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

    fn in_flight() -> State {
        State::InFlight(Arc::default())
    }

    fn add(table: &mut EntryTable, key: Key, user: u64) {
        let now = Instant::now();
        table.remove(key);
        table.insert(key, in_flight(), 0, user, now);
        table.set(key, DONE, now);
    }

    #[track_caller]
    fn assert_orders_match_the_table(table: &EntryTable) {
        assert_eq!(table.evictable.len(), table.entries.len());
        assert_eq!(table.by_user.len(), table.entries.len());
        assert_eq!(table.counts.values().sum::<usize>(), table.entries.len());
    }

    #[test]
    fn entries_of_a_user_over_quota_are_evicted_first() {
        let mut table = EntryTable::default();
        let quota = USER_QUOTA as Key;
        add(&mut table, 0, 1);
        for key in 1..=quota + 2 {
            add(&mut table, key, 2);
        }
        let evicted = |table: &mut EntryTable| {
            let before: Vec<_> = table.entries.keys().copied().collect();
            assert!(table.evict_one());
            before
                .into_iter()
                .find(|key| !table.entries.contains_key(key))
        };
        assert_eq!(evicted(&mut table), Some(1));
        assert_eq!(evicted(&mut table), Some(2));
        assert_eq!(
            evicted(&mut table),
            Some(0),
            "the user is within its quota again"
        );
        assert_eq!(evicted(&mut table), Some(3));
        assert_orders_match_the_table(&table);
    }

    #[test]
    fn an_entry_in_flight_is_not_evicted() {
        let mut table = EntryTable::default();
        add(&mut table, 1, 1);
        table.set(1, in_flight(), Instant::now());
        assert!(!table.evict_one());
        table.set(1, DONE, Instant::now());
        assert!(table.evict_one());
        assert_eq!(table.len(), 0);
    }

    #[test]
    fn the_orders_stay_as_short_as_the_table() {
        let mut table = EntryTable::default();
        // One user repeats a few keys, another floods, a third adds and removes; eviction follows the quota.
        for round in 0..20_000_u128 {
            add(&mut table, round % 7, 1);
            add(&mut table, 1000 + round, 2);
            add(&mut table, 1_000_000 + round % 3, 3);
            table.remove(1_000_000 + round % 3);
            while table.len() > 3 * USER_QUOTA / 2 {
                assert!(table.evict_one());
            }
        }
        assert_orders_match_the_table(&table);
        for key in 0..7 {
            assert!(
                table.entries.contains_key(&key),
                "{key} belongs to a user within its quota"
            );
        }
    }

    #[test]
    fn one_call_sweeps_a_bounded_number_of_expired_entries_including_its_own() {
        let mut table = EntryTable::default();
        for key in 0..1000 {
            add(&mut table, key, 1);
        }
        table.evict_expired(999, Instant::now(), Duration::ZERO);
        assert_eq!(table.len(), 1000 - 1 - MAX_SWEEP);
        assert!(table.get(999).is_none(), "its own window is over");
        assert!(table.get(MAX_SWEEP as Key).is_some());
    }

    #[test]
    fn eviction_does_not_scan_the_table() {
        let mut table = EntryTable::default();
        // Many users with one entry make the table long; each insert of the heavy user evicts one of its own.
        for user in 0..100_000_u64 {
            add(&mut table, user.into(), user);
        }
        let started = Instant::now();
        for key in 0..100_000 {
            add(&mut table, 1_000_000 + key, 7);
            if table.len() > 100_000 + USER_QUOTA {
                assert!(table.evict_one());
            }
        }
        // Scanning at every insert would take 10^10 steps; the bound is far from both.
        let took = started.elapsed();
        assert!(took < Duration::from_secs(10), "{took:?}");
        assert_orders_match_the_table(&table);
    }
}
