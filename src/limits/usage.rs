//! How much each user holds at once of what all of them share: requests that are worked on, and buffered bytes.

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;

use super::buckets::Hashed;
use crate::domain::Uid;
use crate::memory::{Memory, Share};
use crate::telemetry::Metrics;

const SHARDS: usize = 64;

/// A user holds as much as one user may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UserFull {
    /// Requests.
    #[error("a quarter of max_in_flight is this user's already")]
    Requests,
    /// Bytes of request bodies and upstream answers.
    #[error("a quarter of max_buffered is this user's already")]
    Bytes,
}

/// What one user holds.
#[derive(Debug)]
struct Usage {
    requests: AtomicUsize,
    bytes: Arc<Memory>,
}

type Shard = HashMap<u64, Arc<Usage>, BuildHasherDefault<Hashed>>;

/// The usage of every user who held something since the last sweep, by a hash that nobody outside can foretell.
pub(super) struct UserUsage {
    max_requests: usize,
    max_bytes: usize,
    shards: [Mutex<Shard>; SHARDS],
    hash: RandomState,
    requests_refused: Counter,
    bytes_refused: Counter,
}

/// One request of a user, until it is dropped.
#[derive(Debug)]
pub struct UserPermit(Arc<Usage>);

impl UserUsage {
    /// At most so many requests and bytes for each user, and always one request.
    pub(super) fn new(max_requests: usize, max_bytes: usize, metrics: &Metrics) -> Self {
        Self {
            max_requests: max_requests.max(1),
            max_bytes,
            shards: std::array::from_fn(|_| Mutex::default()),
            hash: RandomState::new(),
            requests_refused: metrics.refusals("user_in_flight"),
            bytes_refused: metrics.refusals("user_buffered"),
        }
    }

    pub(super) fn admit(&self, uid: &Uid, held: &Share) -> Result<UserPermit, UserFull> {
        let usage = self.of(uid);
        if usage.bytes.has_room().is_err() {
            return Err(UserFull::Bytes);
        }
        let before = usage.requests.fetch_add(1, Ordering::Relaxed);
        // Counts itself out again where it is refused.
        let permit = UserPermit(usage);
        if before >= self.max_requests {
            self.requests_refused.inc();
            return Err(UserFull::Requests);
        }
        held.bound_by(permit.0.bytes.clone());
        Ok(permit)
    }

    fn of(&self, uid: &Uid) -> Arc<Usage> {
        let key = self.hash.hash_one(uid.as_str());
        // Not the bits at either end: the map itself goes by those.
        let mut shard = self.shards[(key >> 32) as usize % SHARDS].lock();
        let usage = shard.entry(key).or_insert_with(|| {
            Arc::new(Usage {
                requests: AtomicUsize::new(0),
                bytes: Memory::of_user(self.max_bytes, self.bytes_refused.clone()),
            })
        });
        usage.clone()
    }

    /// Forgets the users who hold nothing, and gives their memory back.
    pub(super) fn sweep(&self) {
        for shard in &self.shards {
            let mut shard = shard.lock();
            // Nobody else gets hold of one while its shard is locked.
            shard.retain(|_, usage| {
                Arc::strong_count(usage) > 1 || Arc::strong_count(&usage.bytes) > 1
            });
            if shard.capacity() > 4 * shard.len() {
                shard.shrink_to_fit();
            }
        }
    }
}

impl Drop for UserPermit {
    fn drop(&mut self) {
        self.0.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Full;

    fn uid(text: &str) -> Uid {
        Uid::parse(text, 9).unwrap()
    }

    fn remembered(usage: &UserUsage) -> usize {
        usage.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    #[test]
    fn a_user_has_so_many_requests_and_others_have_their_own() {
        let metrics = Metrics::new();
        let usage = UserUsage::new(2, 100, &metrics);
        let share = Memory::unbounded().share();
        let (alice, bob) = (uid("alice"), uid("bob"));
        let one = usage.admit(&alice, &share).unwrap();
        let _two = usage.admit(&alice, &share).unwrap();
        assert_eq!(usage.admit(&alice, &share).unwrap_err(), UserFull::Requests);
        let _bobs = usage.admit(&bob, &share).unwrap();
        assert_eq!(metrics.refusals("user_in_flight").get(), 1);
        drop(one);
        assert!(usage.admit(&alice, &share).is_ok());
        let none = UserUsage::new(0, 100, &metrics);
        assert!(none.admit(&alice, &share).is_ok(), "one is always allowed");
    }

    #[test]
    fn what_a_user_holds_counts_as_his_until_it_is_dropped_whatever_becomes_of_the_request() {
        let metrics = Metrics::new();
        let usage = UserUsage::new(9, 100, &metrics);
        let memory = Memory::unbounded();
        let (alice, bob) = (uid("alice"), uid("bob"));
        let answer = memory.share();
        drop(usage.admit(&alice, &answer).unwrap());
        answer.grow(60).unwrap();
        usage.sweep();
        let body = memory.share();
        let permit = usage.admit(&alice, &body).unwrap();
        assert_eq!(body.grow(41), Err(Full::User));
        assert_eq!((memory.held(), body.bytes()), (60, 0), "nothing is left");
        body.grow(40).unwrap();
        assert_eq!(
            usage.admit(&alice, &memory.share()).unwrap_err(),
            UserFull::Bytes
        );
        let other = memory.share();
        let bobs = usage.admit(&bob, &other).unwrap();
        other.grow(100).unwrap();
        assert_eq!(metrics.refusals("user_buffered").get(), 2);
        drop(answer);
        assert_eq!(body.grow(60), Ok(()));
        drop((body, other, permit, bobs));
        assert_eq!(memory.held(), 0);
        assert_eq!(remembered(&usage), 2);
        usage.sweep();
        assert_eq!(remembered(&usage), 0);
    }
}
