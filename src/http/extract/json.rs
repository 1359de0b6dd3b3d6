//! JSON for the field readers: objects with duplicates, raw values, why a text is refused.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::value::Value;
use crate::http::errors::Problem;
use crate::json::json_scan::JsonScanner;
use crate::json::ordered_members::OrderedMembers;

/// An object's members in order, with duplicates.
type Members<'a> = Vec<(Cow<'a, str>, Value<'a>)>;

/// Parses a whole object.
pub(super) fn members(json: &[u8]) -> Result<Members<'_>, Problem> {
    if let Some(members) = scan(json) {
        return Ok(members);
    }
    parse(json).map_err(|error| json_problem(json, &error, Problem::NotObject))
}

fn parse(json: &[u8]) -> serde_json::Result<Members<'_>> {
    let OrderedMembers(members) = serde_json::from_slice::<OrderedMembers<'_, &RawValue>>(json)?;
    let members = members.into_iter();
    Ok(members
        .map(|(name, raw)| (name, Value::Json(raw.get())))
        .collect())
}

fn scan(json: &[u8]) -> Option<Members<'_>> {
    let mut scanner = JsonScanner::of(json)?;
    let mut members = Vec::with_capacity(6);
    scanner.members(|scanner, name| {
        members.push((Cow::Borrowed(name), Value::Json(scanner.value()?)));
        Some(())
    })?;
    scanner.end()?;
    Some(members)
}

/// Why a JSON text is refused: it is invalid, not of the type `wanted`, or has an unpaired surrogate in a field name.
pub(super) fn json_problem(json: &[u8], error: &serde_json::Error, wanted: Problem) -> Problem {
    if error.is_data() {
        wanted
    } else if serde_json::from_slice::<&RawValue>(json).is_ok() {
        Problem::NotUnicode
    } else {
        Problem::NotJson
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::ordered_members::BorrowedStr;

    /// What the scanner accepts is read as serde reads it.
    fn assert_agrees(body: &[u8]) -> bool {
        let shown = String::from_utf8_lossy(body);
        let Some(scanned) = scan(body) else {
            return false;
        };
        let read = parse(body).unwrap_or_else(|error| panic!("serde refuses {shown}: {error}"));
        assert_eq!(scanned, read, "{shown}");
        for (_, value) in scanned {
            let Value::Json(raw) = value else {
                panic!("{value:?}")
            };
            let read = serde_json::from_str::<BorrowedStr<'_>>(raw).ok();
            assert_eq!(value.text().ok(), read.map(|text| text.0), "{shown}");
        }
        true
    }

    #[test]
    fn a_usual_body_is_scanned_and_read_as_serde_reads_it() {
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
        fn no_body_is_scanned_that_serde_would_refuse(
            body in r#"\{("[ab\\é]{0,2}":( ?|null|nul|0?[0-9]{1,3}|-1|1\.|"[a\\"\n]{0,3}"|\[[0-9",]{0,4}\]|\{("a":1,?)?\}),?){0,3}\}?"#
        ) {
            assert_agrees(body.as_bytes());
        }
    }
}
