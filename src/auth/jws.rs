//! Parses the compact serialisation of a token (RFC 7515). Does not verify it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny};

use super::TokenError;
use super::claims::Claims;
use crate::config::Algorithm;

/// The parts of a token.
pub(super) struct Jws<'t> {
    /// The algorithm named in the header. Untrusted: only a key for this algorithm may verify it.
    pub(super) algorithm: Algorithm,
    /// The key id, where the header has one.
    pub(super) kid: Option<String>,
    /// The signed bytes: header and claims as received.
    pub(super) message: &'t [u8],
    /// The signature's bytes.
    pub(super) signature: Vec<u8>,
    /// The encoded claims; not needed for cached tokens.
    claims: &'t str,
}

/// The usual headers of HS256 tokens: `{"alg":"HS256","typ":"JWT"}`, the same in the other order, and `{"alg":"HS256"}`. Comparing them
/// encoded saves the decoding.
const COMMON_HS256_HEADERS: [&str; 3] = [
    "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9",
    "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9",
    "eyJhbGciOiJIUzI1NiJ9",
];

/// Keys inside the token (`jwk`, `jku`, `x5c`, …) are ignored.
#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    /// Extensions the receiver must understand (RFC 7515, 4.1.11). None is supported.
    #[serde(default, deserialize_with = "present")]
    crit: bool,
}

fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(deserializer).map(|_| true)
}

impl<'t> Jws<'t> {
    /// Parses `token`.
    pub(super) fn parse(token: &'t str) -> Result<Self, TokenError> {
        const MALFORMED: TokenError = TokenError::Invalid("malformed");
        let (message, signature) = token.rsplit_once('.').ok_or(MALFORMED)?;
        let (header, claims) = message.split_once('.').ok_or(MALFORMED)?;
        // A further dot in a part fails later, since it is not base64url.
        let (algorithm, kid) = if COMMON_HS256_HEADERS.contains(&header) {
            (Algorithm::Hs256, None)
        } else {
            let header = URL_SAFE_NO_PAD.decode(header).map_err(|_| MALFORMED)?;
            // Unused members must be valid JSON too; serde would skip invalid strings in them.
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

    /// The JSON of the claims, which are not verified yet.
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
        for text in COMMON_HS256_HEADERS {
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
