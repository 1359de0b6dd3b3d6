//! Authentication: the middleware verifies the token once, and extractors read the result, so that each handler's signature shows who may
//! call it.

mod claims;
mod im_token;
mod jwks;
mod jws;
mod jwt;
mod keys;
mod middleware;
#[cfg(test)]
#[path = "../../tests/keys/mod.rs"]
mod test_keys;
mod verified_tokens;

use axum::extract::FromRequestParts;
use http::request::Parts;

use crate::app::App;
use crate::domain::Uid;
use crate::error::{ApiError, Failure};

pub use im_token::{DeviceFlag, ImToken, ImTokenError, ImTokens};
pub use jwt::{ParsedToken, Precheck, TokenError, Unverified, Verifier, VerifierError};
pub use keys::{KeyError, PublicKey};
pub use middleware::{Authenticate, unknown_path};

/// The user of the request's token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The token's uid.
    pub uid: Uid,
    /// Whether the token has an admin role or permission.
    pub is_admin: bool,
}

impl FromRequestParts<App> for Caller {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Failure> {
        // Missing only on a route without the middleware, which is a bug and must not permit the request.
        let caller = parts.extensions.get::<Self>().cloned();
        caller
            .ok_or_else(|| Failure::from(ApiError::Internal).because("no caller on a public route"))
    }
}
