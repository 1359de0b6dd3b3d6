//! Verifying a JWT: which key may check it, whether the signature is good, and what is remembered of that. The signatures are the
//! library's; what a key is for, which one is asked and what the claims must say are this project's own business.

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use hmac::{Hmac, KeyInit as _, Mac as _};
use secrecy::ExposeSecret as _;
use sha2::Sha256;
use tokio::time::Instant;

use super::Caller;
use super::claims::{Claims, Judged, Rules};
use super::jwks::{HttpSource, Jwks, Published};
use super::jws::Jws;
use super::keys::{KeyError, PublicKey};
use super::verified::{Fingerprint, Verified};
use crate::config::{self, Algorithm};
use crate::telemetry::Metrics;

/// A longer token is refused unread. One with 200 groups in a claim is shorter.
const MAX_BYTES: usize = 16 * 1024;

/// Why a token lets nobody in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// There is none.
    #[error("no bearer token")]
    Missing,
    /// Its signature is good and its time is over.
    #[error("token expired")]
    Expired,
    /// Longer than is read: another one would be, too.
    #[error("token longer than {MAX_BYTES} bytes")]
    TooLong,
    /// Anything else; the word says what, for the log.
    #[error("token invalid: {0}")]
    Invalid(&'static str),
    /// It may be good: the issuer's keys cannot be had now.
    #[error("no key to check the token with")]
    KeysUnavailable,
}

/// Why there can be no [`Verifier`].
#[derive(Debug, thiserror::Error)]
pub enum VerifierError {
    /// A file of `auth.jwt_public_keys`.
    #[error("auth.jwt_public_keys: entry {0} {1}")]
    File(usize, KeyError),
    /// The HTTP client for `auth.jwks_url`.
    #[error("cannot set up the client for auth.jwks_url: {0}")]
    Client(String),
    /// A secret that is no HMAC key; every text is one.
    #[error("auth.jwt_secret is no key")]
    Secret,
}

/// HMAC with its key worked in: a check begins with a copy of it, which is cheaper than with aws-lc-rs (docs/PERFORMANCE.md).
type Secret = Hmac<Sha256>;

/// Checks tokens against the configured keys and claims.
pub struct Verifier {
    /// For HS256, the one in force first.
    secrets: Vec<Secret>,
    files: Vec<PublicKey>,
    jwks: Option<Jwks>,
    /// What tokens may say they are signed with; empty: anything there is a key for.
    taken: Vec<Algorithm>,
    rules: Rules,
    verified: Verified,
    metrics: Arc<Metrics>,
}

/// How far a token got without a costly check.
pub enum Begun<'t> {
    /// It is good: signed with a secret, or checked before.
    Known(Caller),
    /// An asymmetric signature that nobody has verified yet: some 10 to 100 µs of CPU, perhaps for nothing.
    Unverified(Unverified<'t>),
}

/// A token with an asymmetric signature still to be checked: after [`Verifier::read`], by [`Verifier::finish`].
pub struct Unverified<'t> {
    jws: Jws<'t>,
    fingerprint: Fingerprint,
}

/// One whose claims have been read. They count for nothing until its signature is found good.
pub struct Read<'t> {
    token: Unverified<'t>,
    judged: Result<Judged, TokenError>,
}

/// What keys say to a signature.
enum Verdict {
    Good,
    Bad(&'static str),
    /// None of them is the one that the token names, and none fits.
    Unknown,
}

impl Verifier {
    /// A verifier for tokens signed with `jwt_secret`, one of `jwt_previous_secrets`, a key of `jwt_public_keys` or of `jwks_url`.
    /// With the last one it begins to fetch: to be called on a runtime then.
    pub fn new(
        settings: &config::Auth,
        id_bytes: usize,
        metrics: Arc<Metrics>,
    ) -> Result<Self, VerifierError> {
        let taken = settings.algorithms.clone();
        let jwks = match &settings.jwks_url {
            None => None,
            Some(url) => {
                let source = HttpSource::new(url.as_url().clone())
                    .map_err(|error| VerifierError::Client(error.without_url().to_string()))?;
                let (refresh, metrics) = (settings.jwks_refresh, metrics.clone());
                Some(Jwks::start(source, refresh, taken.clone(), metrics))
            }
        };
        Self::with_jwks(settings, id_bytes, jwks, metrics)
    }

    fn with_jwks(
        settings: &config::Auth,
        id_bytes: usize,
        jwks: Option<Jwks>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, VerifierError> {
        let taken = settings.algorithms.clone();
        let files = settings.jwt_public_keys.iter().enumerate();
        let files = files.map(|(index, path)| {
            PublicKey::from_file(Path::new(path), &taken)
                .map_err(|error| VerifierError::File(index + 1, error))
        });
        let files = files.collect::<Result<_, _>>()?;
        let secrets = settings
            .jwt_secret
            .iter()
            .chain(&settings.jwt_previous_secrets);
        let secrets = secrets
            .map(|secret| Secret::new_from_slice(secret.expose_secret().as_bytes()))
            .collect::<Result<_, _>>()
            .map_err(|_| VerifierError::Secret)?;
        Ok(Self {
            secrets,
            files,
            jwks,
            taken,
            rules: Rules::new(settings, id_bytes),
            verified: Verified::new(),
            metrics,
        })
    }

    /// How many good tokens with asymmetric signatures are remembered.
    pub fn remembered(&self) -> usize {
        self.verified.len()
    }

    /// Whether there is an issuer whose keys were never loaded.
    pub fn lacks_keys(&self) -> bool {
        self.jwks.as_ref().is_some_and(|jwks| !jwks.ever_loaded())
    }

    /// All that is cheap: HS256 to the end, and the memory of asymmetric signatures.
    pub fn begin<'t>(&self, token: &'t str) -> Result<Begun<'t>, TokenError> {
        self.begin_at(token, now_s())
    }

