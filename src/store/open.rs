//! Opening a database: its URL, its lock, its pragmas, its migrations. The only part of the store that knows which database it is.

use std::borrow::Cow;
use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr as _;
use std::sync::LazyLock;
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use sqlx::any::{AnyConnectOptions, AnyPoolOptions};
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::{AnyConnection, AnyPool, ConnectOptions as _, Connection as _, SqlSafeStr as _};
use tokio::sync::watch;
use url::Url;

use super::connect::{self, State};
use super::{StoreError, cause};

/// The files of `migrations/`. A released one never changes: every database holds the checksums of those it has been through.
///
/// Not by sqlx's macro, for which its drivers, SQLite's C code with them, would be built twice.
static MIGRATIONS: LazyLock<Migrator> = LazyLock::new(|| {
    let files = [
        (1, "channels", include_str!("migrations/0001_channels.sql")),
        (2, "managers", include_str!("migrations/0002_managers.sql")),
        (
            3,
            "im tokens",
            include_str!("migrations/0003_im_tokens.sql"),
        ),
        (4, "pings", include_str!("migrations/0004_pings.sql")),
    ];
    let migrations = files.map(|(version, name, sql)| {
        Migration::new(
            version,
            name.into(),
            MigrationType::Simple,
            sql.into_sql_str(),
            false,
        )
    });
    Migrator::with_migrations(migrations.into())
});

/// Characters of a path that are not encoded in a URL; `?` and `#` would end the path.
const PATH: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'/')
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// A database that is open, or is opened as soon as it can be reached.
pub(super) struct OpenedDatabase {
    pub(super) pool: AnyPool,
    /// Whether the schema is there.
    pub(super) state: watch::Receiver<State>,
    /// Held for the process's life; `None` where the database itself serves several replicas, or none else can reach it.
    pub(super) _lock: Option<File>,
    /// Whether the database is behind a network, where a connection may hang forever.
    pub(super) remote: bool,
}

pub(super) async fn open(
    url: &str,
    max_connections: u32,
    timeout: Duration,
) -> Result<OpenedDatabase, StoreError> {
    sqlx::any::install_default_drivers();
    let pool = AnyPoolOptions::new()
        .max_connections(max_connections.max(1))
        .acquire_timeout(timeout);
    if is_postgres(url) {
        return postgres(url, pool, timeout).await;
    }
    let (pool, lock) = match sqlite_database(url)? {
        Database::Memory => {
            // The data exists only in this connection.
            let pool = pool
                .min_connections(1)
                .max_connections(1)
                .idle_timeout(None)
                .max_lifetime(None);
            let options = options("sqlite::memory:")?;
            let pool = pool.connect_with(options).await.map_err(open_error)?;
            MIGRATIONS.run(&pool).await.map_err(migration_error)?;
            (pool, None)
        }
        Database::File { path, parameters } => {
            // Not on the thread that listens to signals: a file on a network may hang.
            let prepared = tokio::task::spawn_blocking(move || prepare_file(&path)).await;
            let (path, lock) = prepared.map_err(open_error)??;
            let text = path
                .to_str()
                .ok_or_else(|| open_error("path is no utf-8"))?;
            let text = utf8_percent_encode(text, PATH);
            let options = options(&format!("sqlite://{text}?mode=rwc{parameters}"))?;
            sqlite_file(&options, timeout)
                .await
                .map_err(|error| at(&path, error))?;
            let pool = pool.after_connect(move |connection, _| {
                Box::pin(async move { set_pragmas(connection, timeout).await })
            });
            (pool.connect_lazy_with(options), Some(lock))
        }
    };
    let (_, state) = watch::channel(State::Open);
    Ok(OpenedDatabase {
        pool,
        state,
        _lock: lock,
        remote: false,
    })
}

fn is_postgres(url: &str) -> bool {
    url.starts_with("postgres:") || url.starts_with("postgresql:")
}

/// Waits `timeout` for the server. An error it answers is final; a server that cannot be reached is retried in the background. On pooled
/// connections the server cancels a statement after `timeout`.
async fn postgres(
    url: &str,
    pool: AnyPoolOptions,
    timeout: Duration,
) -> Result<OpenedDatabase, StoreError> {
    let options = options(url)?;
    let state = connect::begin(options.clone(), timeout).await?;
    let statement_ms = timeout.as_millis();
    let pool = pool.after_connect(move |connection, _| {
        Box::pin(async move {
            // Not in the URL's options, which connection poolers refuse.
            let sql = format!("SET statement_timeout = {statement_ms}");
            // Safe: contains only a number, no text of the configuration.
            sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
                .execute(connection)
                .await?;
            Ok(())
        })
    });
    Ok(OpenedDatabase {
        pool: pool.connect_lazy_with(options),
        state,
        _lock: None,
        remote: true,
    })
}

fn options(url: &str) -> Result<AnyConnectOptions, StoreError> {
    let url = with_bare_host(url);
    let options = AnyConnectOptions::from_str(&url).map_err(open_error)?;
    Ok(options.disable_statement_logging())
}

/// The URL with an IPv6 address named once more, without its brackets: the driver looks up what stands in them as a name.
fn with_bare_host(url: &str) -> Cow<'_, str> {
    let parsed = Url::parse(url).ok();
    match parsed.as_ref().and_then(Url::host_str) {
        Some(host) if is_postgres(url) && host.starts_with('[') => {
            let and = if url.contains('?') { '&' } else { '?' };
            let bare = host.trim_matches(['[', ']']);
            format!("{url}{and}host={bare}").into()
        }
        _ => url.into(),
    }
}

