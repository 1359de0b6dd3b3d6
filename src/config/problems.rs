//! Errors of a configuration, with their origins. They contain no values, since some are secrets.

use std::fmt;

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
#[derive(Debug, Clone, PartialEq, Eq)]
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

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// All errors of a configuration; printed one per line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

/// The known name that is most similar to `unknown`, by edit distance or as the same key in another section.
pub(super) fn nearest<'a>(unknown: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    const OTHER_SECTION: usize = 2;
    let last = |name: &str| name.rsplit('.').next().unwrap_or(name).to_owned();
    let unknown = unknown.to_lowercase();
    let unknown_last = last(&unknown);
    known.min_by_key(|name| {
        let in_other_section = distance(&unknown_last, &last(name)) + OTHER_SECTION;
        distance(&unknown, name).min(in_other_section)
    })
}

/// Levenshtein distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        row[0] = left;
        for (to, cell) in b.iter().zip(&mut row[1..]) {
            let changed = diagonal + usize::from(from != *to);
            diagonal = *cell;
            left = changed.min(left + 1).min(*cell + 1);
            *cell = left;
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_typing_errors() {
        assert_eq!(distance("listen", "listen"), 0);
        assert_eq!(distance("lisen", "listen"), 1);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
    }

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
