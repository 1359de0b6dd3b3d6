//! Errors of a configuration, with their origins. They contain no values, since some are secrets.

use std::fmt;

use strsim::levenshtein;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The built-in `config/default.toml`.
    Default,
    /// A default of `--embedded`.
    Embedded,
    /// A line of the configuration file.
    File {
        /// The path as given.
        path: String,
        /// Counted from 1.
        line: usize,
    },
    /// An environment variable, by its name.
    Variable(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Embedded => f.write_str("built-in (--embedded)"),
            Self::File { path, line } => write!(f, "{path}:{line}"),
            Self::Variable(name) => f.write_str(name),
        }
    }
}

/// One error: `config/gateway.toml:3: server.listen: must be …`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

impl ConfigError {
    /// An error of the value of `key` that came from `origin`.
    pub(super) fn at(origin: &Origin, key: &str, what: impl fmt::Display) -> Self {
        Self(match origin {
            Origin::Default | Origin::Embedded => format!("{key}: {what}"),
            // The variable's name shows the key, except for OpenChat's names.
            Origin::Variable(name) if name.starts_with(super::layers::PREFIX) => {
                format!("{name}: {what}")
            }
            Origin::File { .. } | Origin::Variable(_) => format!("{origin}: {key}: {what}"),
        })
    }

    /// An error of a whole file or of an unknown variable.
    pub(super) fn with(thing: impl fmt::Display, what: impl fmt::Display) -> Self {
        Self(format!("{thing}: {what}"))
    }
}

/// All errors of a configuration; printed one per line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<_> = self.0.iter().map(|error| error.0.as_str()).collect();
        f.write_str(&lines.join("\n"))
    }
}

/// The known name that is most similar to `unknown`, by edit distance or as the same key in another section.
pub(super) fn nearest<'a>(unknown: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    const OTHER_SECTION: usize = 2;
    let last = |name: &str| name.rsplit('.').next().unwrap_or(name).to_owned();
    let unknown = unknown.to_lowercase();
    let unknown_last = last(&unknown);
    known.min_by_key(|name| {
        let in_other_section = levenshtein(&unknown_last, &last(name)) + OTHER_SECTION;
        levenshtein(&unknown, name).min(in_other_section)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_may_be_in_another_section() {
        let known = ["server.listen", "auth.issuer", "im_token.secret"];
        assert_eq!(
            nearest("server.lisen", known.into_iter()),
            Some("server.listen")
        );
        assert_eq!(nearest("listen", known.into_iter()), Some("server.listen"));
        assert_eq!(
            nearest("AUTH.ISUER", known.into_iter()),
            Some("auth.issuer")
        );
        assert_eq!(
            nearest("auth.secret", known.into_iter()),
            Some("im_token.secret")
        );
    }
}
