//! Tokens whose asymmetric signature was found good, so that it is checked once and not with every request.

use aws_lc_rs::digest;
use quick_cache::sync::Cache;

use super::Caller;
use super::claims::Judged;

/// How many are kept, at some 200 bytes each: the users of a busy quarter of an hour, and small enough to stay for good.
const ENTRIES: usize = 32_768;

/// A bounded memory of good tokens, by their hash.
pub(super) struct Verified {
    entries: Cache<Fingerprint, Entry>,
}

/// The SHA-256 of a whole token, signature included.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Fingerprint([u8; 32]);

impl Fingerprint {
    pub(super) fn of(token: &str) -> Self {
        let digest = digest::digest(&digest::SHA256, token.as_bytes());
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest.as_ref());
        Self(bytes)
    }
}

#[derive(Clone)]
struct Entry {
    judged: Judged,
    /// The version of the keys it was checked with.
    keys: u64,
}

impl Verified {
    pub(super) fn new() -> Self {
        Self {
            entries: Cache::new(ENTRIES),
        }
    }

    /// Who the token speaks for, if it was good under these very keys and its `exp` is not over, leeway or not.
    pub(super) fn get(&self, token: &Fingerprint, keys: u64, now_s: f64) -> Option<Caller> {
        let entry = self.entries.get(token)?;
        (entry.keys == keys && now_s < entry.judged.exp_s).then_some(entry.judged.caller)
    }

    /// Remembers a good token; `keys` is the version it was checked with.
    pub(super) fn insert(&self, token: Fingerprint, keys: u64, judged: Judged) {
        self.entries.insert(token, Entry { judged, keys });
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}
