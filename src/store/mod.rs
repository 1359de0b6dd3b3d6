//! The gateway's own database, for data that WuKongIM does not have: owners and managers of groups, names and avatars, deleted ids, and
//! revocation counts of connect tokens. Does not know the upstream or HTTP.
//!
//! One code path for every database: sqlx's `Any` pool, `$1` placeholders, `TEXT` and `BIGINT` only, `RETURNING` and `ON CONFLICT DO
//! NOTHING`, which SQLite and PostgreSQL share. Only opening differs between databases: `open.rs`.
//!
//! Every decision is one statement that both checks and changes (`… WHERE stage IN (…) RETURNING …`), so replicas on one database need no
//! transactions or locks. A write that timed out may still have been executed: callers retry or read again.

mod cause;
mod connect;
mod open;
mod record;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use sqlx::AssertSqlSafe;
use sqlx::Row as _;
use sqlx::any::{Any, AnyArguments, AnyRow};
use sqlx::pool::PoolConnection;
use sqlx::query::Query;

use connect::State;
use open::OpenedDatabase;

use record::columns;
pub use record::{ChannelRecord, ChannelStage, Roles};

use crate::domain::{ChannelId, Uid};
use crate::telemetry::StoreMeters;

type SqlQuery<'a> = Query<'a, Any, AnyArguments>;
type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// How long the shutdown waits for running operations, and for SQLite to write its journal into the file.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long it waits with a database server, which keeps committed data however a connection ends.
const CLOSE_REMOTE_TIMEOUT: Duration = Duration::from_millis(500);

/// How many ids a statement with a list of them takes.
const ID_COUNTS: [usize; 3] = [8, 64, 512];

