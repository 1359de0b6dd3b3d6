//! Parses a token's claims into a list of borrowed values. Only the values that are validated are kept. A list instead of a map, since a
//! token has few claims and each is read once.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::TokenError;
use crate::json::ordered_members::{BorrowedStr, OrderedMembers};

/// The claims of a token. The last one of a duplicate counts.
#[derive(Debug)]
pub(in crate::auth) struct Claims<'a>(OrderedMembers<'a, Value<'a>>);

impl<'a> Claims<'a> {
    /// Reads the JSON of claims, which must be an object.
    ///
    /// # Errors
    /// [`TokenError::Invalid`] for everything that `serde_json::Map` would refuse, in unused values as well.
    pub(in crate::auth) fn read(json: &'a [u8]) -> Result<Self, TokenError> {
        let claims = serde_json::from_slice(json);
        claims
            .map(Self)
            .map_err(|_| TokenError::Invalid("malformed"))
    }

    /// The claim of this name.
    pub(super) fn get(&self, name: &str) -> Option<&Value<'a>> {
        let OrderedMembers(claims) = &self.0;
        let found = claims.iter().rfind(|(claim, _)| claim == name);
        found.map(|(_, value)| value)
    }
}

/// A JSON value, reduced to what the validation needs.
#[derive(Debug, PartialEq)]
pub(super) enum Value<'a> {
    Null,
    Number(f64),
    Text(Cow<'a, str>),
    List(Vec<Value<'a>>),
    /// A boolean or an object.
    Other,
}

impl Value<'_> {
    pub(super) fn as_str(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Number(number) => Some(*number),
            _ => None,
        }
    }

    pub(super) fn as_list(&self) -> Option<&[Self]> {
        match self {
            Self::List(list) => Some(list),
            _ => None,
        }
    }
}

impl<'de> Deserialize<'de> for Value<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Any)
    }
}

/// Accepts any JSON. serde's `IgnoredAny` would accept invalid strings and out-of-range numbers.
struct Any;

impl<'de> Visitor<'de> for Any {
    type Value = Value<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E: Error>(self) -> Result<Value<'de>, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Value<'de>, E> {
        Ok(Value::Other)
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Value<'de>, E> {
        Ok(Value::Number(number))
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "times are compared as fractions of seconds"
    )]
    fn visit_u64<E: Error>(self, number: u64) -> Result<Value<'de>, E> {
        Ok(Value::Number(number as f64))
    }

    #[expect(clippy::cast_precision_loss, reason = "as above")]
    fn visit_i64<E: Error>(self, number: i64) -> Result<Value<'de>, E> {
        Ok(Value::Number(number as f64))
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Value<'de>, E> {
        Ok(Value::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Value<'de>, E> {
        Ok(Value::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value<'de>, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element()? {
            values.push(value);
        }
        Ok(Value::List(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value<'de>, A::Error> {
        while map.next_entry::<BorrowedStr<'de>, Value<'de>>()?.is_some() {}
        Ok(Value::Other)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Map, Value as Json};

    use super::*;

    /// What a value is judged by, of JSON as the library reads it.
    fn same(json: &Json) -> Value<'_> {
        match json {
            Json::Null => Value::Null,
            Json::Number(number) => Value::Number(number.as_f64().unwrap()),
            Json::String(text) => Value::Text(text.into()),
            Json::Array(list) => Value::List(list.iter().map(same).collect()),
            Json::Bool(_) | Json::Object(_) => Value::Other,
        }
    }

    fn assert_reads_like_a_map(json: &[u8]) {
        let shown = String::from_utf8_lossy(json);
        let map = serde_json::from_slice::<Map<String, Json>>(json).ok();
        let claims = Claims::read(json).ok();
        assert_eq!(claims.is_some(), map.is_some(), "{shown}");
        let (Some(claims), Some(map)) = (claims, map) else {
            return;
        };
        for (name, value) in &map {
            assert_eq!(claims.get(name), Some(&same(value)), "{shown}");
        }
        assert!(claims.0.0.iter().all(|(name, _)| map.contains_key(&**name)));
    }

    #[test]
    fn claims_are_read_as_a_map_reads_them() {
        let deep =
            |levels: usize| format!(r#"{{"a":{}{}}}"#, "[".repeat(levels), "]".repeat(levels));
        let texts = [
            r#"{"exp":4000000000,"sub":"a","s\u0075b":"b"}"#,
            r#"{"sub":"a\ud83d\ude00","other":"\ud800"}"#,
            r#"{"a":{"b":"\udc00"}}"#,
            r#"{"a":1e400}"#,
            r#"{"a":[1e308,-0,-0.5,18446744073709551616,-9223372036854775809]}"#,
            r#"{"a":{"b":1e999}}"#,
            "{\"a\":\"\u{1}\"}",
            r#"{"a":01}"#,
            r#"{"a":1,}"#,
            r#"{"a":1}x"#,
            r#"{"a":{"b":{}},"c":[{}],"d":true,"e":null}"#,
            r#"["sub"]"#,
            "null",
            "",
            "{1:2}",
            &deep(126),
            &deep(127),
            &deep(128),
            &deep(2000),
        ];
        for text in texts {
            assert_reads_like_a_map(text.as_bytes());
        }
        assert_reads_like_a_map(b"{\"a\":\"\xff\"}");
        assert_reads_like_a_map(b"{\"\xff\":1}");
        assert_reads_like_a_map(b"{\"a\":{\"\xc3\x28\":1}}");
    }

    proptest! {
        #[test]
        fn whatever_a_map_reads_is_read_and_nothing_else(
            text in r#"\{("[ab\\u0-9é]{0,6}":(null|-?[0-9]{1,4}(\.[0-9])?(e[0-9]{1,3})?|"[a-z\\udn"]{0,8}"|\["[ab]",[0-9]\]|\{"a":"[a\\]?"\}),?){0,4}\}"#
        ) {
            assert_reads_like_a_map(text.as_bytes());
        }
    }
}
