//! Limits each user's part of two shared resources: concurrent requests and buffered bytes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use prometheus_client::metrics::counter::Counter;

use super::sharded_map::ShardedMap;
use crate::context::{ByteBudget, Full, Reservation};
use crate::domain::Uid;
use crate::telemetry::Metrics;

/// A user has used up one of these limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UserFull {
    /// Requests.
    #[error("a quarter of max_in_flight is this user's already")]
    Requests,
    /// Bytes of request bodies and upstream answers.
    #[error("a quarter of max_buffered is this user's already")]
    Bytes,
}

/// One user's current usage.
#[derive(Debug)]
struct Usage {
    requests: AtomicUsize,
    bytes: Arc<ByteBudget>,
}

/// The usage of all users active since the last sweep.
pub(super) struct UserUsage {
    max_requests: usize,
    max_bytes: usize,
    users: ShardedMap<Arc<Usage>>,
    requests_refused: Counter,
    bytes_refused: Counter,
}

/// One request of a user, until it is dropped.
#[derive(Debug)]
pub struct UserPermit(Arc<Usage>);

impl UserUsage {
    /// With these maxima per user; one request is always allowed.
    pub(super) fn new(max_requests: usize, max_bytes: usize, metrics: &Metrics) -> Self {
        Self {
            max_requests: max_requests.max(1),
            max_bytes,
            users: ShardedMap::default(),
            requests_refused: metrics.refusals("user_in_flight"),
            bytes_refused: metrics.refusals("user_buffered"),
        }
    }

    pub(super) fn admit(
        &self,
        uid: &Uid,
        reservation: &Reservation,
    ) -> Result<UserPermit, UserFull> {
        let usage = self.entry(uid);
        if usage.bytes.check_room().is_err() {
            return Err(UserFull::Bytes);
        }
        let before = usage.requests.fetch_add(1, Ordering::Relaxed);
        // Its drop undoes the count if the request is refused.
        let permit = UserPermit(usage);
        if before >= self.max_requests {
            self.requests_refused.inc();
            return Err(UserFull::Requests);
        }
        reservation.assign_user(permit.0.bytes.clone());
        Ok(permit)
    }

    fn entry(&self, uid: &Uid) -> Arc<Usage> {
        let (key, mut shard) = self.users.lock(uid.as_str());
        let usage = shard.entry(key).or_insert_with(|| {
            Arc::new(Usage {
                requests: AtomicUsize::new(0),
                bytes: ByteBudget::new(Full::User, self.max_bytes, self.bytes_refused.clone()),
            })
        });
        usage.clone()
    }

    /// Removes users without usage and releases their memory.
    pub(super) fn sweep(&self) {
        // No new reference can be made while a part of the map is locked.
        self.users
            .retain(|usage| Arc::strong_count(usage) > 1 || Arc::strong_count(&usage.bytes) > 1);
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

    fn uid(text: &str) -> Uid {
        Uid::parse(text, 9).unwrap()
    }

    fn tracked(usage: &UserUsage) -> usize {
        usage.users.len()
    }

    #[test]
    fn requests_are_bounded_for_each_user_separately() {
        let metrics = Metrics::new();
        let usage = UserUsage::new(2, 100, &metrics);
        let share = ByteBudget::unbounded().new_reservation();
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
    fn bytes_count_for_a_user_until_they_are_dropped_even_after_the_request_ended() {
        let metrics = Metrics::new();
        let usage = UserUsage::new(9, 100, &metrics);
        let memory = ByteBudget::unbounded();
        let (alice, bob) = (uid("alice"), uid("bob"));
        let answer = memory.new_reservation();
        drop(usage.admit(&alice, &answer).unwrap());
        answer.try_reserve(60).unwrap();
        usage.sweep();
        let body = memory.new_reservation();
        let permit = usage.admit(&alice, &body).unwrap();
        assert_eq!(body.try_reserve(41), Err(Full::User));
        assert_eq!((memory.held(), body.bytes()), (60, 0), "nothing is left");
        body.try_reserve(40).unwrap();
        assert_eq!(
            usage.admit(&alice, &memory.new_reservation()).unwrap_err(),
            UserFull::Bytes
        );
        let other = memory.new_reservation();
        let bobs = usage.admit(&bob, &other).unwrap();
        other.try_reserve(100).unwrap();
        assert_eq!(metrics.refusals("user_buffered").get(), 2);
        drop(answer);
        assert_eq!(body.try_reserve(60), Ok(()));
        drop((body, other, permit, bobs));
        assert_eq!(memory.held(), 0);
        assert_eq!(tracked(&usage), 2);
        usage.sweep();
        assert_eq!(tracked(&usage), 0);
    }
}
