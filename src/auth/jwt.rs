//! Verification of JWTs: which key applies, whether the signature is valid, and the cache of verified tokens. A library checks the
//! signatures; the rules for keys, algorithms and claims are the gateway's own.

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
use super::claims::{ClaimRules, Claims, ValidClaims};
use super::jwks::{HttpSource, Jwks, Published};
use super::jws::Jws;
use super::keys::{KeyError, PublicKey};
use super::verified_tokens::{Fingerprint, VerifiedTokens};
use crate::config::{self, Algorithm};
use crate::telemetry::Metrics;

/// A longer token is refused without parsing it. One with 200 groups in a claim is shorter.
const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// Why a token is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// No token was sent.
    #[error("no bearer token")]
    Missing,
    /// The signature is valid, but the token has expired.
    #[error("token expired")]
    Expired,
    /// Longer than the limit; retrying with a new token will not help.
    #[error("token longer than {MAX_TOKEN_BYTES} bytes")]
    TooLong,
    /// Any other reason, named for the log.
    #[error("token invalid: {0}")]
    Invalid(&'static str),
    /// It may be valid, but the issuer's keys are not available.
    #[error("no key to check the token with")]
    KeysUnavailable,
}

/// Why a [`Verifier`] cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum VerifierError {
    /// A file of `auth.jwt_public_keys` cannot be used.
    #[error("auth.jwt_public_keys: entry {0} {1}")]
    File(usize, KeyError),
    /// The HTTP client for `auth.jwks_url` cannot be built.
    #[error("cannot set up the client for auth.jwks_url: {0}")]
    Client(String),
    /// A secret is not an HMAC key; cannot happen, since every string is one.
    #[error("auth.jwt_secret is no key")]
    Secret,
}

/// An HMAC initialised with its key; each check clones it, which is cheaper than with aws-lc-rs (docs/PERFORMANCE.md).
type Secret = Hmac<Sha256>;

/// Checks tokens against the configured keys and claims.
pub struct Verifier {
    /// For HS256, the current one first.
    secrets: Vec<Secret>,
    files: Vec<PublicKey>,
    jwks: Option<Jwks>,
    /// The algorithms that a token may name; if empty, all for which there is a key.
    allowed_algorithms: Vec<Algorithm>,
    rules: ClaimRules,
    verified: VerifiedTokens,
    metrics: Arc<Metrics>,
}

/// The result of the cheap checks of a token.
pub enum Precheck<'t> {
    /// It is valid: signed with a secret, or verified before.
    Known(Caller),
    /// It has an asymmetric signature that is not verified yet, which costs 10 to 100 µs of CPU, even if it is invalid.
    Unverified(Unverified<'t>),
}

/// A token whose asymmetric signature is not checked yet: pass it to [`Verifier::read`], then to [`Verifier::finish`].
pub struct Unverified<'t> {
    jws: Jws<'t>,
    fingerprint: Fingerprint,
}

/// A token whose claims are parsed. They must not be trusted before its signature is verified.
pub struct ParsedToken<'t> {
    token: Unverified<'t>,
    valid_claims: Result<ValidClaims, TokenError>,
}

/// The result of checking a signature.
enum SignatureResult {
    Good,
    Bad(&'static str),
    /// No key has the token's key id, and no other key fits.
    UnknownKey,
}

impl Verifier {
    /// A verifier for tokens signed with `jwt_secret`, one of `jwt_previous_secrets`, a key of `jwt_public_keys` or of `jwks_url`. The last
    /// one starts fetching, which requires a runtime.
    pub fn new(
        settings: &config::Auth,
        id_bytes: usize,
        metrics: Arc<Metrics>,
    ) -> Result<Self, VerifierError> {
        let allowed_algorithms = settings.algorithms.clone();
        let jwks = match &settings.jwks_url {
            None => None,
            Some(url) => {
                let source = HttpSource::new(url.as_url().clone())
                    .map_err(|error| VerifierError::Client(error.without_url().to_string()))?;
                let (refresh, metrics) = (settings.jwks_refresh, metrics.clone());
                Some(Jwks::start(
                    source,
                    refresh,
                    allowed_algorithms.clone(),
                    metrics,
                ))
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
        let allowed_algorithms = settings.algorithms.clone();
        let files = settings.jwt_public_keys.iter().enumerate();
        let files = files.map(|(index, path)| {
            PublicKey::from_file(Path::new(path), &allowed_algorithms)
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
            allowed_algorithms,
            rules: ClaimRules::new(settings, id_bytes),
            verified: VerifiedTokens::new(),
            metrics,
        })
    }

    /// The number of cached tokens with asymmetric signatures.
    pub fn cached_tokens(&self) -> usize {
        self.verified.len()
    }

    /// Whether an issuer is configured whose keys were never loaded.
    pub fn lacks_keys(&self) -> bool {
        self.jwks.as_ref().is_some_and(|jwks| !jwks.ever_loaded())
    }

    /// Does the cheap checks: HS256 completely, asymmetric signatures from the cache.
    pub fn precheck<'t>(&self, token: &'t str) -> Result<Precheck<'t>, TokenError> {
        self.precheck_at(token, now_s())
    }

