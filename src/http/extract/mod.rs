//! Extractors that reject with [`Failure`]: JSON bodies and query strings are parsed into validated types, and all bad fields are reported
//! at once. Where the cost depends on the content, the user is charged here.

mod fields;
mod json;
mod problems;
mod query;

use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Request};
use bytes::{Bytes, BytesMut};
use http::Extensions;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap};
use http::request::Parts;
use http_body::Body as _;
use http_body_util::{BodyExt, LengthLimitError, Limited};

use crate::auth::Caller;
use crate::config::Limits;
use crate::context::{current_deadline, current_reservation};
use crate::http::errors::{ApiError, Failure, FieldProblem, Problem};
use crate::limits::{Allowance, Cost, Refused, UserPermit};
use crate::state::App;

pub use fields::BodyFields;
pub use json::{MAX_NUMBER, entries};
pub use problems::FieldProblems;
pub use query::QueryFields;

/// What the outermost layer, authentication and the extractors record about one request.
#[derive(Debug)]
pub struct RequestState {
    /// The cost of the call to its user.
    pub cost: Cost,
    /// Set while the body is being read: a timeout is then the client's fault.
    pub reading_body: AtomicBool,
    /// The user's balance of tokens; [`UNCHARGED`] before a charge.
    balance: AtomicI64,
    /// Counts it among its user's requests.
    user: OnceLock<UserPermit>,
}

const UNCHARGED: i64 = i64::MIN;

impl RequestState {
    /// A request with this cost.
    pub fn new(cost: Cost) -> Self {
        Self {
            cost,
            reading_body: AtomicBool::new(false),
            balance: AtomicI64::new(UNCHARGED),
            user: OnceLock::new(),
        }
    }

    /// Records the result of charging the user, for the headers of the answer.
    pub fn record_charge(&self, outcome: Result<Allowance, Refused>) -> Result<(), Failure> {
        let (Ok(Allowance { balance }) | Err(Refused { balance, .. })) = outcome;
        self.balance.store(balance, Ordering::Relaxed);
        outcome.map(|_| ()).map_err(Failure::from)
    }

    /// Counts among its user's requests until it has ended.
    pub fn admitted(&self, permit: UserPermit) {
        let _ = self.user.set(permit);
    }

    /// The user's balance of tokens, if one was charged.
    pub fn balance(&self) -> Option<i64> {
        let balance = self.balance.load(Ordering::Relaxed);
        (balance != UNCHARGED).then_some(balance)
    }
}

/// Charges the caller the cost of the parsed request beyond the first token; nothing for an invalid request.
fn charge<T>(
    app: &App,
    extensions: &Extensions,
    request: &Result<T, Failure>,
    cost: impl Fn(&T) -> usize,
) -> Result<(), Failure> {
    let (Some(state), Ok(request)) = (extensions.get::<Arc<RequestState>>(), request) else {
        return Ok(());
    };
    let cost = match state.cost {
        Cost::Fixed(cost) => cost,
        Cost::ByContent => u32::try_from(cost(request)).unwrap_or(u32::MAX),
    };
    let (2.., Some(caller)) = (cost, extensions.get::<Caller>()) else {
        return Ok(());
    };
    state.record_charge(app.limits().charge_user_remainder(&caller.uid, cost - 1))
}

/// The request's deadline; this extractor never fails.
#[derive(Debug, Clone, Copy)]
pub struct Deadline(pub Instant);

impl FromRequestParts<App> for Deadline {
    type Rejection = Infallible;

    async fn from_request_parts(_: &mut Parts, app: &App) -> Result<Self, Infallible> {
        let without = || Instant::now() + app.settings().server.request_timeout;
        Ok(Self(current_deadline().unwrap_or_else(without)))
    }
}

/// A request body that can be parsed from JSON, reporting every problem.
pub trait FromJson: Sized {
    /// Reads the body; `None` when problems were reported. `body` is `None` where the client sent none.
    fn from_json(
        body: Option<&[u8]>,
        limits: &Limits,
        problems: &mut FieldProblems,
    ) -> Option<Self>;

    /// Its cost to the caller on a route with [`Cost::ByContent`].
    fn cost(&self) -> usize {
        1
    }
}

/// A type that can be parsed from a query string, reporting every problem.
pub trait FromQuery: Sized {
    /// Reads the query; `None` when problems were reported.
    fn from_query(
        query: &mut QueryFields,
        limits: &Limits,
        problems: &mut FieldProblems,
    ) -> Option<Self>;

    /// Its cost to the caller on a route with [`Cost::ByContent`].
    fn cost(&self) -> usize {
        1
    }

    /// The failure for bad fields.
    fn failure(problems: FieldProblems) -> Failure {
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
    let state = parts.extensions.get::<Arc<RequestState>>();
    let limit = app.settings().server.body_limit;
    let body = read_body(body, limit, state.map(AsRef::as_ref)).await?;
    let text = body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&body);
    if text.is_empty() {
        // An empty body counts as missing, regardless of its content type.
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

/// Some programs write it before UTF-8 text.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

fn parse<T: FromJson>(body: Option<&[u8]>, app: &App) -> Result<T, Failure> {
    let mut problems = FieldProblems::default();
    match T::from_json(body, &app.settings().limits, &mut problems) {
        Some(value) if problems.is_empty() => Ok(value),
        _ => {
            if body.is_some_and(|body| !is_utf8(body)) {
                problems = FieldProblems::default();
                problems.add("body", Problem::NotUtf8);
            }
            if problems.is_empty() {
                problems.add("body", Problem::NotJson);
            }
            Err(Failure::invalid(problems.into_details()))
        }
    }
}

/// Whether the body is UTF-8. JSON contains no NUL, so a NUL indicates UTF-16 or UTF-32.
fn is_utf8(body: &[u8]) -> bool {
    std::str::from_utf8(body).is_ok() && !body.contains(&0)
}

async fn read_body(
    body: Body,
    limit: usize,
    state: Option<&RequestState>,
) -> Result<Bytes, Failure> {
    // Refused before the body is read, so that a client with `Expect` does not send it.
    if body.size_hint().lower() > limit as u64 {
        return Err(ApiError::PayloadTooLarge.into());
    }
    if let Some(state) = state {
        state.reading_body.store(true, Ordering::Relaxed);
    }
    let result = collect(Limited::new(body, limit)).await;
    if let Some(state) = state {
        state.reading_body.store(false, Ordering::Relaxed);
    }
    result
}

/// The whole body; its bytes are reserved as they arrive. Most arrive as one chunk, which is returned without a copy.
async fn collect(mut body: Limited<Body>) -> Result<Bytes, Failure> {
    let reservation = current_reservation();
    let mut first = Bytes::new();
    let mut joined = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|error| body_error(&*error))?.into_data() else {
            continue;
        };
        if let Some(reservation) = &reservation {
            reservation.try_reserve(data.len())?;
        }
        if first.is_empty() && joined.is_empty() {
            first = data;
            continue;
        }
        if joined.is_empty() {
            joined.extend_from_slice(&first);
            first.clear();
        }
        joined.extend_from_slice(&data);
    }
    Ok(if joined.is_empty() {
        first
    } else {
        joined.freeze()
    })
}

fn body_error(error: &(dyn std::error::Error + Send + Sync + 'static)) -> Failure {
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

/// Whether the body has a content encoding other than `identity`.
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
        let mut problems = FieldProblems::default();
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
