//! Databases for tests: each test has one of its own, on SQLite and, where `GATEWAY_TEST_POSTGRES_URL` names a server, on PostgreSQL.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "shared by several test binaries, each of which uses a part"
)]

use std::io::Write as _;

use sqlx::{AnyConnection, Connection as _};

/// What a full disk keeps from being written: each of them is written by an `INSERT … ON CONFLICT` first.
const TABLES: [&str; 3] = ["channels", "im_tokens", "pings"];

/// What a store may lie in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A file.
    Sqlite,
    /// A schema of its own.
    Postgres,
}

/// A PostgreSQL server for tests, by a URL whose user may make schemas.
#[expect(
    clippy::disallowed_methods,
    reason = "the tests' own variable, no key of the gateway's"
)]
pub fn postgres_url() -> Option<String> {
    std::env::var("GATEWAY_TEST_POSTGRES_URL")
        .ok()
        .filter(|url| !url.is_empty())
}

/// Whether what only PostgreSQL does goes untested here; says so.
pub fn skips_postgres() -> bool {
    let skips = postgres_url().is_none();
    if skips {
        let said =
            "\n!!! SKIPPED: POSTGRESQL NOT TRIED: GATEWAY_TEST_POSTGRES_URL is not set !!!\n";
        // Not `eprintln!`: the test runner keeps that for failures.
        std::io::stderr().write_all(said.as_bytes()).unwrap();
    }
    skips
}

/// The kinds that can be tested here.
pub fn kinds() -> Vec<Kind> {
    match postgres_url() {
        Some(_) => vec![Kind::Sqlite, Kind::Postgres],
        None => vec![Kind::Sqlite],
    }
}

/// An empty database; gone when this is dropped.
pub struct Database {
    pub kind: Kind,
    pub url: String,
    place: Place,
}

enum Place {
    Folder(tempfile::TempDir),
    Schema { server: String, name: String },
}

impl Database {
    pub async fn new(kind: Kind) -> Self {
        sqlx::any::install_default_drivers();
        let (url, place) = match kind {
            Kind::Sqlite => {
                let folder = tempfile::tempdir().unwrap();
                let url = format!("sqlite://{}", folder.path().join("gateway.db").display());
                (url, Place::Folder(folder))
            }
            Kind::Postgres => {
                let server = postgres_url().unwrap();
                let name = format!("test_{}", uuid::Uuid::new_v4().simple());
                run(&server, &format!("CREATE SCHEMA {name}")).await;
                let and = if server.contains('?') { '&' } else { '?' };
                let url = format!("{server}{and}options[search_path]={name}");
                (url, Place::Schema { server, name })
            }
        };
        Self { kind, url, place }
    }

    /// Runs statements past the gateway.
    pub async fn run(&self, sql: &str) {
        run(&self.url, sql).await;
    }

    /// Makes every change of this kind (`INSERT`, `UPDATE`) of `channels` fail; with `when`, only those of which that is true.
    pub async fn refuse(&self, event: &str, when: Option<&str>) {
        let when = when
            .map(|when| format!("WHEN ({when})"))
            .unwrap_or_default();
        self.refuse_in("channels", event, &when).await;
    }

    /// Takes [`Self::refuse`] back.
    pub async fn allow(&self) {
        self.allow_in("channels").await;
    }

    /// Makes every change fail and every look succeed, as a full disk does.
    pub async fn fill_disk(&self) {
        for table in TABLES {
            self.refuse_in(table, "INSERT", "").await;
        }
    }

    /// Takes [`Self::fill_disk`] back.
    pub async fn free_disk(&self) {
        for table in TABLES {
            self.allow_in(table).await;
        }
    }

    async fn refuse_in(&self, table: &str, event: &str, when: &str) {
        let sql = match self.kind {
            Kind::Sqlite => format!(
                "CREATE TRIGGER broken_{table} BEFORE {event} ON {table} {when} BEGIN SELECT RAISE(ABORT, 'scripted'); END"
            ),
            Kind::Postgres => format!(
                "CREATE OR REPLACE FUNCTION broken() RETURNS trigger LANGUAGE plpgsql AS \
                $$ BEGIN RAISE EXCEPTION 'scripted'; END $$; \
                CREATE TRIGGER broken_{table} BEFORE {event} ON {table} FOR EACH ROW {when} EXECUTE FUNCTION broken()"
            ),
        };
        self.run(&sql).await;
    }

    async fn allow_in(&self, table: &str) {
        let on = match self.kind {
            Kind::Sqlite => String::new(),
            Kind::Postgres => format!("ON {table}"),
        };
        self.run(&format!("DROP TRIGGER broken_{table} {on}")).await;
    }

    /// The URL for a role of its own in a schema on PostgreSQL; the role's name begins with `marked`.
    pub async fn as_role(&self) -> String {
        let Place::Schema { name, .. } = &self.place else {
            panic!("no roles here");
        };
        let role = role(name);
        let sql = format!("CREATE ROLE {role} LOGIN; GRANT ALL ON SCHEMA {name} TO {role}");
        self.run(&sql).await;
        self.as_user(&role)
    }

    /// The URL with this user in it.
    pub fn as_user(&self, user: &str) -> String {
        let (_, place) = self.url.split_once('@').unwrap();
        format!("postgres://{user}:marked-pw@{place}")
    }

    /// Lets that role in no more, and ends the connections it has.
    pub async fn shut_role_out(&self) {
        let Place::Schema { name, .. } = &self.place else {
            panic!("no roles here");
        };
        let role = role(name);
        let sql = format!(
            "ALTER ROLE {role} NOLOGIN; \
            SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{role}'"
        );
        self.run(&sql).await;
    }

    /// Takes the tables away: every question fails.
    pub async fn hide_tables(&self) {
        self.run(
            "ALTER TABLE channels RENAME TO hidden; ALTER TABLE im_tokens RENAME TO hidden_tokens",
        )
        .await;
    }

    /// Brings them back.
    pub async fn show_tables(&self) {
        self.run(
            "ALTER TABLE hidden RENAME TO channels; ALTER TABLE hidden_tokens RENAME TO im_tokens",
        )
        .await;
    }
}

/// The role for a schema.
fn role(schema: &str) -> String {
    format!("marked_{schema}")
}

async fn run(url: &str, sql: &str) {
    let mut connection = AnyConnection::connect(url).await.unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned()))
        .execute(&mut connection)
        .await
        .unwrap();
    connection.close().await.unwrap();
}

impl Drop for Database {
    fn drop(&mut self) {
        let Place::Schema { server, name } = &self.place else {
            return;
        };
        // On a thread of its own: there is no waiting in a drop on a runtime. What cannot be dropped in time is left.
        let role = role(name);
        let sql = format!(
            "SET statement_timeout = 5000; DROP SCHEMA {name} CASCADE; DROP ROLE IF EXISTS {role}"
        );
        let server = server.clone();
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.unwrap().block_on(run(&server, &sql));
        });
        let _ = dropped.join();
    }
}
