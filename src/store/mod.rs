//! What WuKongIM does not keep: who owns and manages a group, its name and avatar, which ids are spent, and how often a user's connect
//! tokens were revoked. Knows no upstream and no HTTP.
//!
//! One code path for every database: sqlx's `Any` pool, `$1` placeholders, `TEXT` and `BIGINT` only, `RETURNING` and
//! `ON CONFLICT DO NOTHING`, which SQLite and PostgreSQL read alike. What differs between databases is how one is opened: `open.rs`.
//!
//! Every decision is one statement that both checks and changes (`… WHERE stage IN (…) RETURNING …`), so two replicas on one
//! database need no transaction and no lock to agree. A write that timed out may still have been made: callers repeat or read again.

mod cause;
mod open;
mod opening;
mod record;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use sqlx::any::{Any, AnyArguments, AnyRow};
use sqlx::pool::PoolConnection;
use sqlx::query::Query;
use sqlx::{AnyPool, Row as _};
use tokio::sync::watch;

use open::Opened;
use opening::State;

use record::columns;
pub use record::{ChannelRecord, ChannelStage, Roles};

use crate::domain::{ChannelId, Uid};
use crate::telemetry::StoreMeters;

type Question<'a> = Query<'a, Any, AnyArguments>;
type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// How long the end waits for operations that still run, and for SQLite to write its journal into the file.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long it waits for a server, which keeps what it was told however a connection ends.
const CLOSE_REMOTE_TIMEOUT: Duration = Duration::from_millis(500);

/// Why the store did not do what it was asked. The texts go to the log; none holds the store's URL or a part of it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has this SQLite file, which serves one replica; its path, and who asks.
    #[error("cannot open the store: {0}: locked by another process")]
    Locked(String),
    /// A newer binary has migrated this store.
    #[error("the store's schema (migration {0}) is newer than this binary")]
    Newer(i64),
    /// It cannot be opened: bad URL, no right to the file, a broken or changed migration.
    #[error("cannot open the store: {0}")]
    Open(#[source] BoxError),
    /// It did not answer in time or answered an error; a write may still have been made.
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
    pool: AnyPool,
    /// Whether the database was reached and has its schema.
    state: watch::Receiver<State>,
    /// The most time one operation takes, waiting for a connection included.
    timeout: Duration,
    /// Whether a connection can fall silent for ever.
    remote: bool,
    meters: StoreMeters,
    /// Held for the process's life; `None` where the database itself serves several replicas, or none else can reach it.
    _lock: Option<File>,
}

impl Store {
    /// Opens the store, brings its schema up to date and holds it until the last use. A PostgreSQL that is not reached within
    /// `timeout` is opened as soon as it is; until then every operation is [`StoreError::Unavailable`] at once.
    ///
    /// `url`: `sqlite://<path>` (the file and its folder are made where they are missing), `sqlite::memory:`, which has one
    /// connection whatever `max_connections` says, or `postgres://…` (the database must be there). `timeout` bounds every later
    /// operation.
    ///
    /// # Errors
    /// [`StoreError::Locked`], [`StoreError::Newer`] or [`StoreError::Open`]: of PostgreSQL only what it answers itself.
    pub async fn open(
        url: &str,
        max_connections: u32,
        timeout: Duration,
    ) -> Result<Self, StoreError> {
        let Opened {
            pool,
            state,
            lock,
            remote,
        } = open::open(url, max_connections, timeout).await?;
        Ok(Self {
            pool,
            state,
            timeout,
            remote,
            meters: StoreMeters::default(),
            _lock: lock,
        })
    }

    /// Closes its connections, at the end of the process: SQLite then has everything in its one file, without a journal beside it.
    /// Every operation fails from now on.
    pub async fn close(&self) {
        let timeout = if self.remote {
            CLOSE_REMOTE_TIMEOUT
        } else {
            CLOSE_TIMEOUT
        };
        let closed = tokio::time::timeout(timeout, self.pool.close()).await;
        if closed.is_err() && !self.remote {
            tracing::warn!("store not closed in time: a journal may be left beside its file");
        }
    }

