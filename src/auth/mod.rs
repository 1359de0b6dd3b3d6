//! Who a client is: verifies its JWT with the configured keys, and issues and revokes WuKongIM's connect tokens. Knows neither axum nor the
//! API's answers.

mod claims;
mod im_token;
mod jwks;
mod jwt;
mod keys;
#[cfg(test)]
#[path = "../../tests/keys/mod.rs"]
mod test_keys;
mod verified_tokens;

use crate::domain::Uid;

pub use im_token::{DeviceFlag, ImToken, ImTokenError, ImTokens};
pub use jwt::{Precheck, TokenError, Unverified, Verifier, VerifierError};
pub use keys::{KeyError, VerifyingKey};

/// The user of the request's token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The token's uid.
    pub uid: Uid,
    /// Whether the token has an admin role or permission.
    pub is_admin: bool,
}
