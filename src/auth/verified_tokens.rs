//! The cache of verified tokens, so that a signature is checked once and not with every request.

use aws_lc_rs::digest;
use quick_cache::sync::Cache;

use super::Caller;
use super::claims::ValidClaims;

/// Maximum entries, about 200 bytes each: the users of a busy quarter of an hour.
const MAX_ENTRIES: usize = 32_768;

/// The SHA-256 of a whole token, signature included.
pub(super) type Fingerprint = [u8; 32];

pub(super) fn fingerprint(token: &str) -> Fingerprint {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest::digest(&digest::SHA256, token.as_bytes()).as_ref());
    bytes
}

/// Claims of verified tokens, with the version of the keys that verified them.
pub(super) struct VerifiedTokens(Cache<Fingerprint, (u64, ValidClaims)>);

impl VerifiedTokens {
    pub(super) fn new() -> Self {
        Self(Cache::new(MAX_ENTRIES))
    }

    /// The token's caller, if it was verified with this version of the keys and its `exp` has not passed (without leeway).
    pub(super) fn get(&self, token: &Fingerprint, keys: u64, now_s: f64) -> Option<Caller> {
        let (verified_by, ValidClaims { caller, exp_s }) = self.0.get(token)?;
        (verified_by == keys && now_s < exp_s).then_some(caller)
    }

    /// Caches a verified token; `keys` is the version of the keys that verified it.
    pub(super) fn insert(&self, token: Fingerprint, keys: u64, valid_claims: ValidClaims) {
        self.0.insert(token, (keys, valid_claims));
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}
