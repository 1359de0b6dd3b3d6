//! The store fails: owning waits, messages flow.

use std::sync::Arc;

use wukongim_gateway::store::Store;

use crate::support::database::{self, Database};
use crate::support::line::Line;
use crate::support::prelude::*;

/// How a store fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Failure {
    /// It answers errors.
    Errors(database::Kind),
    /// Its connections end and no new one opens.
    Cut,
    /// It says nothing more.
    Silent,
}

fn failures() -> Vec<Failure> {
    let kinds = database::kinds();
    let mut failures = vec![Failure::Errors(database::Kind::Sqlite)];
    if kinds.contains(&database::Kind::Postgres) {
        let errors = Failure::Errors(database::Kind::Postgres);
        failures.extend([errors, Failure::Cut, Failure::Silent]);
    }
    failures
}

/// A gateway's store, and a way to break and mend it from outside.
struct Breakable {
    failure: Failure,
    store: Arc<Store>,
    line: Option<Line>,
    database: Database,
}

impl Breakable {
    async fn open(failure: Failure) -> Self {
        let kind = match failure {
            Failure::Errors(kind) => kind,
            Failure::Cut | Failure::Silent => database::Kind::Postgres,
        };
        let database = Database::new(kind).await;
        let (url, line) = match kind {
            database::Kind::Sqlite => (database.url.clone(), None),
            database::Kind::Postgres => {
                let (url, line) = Line::to_database(&database.url).await;
                (url, Some(line))
            }
        };
        let timeout = Duration::from_millis(if line.is_some() { 300 } else { 5000 });
        let store = Store::open(&url, 2, timeout).await.unwrap();
        Self {
            failure,
            store: Arc::new(store),
            line,
            database,
        }
    }

    async fn break_it(&self) {
        match (self.failure, &self.line) {
            (Failure::Cut, Some(line)) => line.cut(),
            (Failure::Silent, Some(line)) => line.silence(),
            _ => self.database.hide_tables().await,
        }
    }

    async fn mend_it(&self) {
        match (self.failure, &self.line) {
            (Failure::Cut | Failure::Silent, Some(line)) => {
                line.mend();
                // Within seconds, once the dead connections are given up.
                let mended = async { while self.store.ping().await.is_err() {} };
                let mended = tokio::time::timeout(Duration::from_secs(20), mended).await;
                mended.expect("it recovers");
            }
            _ => self.database.show_tables().await,
        }
    }
}

#[tokio::test]
async fn owning_is_503_and_messages_flow_while_the_store_is_down() {
    for (kind, dialect) in failures().into_iter().flat_map(|f| [(f, V2), (f, V3)]) {
        println!("{kind:?} {dialect:?}");
        let breakable = Breakable::open(kind).await;
        let builder = TestApp::builder().upstream(dialect);
        let app = builder.store(breakable.store.clone()).start().await;
        app.group("g", "alice", &["bob"]).await;
        breakable.break_it().await;
        let alice = app.user("alice");
        for (answer, text) in [
            (alice.create_group("g").await, "创建频道失败"),
            (alice.create_group("new").await, "创建频道失败"),
            (alice.delete_group("g").await, "删除频道失败"),
            (alice.add("g", &["carol"]).await, "添加订阅者失败"),
            (alice.remove("g", &["bob"]).await, "移除订阅者失败"),
            (app.admin().delete_group("g").await, "删除频道失败"),
            (
                alice.get("/channel/info?channelId=g&channelType=2").await,
                "服务内部错误",
            ),
        ] {
            let answer = answer.fails(503, "store_unavailable");
            assert_eq!(answer.body["message"], text);
            assert_eq!(answer.header("retry-after"), "1");
            assert!(!answer.text.contains("channels") && !answer.text.contains("table"));
        }
        app.nothing_was_written();
        // Nothing of this needs the store.
        for _ in 0..2 {
            alice.send_to_person("bob", "hi").await.ok();
            app.user("bob").send_to_group("g", "hi").await.ok();
            let read = app.user("bob").sync(2, "g", "").await.ok();
            assert!(!read.as_array().unwrap().is_empty());
            failure(403, "not_a_member").is(app.user("carol").send_to_group("g", "hi").await);
            failure(503, "store_unavailable").is(alice.post_nothing("/token").await);
            failure(503, "store_unavailable").is(alice.post_nothing("/token/revoke").await);
            let echo = json!({"channelId": "bob", "channelType": 1});
            alice.post("/channel/create", &echo).await.ok();
        }
        breakable.mend_it().await;
        alice.post_nothing("/token").await.ok();
        alice.post_nothing("/token/revoke").await.ok();
        alice.add("g", &["carol"]).await.ok();
        alice.delete_group("g").await.ok();
    }
}
