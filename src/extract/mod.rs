//! Extractors that reject with [`Failure`]: a JSON body and a query string, each read into a type that has checked itself, with
//! all bad fields told at once. Where a call costs what is in it, its user is charged here.

mod fields;
mod json;
mod problems;
mod query;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Request};
use bytes::{Bytes, BytesMut};
use http::Extensions;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::time::Instant;

use crate::app::App;
use crate::auth::Caller;
use crate::config::Limits;
use crate::error::{ApiError, Failure, FieldProblem, Problem};
use crate::limits::{Allowance, Cost, Refused};
use crate::memory::Share;

pub use fields::Fields;
pub use json::{MAX_NUMBER, entries};
pub use problems::Problems;
pub use query::QueryFields;

/// What the outermost layer, authentication and the extractors know about one request together.
#[derive(Debug)]
pub struct Scope {
    /// When the request must have ended.
    pub deadline: Instant,
    /// What the call costs its user.
    pub cost: Cost,
    /// Set while the client's body is still being waited for: then a timeout is the client's.
    pub reading_body: AtomicBool,
    /// What the request holds of the memory for bodies.
    pub held: Arc<Share>,
    /// What the user has left; [`NOBODY`] until there is one.
    remaining: AtomicU32,
}

const NOBODY: u32 = u32::MAX;

impl Scope {
    /// A request that must have ended by `deadline`.
    pub fn new(deadline: Instant, cost: Cost, held: Share) -> Self {
        Self {
            deadline,
            cost,
            held: Arc::new(held),
            reading_body: AtomicBool::new(false),
            remaining: AtomicU32::new(NOBODY),
        }
    }

    /// Notes what charging the user came to, for the headers of the answer.
    pub fn charged(&self, outcome: Result<Allowance, Refused>) -> Result<(), Failure> {
        let (Ok(Allowance { remaining }) | Err(Refused { remaining, .. })) = outcome;
        self.remaining.store(remaining, Ordering::Relaxed);
        outcome.map(|_| ()).map_err(Failure::from)
    }

    /// What the user has left, where one was charged.
    pub fn remaining(&self) -> Option<u32> {
        let remaining = self.remaining.load(Ordering::Relaxed);
        (remaining != NOBODY).then_some(remaining)
    }
}

/// Charges the caller for what his request turned out to be, where that decides the cost; 1 for what is no request at all.
fn charge<T>(
    app: &App,
    extensions: &Extensions,
    request: &Result<T, Failure>,
    cost: impl Fn(&T) -> usize,
) -> Result<(), Failure> {
    let (Some(scope), Some(caller)) = (extensions.get::<Arc<Scope>>(), extensions.get::<Caller>())
    else {
        return Ok(());
    };
    if scope.cost != Cost::ByContent {
        return Ok(());
    }
    let cost = request.as_ref().map_or(1, cost);
    let cost = u32::try_from(cost).unwrap_or(u32::MAX);
    scope.charged(app.limits().charge_user(&caller.uid, cost))
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

    /// What it costs the caller on a route of [`Cost::ByContent`].
    fn cost(&self) -> usize {
        1
    }
}

/// A query string that reads itself, reporting every problem.
pub trait FromQuery: Sized {
    /// Reads the query; `None` when problems were reported.
    fn from_query(
        query: &mut QueryFields,
        limits: &Limits,
        problems: &mut Problems,
    ) -> Option<Self>;

    /// What it costs the caller on a route of [`Cost::ByContent`].
    fn cost(&self) -> usize {
        1
    }

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
        let (parts, body) = request.into_parts();
        let request = read(&parts, body, app).await;
        charge(app, &parts.extensions, &request, T::cost)?;
        request.map(Self)
    }
}

async fn read<T: FromJson>(parts: &Parts, body: Body, app: &App) -> Result<T, Failure> {
    let scope = parts.extensions.get::<Arc<Scope>>();
    let limit = app.settings().server.body_limit;
    let body = read_body(body, limit, scope.map(AsRef::as_ref)).await?;
    if body.is_empty() {
        // An empty body is no body, whatever its content type.
        return parse(None, app);
    }
    let content_type = parts.headers.get(CONTENT_TYPE);
    if !content_type.is_some_and(|value| is_json(value.as_bytes())) {
        return Err(ApiError::UnsupportedMediaType.into());
    }
    parse(Some(&body), app)
}

fn parse<T: FromJson>(body: Option<&[u8]>, app: &App) -> Result<T, Failure> {
    let mut problems = Problems::default();
    match T::from_json(body, &app.settings().limits, &mut problems) {
        Some(value) if problems.is_empty() => Ok(value),
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
    let result = collect(Limited::new(body, limit), scope).await;
    if let Some(scope) = scope {
        scope.reading_body.store(false, Ordering::Relaxed);
    }
    result
}

/// The whole body, counted as it comes. Most come in one piece, which is passed on without a copy.
async fn collect(mut body: Limited<Body>, scope: Option<&Scope>) -> Result<Bytes, Failure> {
    let mut first = Bytes::new();
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|error| unread(&*error))?.into_data() else {
            continue;
        };
        if let Some(scope) = scope {
            let counted = scope.held.grow(data.len());
            counted
                .map_err(|full| Failure::from(ApiError::Overloaded).because(full.to_string()))?;
        }
        if first.is_empty() && whole.is_empty() {
            first = data;
            continue;
        }
        if whole.is_empty() {
            whole.extend_from_slice(&first);
            first.clear();
        }
        whole.extend_from_slice(&data);
    }
    Ok(if whole.is_empty() {
        first
    } else {
        whole.freeze()
    })
}

fn unread(error: &(dyn std::error::Error + Send + Sync + 'static)) -> Failure {
    if error.is::<LengthLimitError>() {
        return ApiError::PayloadTooLarge.into();
    }
    let problem = FieldProblem {
        field: "body".into(),
        problem: Problem::NotJson,
    };
    Failure::invalid(vec![problem]).because(format!("body not read: {error}"))
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
        let request = match T::from_query(&mut query, &app.settings().limits, &mut problems) {
            Some(value) if problems.is_empty() => Ok(value),
            _ => Err(T::failure(problems)),
        };
        charge(app, &parts.extensions, &request, T::cost)?;
        request.map(Self)
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
