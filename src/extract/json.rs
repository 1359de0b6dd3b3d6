//! JSON as the fields need it: objects with their duplicates, arrays entry by entry, whole numbers that are nothing else.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::problems::Problems;
use crate::error::Problem;

/// An object's members in order, duplicates included.
pub(super) struct Members<'a>(pub(super) Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::with_capacity(6);
                while let Some((name, value)) = map.next_entry::<Name<'de>, &'de RawValue>()? {
                    members.push((name.0, value));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Collect)
    }
}

/// A member's name, borrowed where it holds no escapes (plain `Cow` keys are always copied).
#[derive(serde::Deserialize)]
pub(super) struct Name<'a>(#[serde(borrow)] pub(super) Cow<'a, str>);

/// The entries of a JSON array.
pub fn entries<'a>(body: Option<&'a [u8]>, problems: &mut Problems) -> Option<Vec<&'a RawValue>> {
    let Some(body) = body else {
        problems.add("body", Problem::Required);
        return None;
    };
    match serde_json::from_slice(body) {
        Ok(entries) => Some(entries),
        Err(error) => {
            problems.add(
                "body",
                if error.is_data() {
                    Problem::NotArray
                } else {
                    Problem::NotJson
                },
            );
            None
        }
    }
}

/// A JSON integer that is not negative: no text, no fraction, no exponent.
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

/// The largest number taken: what WuKongIM's signed 64-bit numbers hold.
pub const MAX_NUMBER: u64 = i64::MAX as u64;

#[cfg(test)]
mod tests {
    use super::*;

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