    fn precheck_at<'t>(&self, token: &'t str, now_s: f64) -> Result<Precheck<'t>, TokenError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(TokenError::TooLong);
        }
        let fingerprint = if self.files.is_empty() && self.jwks.is_none() {
            None
        } else {
            let fingerprint = Fingerprint::of(token);
            let keys = self.published().version;
            if let Some(caller) = self.verified.get(&fingerprint, keys, now_s) {
                self.metrics.cache_looked_up("tokens", true);
                return Ok(Precheck::Known(caller));
            }
            Some(fingerprint)
        };
        let jws = Jws::parse(token)?;
        let refused = TokenError::Invalid("algorithm");
        if !self.allowed_algorithms.is_empty() && !self.allowed_algorithms.contains(&jws.algorithm)
        {
            return Err(refused);
        }
        match (jws.algorithm, fingerprint) {
            (Algorithm::Hs256, _) if self.secrets.is_empty() => Err(refused),
            (Algorithm::Hs256, _) => {
                let signed_by = |key: &Secret| {
                    let hmac = key.clone().chain_update(jws.message);
                    // Compares in constant time.
                    hmac.verify_slice(&jws.signature).is_ok()
                };
                if !self.secrets.iter().any(signed_by) {
                    return Err(TokenError::Invalid("signature"));
                }
                let valid_claims = self.rules.validate(&Claims::read(&jws.claims()?)?, now_s)?;
                Ok(Precheck::Known(valid_claims.caller))
            }
            (_, None) => Err(refused),
            (_, Some(fingerprint)) => Ok(Precheck::Unverified(Unverified { jws, fingerprint })),
        }
    }

    /// Parses the claims of a token whose signature is not checked yet.
    pub fn read<'t>(&self, token: Unverified<'t>) -> ParsedToken<'t> {
        let claims = token.jws.claims();
        let valid_claims =
            claims.and_then(|json| self.rules.validate(&Claims::read(&json)?, now_s()));
        ParsedToken {
            token,
            valid_claims,
        }
    }

    /// Whether no address is charged if [`Verifier::finish`] refuses the token: it is expired, or signed by an unknown key while the issuer
    /// is down.
    pub fn is_check_unbilled(&self, token: &ParsedToken<'_>) -> bool {
        let jws = &token.token.jws;
        let lacks_keys = || {
            let jwks = self.jwks.as_ref().filter(|jwks| jwks.is_unavailable())?;
            let published = jwks.published();
            let (is_named, keys) = self.candidates(jws, &published.keys);
            Some(!is_named && keys.iter().any(|key| key.supports(jws.algorithm)))
        };
        token.valid_claims == Err(TokenError::Expired) || lacks_keys() == Some(true)
    }

    /// Checks an asymmetric signature. If no key fits, waits for the issuer's current keys, at most `until` then.
    pub async fn finish(
        &self,
        token: ParsedToken<'_>,
        until: Instant,
    ) -> Result<Caller, TokenError> {
        let ParsedToken {
            token,
            valid_claims,
        } = token;
        // Counted here, since the cache may have been consulted more than once.
        self.metrics.cache_looked_up("tokens", false);
        let mut published = self.published();
        let mut result = self.check(&token.jws, &published.keys);
        if let (SignatureResult::UnknownKey, Some(jwks)) = (&result, &self.jwks) {
            published = jwks
                .refreshed(until)
                .await
                .map_err(|_| TokenError::KeysUnavailable)?;
            result = self.check(&token.jws, &published.keys);
        }
        match result {
            SignatureResult::Good => {}
            SignatureResult::Bad(what) => return Err(TokenError::Invalid(what)),
            SignatureResult::UnknownKey => return Err(TokenError::Invalid("signature")),
        }
        let valid_claims = valid_claims?;
        let caller = valid_claims.caller.clone();
        self.verified
            .insert(token.fingerprint, published.version, valid_claims);
        Ok(caller)
    }

    /// The issuer's keys; empty without an issuer.
    fn published(&self) -> Arc<Published> {
        self.jwks
            .as_ref()
            .map_or_else(Arc::default, Jwks::published)
    }

    fn check(&self, jws: &Jws<'_>, published: &[PublicKey]) -> SignatureResult {
        let (is_named, keys) = self.candidates(jws, published);
        let signed = |key: &&PublicKey| key.verifies(jws.algorithm, jws.message, &jws.signature);
        if keys.iter().any(signed) {
            SignatureResult::Good
        } else if !is_named {
            SignatureResult::UnknownKey
        } else if keys.iter().any(|key| key.supports(jws.algorithm)) {
            SignatureResult::Bad("signature")
        } else {
            SignatureResult::Bad("algorithm")
        }
    }

    /// The keys that may have signed the token, and whether the token names them. A key with the token's key id excludes all others.
    /// Otherwise all possible keys are tried: those of files, whose ids the operator chose, and the issuer's, which must have no id if the
    /// token has one.
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
