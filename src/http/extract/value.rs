//! The value of a field as it was sent, and the types that it is parsed into.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::fields::FieldValue;
use crate::auth::DeviceFlag;
use crate::config::Limits;
use crate::domain::caps::{AVATAR_CHARS, NAME_CHARS};
use crate::domain::{ChannelId, ChannelType, ClientMsgNo, IdProblem, Payload, Uid};
use crate::http::errors::Problem;
use crate::json::ordered_members::BorrowedStr;

/// The largest accepted number, the maximum of WuKongIM's signed 64-bit integers.
pub const MAX_NUMBER: u64 = i64::MAX as u64;

/// A field's value as it was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value<'a> {
    /// Valid JSON.
    Json(&'a str),
    /// A query parameter, percent-decoded; `None` where it is not UTF-8.
    Query(Option<Cow<'a, str>>),
}

impl<'a> Value<'a> {
    /// `null`, or an empty parameter.
    pub(super) fn is_absent(&self) -> bool {
        match self {
            Self::Json(raw) => *raw == "null",
            Self::Query(text) => text.as_deref() == Some(""),
        }
    }

    /// The text.
    pub fn text(&self) -> Result<Cow<'_, str>, Problem> {
        let raw = match self {
            Self::Json(raw) => *raw,
            Self::Query(text) => return text.as_deref().map(Cow::from).ok_or(Problem::NotUtf8),
        };
        let inner = raw.strip_prefix('"').and_then(|raw| raw.strip_suffix('"'));
        match inner {
            Some(inner) if !inner.contains('\\') => Ok(Cow::Borrowed(inner)),
            // It is valid JSON, so the only possible error is an unpaired surrogate.
            Some(_) => serde_json::from_str(raw)
                .map(|BorrowedStr(text)| text)
                .map_err(|_| Problem::NotUnicode),
            None => Err(Problem::NotText),
        }
    }

    /// A whole number from `min` to `max`, in decimal digits: in JSON no string, no fraction, no exponent.
    pub fn number(&self, min: u64, max: u64) -> Result<u64, Problem> {
        let text = match self {
            Self::Json(raw) => raw,
            Self::Query(text) => text.as_deref().ok_or(Problem::NotUtf8)?,
        };
        let digits = text.strip_prefix('-').unwrap_or(text);
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(Problem::NotNumber);
        }
        // Only digits: a number that does not fit exceeds every maximum.
        let number = digits.parse().unwrap_or(u64::MAX);
        let has_sign = digits.len() < text.len();
        // JSON has a -0, a query has none.
        if has_sign && number == 0 && matches!(self, Self::Query(_)) {
            return Err(Problem::NotNumber);
        }
        let is_negative = has_sign && number > 0;
        if (min..=max).contains(&number) && !is_negative {
            Ok(number)
        } else if (number < min || is_negative) && max >= MAX_NUMBER {
            Err(Problem::TooSmall { min })
        } else {
            Err(Problem::OutOfRange { min, max })
        }
    }

    /// The entries of a JSON array.
    pub(super) fn entries(&self) -> Result<Vec<&'a RawValue>, Problem> {
        let entries = match self {
            Self::Json(raw) => serde_json::from_str(raw).ok(),
            Self::Query(_) => None,
        };
        entries.ok_or(Problem::NotArray)
    }
}

/// A whole number from `MIN` to `MAX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Number<const MIN: u64, const MAX: u64>(pub u64);

/// The channel type of a group: 2.
#[derive(Debug, Clone, Copy)]
pub struct GroupType;

/// The opaque cursor of a page, as text: at most [`Cursor::MAX_CHARS`] characters of URL-safe base64.
#[derive(Debug)]
pub struct Cursor(pub String);

impl Cursor {
    /// Fits a position with the longest id.
    pub const MAX_CHARS: usize = 512;
}

/// A group's name: at most [`NAME_CHARS`] characters, none of them a control character.
#[derive(Debug)]
pub struct GroupName(pub String);

/// The http(s) URL of a group's avatar, of at most [`AVATAR_CHARS`] characters.
#[derive(Debug)]
pub struct Avatar(pub String);

macro_rules! parsed {
    ($($Value:ty: |$value:ident, $limits:pat_param| $parsed:expr;)*) => {$(
        impl FieldValue for $Value {
            fn parse($value: &Value<'_>, $limits: &Limits) -> Result<Self, Problem> {
                $parsed
            }
        }
    )*};
}

