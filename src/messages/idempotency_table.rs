//! The idempotency store's table: entries by key, and queues of the finished ones in the order of eviction. Every operation takes constant
//! time on average, however uneven the senders are. Knows nothing of sending.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use tokio::sync::Notify;

use super::Stored;
use super::idempotency::Attempt;

/// A user with more finished entries than this has its own evicted first.
pub(super) const USER_QUOTA: usize = 1000;
/// Stale keys that a queue may hold beyond the number of its live ones.
const STALE_KEYS_SLACK: usize = 16;
/// Maximum expired entries removed in one call, because all sends wait for the table's lock meanwhile.
const MAX_SWEEP: usize = 32;

/// A 128-bit hash of (sender, channel, client_msg_no), keyed by this process so that clients cannot construct collisions.
pub(super) type Key = u128;

/// The state of one client_msg_no.
#[derive(Debug)]
pub(super) enum State {
    /// A request is sending it; `attempt` is set once it may have been sent.
    InFlight {
        done: Arc<Notify>,
        attempt: Option<Attempt>,
    },
    /// Sent, outcome unknown.
    Unknown(Attempt),
    /// Stored at this position.
    Done(Stored),
}

impl State {
    fn is_finished(&self) -> bool {
        !matches!(self, Self::InFlight { .. })
    }
}

/// One client_msg_no of one sender in one channel.
pub(super) struct Entry {
    pub(super) state: State,
    /// A hash of the payload.
    pub(super) payload: u64,
    /// A hash of the sender.
    pub(super) user: u64,
    /// When it was claimed or, later, finished.
    pub(super) since: Instant,
    /// Distinguishes this entry in the queues from earlier ones with the same key; 0 while it is in no queue.
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

/// Its keys are keyed hashes already, so SipHash would add nothing.
type Entries = HashMap<Key, Entry, RandomState>;

/// Keys of finished entries, oldest first. Keys of removed entries stay until they reach the front or outnumber the live ones.
#[derive(Default)]
struct Queue {
    keys: VecDeque<(Key, u64)>,
    live: usize,
}

impl Queue {
    fn push(&mut self, entry_key: (Key, u64)) {
        if self.keys.is_empty() {
            // Most users have one entry at a time; the default capacity would be four.
            self.keys.reserve_exact(1);
        }
        self.keys.push_back(entry_key);
        self.live += 1;
    }

    /// The oldest live entry.
    fn front(&mut self, entries: &Entries) -> Option<Key> {
        while let Some((key, serial)) = self.keys.front() {
            if is_live(entries, *key, *serial) {
                return Some(*key);
            }
            self.keys.pop_front();
        }
        None
    }

    /// Records that one of the entries was removed.
    fn tombstone(&mut self, entries: &Entries) {
        self.live -= 1;
        if self.keys.len() > 2 * self.live + STALE_KEYS_SLACK {
            self.keys
                .retain(|(key, serial)| is_live(entries, *key, *serial));
        }
    }
}

fn is_live(entries: &Entries, key: Key, serial: u64) -> bool {
    entries
        .get(&key)
        .is_some_and(|entry| entry.serial == serial)
}

/// Entries by key, with their eviction order.
#[derive(Default)]
pub(super) struct EntryTable {
    entries: Entries,
    finished: Queue,
    by_user: HashMap<u64, Queue, RandomState>,
    /// The users above their quota.
    over_quota: BTreeSet<u64>,
    serial: u64,
}

impl EntryTable {
    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut Entry> {
        self.entries.get_mut(&key)
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Inserts an entry, replacing one with the same key.
    pub(super) fn insert(&mut self, key: Key, entry: Entry) {
        self.remove(key);
        self.entries.insert(key, entry);
    }

    /// Changes an entry's state; a finished entry may be evicted.
    pub(super) fn set(&mut self, key: Key, state: State, now: Instant) {
        self.dequeue(key);
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
        let entry_key = (key, self.serial);
        self.finished.push(entry_key);
        let user_queue = self.by_user.entry(entry.user).or_default();
        user_queue.push(entry_key);
        if user_queue.live > USER_QUOTA {
            self.over_quota.insert(entry.user);
        }
    }

    pub(super) fn remove(&mut self, key: Key) {
        self.dequeue(key);
        self.entries.remove(&key);
    }

    /// Removes finished entries that are older than the window: the one of `key` always, and at most [`MAX_SWEEP`] others.
    pub(super) fn evict_expired(&mut self, key: Key, now: Instant, window: Duration) {
        if self.is_expired(key, now, window) {
            self.remove(key);
        }
        for _ in 0..MAX_SWEEP {
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

    /// Evicts the oldest finished entry: of a user above its quota if there is one, else of all. False where all entries are in flight.
    pub(super) fn evict_one(&mut self) -> bool {
        let over_quota = self.over_quota.first();
        let queue = over_quota.and_then(|user| self.by_user.get_mut(user));
        let oldest = queue.unwrap_or(&mut self.finished).front(&self.entries);
        oldest.is_some_and(|key| {
            self.remove(key);
            true
        })
    }

    fn dequeue(&mut self, key: Key) {
        let Some(entry) = self.entries.get_mut(&key) else {
            return;
        };
        if std::mem::take(&mut entry.serial) == 0 {
            return;
        }
        let user = entry.user;
        self.finished.tombstone(&self.entries);
        let Some(user_queue) = self.by_user.get_mut(&user) else {
            return;
        };
        user_queue.tombstone(&self.entries);
        if user_queue.live <= USER_QUOTA {
            self.over_quota.remove(&user);
        }
        if user_queue.live == 0 {
            self.by_user.remove(&user);
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

    fn add(table: &mut EntryTable, key: Key, user: u64) {
        let now = Instant::now();
        let in_flight = State::InFlight {
            done: Arc::default(),
            attempt: None,
        };
        table.insert(key, Entry::new(in_flight, 0, user, now));
        table.set(key, DONE, now);
    }

    fn is_bounded(queue: &Queue) -> bool {
        queue.keys.len() <= 2 * queue.live + STALE_KEYS_SLACK
    }

    #[track_caller]
    fn queues_hold_few_stale_keys(table: &EntryTable) {
        assert_eq!(table.finished.live, table.entries.len());
        assert!(is_bounded(&table.finished));
        assert!(table.by_user.values().all(is_bounded));
        let by_users: usize = table
            .by_user
            .values()
            .map(|user_queue| user_queue.live)
            .sum();
        assert_eq!(by_users, table.entries.len());
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
        queues_hold_few_stale_keys(&table);
    }

    #[test]
    fn an_entry_in_flight_is_not_evicted() {
        let mut table = EntryTable::default();
        add(&mut table, 1, 1);
        let in_flight = State::InFlight {
            done: Arc::default(),
            attempt: None,
        };
        table.set(1, in_flight, Instant::now());
        assert!(!table.evict_one());
        table.set(1, DONE, Instant::now());
        assert!(table.evict_one());
        assert_eq!(table.len(), 0);
    }

    #[test]
    fn the_queues_stay_as_short_as_the_table() {
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
        queues_hold_few_stale_keys(&table);
        assert!(table.finished.keys.len() <= 3 * USER_QUOTA + STALE_KEYS_SLACK);
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
        assert!(table.get_mut(999).is_none(), "its own window is over");
        assert!(table.get_mut(MAX_SWEEP as Key).is_some());
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
        queues_hold_few_stale_keys(&table);
    }
}