/// Brings the schema up to date.
pub(super) async fn migrate(connection: &mut AnyConnection) -> Result<(), MigrateError> {
    // Not `run`: with a connection of its own that future is not `Send` for the compiler ("`Acquire` is not general enough").
    MIGRATIONS.run_direct(None, connection, false).await
}

/// Why the schema could not be brought up to date.
pub(super) fn migration_error(error: MigrateError) -> StoreError {
    match error {
        MigrateError::VersionMissing(version) => StoreError::Newer(version),
        error => open_error(error),
    }
}

pub(super) fn open_error(error: impl Into<super::BoxError>) -> StoreError {
    StoreError::Open(cause::without_url(error.into()))
}

/// The error with what an operator needs to find it: which file, and as whom it was tried.
fn at(path: &Path, error: StoreError) -> StoreError {
    match error {
        StoreError::Open(cause) => StoreError::Open(format!("{}: {cause}", tried(path)).into()),
        other => other,
    }
}

fn tried(path: &Path) -> String {
    let user = rustix::process::geteuid().as_raw();
    format!("{} as user {user}", path.display())
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

/// Parses `sqlite://data/gateway.db` (relative), `sqlite:///var/gateway.db`, `sqlite:gateway.db` and `sqlite::memory:`.
fn sqlite_database(url: &str) -> Result<Database, StoreError> {
    let Some(rest) = url.strip_prefix("sqlite:") else {
        return Err(open_error("store.url must begin with sqlite: or postgres:"));
    };
    let rest = rest.strip_prefix("//").unwrap_or(rest);
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    if path == ":memory:" {
        return Ok(Database::Memory);
    }
    let path = percent_decode_str(path).decode_utf8().map_err(open_error)?;
    if path.is_empty() || path.ends_with('/') {
        return Err(open_error("store.url names no file"));
    }
    let mut parameters = String::new();
    for parameter in query.split('&') {
        match parameter {
            "" | "mode=rwc" | "mode=rw" => {}
            other if other.starts_with("mode=") => {
                return Err(open_error("store.url: only mode=rwc is supported"));
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

/// Creates the missing folder and file, and locks `<db>.lock` next to it for the process's life. Not the database file itself, which SQLite
/// locks. Resolves links in the path, so that one file has one lock under all its names.
fn prepare_file(path: &Path) -> Result<(PathBuf, File), StoreError> {
    let name = path
        .file_name()
        .ok_or_else(|| open_error("store.url names no file"))?;
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let in_folder = |error| at(folder, open_error(error));
    std::fs::create_dir_all(folder).map_err(in_folder)?;
    let named = folder.canonicalize().map_err(in_folder)?.join(name);
    let path = if named.exists() {
        named
            .canonicalize()
            .map_err(|error| at(&named, open_error(error)))?
    } else {
        named
    };
    let mut lock_path = path.clone().into_os_string();
    lock_path.push(".lock");
    let lock_path = PathBuf::from(lock_path);
    let lock = open_private(&lock_path).map_err(|error| at(&lock_path, open_error(error)))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(StoreError::Locked(tried(&path))),
        Err(TryLockError::Error(error)) => return Err(at(&lock_path, open_error(error))),
    }
    // SQLite gives its journals the mode of the database.
    drop(open_private(&path).map_err(|error| at(&path, open_error(error)))?);
    Ok((path, lock))
}

/// Opens a file for writing; creates a missing one with access for this user only.
fn open_private(path: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).write(true).mode(0o600);
    options.open(path)
}

/// Opens and migrates the file on a separate connection, since the pool would retry an error of SQLite again and again.
async fn sqlite_file(options: &AnyConnectOptions, timeout: Duration) -> Result<(), StoreError> {
    let mut connection = AnyConnection::connect_with(options)
        .await
        .map_err(open_error)?;
    set_pragmas(&mut connection, timeout)
        .await
        .map_err(open_error)?;
    migrate(&mut connection).await.map_err(migration_error)?;
    connection.close().await.map_err(open_error)
}

/// WAL, so that readers never wait for a writer; synchronous FULL, because losing a claim in a power failure would leave its group upstream
/// without an owner.
async fn set_pragmas(connection: &mut AnyConnection, timeout: Duration) -> Result<(), sqlx::Error> {
    let busy_ms = timeout.as_millis();
    let pragmas = format!(
        "PRAGMA busy_timeout = {busy_ms}; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;"
    );
    // Safe: contains only numbers, no text of the configuration.
    sqlx::raw_sql(sqlx::AssertSqlSafe(pragmas))
        .execute(connection)
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_the_folder_is_a_migration_in_its_turn() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/store/migrations");
        let files = std::fs::read_dir(folder).unwrap().count();
        let versions: Vec<_> = MIGRATIONS
            .iter()
            .map(|migration| migration.version)
            .collect();
        assert!(versions.into_iter().eq(1..=i64::try_from(files).unwrap()));
    }

    #[test]
    fn an_ipv6_address_is_not_resolved_as_a_name() {
        for (url, expected) in [
            ("postgres://u@[::1]:5/d", "postgres://u@[::1]:5/d?host=::1"),
            (
                "postgres://u@[::1]/d?sslmode=disable",
                "postgres://u@[::1]/d?sslmode=disable&host=::1",
            ),
            ("postgres://u@127.0.0.1/d", "postgres://u@127.0.0.1/d"),
            ("sqlite://a[b]", "sqlite://a[b]"),
        ] {
            assert_eq!(with_bare_host(url), expected);
        }
    }

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
