//! A token as it comes in, taken apart: the compact form of RFC 7515. Says nothing about whether it is good.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny};

use super::TokenError;
use super::claims::Claims;
use crate::config::Algorithm;

/// The parts of a token.
pub(super) struct Jws<'t> {
    /// What its header says it is signed with. A claim like any other: only a key that is for it may check it.
    pub(super) algorithm: Algorithm,
    /// The name of the key, where the header has one.
    pub(super) kid: Option<String>,
    /// Header and claims as they came: what is signed.
    pub(super) message: &'t [u8],
    /// The signature's bytes.
    pub(super) signature: Vec<u8>,
    /// The claims, not decoded yet: what was checked before needs none.
    claims: &'t str,
}

/// The headers that issuers of HS256 write, which never change: `{"alg":"HS256","typ":"JWT"}`, the same the other way round, and
/// `{"alg":"HS256"}`. Compared as text they need no decoding.
const PLAIN_HS256: [&str; 3] = [
    "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9",
    "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9",
    "eyJhbGciOiJIUzI1NiJ9",
];

/// Keys that come with the token (`jwk`, `jku`, `x5c`, …) are not even looked at.
#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    /// Extensions the receiver must know (RFC 7515, 4.1.11). None is known here.
    #[serde(default, deserialize_with = "present")]
    crit: bool,
}

fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(deserializer).map(|_| true)
}

impl<'t> Jws<'t> {
    /// Takes `token` apart.
    pub(super) fn parse(token: &'t str) -> Result<Self, TokenError> {
        const MALFORMED: TokenError = TokenError::Invalid("malformed");
        let (message, signature) = token.rsplit_once('.').ok_or(MALFORMED)?;
        let (header, claims) = message.split_once('.').ok_or(MALFORMED)?;
        // No part has a dot in it: it is no base64url.
        let (algorithm, kid) = if PLAIN_HS256.contains(&header) {
            (Algorithm::Hs256, None)
        } else {
            let header = URL_SAFE_NO_PAD.decode(header).map_err(|_| MALFORMED)?;
            // What nobody asks for must be JSON too: serde passes over broken text in it.
            Claims::read(&header)?;
            let header: Header = serde_json::from_slice(&header).map_err(|_| MALFORMED)?;
            if header.crit {
                return Err(TokenError::Invalid("crit"));
            }
            let algorithm = Algorithm::named(&header.alg);
            let algorithm = algorithm.ok_or(TokenError::Invalid("algorithm"))?;
            (algorithm, header.kid)
        };
        Ok(Self {
            algorithm,
            kid,
            message: message.as_bytes(),
            signature: URL_SAFE_NO_PAD.decode(signature).map_err(|_| MALFORMED)?,
            claims,
        })
    }

    /// The JSON of the claims, whatever the signature is.
    pub(super) fn claims(&self) -> Result<Vec<u8>, TokenError> {
        let decoded = URL_SAFE_NO_PAD.decode(self.claims);
        decoded.map_err(|_| TokenError::Invalid("malformed"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_compared_as_text_mean_what_they_would_mean_decoded() {
        for text in PLAIN_HS256 {
            let header = URL_SAFE_NO_PAD.decode(text).unwrap();
            let header: Header = serde_json::from_slice(&header).unwrap();
            assert_eq!(Algorithm::named(&header.alg), Some(Algorithm::Hs256));
            assert_eq!((header.kid, header.crit), (None, false));
        }
    }
    #[test]
    fn a_header_is_json_in_what_nobody_asks_for_too() {
        let parsed = |header: &[u8]| {
            let token = format!("{}.e30.c2ln", URL_SAFE_NO_PAD.encode(header));
            Jws::parse(&token).map(|_| ())
        };
        assert_eq!(parsed(br#"{"alg":"HS256","x":"y"}"#), Ok(()));
        for broken in [
            &b"{\"alg\":\"HS256\",\"x\":\"\xcaWT\"}"[..],
            br#"{"alg":"HS256","x":"\ud800"}"#,
            br#"{"alg":"HS256","x":1e400}"#,
        ] {
            assert_eq!(parsed(broken), Err(TokenError::Invalid("malformed")));
        }
    }
}
