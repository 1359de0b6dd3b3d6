//! The one check in front of every protected route.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::HeaderMap;
use http::header::AUTHORIZATION;

use super::{Begun, Caller, TokenError, Verifier};
use crate::app::App;
use crate::error::{ApiError, Failure};

/// Verifies the bearer token and leaves the [`Caller`] in the request's extensions; refuses everybody else.
pub async fn authenticate(State(app): State<App>, mut request: Request, next: Next) -> Response {
    match caller(app.verifier(), request.headers()).await {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(error) => Failure::from(error).into_response(),
    }
}

/// Between the two steps everything is known that a limit on costly checks would ask for.
async fn caller(verifier: &Verifier, headers: &HeaderMap) -> Result<Caller, TokenError> {
    match verifier.begin(bearer(headers)?)? {
        Begun::Known(caller) => Ok(caller),
        Begun::Unverified(token) => verifier.finish(token).await,
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
