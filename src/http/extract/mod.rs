//! Extractors that reject with [`Failure`]: JSON bodies and query strings are parsed into validated types, and all bad fields are reported
//! at once. Where the cost depends on the content, the user is charged here.

mod fields;
mod json;
mod value;

use std::borrow::Cow;
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use axum::body::Body;
use axum::extract::{FromRef, FromRequest, FromRequestParts, Request};
use bytes::{Bytes, BytesMut};
use http::Extensions;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap};
use http::request::Parts;
use http_body::Body as _;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use percent_encoding::percent_decode_str;

use crate::auth::Caller;
use crate::config::{Limits, Settings};
use crate::context::{current_deadline, current_reservation};
use crate::http::errors::{ApiError, Failure, Problem};
use crate::limits::{self, Allowance, Cost, Refused, UserPermit};

pub(crate) use fields::request;
use fields::whole_body;
pub use fields::{Field, FieldValue, Fields, FromFields, FromJson, list};
pub use value::{Avatar, Cursor, GroupName, GroupType, MAX_NUMBER, Number, Value};

/// What the outermost layer, authentication and the extractors record about one request.
pub struct RequestState {
    limits: Arc<limits::Limits>,
    /// The cost of the call to its user.
    cost: Cost,
    /// Set while the body is being read: a timeout is then the client's fault.
    pub reading_body: AtomicBool,
    /// The user's balance of tokens; [`UNCHARGED`] before a charge.
    balance: AtomicI64,
    /// Counts it among its user's requests.
    user: OnceLock<UserPermit>,
}

const UNCHARGED: i64 = i64::MIN;

impl RequestState {
    /// A request with this cost, charged to `limits`.
    pub fn new(limits: Arc<limits::Limits>, cost: Cost) -> Self {
        Self {
            limits,
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
    state.record_charge(state.limits.charge_user_remainder(&caller.uid, cost - 1))
}

/// Charges a caller for an answer, whose size is known only when it is there; this extractor never fails.
#[derive(Clone)]
pub struct Charge(Option<(Arc<RequestState>, Caller)>);

impl Charge {
    /// Takes so many tokens.
    ///
    /// # Errors
    /// Where the caller is in debt by then.
    pub fn take(&self, cost: usize) -> Result<(), Failure> {
        match (&self.0, u32::try_from(cost).unwrap_or(u32::MAX)) {
            (Some((state, caller)), cost @ 1..) => {
                state.record_charge(state.limits.charge_user_remainder(&caller.uid, cost))
            }
            _ => Ok(()),
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Charge {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let state = parts.extensions.get::<Arc<RequestState>>().cloned();
        Ok(Self(state.zip(parts.extensions.get::<Caller>().cloned())))
    }
}

/// The request's deadline; this extractor never fails.
#[derive(Debug, Clone, Copy)]
pub struct Deadline(pub Instant);

impl<S: Sync> FromRequestParts<S> for Deadline {
    type Rejection = Infallible;

    async fn from_request_parts(_: &mut Parts, _: &S) -> Result<Self, Infallible> {
        // Outside of a request, which has one, there is no time.
        Ok(Self(current_deadline().unwrap_or_else(Instant::now)))
    }
}

/// A checked JSON body. Rejects with 413, 415, 408 or 400.
#[derive(Debug)]
pub struct Json<T>(pub T);

impl<S: Send + Sync, T: FromJson> FromRequest<S> for Json<T>
where
    Arc<Settings>: FromRef<S>,
{
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        let (parts, body) = request.into_parts();
        let settings = Arc::<Settings>::from_ref(state);
        let request = read::<T>(&parts, body, &settings).await;
        charge(&parts.extensions, &request, |request| {
            request.cost(&settings.limits)
        })?;
        request.map(Self)
    }
}

async fn read<T: FromJson>(parts: &Parts, body: Body, settings: &Settings) -> Result<T, Failure> {
    let state = parts.extensions.get::<Arc<RequestState>>();
    let limit = settings.server.body_limit;
    let body = read_body(body, limit, state.map(AsRef::as_ref)).await?;
    let text = body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&body);
    if text.is_empty() {
        // An empty body counts as missing, regardless of its content type.
        return parse(None, &settings.limits);
    }
    if is_encoded(&parts.headers) {
        return Err(Failure::encoded_body());
    }
    let content_type = parts.headers.get(CONTENT_TYPE);
    if !content_type.is_some_and(|value| is_json(value.as_bytes())) {
        return Err(ApiError::UnsupportedMediaType.into());
    }
    parse(Some(text), &settings.limits)
}

/// Some programs write it before UTF-8 text.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

fn parse<T: FromJson>(body: Option<&[u8]>, limits: &Limits) -> Result<T, Failure> {
    T::from_json(body, limits).map_err(|problems| {
        let is_text = body.is_none_or(is_utf8);
        Failure::invalid(if is_text {
            problems
        } else {
            whole_body(Problem::NotUtf8)
        })
    })
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
    Failure::invalid(whole_body(Problem::NotJson)).because(format!("body not read: {error}"))
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

impl<S: Send + Sync, T: FromFields> FromRequestParts<S> for Query<T>
where
    Arc<Settings>: FromRef<S>,
{
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let settings = Arc::<Settings>::from_ref(state);
        let values = parameters(parts.uri.query().unwrap_or_default());
        let request = Fields::new(values, &settings.limits).read();
        let request = request.map_err(T::failure);
        charge(&parts.extensions, &request, |request: &T| {
            request.cost(&settings.limits)
        })?;
        request.map(Self)
    }
}

/// Splits and decodes a raw query string, in the way HTML forms are encoded.
fn parameters(query: &str) -> Vec<(Cow<'_, str>, Value<'_>)> {
    let decode = |text: &str| {
        let spaced = text.replace('+', " ");
        let decoded = percent_decode_str(&spaced).decode_utf8();
        decoded.ok().map(|text| Cow::Owned(text.into_owned()))
    };
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs
        .filter_map(|(name, value)| Some((decode(name)?, Value::Query(decode(value)))))
        .collect()
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

    #[test]
    fn a_query_is_decoded_strictly() {
        let values = parameters("a=%E7%BE%A4+x&b=%ff&c=1&c=2&d=&e&%ff=1");
        let text = |name, text: &str| (Cow::from(name), Value::Query(Some(text.to_owned().into())));
        let expected = [
            text("a", "群 x"),
            (Cow::from("b"), Value::Query(None)),
            text("c", "1"),
            text("c", "2"),
            text("d", ""),
            text("e", ""),
        ];
        assert_eq!(values, expected);
    }
}
