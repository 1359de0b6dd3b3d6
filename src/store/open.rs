//! Opening a database: its URL, its lock, its pragmas, its migrations. The only part of the store that knows which database it is.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::str::FromStr as _;
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use sqlx::any::{AnyConnectOptions, AnyPoolOptions};
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::{AnyPool, ConnectOptions as _};

use super::{StoreError, cause};

static MIGRATIONS: Migrator = sqlx::migrate!("src/store/migrations");

/// What a path keeps in a URL: the rest is encoded, or `?` and `#` would end it.
const PATH: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'/')
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// Connecting for the first time and migrating may take longer than an operation.
const OPEN_TIMEOUT: Duration = Duration::from_secs(30);

/// An open database.
pub(super) struct Opened {
    pub(super) pool: AnyPool,
    /// Held for the process's life; `None` where the database itself serves several replicas, or none else can reach it.
    pub(super) lock: Option<File>,
    /// Whether it lies behind a network, where a connection can fall silent for ever.
    pub(super) remote: bool,
}

pub(super) async fn open(
    url: &str,
    max_connections: u32,
    timeout: Duration,
) -> Result<Opened, StoreError> {
    sqlx::any::install_default_drivers();
    let pool = AnyPoolOptions::new()
        .max_connections(max_connections.max(1))
        .acquire_timeout(timeout);
    let open = async {
        if is_postgres(url) {
            return postgres(url, pool, timeout).await;
        }
        let (url, pool, lock) = match sqlite_database(url)? {
            Database::Memory => {
                // The data lives and dies with this connection.
                let pool = pool
                    .min_connections(1)
                    .max_connections(1)
                    .idle_timeout(None)
                    .max_lifetime(None);
                ("sqlite::memory:".to_owned(), pool, None)
            }
            Database::File { path, parameters } => {
                let (path, lock) = lock_file(&path)?;
                let text = path.to_str().ok_or_else(|| broken("path is no utf-8"))?;
                let path = utf8_percent_encode(text, PATH);
                let url = format!("sqlite://{path}?mode=rwc{parameters}");
                (url, with_pragmas(pool, timeout), Some(lock))
            }
        };
        let pool = pool.connect_with(options(&url)?).await.map_err(broken)?;
        migrate(&MIGRATIONS, &pool).await?;
        Ok(Opened {
            pool,
            lock,
            remote: false,
        })
    };
    tokio::time::timeout(OPEN_TIMEOUT, open)
        .await
        .map_err(|_| broken("no answer in time"))?
}

fn is_postgres(url: &str) -> bool {
    ["postgres:", "postgresql:"]
        .iter()
        .any(|scheme| url.starts_with(scheme))
}

/// Migrates on a connection of its own: replicas that start at once wait for each other there (sqlx takes an advisory lock), longer
/// perhaps than an operation may take. All others end a statement after `timeout`, whether or not anybody waits for it still.
async fn postgres(
    url: &str,
    pool: AnyPoolOptions,
    timeout: Duration,
) -> Result<Opened, StoreError> {
    let options = options(url)?;
    let migrating = AnyPoolOptions::new().max_connections(1);
    let migrating = migrating
        .connect_with(options.clone())
        .await
        .map_err(broken)?;
    migrate(&MIGRATIONS, &migrating).await?;
    migrating.close().await;
    let statement_ms = timeout.as_millis();
    let pool = pool.after_connect(move |connection, _| {
        Box::pin(async move {
            // Not among the URL's options: connection poolers refuse those.
            let sql = format!("SET statement_timeout = {statement_ms}");
            // A number only: nothing of the configuration's text is in it.
            sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
                .execute(connection)
                .await?;
            Ok(())
        })
    });
    Ok(Opened {
        pool: pool.connect_with(options).await.map_err(broken)?,
        lock: None,
        remote: true,
    })
}

fn options(url: &str) -> Result<AnyConnectOptions, StoreError> {
    let options = AnyConnectOptions::from_str(url).map_err(broken)?;
    Ok(options.disable_statement_logging())
}

async fn migrate(migrations: &Migrator, pool: &AnyPool) -> Result<(), StoreError> {
    migrations.run(pool).await.map_err(|error| match error {
        MigrateError::VersionMissing(version) => StoreError::Newer(version),
        error => broken(error),
    })
}

