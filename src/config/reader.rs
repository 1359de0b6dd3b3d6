//! Reads keys out of the layers: which layer wins, secrets out of files, and which keys nobody knows.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::kinds::{Expected, Kind, Show};
use super::layers::{Entry, Layer, Value, variable_for};
use super::problems::{Origin, Problem, nearest};
use super::types::redacted_url;

const FILE_SUFFIX: &str = "_file";
/// No secret is as large; a path to something huge is a mistake.
const MAX_SECRET_FILE: u64 = 64 * 1024;

/// A key in force, as `check-config` may show it: addresses are in it, so `Debug` shows no value.
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

/// Reads key by key and remembers what it saw.
pub(super) struct Reader<'a> {
    /// Later wins; the first one is the defaults.
    layers: &'a [Layer],
    cwd: &'a Path,
    pub(super) problems: Vec<Problem>,
    /// What is legal but dangerous, as `key: what`.
    pub(super) warnings: Vec<String>,
    /// Every key that was asked for, in that order.
    pub(super) shown: Vec<Shown>,
    /// Every name that may stand in a source.
    known: BTreeMap<String, &'static str>,
    /// Keys whose value could not be read: their defaults stand in, so nothing may be concluded from them.
    failed: Vec<&'static str>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(layers: &'a [Layer], cwd: &'a Path, problems: Vec<Problem>) -> Self {
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

    /// The value of a key; the default's, with the problem noted, where it cannot be read. `None` only when the default
    /// cannot be read either, which a test rules out.
    pub(super) fn read<T>(&mut self, key: &'static str, kind: &Kind<T>) -> Option<T> {
        self.known.insert(key.to_owned(), key);
        if kind.show == Show::Secret {
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
                if let (Show::Secret, Origin::File { path, .. }) = (kind.show, &entry.origin) {
                    self.warn_if_others_write(key, path);
                }
                let shown = show(&entry.value, kind.show);
                self.shown.push(Shown {
                    key,
                    value: shown,
                    origin: entry.origin,
                });
                Some(value)
            }
            Err((origin, error)) => {
                self.problems.push(Problem::at(&origin, key, error));
                self.failed.push(key);
                let default = self.layers.first()?.get(key)?;
                (kind.read)(&default.value).ok()
            }
        }
    }

    /// The entry of the last layer that has the key, or names a file with it, as the kind wants it.
    fn find<T>(&mut self, key: &'static str, kind: &Kind<T>) -> Result<Entry, (Origin, Expected)> {
        let missing = || (Origin::Default, Expected("has no default".to_owned()));
        if kind.show != Show::Secret {
            let entry = self.layers.iter().rev().find_map(|layer| layer.get(key));
            return comma_separated(entry.ok_or_else(missing)?.clone(), kind.list);
        }
        let file_key = format!("{key}{FILE_SUFFIX}");
        for layer in self.layers.iter().rev() {
            // An empty secret in a file is the place for one, copied from the defaults.
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

    /// Notes a file that holds a key, relative to where paths begin, where others than its owner may write it: whoever does lets in
    /// whom he likes.
    pub(super) fn warn_if_others_write(&mut self, key: &str, path: &str) {
        let mode = std::fs::metadata(self.cwd.join(path)).map(|file| file.permissions().mode());
        if mode.is_ok_and(|mode| mode & 0o022 != 0) {
            self.warnings.push(format!(
                "{key}: the file {path:?} may be written by its group or by others"
            ));
        }
    }

    /// Notes every name of the sources that no key was asked by. Names of a broken file may be anything, a piece of a
    /// secret too, so they are left out.
    pub(super) fn reject_unknown(&mut self, file_is_whole: bool) {
        let layers = self.layers;
        for (name, entry) in layers.iter().flatten() {
            let broken = !file_is_whole && matches!(entry.origin, Origin::File { .. });
            if broken || self.known.contains_key(name) {
                continue;
            }
            let near = nearest(name, self.known.keys().map(String::as_str)).unwrap_or_default();
            let problem = match &entry.origin {
                Origin::Variable(variable) => {
                    let near = variable_for(near);
                    let what = format_args!("unknown variable, the nearest known one is {near}");
                    Problem::with(variable, what)
                }
                // `[server]` with nothing under it sets nothing.
                _ if self.is_section(name) && matches!(entry.value, Value::EmptyTable) => continue,
                origin if self.is_section(name) => {
                    let what = format_args!("is a section: must be [{name}] with keys under it");
                    Problem::at(origin, name, what)
                }
                origin => {
                    let what = format_args!("unknown key, the nearest known one is {near}");
                    Problem::at(origin, name, what)
                }
            };
            self.problems.push(problem);
        }
    }

    fn is_section(&self, name: &str) -> bool {
        let prefix = format!("{name}.");
        self.known.keys().any(|key| key.starts_with(&prefix))
    }

    /// Notes a problem of `key` with others, unless one of them could not be read in the first place.
    pub(super) fn relation(
        &mut self,
        key: &'static str,
        others: &[&'static str],
        what: impl Display,
    ) {
        if self.is_sound(key) && others.iter().all(|other| self.is_sound(other)) {
            let problem = Problem::at(&self.origin(key), key, what);
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

/// Lists of the environment are text.
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

fn show(value: &Value, how: Show) -> String {
    match (value, how) {
        (Value::Text(text), Show::Secret) if !text.is_empty() => "\"[redacted]\"".to_owned(),
        (Value::Text(text), Show::Url) => quoted(redacted_url(text)),
        (Value::Text(text), _) => quoted(text.clone()),
        (Value::Whole(number), Show::Plain | Show::Url) => number.to_string(),
        (Value::Fraction(number), Show::Plain | Show::Url) => format!("{number:?}"),
        (Value::Flag(flag), Show::Plain | Show::Url) => flag.to_string(),
        (Value::List(items), _) => {
            let items: Vec<_> = items.iter().map(|item| show(item, how)).collect();
            format!("[{}]", items.join(", "))
        }
        (Value::Whole(_) | Value::Fraction(_) | Value::Flag(_), Show::Secret)
        | (Value::EmptyTable | Value::Other, _) => "\"[redacted]\"".to_owned(),
    }
}

fn quoted(text: String) -> String {
    toml::Value::String(text).to_string()
}