parsed! {
    Uid: |value, limits| Self::parse(&value.text()?, limits.id_bytes).map_err(Problem::Id);
    ChannelId: |value, limits| Self::parse(&value.text()?, limits.id_bytes).map_err(Problem::Id);
    ClientMsgNo: |value, limits| Self::parse(&value.text()?, limits.client_msg_no_bytes).map_err(Problem::Id);
    Payload: |value, limits| Self::parse(&value.text()?, limits.payload).map_err(Problem::Payload);
    ChannelType: |value, _| channel_type(value)?.ok_or(Problem::ChannelType { person: true });
    GroupType: |value, _| match channel_type(value)? {
        Some(ChannelType::Group) => Ok(Self),
        _ => Err(Problem::ChannelType { person: false }),
    };
    DeviceFlag: |value, _| {
        let number = u8::try_from(value.number(0, MAX_NUMBER)?).ok();
        number.and_then(Self::from_number).ok_or(Problem::DeviceFlag)
    };
    bool: |value, _| match value {
        Value::Json("true") => Ok(true),
        Value::Json("false") => Ok(false),
        Value::Query(Some(text)) => text.parse().map_err(|_| Problem::NotBoolean),
        Value::Json(_) | Value::Query(None) => Err(Problem::NotBoolean),
    };
    Cursor: |value, _| {
        let text = value.text()?;
        let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        let is_one = !text.is_empty() && text.len() <= Self::MAX_CHARS && text.bytes().all(is_base64);
        is_one.then(|| Self(text.into_owned())).ok_or(Problem::NotCursor)
    };
    GroupName: |value, _| Ok(Self(short_text(value, NAME_CHARS)?));
    Avatar: |value, _| {
        let text = short_text(value, AVATAR_CHARS)?;
        // `url` accepts what browsers correct: `http:host`, white space in front.
        let scheme = text.split_once("://").map_or("", |(scheme, _)| scheme);
        let is_http = ["http", "https"].iter().any(|http| http.eq_ignore_ascii_case(scheme));
        let has_host = url::Url::parse(&text).is_ok_and(|url| url.has_host());
        if is_http && has_host { Ok(Self(text)) } else { Err(Problem::NotUrl) }
    };
}

impl<const MIN: u64, const MAX: u64> FieldValue for Number<MIN, MAX> {
    fn parse(value: &Value<'_>, _: &Limits) -> Result<Self, Problem> {
        value.number(MIN, MAX).map(Self)
    }
}

fn channel_type(value: &Value<'_>) -> Result<Option<ChannelType>, Problem> {
    Ok(ChannelType::from_number(value.number(0, MAX_NUMBER)?))
}

/// A text of at most `max_chars` characters and without control characters.
fn short_text(value: &Value<'_>, max_chars: usize) -> Result<String, Problem> {
    let text = value.text()?;
    if text.chars().count() > max_chars {
        return Err(Problem::TooLong { max_chars });
    }
    if text.chars().any(char::is_control) {
        return Err(Problem::Id(IdProblem::Character));
    }
    Ok(text.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_decimal_integers() {
        let number = |raw| Value::Json(raw).number(0, MAX_NUMBER);
        assert_eq!(number("12"), Ok(12));
        assert_eq!(number("-0"), Ok(0));
        for raw in ["1.0", "1e0", "\"1\"", "true", "[]", "{}", "-", ""] {
            assert_eq!(number(raw), Err(Problem::NotNumber), "{raw}");
        }
        let (min, max) = (0, MAX_NUMBER);
        for raw in ["9223372036854775808", "99999999999999999999"] {
            assert_eq!(number(raw), Err(Problem::OutOfRange { min, max }), "{raw}");
        }
        assert_eq!(number("-1"), Err(Problem::TooSmall { min }));
        let parameter = Value::Query(Some("-0".into()));
        assert_eq!(parameter.number(0, MAX_NUMBER), Err(Problem::NotNumber));
        let parameter = Value::Query(Some("-1".into()));
        let problem = Problem::OutOfRange { min: 1, max: 5 };
        assert_eq!(parameter.number(1, 5), Err(problem));
        let problem = Problem::TooSmall { min: 1 };
        assert_eq!(parameter.number(1, MAX_NUMBER), Err(problem));
    }
}