/// Why an operation of the store failed. The texts go to the log; none contains any part of the store's URL.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process uses this SQLite file, which supports one replica only; with its path and this process's user.
    #[error("cannot open the store: {0}: locked by another process")]
    Locked(String),
    /// A newer binary has migrated this store.
    #[error("the store's schema (migration {0}) is newer than this binary")]
    Newer(i64),
    /// It cannot be opened: invalid URL, no permission, a failed or changed migration.
    #[error("cannot open the store: {0}")]
    Open(#[source] BoxError),
    /// It did not answer in time, or with an error; a write may still have been executed.
    #[error("the store is unavailable: {0}")]
    Unavailable(#[source] BoxError),
}

impl StoreError {
    fn unavailable(error: impl Into<BoxError>) -> Self {
        Self::Unavailable(cause::without_url(error.into()))
    }
}

/// The gateway's own database.
pub struct Store {
    database: OpenedDatabase,
    /// Time limit of one operation, including the wait for a connection.
    timeout: Duration,
    meters: StoreMeters,
}

impl Store {
    /// Opens the store and migrates its schema. A PostgreSQL that is not reached within `timeout` is opened as soon as it is; until then
    /// every operation is [`StoreError::Unavailable`] at once.
    ///
    /// `url`: `sqlite://<path>` (creates a missing file and folder), `sqlite::memory:` (always one connection), or `postgres://…` (the
    /// database must exist). `timeout` limits every later operation.
    ///
    /// # Errors
    /// [`StoreError::Locked`], [`StoreError::Newer`] or [`StoreError::Open`]: of PostgreSQL only what it answers itself.
    pub async fn open(
        url: &str,
        max_connections: u32,
        timeout: Duration,
    ) -> Result<Self, StoreError> {
        Ok(Self {
            database: open::open(url, max_connections, timeout).await?,
            timeout,
            meters: StoreMeters::default(),
        })
    }

    /// Closes all connections at shutdown, after which SQLite has all data in its one file without a journal. Later operations fail.
    pub async fn close(&self) {
        let OpenedDatabase { pool, remote, .. } = &self.database;
        let timeout = if *remote {
            CLOSE_REMOTE_TIMEOUT
        } else {
            CLOSE_TIMEOUT
        };
        let closed = tokio::time::timeout(timeout, pool.close()).await;
        if closed.is_err() && !remote {
            tracing::warn!("store not closed in time: a journal may be left beside its file");
        }
    }

    /// The store's metrics.
    pub fn meters(&self) -> &StoreMeters {
        &self.meters
    }

    /// The number of busy and idle connections.
    pub fn connections(&self) -> [(&'static str, usize); 2] {
        let pool = &self.database.pool;
        let (all, idle) = (pool.size() as usize, pool.num_idle());
        [("busy", all.saturating_sub(idle)), ("idle", idle)]
    }

    /// The record of `id`, tombstones included.
    pub async fn channel(&self, id: &ChannelId) -> Result<Option<ChannelRecord>, StoreError> {
        const SQL: &str = concat!("SELECT ", columns!(), " FROM channels WHERE id = $1");
        self.fetch_record("channel", statement(SQL, [Some(id.as_str())]))
            .await
    }

    /// The records of these ids, tombstones included, in no order.
    pub async fn channels(&self, ids: &[ChannelId]) -> Result<Vec<ChannelRecord>, StoreError> {
        let mut records = Vec::new();
        for ids in ids.chunks(ID_COUNTS[ID_COUNTS.len() - 1]) {
            // Few statements, since each connection prepares every one; no id is NULL.
            let places = ID_COUNTS.iter().find(|count| ids.len() <= **count);
            let places = places.copied().unwrap_or(ids.len());
            let list: Vec<String> = (1..=places).map(|place| format!("${place}")).collect();
            let list = list.join(", ");
            let sql = format!("SELECT {} FROM channels WHERE id IN ({list})", columns!());
            let mut query = sqlx::query(AssertSqlSafe(sql));
            for place in 0..places {
                query = query.bind(ids.get(place).map(ChannelId::as_str));
            }
            let rows = self.fetch_rows("channels", query).await?;
            for row in &rows {
                records.push(ChannelRecord::from_row(row).map_err(StoreError::unavailable)?);
            }
        }
        Ok(records)
    }

    /// Claims a free id for `owner`, at stage [`ChannelStage::Creating`]; `false` where the id has a record already.
    ///
    /// The only statement that creates an owner; of concurrent claims exactly one returns `true`.
    pub async fn claim(
        &self,
        id: &ChannelId,
        owner: &Uid,
        name: Option<&str>,
        avatar: Option<&str>,
    ) -> Result<bool, StoreError> {
        const SQL: &str = concat!(
            "INSERT INTO channels (id, owner, name, avatar, stage, created_at_ms) ",
            "VALUES ($1, $2, $3, $4, 'creating', $5) ON CONFLICT (id) DO NOTHING RETURNING ",
            columns!()
        );
        let query = statement(SQL, [Some(id.as_str()), Some(owner.as_str()), name, avatar]);
        let query = query.bind(now_ms());
        Ok(self.fetch_record("claim", query).await?.is_some())
    }

    /// Makes `owner`'s claim live, if it is not yet, and writes the given fields; absent ones are kept. Returns the stored record; `None`
    /// where the id no longer belongs to `owner` or is deleted.
    pub async fn make_live(
        &self,
        id: &ChannelId,
        owner: &Uid,
        name: Option<&str>,
        avatar: Option<&str>,
    ) -> Result<Option<ChannelRecord>, StoreError> {
        const SQL: &str = concat!(
            "UPDATE channels SET stage = 'live', name = COALESCE($3, name), avatar = COALESCE($4, avatar) ",
            "WHERE id = $1 AND owner = $2 AND stage IN ('creating', 'live') RETURNING ",
            columns!()
        );
        let query = statement(SQL, [Some(id.as_str()), Some(owner.as_str()), name, avatar]);
        self.fetch_record("make_live", query).await
    }

    /// Sets these roles and the given fields on the live group of `before`. `None`, without a change, where it is no longer live or its
    /// roles differ from `before`.
    pub async fn set_roles(
        &self,
        before: &ChannelRecord,
        roles: Roles<'_>,
        name: Option<&str>,
        avatar: Option<&str>,
    ) -> Result<Option<ChannelRecord>, StoreError> {
        const SQL: &str = concat!(
            "UPDATE channels SET owner = $4, managers = $5, name = COALESCE($6, name), avatar = COALESCE($7, avatar) ",
            "WHERE id = $1 AND stage = 'live' AND owner IS NOT DISTINCT FROM $2 AND managers = $3 RETURNING ",
            columns!()
        );
        let (id, owner) = (before.id.as_str(), before.owner.as_ref().map(Uid::as_str));
        let (managers, new_managers) = (json(&before.managers)?, json(roles.managers)?);
        let query = statement(SQL, [Some(id), owner, Some(&managers)]);
        let query = query.bind(roles.owner.map(Uid::as_str)).bind(new_managers);
        self.fetch_record("set_roles", query.bind(name).bind(avatar))
            .await
    }

    /// Creates the live record of a group that was created past the gateway. Replaces `claim`, the record of a failed creation with the
    /// same id, if there is one. `None`, without a change, where the id has any other record.
    pub async fn adopt(
        &self,
        id: &ChannelId,
        claim: Option<&ChannelRecord>,
        roles: Roles<'_>,
        name: Option<&str>,
        avatar: Option<&str>,
    ) -> Result<Option<ChannelRecord>, StoreError> {
        const SQL: &str = concat!(
            "INSERT INTO channels (id, owner, managers, name, avatar, stage, created_at_ms) ",
            "VALUES ($1, $2, $3, $4, $5, 'live', $6) ON CONFLICT (id) DO UPDATE SET owner = excluded.owner, ",
            "managers = excluded.managers, name = excluded.name, avatar = excluded.avatar, stage = excluded.stage, ",
            "created_at_ms = excluded.created_at_ms WHERE channels.stage = 'creating' AND channels.owner = $7 RETURNING ",
            columns!()
        );
        let claimer = claim.and_then(|claim| claim.owner.as_ref());
        let (owner, managers) = (roles.owner.map(Uid::as_str), json(roles.managers)?);
        let query = statement(
            SQL,
            [Some(id.as_str()), owner, Some(&managers), name, avatar],
        );
        let query = query.bind(now_ms()).bind(claimer.map(Uid::as_str));
        self.fetch_record("adopt", query).await
    }

    /// Marks `id` as deleted for all readers, at stage [`ChannelStage::Deleting`]; creates a record without an owner where there is none.
    /// Keeps an existing mark, also a finished one. With an `owner`, only while that user owns the group.
    ///
    /// `false`, and nothing is changed, where it is marked already, or not that owner's.
    pub async fn mark_deleted(
        &self,
        id: &ChannelId,
        owner: Option<&Uid>,
    ) -> Result<bool, StoreError> {
        const SQL: &str = concat!(
            "INSERT INTO channels (id, stage, created_at_ms, deleted_at_ms) VALUES ($1, 'deleting', $2, $2) ",
            "ON CONFLICT (id) DO UPDATE SET stage = 'deleting', deleted_at_ms = excluded.deleted_at_ms ",
            "WHERE channels.stage IN ('creating', 'live') AND COALESCE($3, channels.owner) IS NOT DISTINCT FROM channels.owner ",
            "RETURNING ",
            columns!()
        );
        let owner = owner.map(Uid::as_str);
        let query = statement(SQL, [Some(id.as_str())])
            .bind(now_ms())
            .bind(owner);
        Ok(self.fetch_record("mark_deleted", query).await?.is_some())
    }

    /// Records that nothing of a marked channel is left upstream: [`ChannelStage::Deleted`].
    pub async fn finish_delete(&self, id: &ChannelId) -> Result<(), StoreError> {
        const SQL: &str = concat!(
            "UPDATE channels SET stage = 'deleted' WHERE id = $1 AND stage = 'deleting' RETURNING ",
            columns!()
        );
        let query = statement(SQL, [Some(id.as_str())]);
        self.fetch_record("finish_delete", query).await.map(drop)
    }

    /// Checks that the store can be read and written: a full disk or a PostgreSQL standby is read-only.
    pub async fn ping(&self) -> Result<(), StoreError> {
        const READ: &str = concat!("SELECT ", columns!(), " FROM channels WHERE id = ''");
        const WRITE: &str = "INSERT INTO pings (id, at_ms) VALUES (1, $1) \
            ON CONFLICT (id) DO UPDATE SET at_ms = excluded.at_ms RETURNING at_ms";
        self.fetch_rows("ping", sqlx::query(READ)).await?;
        self.fetch_rows("ping", sqlx::query(WRITE).bind(now_ms()))
            .await?;
        Ok(())
    }

    /// The revocation count of the connect tokens of (`uid`, `device`).
    pub async fn revocations(&self, uid: &Uid, device: u8) -> Result<u64, StoreError> {
        const SQL: &str = "SELECT revocations FROM im_tokens WHERE uid = $1 AND device = $2";
        self.count("revocations", SQL, uid, device).await
    }

    /// Increments the revocation count, and returns it.
    pub async fn revoke(&self, uid: &Uid, device: u8) -> Result<u64, StoreError> {
        const SQL: &str = "INSERT INTO im_tokens (uid, device, revocations) VALUES ($1, $2, 1) \
            ON CONFLICT (uid, device) DO UPDATE SET revocations = im_tokens.revocations + 1 RETURNING revocations";
        self.count("revoke", SQL, uid, device).await
    }

    /// Runs a statement that returns the revocation count of (`uid`, `device`); 0 without a row.
    async fn count(
        &self,
        call: &'static str,
        sql: &'static str,
        uid: &Uid,
        device: u8,
    ) -> Result<u64, StoreError> {
        let query = sqlx::query(sql).bind(uid.as_str()).bind(i64::from(device));
        let rows = self.fetch_rows(call, query).await?;
        let count = rows.first().map_or(Ok(0), |row| row.try_get("revocations"));
        let count: i64 = count.map_err(StoreError::unavailable)?;
        u64::try_from(count).map_err(StoreError::unavailable)
    }

    /// Runs a statement that returns one record or none.
    async fn fetch_record(
        &self,
        call: &'static str,
        query: SqlQuery<'_>,
    ) -> Result<Option<ChannelRecord>, StoreError> {
        let rows = self.fetch_rows(call, query).await?;
        rows.first()
            .map(ChannelRecord::from_row)
            .transpose()
            .map_err(StoreError::unavailable)
    }

    /// Runs a statement within the deadline.
    async fn fetch_rows(
        &self,
        call: &'static str,
        query: SqlQuery<'_>,
    ) -> Result<Vec<AnyRow>, StoreError> {
        let mut timer = QueryTimer {
            meters: &self.meters,
            call,
            began: Instant::now(),
            outcome: "cancelled",
        };
        if let State::Failed(cause) = &*self.database.state.borrow() {
            timer.outcome = "error";
            return Err(StoreError::Unavailable(cause.clone().into()));
        }
        let work = async {
            let mut guard = ConnectionGuard {
                connection: self.database.pool.acquire().await?,
                in_use: self.database.remote,
            };
            // All rows instead of the first one: `fetch_optional` resets SQLite's statement early, and an error of the following commit
            // (disk full) would be lost.
            let rows = query.fetch_all(&mut *guard.connection).await;
            guard.in_use = false;
            rows
        };
        let (outcome, rows) = match tokio::time::timeout(self.timeout, work).await {
            Ok(Ok(rows)) => ("ok", Ok(rows)),
            Ok(Err(error)) => ("error", Err(StoreError::unavailable(error))),
            Err(_) => ("timeout", Err(StoreError::unavailable("no answer in time"))),
        };
        timer.outcome = outcome;
        rows
    }
}

/// Records a query in the metrics, also a cancelled one.
struct QueryTimer<'a> {
    meters: &'a StoreMeters,
    call: &'static str,
    began: Instant,
    outcome: &'static str,
}

impl Drop for QueryTimer<'_> {
    fn drop(&mut self) {
        let took = self.began.elapsed();
        self.meters.observe(self.call, self.outcome, took);
    }
}

/// The connection of a running query.
struct ConnectionGuard {
    connection: PoolConnection<Any>,
    /// Whether a query is unanswered, so that the connection may be dead if this is dropped.
    in_use: bool,
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        if self.in_use {
            // The pool would test the connection without a deadline before reusing it: a database that vanished silently would block all
            // connections forever.
            self.connection.close_on_drop();
        }
    }
}

/// A statement with its first parameters.
fn statement<'a, const N: usize>(
    sql: &'static str,
    parameters: [Option<&'a str>; N],
) -> SqlQuery<'a> {
    let query = sqlx::query(sql);
    parameters.into_iter().fold(query, Query::bind)
}

/// The stored form of a list; deterministic, since `set_roles` compares it.
fn json(uids: &[Uid]) -> Result<String, StoreError> {
    serde_json::to_string(uids).map_err(StoreError::unavailable)
}

fn now_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |now| i64::try_from(now.as_millis()).unwrap_or(i64::MAX))
}
