//! Reduces database errors for the log: no part of `store.url` may appear, since all of it is secret. Errors of PostgreSQL, the resolver
//! and TLS contain users, databases and hosts. And which errors say that a server is only not there yet.

use std::io::ErrorKind;

use sqlx::migrate::MigrateError;
use sqlx::postgres::PgDatabaseError;

use super::BoxError;

/// SQLSTATEs of a server that starts, stops or has no connection left, beside class 08 (connection exceptions, with which poolers
/// such as PgBouncer say that they do not reach the server behind them).
const TRANSIENT: [&str; 4] = ["53300", "57P01", "57P02", "57P03"];

/// The error, or a replacement text where its own may contain a part of the URL.
pub(super) fn without_url(error: BoxError) -> BoxError {
    let error = match error.downcast::<MigrateError>().map(|error| *error) {
        Ok(MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _)) => error.into(),
        Ok(error) => error.into(),
        Err(error) => error,
    };
    let redacted = match error.downcast_ref::<sqlx::Error>() {
        Some(sqlx::Error::Database(error)) => {
            // SQLite's messages contain no path.
            let error = error.try_downcast_ref::<PgDatabaseError>();
            error.map(|error| answered(error.code()))
        }
        // What rustls finds wrong comes as invalid data.
        Some(sqlx::Error::Io(error)) if error.kind() == ErrorKind::InvalidData => {
            Some("no TLS connection".to_owned())
        }
        // The standard library's own words; such an error has no kind of its own.
        Some(sqlx::Error::Io(error)) if error.to_string().starts_with("failed to lookup") => {
            Some("no connection: the host's name is not known".to_owned())
        }
        Some(sqlx::Error::Io(error)) => Some(format!("no connection: {}", error.kind())),
        Some(sqlx::Error::Tls(_)) => Some("no TLS connection".to_owned()),
        Some(sqlx::Error::Configuration(_)) => Some("store.url is not understood".to_owned()),
        _ => None,
    };
    redacted.map_or(error, Into::into)
}

/// A code of PostgreSQL's, with the words for those that operators meet.
fn answered(code: &str) -> String {
    let words = match code {
        "28P01" => " (password refused)",
        "28000" => " (login refused)",
        "3D000" => " (no such database)",
        "42501" => " (not permitted)",
        "53300" => " (too many connections)",
        "57P03" => " (not accepting connections yet)",
        _ => "",
    };
    format!("PostgreSQL answers SQLSTATE {code}{words}")
}

/// Whether the server could not be reached, or reports that it is not ready yet. Other errors (a refused login, an unknown database, TLS)
/// stay until an operator acts.
pub(super) fn is_transient(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(error) => !matches!(
            error.kind(),
            ErrorKind::InvalidData | ErrorKind::PermissionDenied
        ),
        sqlx::Error::Database(error) => error
            .code()
            .is_some_and(|code| code.starts_with("08") || TRANSIENT.contains(&&*code)),
        _ => false,
    }
}

/// [`is_transient`] for a migration.
pub(super) fn is_transient_migration(error: &MigrateError) -> bool {
    match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => {
            is_transient(error)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sqlx::Error;

    #[test]
    fn a_text_that_may_hold_a_part_of_the_url_is_replaced() {
        let redacted = |error: BoxError| without_url(error).to_string();
        let marked = || BoxError::from("marked");
        let lookup = || Error::Io(std::io::Error::other("no such host: marked"));
        for (error, expected) in [
            (lookup().into(), "no connection: other error"),
            (
                Error::Io(std::io::Error::other(
                    "failed to lookup address information: marked",
                ))
                .into(),
                "no connection: the host's name is not known",
            ),
            (
                Error::Io(std::io::Error::new(ErrorKind::InvalidData, "marked")).into(),
                "no TLS connection",
            ),
            (Error::Tls(marked()).into(), "no TLS connection"),
            (
                Error::Configuration(marked()).into(),
                "store.url is not understood",
            ),
            (
                MigrateError::Execute(lookup()).into(),
                "no connection: other error",
            ),
            (
                MigrateError::ExecuteMigration(lookup(), 1).into(),
                "no connection: other error",
            ),
            (
                Error::PoolTimedOut.into(),
                "pool timed out while waiting for an open connection",
            ),
            (
                MigrateError::Dirty(3).into(),
                &MigrateError::Dirty(3).to_string(),
            ),
            ("no answer in time".into(), "no answer in time"),
        ] {
            assert_eq!(redacted(error), expected);
        }
    }
}
