//! What of a database's error is kept for the log: nothing of `store.url`, which is a secret as a whole. PostgreSQL, the name
//! resolver and TLS put users, databases and hosts in their texts.

use sqlx::migrate::MigrateError;
use sqlx::postgres::PgDatabaseError;

use super::BoxError;

/// The error, or a text in its place where its own might hold a part of the URL.
pub(super) fn without_url(error: BoxError) -> BoxError {
    let error = match error.downcast::<MigrateError>().map(|error| *error) {
        Ok(MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _)) => error.into(),
        Ok(error) => error.into(),
        Err(error) => error,
    };
    let told = match error.downcast_ref::<sqlx::Error>() {
        Some(sqlx::Error::Database(error)) => {
            // SQLite's texts name no file.
            let error = error.try_downcast_ref::<PgDatabaseError>();
            error.map(|error| format!("PostgreSQL answers SQLSTATE {}", error.code()))
        }
        Some(sqlx::Error::Io(error)) => Some(format!("no connection: {}", error.kind())),
        Some(sqlx::Error::Tls(_)) => Some("no TLS connection".to_owned()),
        Some(sqlx::Error::Configuration(_)) => Some("store.url is not understood".to_owned()),
        _ => None,
    };
    told.map_or(error, Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sqlx::Error;

    #[test]
    fn a_text_that_may_hold_a_part_of_the_url_is_replaced() {
        let told = |error: BoxError| without_url(error).to_string();
        let marked = || BoxError::from("marked");
        let lookup = || Error::Io(std::io::Error::other("no such host: marked"));
        for (error, expected) in [
            (lookup().into(), "no connection: other error"),
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
            assert_eq!(told(error), expected);
        }
    }
}
