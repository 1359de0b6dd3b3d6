//! Authentication in front of every protected route, and rate limiting: users are charged for calls, addresses for failures.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::{FromRequestParts, Request, State};
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Either};
use http::header::AUTHORIZATION;
use http::request::Parts;
use http::{Extensions, HeaderMap};
use tokio::time::Instant;
use tower::Service;

use crate::auth::{Caller, Precheck, TokenError, Unverified, Verifier};
use crate::context::{current_deadline, current_reservation};
use crate::http::errors::{ApiError, Failure};
use crate::http::extract::RequestState;
use crate::limits::{Limits, Refused};

/// A request stops waiting for an issuer's keys this long before its deadline, so that the client learns that the keys are unavailable and
/// retries with the same token.
const KEY_WAIT_MARGIN: Duration = Duration::from_millis(100);

/// Verifies the bearer token, charges its user, and adds the [`Caller`] to the request's extensions; refuses other requests.
///
/// A service of its own: `from_fn` would clone and box the inner route before authentication, and refusals must be cheap.
#[derive(Clone)]
pub struct Authenticate<S> {
    by: Authenticator,
    inner: S,
}

/// What authentication needs.
#[derive(Clone)]
pub struct Authenticator {
    /// Checks JWTs.
    pub verifier: Arc<Verifier>,
    /// Charges users and addresses.
    pub limits: Arc<Limits>,
}

type Outcome = Result<Response, Infallible>;

impl<S> Authenticate<S> {
    /// Wraps `inner`.
    pub fn new(by: Authenticator, inner: S) -> Self {
        Self { by, inner }
    }
}

impl<S> Service<Request> for Authenticate<S>
where
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    /// Refused, accepted, or still to be verified.
    type Future = Either<Ready<Outcome>, Either<S::Future, BoxFuture<'static, Outcome>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let identified = match self.by.precheck(request.headers()) {
            Ok(Precheck::Known(caller)) => Ok(caller),
            Ok(Precheck::Unverified(token)) => {
                // Uses the instance that is ready, and leaves a clone in its place.
                let next = self.inner.clone();
                let mut inner = std::mem::replace(&mut self.inner, next);
                let by = self.by.clone();
                let checked = async move {
                    let (headers, extensions) = (request.headers(), request.extensions());
                    let identified = by.verify(headers, extensions, token).await;
                    match by.charge_and_attach(&mut request, identified) {
                        Ok(()) => inner.call(request).await,
                        Err(failure) => Ok(failure.into_response()),
                    }
                };
                return Either::Right(Either::Right(checked.boxed()));
            }
            Err(unauthenticated) => Err(unauthenticated),
        };
        match self.by.charge_and_attach(&mut request, identified) {
            Ok(()) => Either::Right(Either::Left(self.inner.call(request))),
            Err(failure) => Either::Left(ready(Ok(failure.into_response()))),
        }
    }
}

impl Authenticator {
    /// Charges the user or the address, and adds the caller to the request.
    fn charge_and_attach(
        &self,
        request: &mut Request,
        identified: Result<Caller, Unauthenticated>,
    ) -> Result<(), Failure> {
        let (headers, extensions) = (request.headers(), request.extensions());
        match identified {
            Ok(caller) => {
                self.charge_caller(extensions, &caller)?;
                request.extensions_mut().insert(caller);
                Ok(())
            }
            Err(unauthenticated) => {
                let failure = match unauthenticated {
                    Unauthenticated::Failed(error) => error.into(),
                    Unauthenticated::Unchecked(refused) => refused.into(),
                };
                Err(self.charge_unauthenticated(headers, extensions, unauthenticated, failure))
            }
        }
    }

    /// The part of the verification that needs no waiting.
    fn precheck(&self, headers: &HeaderMap) -> Result<Precheck, Unauthenticated> {
        let precheck = bearer(headers).and_then(|token| self.verifier.precheck(token));
        precheck.map_err(Unauthenticated::Failed)
    }

    /// Checks the signature, if the address may have it checked.
    async fn verify(
        &self,
        headers: &HeaderMap,
        extensions: &Extensions,
        token: Unverified,
    ) -> Result<Caller, Unauthenticated> {
        let address = self.limits.address(extensions.get().copied(), headers);
        let is_billed = || !self.verifier.is_check_unbilled(&token);
        self.limits
            .may_check_signature(address, is_billed)
            .map_err(Unauthenticated::Unchecked)?;
        let until = key_wait_deadline();
        let caller = self.verifier.finish(token, until).await;
        caller.map_err(Unauthenticated::Failed)
    }

