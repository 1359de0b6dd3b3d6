//! The kinds of values: how each is parsed, what is allowed, how it is shown. Does not know the keys.
//!
//! No message quotes the value: it may be a secret, or a URL with a password.

use std::fmt::Display;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use http::HeaderValue;
use secrecy::SecretString;

use super::layers::Value;

/// A value is invalid; the text says what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Expected(pub String);

/// How a value is redacted when it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Redaction {
    /// Not redacted.
    Plain,
    /// Without user, password and query.
    Url,
    /// Redacted completely.
    Secret,
}

type Read<T> = Box<dyn Fn(&Value) -> Result<T, Expected>>;

/// How the values of a key are parsed.
pub(super) struct Kind<T> {
    /// Parses a value.
    pub(super) read: Read<T>,
    /// How it is shown; secrets may also come from files.
    pub(super) redaction: Redaction,
    /// Comma separated in the environment.
    pub(super) list: bool,
}

impl<T> Kind<T> {
    pub(super) fn new(
        allowed: impl Into<String>,
        read: impl Fn(&Value) -> Option<T> + 'static,
    ) -> Self {
        let allowed = allowed.into();
        let read = move |value: &Value| read(value).ok_or_else(|| Expected(allowed.clone()));
        Self {
            read: Box::new(read),
            redaction: Redaction::Plain,
            list: false,
        }
    }

    fn redacted(self, redaction: Redaction) -> Self {
        Self { redaction, ..self }
    }
}

fn trimmed(value: &Value) -> Option<&str> {
    match value {
        Value::Text(text) => Some(text.trim()),
        _ => None,
    }
}

/// Any text but the empty one.
pub(super) fn text() -> Kind<String> {
    Kind::new("must be text and not empty", |value| {
        trimmed(value)
            .filter(|text| !text.is_empty())
            .map(str::to_owned)
    })
}

/// A string that is never shown, kept exactly.
pub(super) fn secret() -> Kind<SecretString> {
    Kind::new("must be text and not empty", |value| match value {
        Value::Text(text) if !text.is_empty() => Some(SecretString::from(text.as_str())),
        _ => None,
    })
    .redacted(Redaction::Secret)
}

/// A secret that is sent as a header.
pub(super) fn header_secret() -> Kind<SecretString> {
    let allowed = "must be text without control characters and not empty: it is sent as a header";
    Kind::new(allowed, |value| match value {
        Value::Text(text) if !text.is_empty() && HeaderValue::from_str(text).is_ok() => {
            Some(SecretString::from(text.as_str()))
        }
        _ => None,
    })
    .redacted(Redaction::Secret)
}

/// A type that parses itself and whose error says what is allowed.
pub(super) fn parsed<T: FromStr<Err = Expected>>(redaction: Redaction) -> Kind<T> {
    let read = |value: &Value| match value {
        Value::Text(text) => text.trim().parse(),
        // So that `version = 2` does as well as `version = "2"`.
        Value::Integer(number) => number.to_string().parse(),
        _ => Err(Expected("must be text".to_owned())),
    };
    Kind {
        read: Box::new(read),
        redaction,
        list: false,
    }
}

/// Text that `read` accepts; `allowed` says which.
pub(super) fn checked(allowed: &str, accepts: impl Fn(&str) -> bool + 'static) -> Kind<String> {
    Kind::new(allowed, move |value| {
        trimmed(value)
            .filter(|text| accepts(text))
            .map(str::to_owned)
    })
}

