//! Reads keys from the layers: precedence, secrets from files, and detection of unknown keys.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use toml::Value;

use super::kinds::{Expected, Kind, Redaction};
use super::layers::{Entry, Layer, variable_for};
use super::problems::{ConfigError, Origin, nearest};
use super::types::redacted_url;

const FILE_SUFFIX: &str = "_file";
/// Maximum size of a secret file; a larger one is a mistake.
const MAX_SECRET_FILE: u64 = 64 * 1024;

/// An effective key as `check-config` shows it. `Debug` shows no value, since it may be an address.
#[derive(Clone)]
pub(super) struct Shown {
    pub(super) key: &'static str,
    /// TOML, secrets redacted.
    pub(super) value: String,
    pub(super) origin: Origin,
}

impl std::fmt::Debug for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.key, self.origin)
    }
}

/// Reads keys one by one and records them.
pub(super) struct Reader<'a> {
    /// Later layers have precedence; the first one has the defaults.
    layers: &'a [Layer],
    /// What relative paths begin from.
    pub(super) cwd: &'a Path,
    /// Whether the file has no syntax error, so that a missing key is missing.
    pub(super) is_file_complete: bool,
    pub(super) problems: Vec<ConfigError>,
    /// What is legal but dangerous, as `key: what`.
    pub(super) warnings: Vec<String>,
    /// Every key that was read, in order.
    pub(super) shown: Vec<Shown>,
    /// Every name that is valid in a source.
    known: BTreeSet<String>,
    /// Keys with invalid values: their defaults are used, so checks between keys must ignore them.
    failed: Vec<&'static str>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(
        layers: &'a [Layer],
        cwd: &'a Path,
        is_file_complete: bool,
        problems: Vec<ConfigError>,
    ) -> Self {
        Self {
            layers,
            cwd,
            is_file_complete,
            problems,
            warnings: Vec::new(),
            shown: Vec::new(),
            known: BTreeSet::new(),
            failed: Vec::new(),
        }
    }

    /// The value of a key; the default, with an error recorded, where it is invalid. `None` only when the default is invalid too, which a
    /// test rules out.
    pub(super) fn read<T>(&mut self, key: &'static str, kind: &Kind<T>) -> Option<T> {
        self.known.insert(key.to_owned());
        if kind.redaction.is_secret() {
            self.known.insert(format!("{key}{FILE_SUFFIX}"));
        }
        let default = self.layers.first()?.get(key)?;
        let found = self.find(key, kind).and_then(|entry| {
            let entry = entry.unwrap_or_else(|| default.clone());
            match (kind.read)(&entry.value) {
                Ok(value) => Ok((value, entry)),
                Err(error) => Err((entry.origin, error)),
            }
        });
        match found {
            Ok((value, Entry { value: raw, origin })) => {
                if let Origin::File { path, .. } = &origin
                    && kind.redaction.is_secret()
                {
                    self.warn_if_others_write(key, path);
                }
                let shown = redacted(&raw, kind.redaction).to_string();
                self.shown.push(Shown {
                    key,
                    value: shown,
                    origin,
                });
                Some(value)
            }
            Err((origin, error)) => {
                self.problems.push(ConfigError::at(&origin, key, error));
                self.failed.push(key);
                (kind.read)(&default.value).ok()
            }
        }
    }

    /// The entry of the last layer that has the key or its file variant.
    fn find<T>(
        &mut self,
        key: &'static str,
        kind: &Kind<T>,
    ) -> Result<Option<Entry>, (Origin, Expected)> {
        let is_secret = kind.redaction.is_secret();
        let file_key = format!("{key}{FILE_SUFFIX}");
        for layer in self.layers.iter().rev() {
            // An empty secret counts as unset: it is a placeholder copied from the defaults.
            let is_set = |entry: &&Entry| !is_secret || entry.value.as_str() != Some("");
            let direct = layer.get(key).filter(is_set).cloned();
            let by_file = layer.get(&file_key).filter(|_| is_secret).filter(is_set);
            let (value, origin) = match (direct, by_file) {
                (None, None) => continue,
                (Some(Entry { value, origin }), None) => {
                    let value = if is_secret {
                        without_new_line(value)
                    } else {
                        value
                    };
                    let value = match &origin {
                        Origin::Variable(_) if kind.list => comma_separated(value),
                        _ => Ok(value),
                    };
                    (value, origin)
                }
                (None, Some(Entry { value, origin })) => {
                    let text = self.read_secret(key, value);
                    let split = |text: String| if kind.list { split(&text) } else { text.into() };
                    (text.map(split), origin.clone())
                }
                (Some(Entry { origin, .. }), Some(_)) => {
                    let what = "is given here and by a file as well: only one may be".to_owned();
                    (Err(what), origin)
                }
            };
            return match value {
                Ok(value) => Ok(Some(Entry { value, origin })),
                Err(what) => Err((origin, Expected(what))),
            };
        }
        Ok(None)
    }

    fn read_secret(&mut self, key: &'static str, path: &Value) -> Result<String, String> {
        let path = path.as_str().ok_or("must be the path of a file")?;
        let unreadable = |error| format!("file {path:?} cannot be read: {error}");
        let full = self.cwd.join(path);
        if std::fs::metadata(&full).map_err(unreadable)?.len() > MAX_SECRET_FILE {
            return Err(format!("file {path:?} is larger than 64KiB"));
        }
        let text = std::fs::read_to_string(&full).map_err(unreadable)?;
        self.warn_if_others_write(key, path);
        let text = one_line(without_mark(&text));
        if text.is_empty() {
            return Err(format!("file {path:?} is empty"));
        }
        Ok(text.to_owned())
    }

    /// Warns if other users than the owner may write a file of keys (path relative to the base folder): they could add keys of their own.
    pub(super) fn warn_if_others_write(&mut self, key: &str, path: &str) {
        let mode = std::fs::metadata(self.cwd.join(path)).map(|file| file.permissions().mode());
        if mode.is_ok_and(|mode| mode & 0o022 != 0) {
            self.warnings.push(format!(
                "{key}: the file {path:?} may be written by its group or by others"
            ));
        }
    }

    /// Reports every unknown name in the sources. Names of a file with syntax errors are skipped, since they may be parts of a secret.
    pub(super) fn reject_unknown(&mut self) {
        let layers = self.layers;
        for (name, entry) in layers.iter().flatten() {
            let broken = !self.is_file_complete && matches!(entry.origin, Origin::File { .. });
            if broken || self.known.contains(name) {
                continue;
            }
            let near = nearest(name, self.known.iter().map(String::as_str)).unwrap_or_default();
            let problem = match &entry.origin {
                Origin::Variable(variable) => {
                    let near = variable_for(near);
                    let what = format_args!("unknown variable, the nearest known one is {near}");
                    ConfigError::with(variable, what)
                }
                // An empty `[server]` sets nothing.
                _ if self.is_section(name) && entry.value.is_table() => continue,
                origin if self.is_section(name) => {
                    let what = format_args!("is a section: must be [{name}] with keys under it");
                    ConfigError::at(origin, name, what)
                }
                origin => {
                    let what = format_args!("unknown key, the nearest known one is {near}");
                    ConfigError::at(origin, name, what)
                }
            };
            self.problems.push(problem);
        }
    }

    fn is_section(&self, name: &str) -> bool {
        let prefix = format!("{name}.");
        self.known.iter().any(|key| key.starts_with(&prefix))
    }

    /// Reports an error of `key` in relation to others, unless one of them is invalid itself.
    pub(super) fn relation(
        &mut self,
        key: &'static str,
        others: &[&'static str],
        what: impl Display,
    ) {
        let is_sound = |key: &&str| !self.failed.contains(key);
        if is_sound(&key) && others.iter().all(is_sound) {
            let shown = self.shown.iter().find(|shown| shown.key == key);
            let origin = shown.map_or(&Origin::Default, |shown| &shown.origin);
            self.problems.push(ConfigError::at(origin, key, what));
        }
    }
}

