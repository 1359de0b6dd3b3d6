//! Who a client is: verifies its JWT with the configured keys, issues and revokes WuKongIM's connect tokens, and makes cursors that belong to
//! one user. Knows neither axum nor the API's answers.

mod claims;
mod cursors;
mod im_token;
mod jwks;
mod jwt;
mod keys;
#[cfg(test)]
#[path = "../../tests/support/keys/mod.rs"]
mod test_keys;
mod verified_tokens;

use std::path::Path;

use crate::config::Algorithm;
use crate::domain::Uid;

pub use cursors::Cursors;
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

/// Checks that the file has a public key that is usable with one of these algorithms (any, if there are none); for [`crate::config::load`].
pub fn check_key_file(file: &Path, allowed_algorithms: &[Algorithm]) -> Result<(), String> {
    let key = VerifyingKey::from_file(file, allowed_algorithms);
    key.map(drop).map_err(|error| error.to_string())
}