    fn begin_at<'t>(&self, token: &'t str, now_s: f64) -> Result<Begun<'t>, TokenError> {
        if token.len() > MAX_BYTES {
            return Err(TokenError::TooLong);
        }
        let fingerprint = if self.files.is_empty() && self.jwks.is_none() {
            None
        } else {
            let fingerprint = Fingerprint::of(token);
            let keys = self.published().version;
            if let Some(caller) = self.verified.get(&fingerprint, keys, now_s) {
                self.metrics.cache_looked_up("tokens", true);
                return Ok(Begun::Known(caller));
            }
            Some(fingerprint)
        };
        let jws = Jws::parse(token)?;
        let refused = TokenError::Invalid("algorithm");
        if !self.taken.is_empty() && !self.taken.contains(&jws.algorithm) {
            return Err(refused);
        }
        match (jws.algorithm, fingerprint) {
            (Algorithm::Hs256, _) if self.secrets.is_empty() => Err(refused),
            (Algorithm::Hs256, _) => {
                let signed_by = |key: &Secret| {
                    let hmac = key.clone().chain_update(jws.message);
                    // In constant time.
                    hmac.verify_slice(&jws.signature).is_ok()
                };
                if !self.secrets.iter().any(signed_by) {
                    return Err(TokenError::Invalid("signature"));
                }
                let judged = self.rules.judge(&Claims::read(&jws.claims()?)?, now_s)?;
                Ok(Begun::Known(judged.caller))
            }
            (_, None) => Err(refused),
            (_, Some(fingerprint)) => Ok(Begun::Unverified(Unverified { jws, fingerprint })),
        }
    }

    /// Reads the claims of a token whose signature is still to be checked.
    pub fn read<'t>(&self, token: Unverified<'t>) -> Read<'t> {
        let claims = token.jws.claims();
        let judged = claims.and_then(|json| self.rules.judge(&Claims::read(&json)?, now_s()));
        Read { token, judged }
    }

    /// Whether [`Verifier::finish`] may spend a check on what no address is charged for: the token is late by its own word, or is by
    /// none of the keys that are known while the issuer's cannot be had.
    pub fn may_be_for_nothing(&self, token: &Read<'_>) -> bool {
        let jws = &token.token.jws;
        let lacks_keys = || {
            let jwks = self.jwks.as_ref().filter(|jwks| jwks.is_unavailable())?;
            let published = jwks.published();
            let (are_named, keys) = self.candidates(jws, &published.keys);
            Some(!are_named && keys.iter().any(|key| key.takes(jws.algorithm)))
        };
        token.judged == Err(TokenError::Expired) || lacks_keys() == Some(true)
    }

    /// Checks an asymmetric signature. Where no key fits it, waits for the issuer's newest ones, `until` then at the latest.
    pub async fn finish(&self, token: Read<'_>, until: Instant) -> Result<Caller, TokenError> {
        let Read { token, judged } = token;
        // Here and not where it was looked for: that may have been done more than once.
        self.metrics.cache_looked_up("tokens", false);
        let mut published = self.published();
        let mut verdict = self.check(&token.jws, &published.keys);
        if let (Verdict::Unknown, Some(jwks)) = (&verdict, &self.jwks) {
            published = jwks
                .refreshed(until)
                .await
                .map_err(|_| TokenError::KeysUnavailable)?;
            verdict = self.check(&token.jws, &published.keys);
        }
        match verdict {
            Verdict::Good => {}
            Verdict::Bad(what) => return Err(TokenError::Invalid(what)),
            Verdict::Unknown => return Err(TokenError::Invalid("signature")),
        }
        let judged = judged?;
        let caller = judged.caller.clone();
        self.verified
            .insert(token.fingerprint, published.version, judged);
        Ok(caller)
    }

    /// The issuer's keys; none where there is no issuer.
    fn published(&self) -> Arc<Published> {
        self.jwks
            .as_ref()
            .map_or_else(Arc::default, Jwks::published)
    }

    fn check(&self, jws: &Jws<'_>, published: &[PublicKey]) -> Verdict {
        let (are_named, keys) = self.candidates(jws, published);
        let signed = |key: &&PublicKey| key.verifies(jws.algorithm, jws.message, &jws.signature);
        if keys.iter().any(signed) {
            Verdict::Good
        } else if !are_named {
            Verdict::Unknown
        } else if keys.iter().any(|key| key.takes(jws.algorithm)) {
            Verdict::Bad("signature")
        } else {
            Verdict::Bad("algorithm")
        }
    }

    /// The keys that may have signed it, and whether the token names them: a key that has the name in the token is the only one that
    /// counts. Otherwise all are tried that may have signed it: those of files, whose names are the operator's own, and the
    /// issuer's; a nameless token may be by any, a named one by the nameless.
    fn candidates<'k>(
        &'k self,
        jws: &Jws<'_>,
        published: &'k [PublicKey],
    ) -> (bool, Vec<&'k PublicKey>) {
        let kid = jws.kid.as_deref();
        let named: Vec<_> = (self.files.iter().chain(published))
            .filter(|key| kid.is_some() && key.kid.as_deref() == kid)
            .collect();
        if !named.is_empty() {
            return (true, named);
        }
        let published = published
            .iter()
            .filter(|key| kid.is_none() || key.kid.is_none());
        (false, self.files.iter().chain(published).collect())
    }
}

/// Seconds since 1970.
fn now_s() -> f64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0.0, |now| now.as_secs_f64())
}
