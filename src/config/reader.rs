//! Reads keys from the layers: precedence, secrets from files, and detection of unknown keys.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::kinds::{Expected, Kind, Redaction};
use super::layers::{Entry, Layer, Value, variable_for};
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
    cwd: &'a Path,
    pub(super) problems: Vec<ConfigError>,
    /// What is legal but dangerous, as `key: what`.
    pub(super) warnings: Vec<String>,
    /// Every key that was read, in order.
    pub(super) shown: Vec<Shown>,
    /// Every name that is valid in a source.
    known: BTreeMap<String, &'static str>,
    /// Keys with invalid values: their defaults are used, so checks between keys must ignore them.
    failed: Vec<&'static str>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(layers: &'a [Layer], cwd: &'a Path, problems: Vec<ConfigError>) -> Self {
        let (shown, failed) = (Vec::new(), Vec::new());
        Self {
            layers,
            cwd,
            problems,
            warnings: Vec::new(),
            shown,
            known: BTreeMap::new(),
            failed,
        }
    }

    /// The value of a key; the default, with an error recorded, where it is invalid. `None` only when the default is invalid too, which a
    /// test rules out.
    pub(super) fn read<T>(&mut self, key: &'static str, kind: &Kind<T>) -> Option<T> {
        self.known.insert(key.to_owned(), key);
        if kind.redaction == Redaction::Secret {
            self.known.insert(format!("{key}{FILE_SUFFIX}"), key);
        }
        let read = match self.find(key, kind) {
            Ok(entry) => (kind.read)(&entry.value)
                .map_err(|error| (entry.origin.clone(), error))
                .map(|value| (value, entry)),
            Err(failure) => Err(failure),
        };
        match read {
            Ok((value, entry)) => {
                if let (Redaction::Secret, Origin::File { path, .. }) =
                    (kind.redaction, &entry.origin)
                {
                    self.warn_if_others_write(key, path);
                }
                let shown = render(&entry.value, kind.redaction);
                self.shown.push(Shown {
                    key,
                    value: shown,
                    origin: entry.origin,
                });
                Some(value)
            }
            Err((origin, error)) => {
                self.problems.push(ConfigError::at(&origin, key, error));
                self.failed.push(key);
                let default = self.layers.first()?.get(key)?;
                (kind.read)(&default.value).ok()
            }
        }
    }

    /// The entry of the last layer that has the key or its file variant.
    fn find<T>(&mut self, key: &'static str, kind: &Kind<T>) -> Result<Entry, (Origin, Expected)> {
        let missing = || (Origin::Default, Expected("has no default".to_owned()));
        if kind.redaction != Redaction::Secret {
            let entry = self.layers.iter().rev().find_map(|layer| layer.get(key));
            return comma_separated(entry.ok_or_else(missing)?.clone(), kind.list);
        }
        let file_key = format!("{key}{FILE_SUFFIX}");
        for layer in self.layers.iter().rev() {
            // An empty secret counts as unset: it is a placeholder copied from the defaults.
            let direct = layer.get(key).filter(|entry| !is_empty(&entry.value));
            let by_file = layer.get(&file_key).filter(|entry| !is_empty(&entry.value));
            match (direct, by_file) {
                (None, None) => {}
                (Some(entry), None) => {
                    let entry = Entry {
                        value: without_new_line(entry.value.clone()),
                        origin: entry.origin.clone(),
                    };
                    return comma_separated(entry, kind.list);
                }
                (None, Some(entry)) => {
                    let failed = |what| (entry.origin.clone(), Expected(what));
                    let text = self.read_secret(key, &entry.value).map_err(failed)?;
                    let value = if kind.list {
                        split(&text)
                    } else {
                        Value::Text(text)
                    };
                    return Ok(Entry {
                        value,
                        origin: entry.origin.clone(),
                    });
                }
                (Some(entry), Some(_)) => {
                    let what = "is given here and by a file as well: only one may be".to_owned();
                    return Err((entry.origin.clone(), Expected(what)));
                }
            }
        }
        self.layers
            .first()
            .and_then(|layer| layer.get(key))
            .cloned()
            .ok_or_else(missing)
    }

    fn read_secret(&mut self, key: &'static str, path: &Value) -> Result<String, String> {
        let Value::Text(path) = path else {
            return Err("must be the path of a file".to_owned());
        };
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
    pub(super) fn reject_unknown(&mut self, is_file_complete: bool) {
        let layers = self.layers;
        for (name, entry) in layers.iter().flatten() {
            let broken = !is_file_complete && matches!(entry.origin, Origin::File { .. });
            if broken || self.known.contains_key(name) {
                continue;
            }
            let near = nearest(name, self.known.keys().map(String::as_str)).unwrap_or_default();
            let problem = match &entry.origin {
                Origin::Variable(variable) => {
                    let near = variable_for(near);
                    let what = format_args!("unknown variable, the nearest known one is {near}");
                    ConfigError::with(variable, what)
                }
                // An empty `[server]` sets nothing.
                _ if self.is_section(name) && matches!(entry.value, Value::EmptyTable) => continue,
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
        self.known.keys().any(|key| key.starts_with(&prefix))
    }

    /// Reports an error of `key` in relation to others, unless one of them is invalid itself.
    pub(super) fn relation(
        &mut self,
        key: &'static str,
        others: &[&'static str],
        what: impl Display,
    ) {
        if self.is_sound(key) && others.iter().all(|other| self.is_sound(other)) {
            let problem = ConfigError::at(&self.origin(key), key, what);
            self.problems.push(problem);
        }
    }

    /// What relative paths begin from.
    pub(super) fn cwd(&self) -> &'a Path {
        self.cwd
    }

    fn is_sound(&self, key: &str) -> bool {
        !self.failed.contains(&key)
    }

    fn origin(&self, key: &str) -> Origin {
        let shown = self.shown.iter().find(|shown| shown.key == key);
        shown.map_or(Origin::Default, |shown| shown.origin.clone())
    }
}

fn without_new_line(value: Value) -> Value {
    match value {
        Value::Text(text) => Value::Text(one_line(&text).to_owned()),
        Value::List(items) => Value::List(items.into_iter().map(without_new_line).collect()),
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

fn is_empty(value: &Value) -> bool {
    matches!(value, Value::Text(text) if text.is_empty())
}

/// Lists in the environment are comma-separated.
fn comma_separated(entry: Entry, list: bool) -> Result<Entry, (Origin, Expected)> {
    let (true, Value::Text(text), Origin::Variable(_)) = (list, &entry.value, &entry.origin) else {
        return Ok(entry);
    };
    let text = text.trim();
    let value = if text == "[]" {
        Value::List(Vec::new())
    } else if text.starts_with('[') && text.ends_with(']') {
        let what = "must be separated by commas, without brackets and quotes; [] empties it";
        return Err((entry.origin, Expected(what.to_owned())));
    } else {
        split(text)
    };
    Ok(Entry {
        value,
        origin: entry.origin,
    })
}

fn split(text: &str) -> Value {
    let parts = text
        .split([',', '\n'])
        .map(str::trim)
        .filter(|part| !part.is_empty());
    Value::List(parts.map(|part| Value::Text(part.to_owned())).collect())
}

fn render(value: &Value, how: Redaction) -> String {
    match (value, how) {
        (Value::Text(text), Redaction::Secret) if !text.is_empty() => "\"[redacted]\"".to_owned(),
        (Value::Text(text), Redaction::Url) => quoted(redacted_url(text)),
        (Value::Text(text), _) => quoted(text.clone()),
        (Value::Integer(number), Redaction::Plain | Redaction::Url) => number.to_string(),
        (Value::Float(number), Redaction::Plain | Redaction::Url) => format!("{number:?}"),
        (Value::Bool(flag), Redaction::Plain | Redaction::Url) => flag.to_string(),
        (Value::List(items), _) => {
            let items: Vec<_> = items.iter().map(|item| render(item, how)).collect();
            format!("[{}]", items.join(", "))
        }
        (Value::Integer(_) | Value::Float(_) | Value::Bool(_), Redaction::Secret)
        | (Value::EmptyTable | Value::Other, _) => "\"[redacted]\"".to_owned(),
    }
}

fn quoted(text: String) -> String {
    toml::Value::String(text).to_string()
}
