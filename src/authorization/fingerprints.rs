//! Sets of uids that are asked one question only: "is he in it?". Eight bytes a uid, whatever its length.

use std::hash::{BuildHasher, RandomState};

/// Makes the fingerprints of uids, under a key that is drawn when the process starts and never leaves it.
///
/// Two uids with one fingerprint would be taken for each other. With 64 bits that happens by chance once in 10^14 questions
/// to a group of 100,000; and since nobody knows the key of this SipHash, nobody can look for such a pair (WuKongIM's own
/// FNV has no key, which is why there it can be found in minutes).
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

    /// Whether `uid` is in `set`, which these fingerprints made.
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
    /// How many are in it.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nobody is.
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
