//! Verification of JWTs: which key applies, whether the signature is valid, and the cache of verified tokens. `jsonwebtoken` reads tokens and
//! checks their signatures; the rules for keys, algorithms and claims are the gateway's own.

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::dangerous::insecure_decode_claims;
use jsonwebtoken::decode_header;
use jsonwebtoken::errors::{Error, ErrorKind};
use secrecy::ExposeSecret as _;
use serde_json::{Map, Value};
use tokio::time::Instant;

use super::Caller;
use super::claims::{ClaimRules, Claims};
use super::jwks::{HttpSource, Jwks};
use super::keys::{KeyError, VerifyingKey};
use super::verified_tokens::{Fingerprint, VerifiedTokens, fingerprint};
use crate::config::{self, Algorithm};
use crate::telemetry::Metrics;

/// A longer token is refused without parsing it. One with 200 groups in a claim is shorter.
const MAX_TOKEN_BYTES: usize = 16 * 1024;

const MALFORMED: TokenError = TokenError::Invalid("malformed");

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
}

/// Checks tokens against the configured keys and claims.
pub struct Verifier {
    /// For HS256, the current one first.
    secrets: Vec<VerifyingKey>,
    files: Vec<VerifyingKey>,
    jwks: Option<Jwks>,
    rules: ClaimRules,
    verified: VerifiedTokens,
    metrics: Arc<Metrics>,
}

/// The result of the cheap checks of a token.
pub enum Precheck {
    /// It is valid: signed with a secret, or verified before.
    Known(Caller),
    /// It has an asymmetric signature that is not verified yet, which costs 10 to 100 µs of CPU, even if it is invalid.
    Unverified(Unverified),
}

/// A token whose asymmetric signature is not checked yet: for [`Verifier::finish`]. Nothing of it may be trusted before.
pub struct Unverified {
    text: String,
    algorithm: Algorithm,
    /// The key id, where the header has one.
    kid: Option<String>,
    fingerprint: Fingerprint,
}

impl Verifier {
    /// A verifier for tokens signed with `jwt_secret`, one of `jwt_previous_secrets`, a key of `jwt_public_keys` or of `jwks_url`. The last
    /// one starts fetching, which requires a runtime.
    pub fn new(
        settings: &config::Auth,
        id_bytes: usize,
        metrics: Arc<Metrics>,
    ) -> Result<Self, VerifierError> {
        let start = |url: &config::HttpUrl| {
            let source = HttpSource::new(url.as_url().clone())
                .map_err(|error| VerifierError::Client(error.without_url().to_string()))?;
            let (refresh, algorithms) = (settings.jwks_refresh, settings.algorithms.clone());
            Ok(Jwks::start(source, refresh, algorithms, metrics.clone()))
        };
        let jwks = settings.jwks_url.as_ref().map(start).transpose()?;
        Self::with_jwks(settings, id_bytes, jwks, metrics)
    }

