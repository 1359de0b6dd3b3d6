//! JSON for the field readers: objects with duplicates, arrays entry by entry, strict integers.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::problems::FieldProblems;
use crate::http::errors::Problem;
use crate::json::json_scan::JsonScanner;
use crate::json::ordered_members::{BorrowedStr, OrderedMembers};

/// An object's members in order, with duplicates: names, and values as raw JSON.
pub(super) struct Members<'a>(pub(super) Vec<(Cow<'a, str>, &'a str)>);

impl<'a> Members<'a> {
    /// Parses a whole body.
    pub(super) fn of(body: &'a [u8]) -> serde_json::Result<Self> {
        Self::scan(body).map_or_else(|| Self::parse(body), Ok)
    }

    fn parse(body: &'a [u8]) -> serde_json::Result<Self> {
        let OrderedMembers(members) =
            serde_json::from_slice::<OrderedMembers<'_, &RawValue>>(body)?;
        let raw = |(name, value): (_, &'a RawValue)| (name, value.get());
        Ok(Self(members.into_iter().map(raw).collect()))
    }

    fn scan(body: &'a [u8]) -> Option<Self> {
        let mut scanner = JsonScanner::of(body)?;
        let mut members = Vec::with_capacity(6);
        scanner.members(|scanner, name| {
            members.push((Cow::Borrowed(name), scanner.value()?));
            Some(())
        })?;
        scanner.end()?;
        Some(Self(members))
    }
}

/// The string in a raw JSON value; `None` for other values.
pub(super) fn text(raw: &str) -> Result<Cow<'_, str>, Problem> {
    let inner = raw.strip_prefix('"').and_then(|raw| raw.strip_suffix('"'));
    match inner {
        Some(inner) if !inner.contains('\\') => Ok(Cow::Borrowed(inner)),
        // Read as a value before, so all that can be wrong with it are escapes of half a character.
        Some(_) => serde_json::from_str::<BorrowedStr<'_>>(raw)
            .map(|BorrowedStr(text)| text)
            .map_err(|_| Problem::NotUnicode),
        None => Err(Problem::NotText),
    }
}

/// Why a JSON text is refused: it is invalid, not of the type `wanted`, or has an unpaired surrogate in a field name.
pub(super) fn problem(json: &[u8], error: &serde_json::Error, wanted: Problem) -> Problem {
    if error.is_data() {
        wanted
    } else if serde_json::from_slice::<&RawValue>(json).is_ok() {
        Problem::NotUnicode
    } else {
        Problem::NotJson
    }
}

/// The entries of a JSON array, as raw JSON.
pub fn entries<'a>(body: Option<&'a [u8]>, problems: &mut FieldProblems) -> Option<Vec<&'a str>> {
    let Some(body) = body else {
        problems.add("body", Problem::Required);
        return None;
    };
    match serde_json::from_slice::<Vec<&RawValue>>(body) {
        Ok(entries) => Some(entries.into_iter().map(RawValue::get).collect()),
        Err(error) => {
            problems.add("body", problem(body, &error, Problem::NotArray));
            None
        }
    }
}

/// A non-negative JSON integer: no string, no fraction, no exponent.
pub(super) fn whole_number(raw: &str) -> Result<u64, Problem> {
    let out_of_range = Problem::OutOfRange {
        min: 0,
        max: MAX_NUMBER,
    };
    match raw.strip_prefix('-').unwrap_or(raw) {
        digits if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            Err(Problem::NotNumber)
        }
        _ if raw == "-0" => Ok(0),
        _ => raw
            .parse()
            .ok()
            .filter(|number| *number <= MAX_NUMBER)
            .ok_or(out_of_range),
    }
}

/// The largest accepted number, the maximum of WuKongIM's signed 64-bit integers.
pub const MAX_NUMBER: u64 = i64::MAX as u64;

#[cfg(test)]
mod tests {
    use super::*;

    /// What is plain is read as serde reads it.
    fn assert_agrees(body: &[u8]) -> bool {
        let shown = String::from_utf8_lossy(body);
        let Some(plain) = Members::scan(body) else {
            return false;
        };
        let read =
            Members::parse(body).unwrap_or_else(|error| panic!("serde refuses {shown}: {error}"));
        assert_eq!(plain.0, read.0, "{shown}");
        for (_, raw) in plain.0 {
            let read = serde_json::from_str::<BorrowedStr<'_>>(raw).ok();
            assert_eq!(text(raw).ok(), read.map(|text| text.0), "{shown}");
        }
        true
    }

    #[test]
    fn a_usual_body_is_plain_and_read_as_serde_reads_it() {
        let body = r#" {"channelId":"群","channelType":2 , "payload":"eA==","clientMsgNo":"n-1","a":null,"a":[{"b":true}]} "#;
        assert!(assert_agrees(body.as_bytes()));
        assert!(assert_agrees(b"{}"));
        for left in [
            r#"{"a":1.0}"#,
            r#"{"a":-1}"#,
            r#"{"a":"\n"}"#,
            r#"{"\u0061":1}"#,
            "[]",
            "",
        ] {
            assert!(!assert_agrees(left.as_bytes()), "{left}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_body_is_plain_that_serde_would_refuse(
            body in r#"\{("[ab\\é]{0,2}":( ?|null|nul|0?[0-9]{1,3}|-1|1\.|"[a\\"\n]{0,3}"|\[[0-9",]{0,4}\]|\{("a":1,?)?\}),?){0,3}\}?"#
        ) {
            assert_agrees(body.as_bytes());
        }
    }

    #[test]
    fn numbers_are_plain_integers() {
        assert_eq!(whole_number("12"), Ok(12));
        assert_eq!(whole_number("-0"), Ok(0));
        for raw in ["1.0", "1e0", "\"1\"", "true", "[]", "{}", "-", ""] {
            assert_eq!(whole_number(raw), Err(Problem::NotNumber), "{raw}");
        }
        for raw in ["-1", "9223372036854775808", "99999999999999999999"] {
            assert_eq!(
                whole_number(raw),
                Err(Problem::OutOfRange {
                    min: 0,
                    max: MAX_NUMBER
                }),
                "{raw}"
            );
        }
    }
}