fn without_new_line(value: Value) -> Value {
    match value {
        Value::String(text) => one_line(&text).into(),
        Value::Array(items) => Value::Array(items.into_iter().map(without_new_line).collect()),
        other => other,
    }
}

/// The text without the one new line at its end that `echo` and editors leave there.
fn one_line(text: &str) -> &str {
    match text.strip_suffix('\n') {
        Some(line) => line.strip_suffix('\r').unwrap_or(line),
        None => text,
    }
}

/// The text without the byte-order mark that some editors put before it.
pub(super) fn without_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

/// Lists in the environment are comma-separated.
fn comma_separated(value: Value) -> Result<Value, String> {
    let Value::String(text) = value else {
        return Ok(value);
    };
    let text = text.trim();
    if text == "[]" {
        return Ok(Value::Array(Vec::new()));
    }
    if text.starts_with('[') && text.ends_with(']') {
        let what = "must be separated by commas, without brackets and quotes; [] empties it";
        return Err(what.to_owned());
    }
    Ok(split(text))
}

fn split(text: &str) -> Value {
    let parts = text.split([',', '\n']).map(str::trim);
    Value::from(parts.filter(|part| !part.is_empty()).collect::<Vec<_>>())
}

fn redacted(value: &Value, how: Redaction) -> Value {
    match (value, how) {
        (Value::Array(items), _) => {
            Value::Array(items.iter().map(|item| redacted(item, how)).collect())
        }
        (Value::String(text), Redaction::Url | Redaction::SecretUrl) => redacted_url(text).into(),
        (Value::String(text), Redaction::Secret) if text.is_empty() => value.clone(),
        (_, Redaction::Secret) => "[redacted]".into(),
        _ => value.clone(),
    }
}
