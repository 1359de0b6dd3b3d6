//! The cache of verified tokens, so that a signature is checked once and not with every request.

use aws_lc_rs::digest;
use quick_cache::sync::Cache;

use super::Caller;
use super::claims::ValidClaims;

/// Maximum entries, about 200 bytes each: the users of a busy quarter of an hour.
const MAX_ENTRIES: usize = 32_768;

/// Verified tokens, by their hash.
pub(super) struct VerifiedTokens {
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
    valid_claims: ValidClaims,
    /// The version of the keys that verified it.
    keys: u64,
}

impl VerifiedTokens {
    pub(super) fn new() -> Self {
        Self {
            entries: Cache::new(MAX_ENTRIES),
        }
    }

    /// The token's caller, if it was verified with this version of the keys and its `exp` has not passed (without leeway).
    pub(super) fn get(&self, token: &Fingerprint, keys: u64, now_s: f64) -> Option<Caller> {
        let entry = self.entries.get(token)?;
        (entry.keys == keys && now_s < entry.valid_claims.exp_s)
            .then_some(entry.valid_claims.caller)
    }

    /// Caches a verified token; `keys` is the version of the keys that verified it.
    pub(super) fn insert(&self, token: Fingerprint, keys: u64, valid_claims: ValidClaims) {
        self.entries.insert(token, Entry { valid_claims, keys });
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}
