//! Extractors that reject with [`Failure`]: a JSON body and a query string, each read into a type that has checked itself, with
//! all bad fields told at once.

mod fields;
mod json;
mod problems;
mod query;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Request};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::time::Instant;

use crate::app::App;
use crate::config::Limits;
use crate::error::{ApiError, Failure, Problem};

pub use fields::Fields;
pub use json::{MAX_NUMBER, entries};
pub use problems::Problems;
pub use query::QueryFields;

/// What the outermost layer and the extractors know about one request together.
#[derive(Debug)]
pub struct Scope {
    /// When the request must have ended.
    pub deadline: Instant,
    /// Set while the client's body is still being waited for: then a timeout is the client's.
    pub reading_body: AtomicBool,
}

/// When the request must have ended; never refused.
#[derive(Debug, Clone, Copy)]
pub struct Deadline(pub std::time::Instant);

impl FromRequestParts<App> for Deadline {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Infallible> {
        let scope = parts.extensions.get::<Arc<Scope>>();
        Ok(Self(scope.map_or_else(
            || std::time::Instant::now() + app.settings().server.request_timeout,
            |scope| scope.deadline.into_std(),
        )))
    }
}

/// A request body that reads itself from JSON, reporting every problem.
pub trait FromJson: Sized {
    /// Reads the body; `None` when problems were reported. `body` is `None` where the client sent none.
    fn from_json(body: Option<&[u8]>, limits: &Limits, problems: &mut Problems) -> Option<Self>;
}

/// A query string that reads itself, reporting every problem.
pub trait FromQuery: Sized {
    /// Reads the query; `None` when problems were reported.
    fn from_query(
        query: &mut QueryFields,
        limits: &Limits,
        problems: &mut Problems,
    ) -> Option<Self>;

    /// The answer to bad fields, where it is another than [`Failure::invalid`].
    fn failure(problems: Problems) -> Failure {
        Failure::invalid(problems.into_details())
    }
}

/// A checked JSON body. Rejects with 413, 415, 408 or 400.
#[derive(Debug)]
pub struct Json<T>(pub T);

impl<T: FromJson> FromRequest<App> for Json<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, app: &App) -> Result<Self, Failure> {
        let is_json = request
            .headers()
            .get(CONTENT_TYPE)
            .is_some_and(|value| is_json(value.as_bytes()));
        let scope = request.extensions().get::<Arc<Scope>>().cloned();
        let body = read_body(
            request.into_body(),
            app.settings().server.body_limit,
            scope.as_deref(),
        )
        .await?;
        if body.is_empty() {
            // An empty body is no body, whatever its content type.
            return parse(None, app);
        }
        if !is_json {
            return Err(ApiError::UnsupportedMediaType.into());
        }
        parse(Some(&body), app)
    }
}

fn parse<T: FromJson>(body: Option<&[u8]>, app: &App) -> Result<Json<T>, Failure> {
    let mut problems = Problems::default();
    match T::from_json(body, &app.settings().limits, &mut problems) {
        Some(value) if problems.is_empty() => Ok(Json(value)),
        _ => {
            if problems.is_empty() {
                problems.add("body", Problem::NotJson);
            }
            Err(Failure::invalid(problems.into_details()))
        }
    }
}

async fn read_body(body: Body, limit: usize, scope: Option<&Scope>) -> Result<Bytes, Failure> {
    if let Some(scope) = scope {
        scope.reading_body.store(true, Ordering::Relaxed);
    }
    let result = Limited::new(body, limit).collect().await;
    if let Some(scope) = scope {
        scope.reading_body.store(false, Ordering::Relaxed);
    }
    match result {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(ApiError::PayloadTooLarge.into()),
        Err(error) => Err(Failure::invalid(vec![crate::error::FieldProblem {
            field: "body".into(),
            problem: Problem::NotJson,
        }])
        .because(format!("body not read: {error}"))),
    }
}

/// `application/json` with any parameters, in any case.
fn is_json(value: &[u8]) -> bool {
    let essence = value.split(|byte| *byte == b';').next().unwrap_or_default();
    essence
        .trim_ascii()
        .eq_ignore_ascii_case(b"application/json")
}

/// A checked query string. Rejects with 400.
#[derive(Debug)]
pub struct Query<T>(pub T);

impl<T: FromQuery> FromRequestParts<App> for Query<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Failure> {
        let mut problems = Problems::default();
        let mut query = QueryFields::parse(parts.uri.query().unwrap_or_default());
        match T::from_query(&mut query, &app.settings().limits, &mut problems) {
            Some(value) if problems.is_empty() => Ok(Self(value)),
            _ => Err(T::failure(problems)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_spelling_of_the_json_content_type_is_taken() {
        for good in [
            "application/json",
            "Application/JSON ; charset=\"utf-8\"",
            "application/json;charset=UTF8",
        ] {
            assert!(is_json(good.as_bytes()), "{good}");
        }
        for bad in [
            "",
            "text/plain",
            "application/jsonp",
            "application/x-www-form-urlencoded",
            "text/json",
        ] {
            assert!(!is_json(bad.as_bytes()), "{bad}");
        }
    }
}