    /// What it counts.
    pub fn meters(&self) -> &StoreMeters {
        &self.meters
    }

    /// Its connections: those in use and those that wait.
    pub fn connections(&self) -> [(&'static str, usize); 2] {
        let (all, idle) = (self.pool.size() as usize, self.pool.num_idle());
        [("busy", all.saturating_sub(idle)), ("idle", idle)]
    }

    /// What is kept under `id`, tombstones included.
    pub async fn channel(&self, id: &ChannelId) -> Result<Option<ChannelRecord>, StoreError> {
        const SQL: &str = concat!("SELECT ", columns!(), " FROM channels WHERE id = $1");
        self.one("channel", sqlx::query(SQL).bind(id.as_str()))
            .await
    }

    /// Claims a free id for `owner`, at stage [`ChannelStage::Creating`]. `false`: the id has a record already, whoever made it.
    ///
    /// The one place where an owner comes into being; of any number of concurrent claims exactly one is answered `true`.
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
        let query = sqlx::query(SQL)
            .bind(id.as_str())
            .bind(owner.as_str())
            .bind(name)
            .bind(avatar)
            .bind(now_ms());
        Ok(self.one("claim", query).await?.is_some())
    }

    /// Makes `owner`'s claim live, or finds it live, and writes the fields that are given; absent ones stay. The record as it is
    /// stored then; `None` where `owner` holds no such id any more: somebody else's, or deleted.
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
        let query = sqlx::query(SQL)
            .bind(id.as_str())
            .bind(owner.as_str())
            .bind(name)
            .bind(avatar);
        self.one("make_live", query).await
    }

    /// Gives the live group of `before` these roles, and the fields that are given. `None`, and nothing is changed, where it is no
    /// longer live, or its owner or managers are no longer those of `before`.
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
        let query = sqlx::query(SQL)
            .bind(before.id.as_str())
            .bind(before.owner.as_ref().map(Uid::as_str))
            .bind(json(&before.managers)?)
            .bind(roles.owner.map(Uid::as_str))
            .bind(json(roles.managers)?)
            .bind(name)
            .bind(avatar);
        self.one("set_roles", query).await
    }

    /// Makes a group live that was made past the gateway. `claim` is the record of somebody who claimed the id for a group of his
    /// own, where there is one: it ends. `None`, and nothing is changed, where there is any other record of the id by now.
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
        let query = sqlx::query(SQL)
            .bind(id.as_str())
            .bind(roles.owner.map(Uid::as_str))
            .bind(json(roles.managers)?)
            .bind(name)
            .bind(avatar)
            .bind(now_ms())
            .bind(claimer.map(Uid::as_str));
        self.one("adopt", query).await
    }

    /// Marks `id` as deleted for every reader, at stage [`ChannelStage::Deleting`], with a record of nobody's where there is none.
    /// Leaves a mark that is there already as it is, a finished one too. With an `owner`, only while the group is his.
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
        let query = sqlx::query(SQL)
            .bind(id.as_str())
            .bind(now_ms())
            .bind(owner.map(Uid::as_str));
        Ok(self.one("mark_deleted", query).await?.is_some())
    }

    /// Notes that nothing of a marked channel is left upstream: [`ChannelStage::Deleted`].
    pub async fn finish_delete(&self, id: &ChannelId) -> Result<(), StoreError> {
        const SQL: &str = concat!(
            "UPDATE channels SET stage = 'deleted' WHERE id = $1 AND stage = 'deleting' RETURNING ",
            columns!()
        );
        self.one("finish_delete", sqlx::query(SQL).bind(id.as_str()))
            .await?;
        Ok(())
    }

    /// Whether the store can be read and written: a full disk, or a PostgreSQL that became a standby, can be read only.
    pub async fn ping(&self) -> Result<(), StoreError> {
        const READ: &str = concat!("SELECT ", columns!(), " FROM channels WHERE id = ''");
        const WRITE: &str = "INSERT INTO pings (id, at_ms) VALUES (1, $1) \
            ON CONFLICT (id) DO UPDATE SET at_ms = excluded.at_ms RETURNING at_ms";
        self.rows("ping", sqlx::query(READ)).await?;
        self.rows("ping", sqlx::query(WRITE).bind(now_ms())).await?;
        Ok(())
    }

    /// How often the connect tokens of (`uid`, `device`) were revoked.
    pub async fn revocations(&self, uid: &Uid, device: u8) -> Result<u64, StoreError> {
        const SQL: &str = "SELECT revocations FROM im_tokens WHERE uid = $1 AND device = $2";
        let query = sqlx::query(SQL).bind(uid.as_str()).bind(i64::from(device));
        self.number("revocations", query).await
    }

    /// Revokes them once more; how often that makes.
    pub async fn revoke(&self, uid: &Uid, device: u8) -> Result<u64, StoreError> {
        const SQL: &str = "INSERT INTO im_tokens (uid, device, revocations) VALUES ($1, $2, 1) \
            ON CONFLICT (uid, device) DO UPDATE SET revocations = im_tokens.revocations + 1 RETURNING revocations";
        let query = sqlx::query(SQL).bind(uid.as_str()).bind(i64::from(device));
        self.number("revoke", query).await
    }

    /// Runs a statement that gives a number of revocations; none is none.
    async fn number(&self, call: &'static str, query: Question<'_>) -> Result<u64, StoreError> {
        let rows = self.rows(call, query).await?;
        let number = rows.first().map_or(Ok(0), |row| row.try_get("revocations"));
        let number: i64 = number.map_err(StoreError::unavailable)?;
        u64::try_from(number).map_err(StoreError::unavailable)
    }

    /// Runs a statement that gives one record or none.
    async fn one(
        &self,
        call: &'static str,
        query: Question<'_>,
    ) -> Result<Option<ChannelRecord>, StoreError> {
        let rows = self.rows(call, query).await?;
        rows.first()
            .map(ChannelRecord::from_row)
            .transpose()
            .map_err(StoreError::unavailable)
    }

    /// Runs a statement within the deadline.
    async fn rows(
        &self,
        call: &'static str,
        query: Question<'_>,
    ) -> Result<Vec<AnyRow>, StoreError> {
        let mut counted = Counted {
            meters: &self.meters,
            call,
            began: Instant::now(),
            outcome: "cancelled",
        };
        if let State::Failed(cause) = &*self.state.borrow() {
            counted.outcome = "error";
            return Err(StoreError::Unavailable(cause.clone().into()));
        }
        let work = async {
            let mut asking = Asking {
                connection: self.pool.acquire().await?,
                unanswered: self.remote,
            };
            // All rows, not the first one: with `fetch_optional` SQLite's statement is reset half-way, and an error of the commit
            // that follows (disk full) would go unseen.
            let rows = query.fetch_all(&mut *asking.connection).await;
            asking.unanswered = false;
            rows
        };
        let (outcome, rows) = match tokio::time::timeout(self.timeout, work).await {
            Ok(Ok(rows)) => ("ok", Ok(rows)),
            Ok(Err(error)) => ("error", Err(StoreError::unavailable(error))),
            Err(_) => ("timeout", Err(StoreError::unavailable("no answer in time"))),
        };
        counted.outcome = outcome;
        rows
    }
}

/// A question in the metrics, one that nobody waits for any longer included.
struct Counted<'a> {
    meters: &'a StoreMeters,
    call: &'static str,
    began: Instant,
    outcome: &'static str,
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        let took = self.began.elapsed();
        self.meters.asked(self.call, self.outcome, took);
    }
}

/// A question under way.
struct Asking {
    connection: PoolConnection<Any>,
    /// Whether the connection may be dead, if this is dropped now.
    unanswered: bool,
}

impl Drop for Asking {
    fn drop(&mut self) {
        if self.unanswered {
            // The pool would test it without a deadline before it gave its place to another: a database that vanished without a
            // word would take all places for good.
            self.connection.close_on_drop();
        }
    }
}

/// The list as it is stored; the same uids in the same order are always the same text.
fn json(uids: &[Uid]) -> Result<String, StoreError> {
    serde_json::to_string(uids).map_err(StoreError::unavailable)
}

fn now_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |now| i64::try_from(now.as_millis()).unwrap_or(i64::MAX))
}