/// One of a few names.
pub(super) fn one_of<T: Copy + 'static>(names: &'static [(&'static str, T)]) -> Kind<T> {
    let quoted: Vec<_> = names
        .iter()
        .map(|(name, _)| format!("\"{name}\""))
        .collect();
    Kind::new(
        format!("must be one of {}", quoted.join(", ")),
        move |value| {
            let text = match value {
                Value::Integer(number) => number.to_string(),
                other => trimmed(other)?.to_owned(),
            };
            names
                .iter()
                .find(|(name, _)| *name == text)
                .map(|(_, is)| *is)
        },
    )
}

/// `true` or `false`.
pub(super) fn boolean() -> Kind<bool> {
    Kind::new("must be true or false", |value| match value {
        Value::Bool(flag) => Some(*flag),
        other => trimmed(other)?.parse().ok(),
    })
}

/// `""` means "not set".
pub(super) fn optional<T: 'static>(kind: Kind<T>) -> Kind<Option<T>> {
    let read = move |value: &Value| match value {
        Value::Text(text) if text.is_empty() => Ok(None),
        other => (kind.read)(other).map(Some),
    };
    Kind {
        read: Box::new(read),
        redaction: kind.redaction,
        list: kind.list,
    }
}

/// A list of `min_entries` or more.
pub(super) fn list<T: 'static>(min_entries: usize, kind: Kind<T>) -> Kind<Vec<T>> {
    let read = move |value: &Value| {
        let Value::List(items) = value else {
            return Err(Expected("must be a list".to_owned()));
        };
        if items.len() < min_entries {
            return Err(Expected(format!("must have at least {min_entries} entry")));
        }
        let mut values = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            let value = (kind.read)(item)
                .map_err(|Expected(what)| Expected(format!("entry {} {what}", index + 1)))?;
            values.push(value);
        }
        Ok(values)
    };
    Kind {
        read: Box::new(read),
        redaction: kind.redaction,
        list: true,
    }
}

/// An address and port to listen on.
pub(super) fn address() -> Kind<SocketAddr> {
    Kind::new(
        "must be an IP address and a port, such as \"0.0.0.0:8080\" or \"[::]:8080\"",
        |value| trimmed(value)?.parse().ok(),
    )
}

/// A duration with a unit, within bounds.
pub(super) fn duration(min: Duration, max: Duration) -> Kind<Duration> {
    let shown = humantime::format_duration;
    let allowed = format!(
        "must be a duration with a unit, such as \"250ms\" or \"5s\", from {} to {}",
        shown(min),
        shown(max)
    );
    Kind::new(allowed, move |value| {
        // humantime takes a bare "0".
        let text = trimmed(value).filter(|text| text.ends_with(char::is_alphabetic))?;
        let duration = humantime::parse_duration(text).ok()?;
        (min..=max).contains(&duration).then_some(duration)
    })
}

/// A whole number within bounds.
pub(super) fn integer<T>(min: T, max: T) -> Kind<T>
where
    T: TryFrom<i64> + PartialOrd + Copy + Display + 'static,
{
    Kind::new(
        format!("must be a whole number from {min} to {max}"),
        move |value| {
            let number = match value {
                Value::Integer(number) => *number,
                other => trimmed(other)?.parse().ok()?,
            };
            let number = T::try_from(number).ok()?;
            (min..=max).contains(&number).then_some(number)
        },
    )
}

/// A part of the whole: a number from 0 to 1.
pub(super) fn ratio() -> Kind<f64> {
    Kind::new("must be a number from 0 to 1, such as 0.1", |value| {
        let number = match value {
            Value::Float(number) => *number,
            Value::Integer(0) => 0.0,
            Value::Integer(1) => 1.0,
            other => trimmed(other)?.parse().ok()?,
        };
        (0.0..=1.0).contains(&number).then_some(number)
    })
}

const KIB: usize = 1024;
const UNITS: [(&str, usize); 4] = [
    ("GiB", KIB * KIB * KIB),
    ("MiB", KIB * KIB),
    ("KiB", KIB),
    ("B", 1),
];

