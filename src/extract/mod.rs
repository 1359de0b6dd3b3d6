//! Extractors that reject with [`Failure`]: a JSON body and a query string, each read into a type that has checked itself, with
//! all bad fields told at once. Where a call costs what is in it, its user is charged here.

mod fields;
mod json;
mod problems;
mod query;

use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Request};
use bytes::{Bytes, BytesMut};
use http::Extensions;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap};
use http::request::Parts;
use http_body::Body as _;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::time::Instant;

use crate::app::App;
use crate::auth::Caller;
use crate::config::Limits;
use crate::error::{ApiError, Failure, FieldProblem, Problem};
use crate::limits::{Allowance, Cost, Refused, UserPermit};
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
    /// What the user has left, or owes; [`UNCHARGED`] until there is one.
    balance: AtomicI64,
    /// That it is one of its user's requests.
    user: OnceLock<UserPermit>,
}

const UNCHARGED: i64 = i64::MIN;

impl Scope {
    /// A request that must have ended by `deadline`.
    pub fn new(deadline: Instant, cost: Cost, held: Share) -> Self {
        Self {
            deadline,
            cost,
            held: Arc::new(held),
            reading_body: AtomicBool::new(false),
            balance: AtomicI64::new(UNCHARGED),
            user: OnceLock::new(),
        }
    }

    /// Notes what charging the user came to, for the headers of the answer.
    pub fn charged(&self, outcome: Result<Allowance, Refused>) -> Result<(), Failure> {
        let (Ok(Allowance { balance }) | Err(Refused { balance, .. })) = outcome;
        self.balance.store(balance, Ordering::Relaxed);
        outcome.map(|_| ()).map_err(Failure::from)
    }

    /// Counts as one of its user's requests until it has ended.
    pub fn admitted(&self, permit: UserPermit) {
        let _ = self.user.set(permit);
    }

    /// What the user has left, or owes, where one was charged.
    pub fn balance(&self) -> Option<i64> {
        let balance = self.balance.load(Ordering::Relaxed);
        (balance != UNCHARGED).then_some(balance)
    }
}

/// Charges the caller for what his request turned out to cost beyond the token that was taken before it was read; nothing for what is
/// no request at all.
fn charge<T>(
    app: &App,
    extensions: &Extensions,
    request: &Result<T, Failure>,
    cost: impl Fn(&T) -> usize,
) -> Result<(), Failure> {
    let (Some(scope), Ok(request)) = (extensions.get::<Arc<Scope>>(), request) else {
        return Ok(());
    };
    let cost = match scope.cost {
        Cost::Fixed(cost) => cost,
        Cost::ByContent => u32::try_from(cost(request)).unwrap_or(u32::MAX),
    };
    let (2.., Some(caller)) = (cost, extensions.get::<Caller>()) else {
        return Ok(());
    };
    scope.charged(app.limits().charge_user_rest(&caller.uid, cost - 1))
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
    let text = body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&body);
    if text.is_empty() {
        // An empty body is no body, whatever its content type.
        return parse(None, app);
    }
    if is_encoded(&parts.headers) {
        return Err(Failure::encoded_body());
    }
    let content_type = parts.headers.get(CONTENT_TYPE);
    if !content_type.is_some_and(|value| is_json(value.as_bytes())) {
        return Err(ApiError::UnsupportedMediaType.into());
    }
    parse(Some(text), app)
}

/// What some programs write in front of UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

fn parse<T: FromJson>(body: Option<&[u8]>, app: &App) -> Result<T, Failure> {
    let mut problems = Problems::default();
    match T::from_json(body, &app.settings().limits, &mut problems) {
        Some(value) if problems.is_empty() => Ok(value),
        _ => {
            if body.is_some_and(|body| !is_utf8(body)) {
                problems = Problems::default();
                problems.add("body", Problem::NotUtf8);
            }
            if problems.is_empty() {
                problems.add("body", Problem::NotJson);
            }
            Err(Failure::invalid(problems.into_details()))
        }
    }
}

/// Whether it is UTF-8. JSON has no NUL, so where one is it is UTF-16 or UTF-32.
fn is_utf8(body: &[u8]) -> bool {
    std::str::from_utf8(body).is_ok() && !body.contains(&0)
}

async fn read_body(body: Body, limit: usize, scope: Option<&Scope>) -> Result<Bytes, Failure> {
    // Told before it is sent, where the client asks first (`Expect`) or can stop.
    if body.size_hint().lower() > limit as u64 {
        return Err(ApiError::PayloadTooLarge.into());
    }
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
            scope.held.grow(data.len())?;
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

/// Whether a body is compressed or the like: any content encoding but `identity`.
fn is_encoded(headers: &HeaderMap) -> bool {
    let mut encodings = headers
        .get_all(CONTENT_ENCODING)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii);
    encodings.any(|encoding| !encoding.is_empty() && !encoding.eq_ignore_ascii_case(b"identity"))
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
