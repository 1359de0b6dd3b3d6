//! Sets of uids that support only a membership test. Eight bytes per uid, whatever its length.

use std::hash::{BuildHasher, RandomState};

/// Computes fingerprints of uids under a random key of this process.
///
/// Two uids with the same fingerprint would be confused. With 64 bits that happens by chance once in 10^14 tests against a group of
/// 100,000. The SipHash key is secret, so collisions cannot be searched for (WuKongIM's own FNV has no key, so they are found within
/// minutes).
#[derive(Clone, Default)]
pub(super) struct Fingerprints {
    key: RandomState,
}

impl Fingerprints {
    /// The set of these uids.
    pub(super) fn set(&self, uids: &[String]) -> UidSet {
        let mut hashes: Vec<u64> = uids.iter().map(|uid| self.of(uid)).collect();
        hashes.sort_unstable();
        hashes.dedup();
        UidSet(hashes.into_boxed_slice())
    }

    /// Whether `uid` is in `set`, which must come from the same `Fingerprints`.
    pub(super) fn contains(&self, set: &UidSet, uid: &str) -> bool {
        set.0.binary_search(&self.of(uid)).is_ok()
    }

    fn of(&self, uid: &str) -> u64 {
        self.key.hash_one(uid)
    }
}

/// Sorted fingerprints.
#[derive(Debug, Default)]
pub(super) struct UidSet(Box<[u64]>);

impl UidSet {
    /// The number of uids.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether the set is empty.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_exactly_its_uids() {
        let fingerprints = Fingerprints::default();
        let uids: Vec<String> = (0..1000).map(|n| format!("u{n}")).collect();
        let set = fingerprints.set(&uids);
        assert_eq!(set.len(), 1000);
        assert!(uids.iter().all(|uid| fingerprints.contains(&set, uid)));
        assert!(!fingerprints.contains(&set, "u1000"));
        assert!(!fingerprints.contains(&set, ""));
        assert!(fingerprints.set(&[]).is_empty());
    }

    #[test]
    fn a_uid_listed_twice_counts_once() {
        let uids = ["a".to_owned(), "a".to_owned()];
        assert_eq!(Fingerprints::default().set(&uids).len(), 1);
    }
}