/// A number of bytes from 1 to `max`, with or without a unit.
pub(super) fn size(max: usize) -> Kind<usize> {
    let (unit, factor) = UNITS
        .into_iter()
        .find(|(_, f)| max.is_multiple_of(*f))
        .unwrap_or(("B", 1));
    let allowed = format!(
        "must be a size in bytes, KiB, MiB or GiB, such as \"64KiB\", from 1B to {}{unit}",
        max / factor
    );
    Kind::new(allowed, move |value| {
        let bytes = match value {
            Value::Integer(number) => usize::try_from(*number).ok()?,
            other => parse_size(trimmed(other)?)?,
        };
        (1..=max).contains(&bytes).then_some(bytes)
    })
}

fn parse_size(text: &str) -> Option<usize> {
    let (digits, factor) = UNITS
        .into_iter()
        .find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, factor)))
        .unwrap_or((text, 1));
    let digits = digits.trim_end();
    // `usize::from_str` would also take a sign.
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse::<usize>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text_of<T>(kind: &Kind<T>, text: &str) -> Option<T> {
        (kind.read)(&Value::Text(text.to_owned())).ok()
    }

    #[test]
    fn a_duration_needs_a_unit_and_keeps_its_bounds() {
        let kind = duration(Duration::from_millis(1), Duration::from_mins(1));
        assert_eq!(text_of(&kind, "5s"), Some(Duration::from_secs(5)));
        assert_eq!(text_of(&kind, "250ms"), Some(Duration::from_millis(250)));
        for bad in ["5", "0", "", "s", "-5s", "0s", "2m", "5 bananas", "1.5"] {
            assert_eq!(text_of(&kind, bad), None, "{bad}");
        }
        assert!((kind.read)(&Value::Integer(5)).is_err());
        let zero = duration(Duration::ZERO, Duration::from_mins(1));
        assert_eq!(text_of(&zero, "0s"), Some(Duration::ZERO));
        assert_eq!(text_of(&zero, "0"), None);
    }

    #[test]
    fn a_size_takes_binary_units_and_bare_bytes() {
        let kind = size(1024 * 1024);
        assert_eq!(text_of(&kind, "64KiB"), Some(65_536));
        assert_eq!(text_of(&kind, "1MiB"), Some(1_048_576));
        assert_eq!(text_of(&kind, "1 MiB"), Some(1_048_576));
        assert_eq!(text_of(&kind, "512B"), Some(512));
        assert_eq!(text_of(&kind, "512"), Some(512));
        assert_eq!((kind.read)(&Value::Integer(512)).ok(), Some(512));
        for bad in [
            "0",
            "",
            "KiB",
            "64KB",
            "64k",
            "+5",
            "-1",
            "1.5MiB",
            "2MiB",
            "99999999999GiB",
        ] {
            assert_eq!(text_of(&kind, bad), None, "{bad}");
        }
        let said = (kind.read)(&Value::Integer(-1)).unwrap_err().to_string();
        assert!(said.ends_with("from 1B to 1MiB"), "{said}");
    }

    #[test]
    fn a_ratio_is_a_number_from_0_to_1() {
        let kind = ratio();
        for (text, number) in [("0.25", 0.25), ("0", 0.0), ("1", 1.0), (" 1e-3 ", 0.001)] {
            assert_eq!(text_of(&kind, text), Some(number), "{text}");
        }
        for bad in ["", "1.01", "-0.1", "10%", "NaN", "inf", "a"] {
            assert_eq!(text_of(&kind, bad), None, "{bad}");
        }
        let read = |value| (kind.read)(&value).ok();
        assert_eq!(read(Value::Float(0.5)), Some(0.5));
        assert_eq!(read(Value::Integer(1)), Some(1.0));
        assert_eq!(read(Value::Integer(2)), None);
        assert_eq!(read(Value::Float(f64::NAN)), None);
    }

    #[test]
    fn a_bad_entry_of_a_list_is_named_by_its_place() {
        let kind = list(1, integer(1_u32, 5));
        let said =
            (kind.read)(&Value::List(vec![Value::Integer(1), Value::Integer(9)])).unwrap_err();
        assert_eq!(said.0, "entry 2 must be a whole number from 1 to 5");
        assert!((kind.read)(&Value::List(Vec::new())).is_err());
    }
}
