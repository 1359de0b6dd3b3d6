//! The kinds of values: how each is parsed, what is allowed, how it is shown. Does not know the keys.
//!
//! No message quotes the value: it may be a secret, or a URL with a password.

use std::fmt::Display;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use http::HeaderValue;
use secrecy::SecretString;
use toml::Value;

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
    /// A secret, of which only user, password and query are redacted.
    SecretUrl,
}

impl Redaction {
    /// Whether the value is a secret: its key has a variant that names a file.
    pub(super) fn is_secret(self) -> bool {
        matches!(self, Self::Secret | Self::SecretUrl)
    }
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

    pub(super) fn redacted(self, redaction: Redaction) -> Self {
        Self { redaction, ..self }
    }
}

fn trimmed(value: &Value) -> Option<&str> {
    value.as_str().map(str::trim)
}

/// A number or a flag may be given as text too, as it always is in the environment.
fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.trim().to_owned()),
        Value::Integer(_) | Value::Float(_) | Value::Boolean(_) => Some(value.to_string()),
        _ => None,
    }
}

/// Any text but the empty one.
pub(super) fn text() -> Kind<String> {
    checked("must be text and not empty", |text| !text.is_empty())
}

/// A string that is never shown, kept exactly.
pub(super) fn secret() -> Kind<SecretString> {
    secret_that("must be text and not empty", |_| true)
}

/// A secret that is sent as a header.
pub(super) fn header_secret() -> Kind<SecretString> {
    let allowed = "must be text without control characters and not empty: it is sent as a header";
    secret_that(allowed, |text| HeaderValue::from_str(text).is_ok())
}

fn secret_that(allowed: &str, accepts: fn(&str) -> bool) -> Kind<SecretString> {
    Kind::new(allowed, move |value| {
        let text = value.as_str()?;
        (!text.is_empty() && accepts(text)).then(|| text.into())
    })
    .redacted(Redaction::Secret)
}

/// A type that parses itself and whose error says what is allowed.
pub(super) fn parsed<T: FromStr<Err = Expected>>(redaction: Redaction) -> Kind<T> {
    let read = |value: &Value| match scalar(value) {
        Some(text) => text.parse(),
        None => Err(Expected("must be text".to_owned())),
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
        let text = trimmed(value).filter(|text| accepts(text))?;
        Some(text.to_owned())
    })
}

/// One of a few names.
pub(super) fn one_of<T: Copy + 'static>(names: &'static [(&'static str, T)]) -> Kind<T> {
    let quoted = names.iter().map(|(name, _)| format!("\"{name}\""));
    let quoted = quoted.collect::<Vec<_>>().join(", ");
    Kind::new(format!("must be one of {quoted}"), move |value| {
        // So that `version = 2` does as well as `version = "2"`.
        let text = scalar(value)?;
        let found = names.iter().find(|(name, _)| *name == text);
        found.map(|(_, is)| *is)
    })
}

/// `true` or `false`.
pub(super) fn boolean() -> Kind<bool> {
    Kind::new("must be true or false", |value| scalar(value)?.parse().ok())
}

/// `""` means "not set".
pub(super) fn optional<T: 'static>(kind: Kind<T>) -> Kind<Option<T>> {
    let read = move |value: &Value| match value {
        Value::String(text) if text.is_empty() => Ok(None),
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
        let Value::Array(items) = value else {
            return Err(Expected("must be a list".to_owned()));
        };
        if items.len() < min_entries {
            return Err(Expected(format!("must have at least {min_entries} entry")));
        }
        let entry = |(index, item)| {
            (kind.read)(item)
                .map_err(|Expected(what)| Expected(format!("entry {} {what}", index + 1)))
        };
        items.iter().enumerate().map(entry).collect()
    };
    Kind {
        read: Box::new(read),
        redaction: kind.redaction,
        list: true,
    }
}

/// An address and port to listen on.
pub(super) fn address() -> Kind<SocketAddr> {
    let allowed = "must be an IP address and a port, such as \"0.0.0.0:8080\" or \"[::]:8080\"";
    Kind::new(allowed, |value| trimmed(value)?.parse().ok())
}

/// A duration with a unit, within bounds.
pub(super) fn duration(min: Duration, max: Duration) -> Kind<Duration> {
    let [least, most] = [min, max].map(humantime::format_duration);
    let allowed = format!(
        "must be a duration with a unit, such as \"250ms\" or \"5s\", from {least} to {most}"
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
    T: FromStr + PartialOrd + Copy + Display + 'static,
{
    let allowed = format!("must be a whole number from {min} to {max}");
    Kind::new(allowed, move |value| {
        let number = scalar(value)?.parse().ok()?;
        (min..=max).contains(&number).then_some(number)
    })
}

/// A part of the whole: a number from 0 to 1.
pub(super) fn ratio() -> Kind<f64> {
    Kind::new("must be a number from 0 to 1, such as 0.1", |value| {
        let number = scalar(value)?.parse().ok()?;
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
        let bytes = parse_size(&scalar(value)?)?;
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
        (kind.read)(&Value::String(text.to_owned())).ok()
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
            (kind.read)(&Value::Array(vec![Value::Integer(1), Value::Integer(9)])).unwrap_err();
        assert_eq!(said.0, "entry 2 must be a whole number from 1 to 5");
        assert!((kind.read)(&Value::Array(Vec::new())).is_err());
    }
}