    fn with_jwks(
        settings: &config::Auth,
        id_bytes: usize,
        jwks: Option<Jwks>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, VerifierError> {
        let files = settings.jwt_public_keys.iter().enumerate();
        let files = files.map(|(index, path)| {
            VerifyingKey::from_file(Path::new(path), &settings.algorithms)
                .map_err(|error| VerifierError::File(index + 1, error))
        });
        let secrets = settings.jwt_secret.iter();
        let secrets = secrets.chain(&settings.jwt_previous_secrets);
        Ok(Self {
            secrets: secrets
                .map(|secret| VerifyingKey::from_secret(secret.expose_secret().as_bytes()))
                .collect(),
            files: files.collect::<Result<_, _>>()?,
            jwks,
            rules: ClaimRules::new(settings.clone(), id_bytes),
            verified: VerifiedTokens::new(),
            metrics,
        })
    }

    /// The number of cached tokens.
    pub fn cached_tokens(&self) -> usize {
        self.verified.len()
    }

    /// Whether an issuer is configured whose keys were never loaded.
    pub fn lacks_keys(&self) -> bool {
        self.jwks.as_ref().is_some_and(|jwks| !jwks.ever_loaded())
    }

    /// Does the cheap checks: the cache, and all of a token that is signed with a secret.
    pub fn precheck(&self, token: &str) -> Result<Precheck, TokenError> {
        self.precheck_at(token, now_s())
    }

    fn precheck_at(&self, token: &str, now_s: f64) -> Result<Precheck, TokenError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(TokenError::TooLong);
        }
        let fingerprint = fingerprint(token);
        let keys = self
            .jwks
            .as_ref()
            .map_or(0, |jwks| jwks.published().version);
        if let Some(caller) = self.verified.get(&fingerprint, keys, now_s) {
            self.metrics.cache_looked_up("tokens", true);
            return Ok(Precheck::Known(caller));
        }
        let algorithm = algorithm(token)?;
        let has_keys = match algorithm {
            Algorithm::HS256 => !self.secrets.is_empty(),
            _ => !self.files.is_empty() || self.jwks.is_some(),
        };
        if !has_keys || !self.rules.allows(algorithm) {
            return Err(TokenError::Invalid("algorithm"));
        }
        if algorithm == Algorithm::HS256 {
            self.metrics.cache_looked_up("tokens", false);
            let claims = verify(token, algorithm, &self.secrets).map_err(TokenError::Invalid)?;
            let valid_claims = self.rules.validate(&claims, now_s)?;
            let caller = valid_claims.caller.clone();
            self.verified.insert(fingerprint, keys, valid_claims);
            return Ok(Precheck::Known(caller));
        }
        let header = decode_header(token).map_err(|_| MALFORMED)?;
        Ok(Precheck::Unverified(Unverified {
            text: token.to_owned(),
            algorithm,
            kid: header.kid,
            fingerprint,
        }))
    }

    /// Whether no address is charged if [`Verifier::finish`] refuses the token: it is expired, or signed by an unknown key while the issuer
    /// is down. Reads the claims, which takes up to 0.2 ms for the longest tokens.
    pub fn is_check_unbilled(&self, token: &Unverified) -> bool {
        let claims = insecure_decode_claims(&token.text);
        let is_expired = claims
            .is_ok_and(|claims| self.rules.validate(&claims, now_s()) == Err(TokenError::Expired));
        let lacks_keys = || {
            let jwks = self.jwks.as_ref().filter(|jwks| jwks.is_unavailable())?;
            let published = jwks.published();
            let (is_named, keys) = self.candidates(token, &published.keys);
            Some(!is_named && keys.iter().any(|key| key.supports(token.algorithm)))
        };
        is_expired || lacks_keys() == Some(true)
    }

    /// Checks an asymmetric signature. If no key fits, waits for the issuer's current keys, at most `until` then.
    pub async fn finish(&self, token: Unverified, until: Instant) -> Result<Caller, TokenError> {
        // Counted where the signature is checked, as for secrets: what is refused unchecked would count as well.
        self.metrics.cache_looked_up("tokens", false);
        let mut published = self
            .jwks
            .as_ref()
            .map_or_else(Arc::default, Jwks::published);
        let (is_final, mut checked) = self.check(&token, &published.keys);
        if let (Err(_), false, Some(jwks)) = (&checked, is_final, &self.jwks) {
            published = jwks
                .refreshed(until)
                .await
                .map_err(|_| TokenError::KeysUnavailable)?;
            (_, checked) = self.check(&token, &published.keys);
        }
        let claims = checked.map_err(TokenError::Invalid)?;
        let valid_claims = self.rules.validate(&claims, now_s())?;
        let caller = valid_claims.caller.clone();
        self.verified
            .insert(token.fingerprint, published.version, valid_claims);
        Ok(caller)
    }

    /// Whether one of the keys signed the token, and whether no other key could have: it names one of them, or is malformed.
    fn check(
        &self,
        token: &Unverified,
        published: &[VerifyingKey],
    ) -> (bool, Result<Claims, &'static str>) {
        let (is_named, keys) = self.candidates(token, published);
        let checked = verify(&token.text, token.algorithm, keys);
        let is_final = is_named || matches!(checked, Err("malformed"));
        let checked = checked.map_err(|what| if is_final { what } else { "signature" });
        (is_final, checked)
    }

    /// The keys that may have signed the token, and whether the token names them. A key with the token's key id excludes all others.
    /// Otherwise all possible keys are tried: those of files, whose ids the operator chose, and the issuer's, which must have no id if the
    /// token has one.
    fn candidates<'k>(
        &'k self,
        token: &Unverified,
        published: &'k [VerifyingKey],
    ) -> (bool, Vec<&'k VerifyingKey>) {
        let kid = token.kid.as_deref();
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

/// The algorithm named in a token's header. Untrusted: only a key for this algorithm may verify it. The library reads the header as well;
/// it does not tell an unknown algorithm from malformed JSON, nor a `crit` that is null from none.
fn algorithm(token: &str) -> Result<Algorithm, TokenError> {
    let (header, _) = token.split_once('.').ok_or(MALFORMED)?;
    let header = URL_SAFE_NO_PAD.decode(header).map_err(|_| MALFORMED)?;
    let header: Map<String, Value> = serde_json::from_slice(&header).map_err(|_| MALFORMED)?;
    // Extensions that the receiver must understand (RFC 7515, 4.1.11). None is supported.
    if header.contains_key("crit") {
        return Err(TokenError::Invalid("crit"));
    }
    let name = header.get("alg").and_then(Value::as_str).ok_or(MALFORMED)?;
    let known = config::ALGORITHMS.iter().find(|(known, _)| *known == name);
    let (_, algorithm) = known.ok_or(TokenError::Invalid("algorithm"))?;
    Ok(*algorithm)
}

/// The claims of a token that one of these keys signed, or why none did.
fn verify<'k>(
    token: &str,
    algorithm: Algorithm,
    keys: impl IntoIterator<Item = &'k VerifyingKey>,
) -> Result<Claims, &'static str> {
    let mut refused = "algorithm";
    for key in keys.into_iter().filter(|key| key.supports(algorithm)) {
        match key.decode(token).map_err(Error::into_kind) {
            Ok(claims) => return Ok(claims),
            Err(ErrorKind::InvalidSignature) => refused = "signature",
            Err(_) => return Err("malformed"),
        }
    }
    Err(refused)
}

/// Seconds since 1970.
fn now_s() -> f64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0.0, |now| now.as_secs_f64())
}
