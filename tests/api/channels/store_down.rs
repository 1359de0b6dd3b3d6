//! The store fails: owning waits, messages flow.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use sqlx::AnyPool;
use wukongim_gateway::store::Store;

use crate::support::{TestApp, V2, V3};

/// A gateway's store in a file, and a way to break and mend it from outside.
pub struct Breakable {
    pub store: Arc<Store>,
    outside: AnyPool,
    _folder: tempfile::TempDir,
}

impl Breakable {
    pub async fn open() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", folder.path().join("g.db").display());
        let store = Store::open(&url, 2, Duration::from_secs(5)).await.unwrap();
        let outside = AnyPool::connect(&url).await.unwrap();
        Self {
            store: Arc::new(store),
            outside,
            _folder: folder,
        }
    }

    pub async fn break_it(&self) {
        self.run("ALTER TABLE channels RENAME TO hidden").await;
    }

    pub async fn mend_it(&self) {
        self.run("ALTER TABLE hidden RENAME TO channels").await;
    }

    async fn run(&self, sql: &'static str) {
        sqlx::query(sql).execute(&self.outside).await.unwrap();
    }
}

#[tokio::test]
async fn owning_is_503_and_messages_flow_while_the_store_is_down() {
    for dialect in [V2, V3] {
        let breakable = Breakable::open().await;
        let app = TestApp::builder()
            .upstream(dialect)
            .store(breakable.store.clone())
            .start()
            .await;
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
            app.user("carol")
                .send_to_group("g", "hi")
                .await
                .fails(403, "not_a_member");
            alice.post_nothing("/token").await.ok();
            let echo = json!({"channelId": "bob", "channelType": 1});
            alice.post("/channel/create", &echo).await.ok();
        }
        breakable.mend_it().await;
        alice.add("g", &["carol"]).await.ok();
        alice.delete_group("g").await.ok();
    }
}
