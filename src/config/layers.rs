//! The sources as layers of raw values by dotted key, each with its origin. Does not know the types of keys.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize as _;
use toml::Value;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use super::problems::{ConfigError, Origin};
use super::reader::without_mark;

/// The prefix of the gateway's own environment variables.
pub(super) const PREFIX: &str = "GATEWAY__";

/// The variables of existing OpenChat deployments, and their keys.
const OPENCHAT: [(&str, &str); 7] = [
    ("JWT_ISSUER", "auth.issuer"),
    ("JWT_SECRET", "auth.jwt_secret"),
    ("JWT_SECRET_FILE", "auth.jwt_secret_file"),
    ("WUKONGIM_API_URL", "wukongim.api_urls"),
    ("WUKONGIM_MANAGER_URL", "public.manager_url"),
    ("WUKONGIM_TCP_ADDR", "public.tcp_addr"),
    ("WUKONGIM_WS_URL", "public.ws_url"),
];

/// A value with its origin.
#[derive(Clone)]
pub(super) struct Entry {
    pub(super) value: Value,
    pub(super) origin: Origin,
}

/// One source: dotted key → entry.
pub(super) type Layer = BTreeMap<String, Entry>;

/// The layer of a TOML document. Syntax errors are reported by line; everything else is still read.
pub(super) fn from_toml(
    text: &str,
    origin: impl Fn(usize) -> Origin,
    problems: &mut Vec<ConfigError>,
) -> Layer {
    let line = |at: usize| 1 + text.bytes().take(at).filter(|byte| *byte == b'\n').count();
    let (root, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        // Not the error's `Display`, which quotes the line and thus possibly a secret.
        let place = origin(line(error.span().map_or(0, |span| span.start)));
        let what = format_args!("not valid TOML: {}", error.message());
        problems.push(ConfigError::with(place, what));
    }
    let mut layer = Layer::new();
    flatten("", root.get_ref(), &|at| origin(line(at)), &mut layer);
    layer
}

fn flatten(prefix: &str, table: &DeTable<'_>, origin: &dyn Fn(usize) -> Origin, layer: &mut Layer) {
    for (key, value) in table {
        let name = format!("{prefix}{}", key.get_ref());
        if let DeValue::Table(inner) = value.get_ref()
            && !inner.is_empty()
        {
            flatten(&format!("{name}."), inner, origin, layer);
            continue;
        }
        let value = Value::deserialize(ValueDeserializer::from(value.clone()));
        let entry = Entry {
            // A number that TOML cannot hold: no key takes NaN.
            value: value.unwrap_or(Value::Float(f64::NAN)),
            origin: origin(key.span().start),
        };
        layer.insert(name, entry);
    }
}

/// The layer of a configuration file.
pub(super) fn from_file(cwd: &Path, path: &Path, problems: &mut Vec<ConfigError>) -> Layer {
    let name = path.display().to_string();
    match std::fs::read_to_string(cwd.join(path)) {
        Ok(text) => {
            let path = || name.clone();
            let origin = |line| Origin::File { path: path(), line };
            from_toml(without_mark(&text), origin, problems)
        }
        Err(error) => {
            let what = format_args!("cannot be read: {error}");
            problems.push(ConfigError::with(name, what));
            Layer::new()
        }
    }
}

/// The layer of OpenChat's variables.
pub(super) fn from_openchat(env: &BTreeMap<String, String>) -> Layer {
    let given = OPENCHAT.iter().filter_map(|(name, key)| {
        let value = env.get(*name).filter(|value| !value.is_empty())?;
        Some(((*key).to_owned(), variable(name, value)))
    });
    given.collect()
}

/// The layer of `GATEWAY__SECTION__KEY`. Names that are not upper case are kept, and thus reported as unknown keys.
pub(super) fn from_environment(env: &BTreeMap<String, String>) -> Layer {
    let given = env.iter().filter_map(|(name, value)| {
        let key = name.strip_prefix(PREFIX).filter(|_| !value.is_empty())?;
        let is_upper = !key.contains(char::is_lowercase);
        let lower = || key.replace("__", ".").to_lowercase();
        let key = if is_upper { lower() } else { key.to_owned() };
        Some((key, variable(name, value)))
    });
    given.collect()
}

/// Whether the gateway reads a variable of this name.
pub(super) fn is_read(name: &str) -> bool {
    name.starts_with(PREFIX)
        || name == super::FILE_VARIABLE
        || OPENCHAT.iter().any(|(known, _)| *known == name)
}

/// The variable that sets `key`.
pub(super) fn variable_for(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', "__").to_uppercase())
}

fn variable(name: &str, value: &str) -> Entry {
    Entry {
        value: Value::String(value.to_owned()),
        origin: Origin::Variable(name.to_owned()),
    }
}