fn broken(error: impl Into<super::BoxError>) -> StoreError {
    StoreError::Open(cause::without_url(error.into()))
}

#[derive(Debug, PartialEq, Eq)]
enum Database {
    Memory,
    File {
        path: PathBuf,
        /// Further SQLite parameters of sqlx, each with a leading `&`.
        parameters: String,
    },
}

/// Takes `sqlite://data/gateway.db` (relative), `sqlite:///var/gateway.db`, `sqlite:gateway.db` and `sqlite::memory:` apart.
fn sqlite_database(url: &str) -> Result<Database, StoreError> {
    let Some(rest) = url.strip_prefix("sqlite:") else {
        return Err(broken("store.url must begin with sqlite: or postgres:"));
    };
    let rest = rest.strip_prefix("//").unwrap_or(rest);
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    if path == ":memory:" {
        return Ok(Database::Memory);
    }
    let path = percent_decode_str(path).decode_utf8().map_err(broken)?;
    if path.is_empty() || path.ends_with('/') {
        return Err(broken("store.url names no file"));
    }
    let mut parameters = String::new();
    for parameter in query.split('&') {
        match parameter {
            "" | "mode=rwc" | "mode=rw" => {}
            other if other.starts_with("mode=") => {
                return Err(broken("store.url: only mode=rwc is supported"));
            }
            other => {
                parameters.push('&');
                parameters.push_str(other);
            }
        }
    }
    Ok(Database::File {
        path: PathBuf::from(&*path),
        parameters,
    })
}

/// Locks `<db>.lock` beside the file, which says for the process's life that the database is taken. Not the database itself:
/// SQLite's own locks live there. Gives the path without links, so that one file has one lock however it is named.
fn lock_file(path: &Path) -> Result<(PathBuf, File), StoreError> {
    let name = path
        .file_name()
        .ok_or_else(|| broken("store.url names no file"))?;
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    std::fs::create_dir_all(folder).map_err(broken)?;
    let named = folder.canonicalize().map_err(broken)?.join(name);
    let path = if named.exists() {
        named.canonicalize().map_err(broken)?
    } else {
        named
    };
    let mut lock_path = path.clone().into_os_string();
    lock_path.push(".lock");
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&lock_path)
        .map_err(broken)?;
    match lock.try_lock() {
        Ok(()) => Ok((path, lock)),
        Err(TryLockError::WouldBlock) => Err(StoreError::Locked),
        Err(TryLockError::Error(error)) => Err(broken(error)),
    }
}

/// WAL, so that readers never wait for a writer; synchronous FULL, because a claim that a power cut takes back would leave its group
/// upstream without an owner.
fn with_pragmas(pool: AnyPoolOptions, timeout: Duration) -> AnyPoolOptions {
    let busy_ms = timeout.as_millis();
    pool.after_connect(move |connection, _| {
        Box::pin(async move {
            let pragmas = format!(
                "PRAGMA busy_timeout = {busy_ms}; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;"
            );
            // Numbers only: nothing of the configuration's text is in it.
            sqlx::raw_sql(sqlx::AssertSqlSafe(pragmas))
                .execute(connection)
                .await?;
            Ok(())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart_as_sqlx_does() {
        let file = |path: &str, parameters: &str| Database::File {
            path: path.into(),
            parameters: parameters.into(),
        };
        for (url, expected) in [
            ("sqlite::memory:", Database::Memory),
            ("sqlite://:memory:", Database::Memory),
            ("sqlite://data/gateway.db", file("data/gateway.db", "")),
            ("sqlite:///var/g.db", file("/var/g.db", "")),
            ("sqlite:g.db?mode=rwc", file("g.db", "")),
            (
                "sqlite://a%20b%3F.db?cache=private",
                file("a b?.db", "&cache=private"),
            ),
        ] {
            assert_eq!(sqlite_database(url).unwrap(), expected, "{url}");
        }
        for url in [
            "mysql://h/d",
            "sqlite://",
            "sqlite://data/",
            "sqlite://x?mode=ro",
            "",
        ] {
            assert!(
                matches!(sqlite_database(url), Err(StoreError::Open(_))),
                "{url}"
            );
        }
    }
}