    fn charge_caller(&self, extensions: &Extensions, caller: &Caller) -> Result<(), Failure> {
        let (Some(state), Some(reservation)) =
            (extensions.get::<Arc<RequestState>>(), current_reservation())
        else {
            return Ok(());
        };
        // A user without tokens left is refused before the body is read.
        state.record_charge(self.limits.charge_user(&caller.uid))?;
        state.admitted(self.limits.admit_user(&caller.uid, &reservation)?);
        Ok(())
    }

    /// The answer to a request without a valid token: `failure`, or 429 once its address is out of tokens.
    fn charge_unauthenticated(
        &self,
        headers: &HeaderMap,
        extensions: &Extensions,
        unauthenticated: Unauthenticated,
        failure: Failure,
    ) -> Failure {
        match unauthenticated {
            // A legitimate user with an expired token, or possibly one.
            Unauthenticated::Failed(TokenError::Expired | TokenError::KeysUnavailable) => {
                return failure;
            }
            Unauthenticated::Unchecked(refused) => return refused.into(),
            Unauthenticated::Failed(
                TokenError::Missing | TokenError::TooLong | TokenError::Invalid(_),
            ) => {}
        }
        let address = self.limits.address(extensions.get().copied(), headers);
        match self.limits.charge_address(address) {
            Ok(_) => failure,
            Err(refused) => refused.into(),
        }
    }
}

/// Until when a request may wait for an issuer's keys; not at all outside of a request.
fn key_wait_deadline() -> Instant {
    let deadline = current_deadline().map_or_else(Instant::now, Instant::from_std);
    deadline.checked_sub(KEY_WAIT_MARGIN).unwrap_or(deadline)
}

/// 404 for an unknown path; the address is charged unless the request is authenticated.
pub async fn unknown_path(State(by): State<Authenticator>, request: Parts) -> Failure {
    let not_found = Failure::from(ApiError::NotFound);
    let (headers, extensions) = (&request.headers, &request.extensions);
    let identified = match by.precheck(headers) {
        Ok(Precheck::Known(caller)) => Ok(caller),
        Ok(Precheck::Unverified(token)) => by.verify(headers, extensions, token).await,
        Err(unauthenticated) => Err(unauthenticated),
    };
    match identified {
        Ok(caller) => by
            .charge_caller(extensions, &caller)
            .err()
            .unwrap_or(not_found),
        Err(unauthenticated) => {
            by.charge_unauthenticated(headers, extensions, unauthenticated, not_found)
        }
    }
}

/// A request without a valid token.
#[derive(Clone, Copy)]
enum Unauthenticated {
    /// The token is missing or not accepted.
    Failed(TokenError),
    /// The signature was not checked, since the address is out of tokens, or the limit of unbilled checks is reached.
    Unchecked(Refused),
}

/// The token of the only `Authorization` header; the scheme is case-insensitive.
fn bearer(headers: &HeaderMap) -> Result<&str, TokenError> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next().ok_or(TokenError::Missing)?;
    if values.next().is_some() {
        return Err(TokenError::Invalid("more than one header"));
    }
    let value = value.to_str().map_err(|_| TokenError::Invalid("header"))?;
    let (scheme, token) = value.trim().split_once(' ').unwrap_or((value.trim(), ""));
    let token = token.trim_start();
    if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() {
        return Err(TokenError::Missing);
    }
    Ok(token)
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        // Missing only on a route without the middleware, which is a bug and must not permit the request.
        let caller = parts.extensions.get::<Self>().cloned();
        caller
            .ok_or_else(|| Failure::from(ApiError::Internal).because("no caller on a public route"))
    }
}

impl From<TokenError> for Failure {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::Missing => ApiError::TokenMissing.into(),
            TokenError::Expired => ApiError::TokenExpired.into(),
            TokenError::KeysUnavailable => ApiError::KeysUnavailable.into(),
            TokenError::TooLong => Self::from(ApiError::HeadersTooLarge).because(error.to_string()),
            TokenError::Invalid(what) => Self::from(ApiError::TokenInvalid).because(what),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn exactly_one_bearer_header_is_read() {
        let with = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(AUTHORIZATION, HeaderValue::from_static(value));
            }
            bearer(&headers).map(str::to_owned)
        };
        assert_eq!(with(&["Bearer a.b.c"]), Ok("a.b.c".into()));
        assert_eq!(with(&["bEARER   a.b.c"]), Ok("a.b.c".into()));
        assert_eq!(with(&[]), Err(TokenError::Missing));
        for missing in ["", "Bearer", "Bearer ", "Basic YTpi", "a.b.c"] {
            assert_eq!(with(&[missing]), Err(TokenError::Missing), "{missing}");
        }
        assert!(matches!(
            with(&["Bearer a.b.c", "Bearer a.b.c"]),
            Err(TokenError::Invalid(_))
        ));
    }
}
