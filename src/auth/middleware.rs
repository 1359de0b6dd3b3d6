//! The one check in front of every protected route, and who pays: the user for his calls, the address for what fails.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Either};
use http::header::AUTHORIZATION;
use http::request::Parts;
use http::{Extensions, HeaderMap};
use tokio::time::Instant;
use tower::Service;

use super::{Begun, Caller, TokenError};
use crate::app::App;
use crate::error::{ApiError, Failure};
use crate::extract::Scope;
use crate::limits::Refused;

/// How long before its deadline a request stops waiting for an issuer's keys: that they cannot be had tells its client to come again
/// with the same token, and a deadline that passes would not.
const MARGIN: Duration = Duration::from_millis(100);

/// Verifies the bearer token, charges its user, and leaves the [`Caller`] in the request's extensions; refuses everybody else.
///
/// A service by itself and nothing for `from_fn`, which copies and boxes the route behind it before anybody is let in: refusing is to
/// cost little.
#[derive(Clone)]
pub struct Authenticate<S> {
    app: App,
    inner: S,
}

type Outcome = Result<Response, Infallible>;

impl<S> Authenticate<S> {
    /// In front of `inner`.
    pub fn new(app: App, inner: S) -> Self {
        Self { app, inner }
    }
}

impl<S> Service<Request> for Authenticate<S>
where
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    /// Refused, let in, or still to be checked.
    type Future = Either<Ready<Outcome>, Either<S::Future, BoxFuture<'static, Outcome>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let identified = match begin(&self.app, request.headers()) {
            Ok(Begun::Known(caller)) => Ok(caller),
            Ok(Begun::Unverified(_)) => {
                // The one that is ready; the other one is not asked yet.
                let next = self.inner.clone();
                let mut inner = std::mem::replace(&mut self.inner, next);
                let app = self.app.clone();
                // From its beginning: what was begun borrows from the request, and is little beside a signature.
                let checked = async move {
                    let identified = identify(&app, request.headers(), request.extensions()).await;
                    match admit(&app, &mut request, identified) {
                        Ok(()) => inner.call(request).await,
                        Err(failure) => Ok(failure.into_response()),
                    }
                };
                return Either::Right(Either::Right(checked.boxed()));
            }
            Err(stranger) => Err(stranger),
        };
        match admit(&self.app, &mut request, identified) {
            Ok(()) => Either::Right(Either::Left(self.inner.call(request))),
            Err(failure) => Either::Left(ready(Ok(failure.into_response()))),
        }
    }
}

/// Charges whoever it is, and leaves the caller in his request.
fn admit(
    app: &App,
    request: &mut Request,
    identified: Result<Caller, Stranger>,
) -> Result<(), Failure> {
    let (headers, extensions) = (request.headers(), request.extensions());
    match identified {
        Ok(caller) => {
            charge_caller(app, extensions, &caller)?;
            request.extensions_mut().insert(caller);
            Ok(())
        }
        Err(stranger) => {
            let failure = match stranger {
                Stranger::Failed(error) => error.into(),
                Stranger::Unchecked(refused) => refused.into(),
            };
            Err(charge_stranger(app, headers, extensions, stranger, failure))
        }
    }
}

/// 404 for a path that is none; the address pays for it unless a user comes with it.
pub async fn unknown_path(State(app): State<App>, request: Parts) -> Failure {
    let not_found = Failure::from(ApiError::NotFound);
    let (headers, extensions) = (&request.headers, &request.extensions);
    match identify(&app, headers, extensions).await {
        Ok(caller) => charge_caller(&app, extensions, &caller)
            .err()
            .unwrap_or(not_found),
        Err(stranger) => charge_stranger(&app, headers, extensions, stranger, not_found),
    }
}

/// Somebody without a good token.
#[derive(Clone, Copy)]
enum Stranger {
    /// His token lets nobody in, or there is none.
    Failed(TokenError),
    /// His address has nothing left, or would not pay, nor is there a check left for such: the signature was not looked at.
    Unchecked(Refused),
}

/// All of a check that needs no waiting.
fn begin<'h>(app: &App, headers: &'h HeaderMap) -> Result<Begun<'h>, Stranger> {
    let begun = bearer(headers).and_then(|token| app.verifier().begin(token));
    begun.map_err(Stranger::Failed)
}

async fn identify(
    app: &App,
    headers: &HeaderMap,
    extensions: &Extensions,
) -> Result<Caller, Stranger> {
    match begin(app, headers)? {
        Begun::Known(caller) => Ok(caller),
        Begun::Unverified(token) => {
            let token = app.verifier().read(token);
            let address = app.limits().address(extensions.get().copied(), headers);
            let is_paid = !app.verifier().may_be_for_nothing(&token);
            app.limits()
                .may_check_signature(address, is_paid)
                .map_err(Stranger::Unchecked)?;
            let until = patience(app, extensions);
            let caller = app.verifier().finish(token, until).await;
            caller.map_err(Stranger::Failed)
        }
    }
}

/// How long a request may wait for an issuer's keys.
fn patience(app: &App, extensions: &Extensions) -> Instant {
    let deadline = extensions.get::<Arc<Scope>>().map_or_else(
        || Instant::now() + app.settings().server.request_timeout,
        |scope| scope.deadline,
    );
    deadline.checked_sub(MARGIN).unwrap_or(deadline)
}

fn charge_caller(app: &App, extensions: &Extensions, caller: &Caller) -> Result<(), Failure> {
    let Some(scope) = extensions.get::<Arc<Scope>>() else {
        return Ok(());
    };
    // Nobody who has nothing left makes the gateway read a body.
    scope.charged(app.limits().charge_user(&caller.uid))?;
    scope.admitted(app.limits().admit_user(&caller.uid, &scope.held)?);
    Ok(())
}

/// What somebody without a good token is told: `failure`, or 429 once his address has nothing left.
fn charge_stranger(
    app: &App,
    headers: &HeaderMap,
    extensions: &Extensions,
    stranger: Stranger,
    failure: Failure,
) -> Failure {
    match stranger {
        // A good user who is late, or may be one.
        Stranger::Failed(TokenError::Expired | TokenError::KeysUnavailable) => return failure,
        Stranger::Unchecked(refused) => return refused.into(),
        Stranger::Failed(TokenError::Missing | TokenError::TooLong | TokenError::Invalid(_)) => {}
    }
    let address = app.limits().address(extensions.get().copied(), headers);
    match app.limits().charge_address(address) {
        Ok(_) => failure,
        Err(refused) => refused.into(),
    }
}

/// The token of the only `Authorization` header, its scheme in any case.
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
