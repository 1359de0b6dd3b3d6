//! The store's part: tombstones hold in every mode and on every replica; without the store, membership alone decides.

use std::sync::Arc;
use std::time::Duration;

use dev_upstream::GROUP;
use sqlx::{AnyConnection, Connection};
use wukongim_gateway::config::Mode;
use wukongim_gateway::store::Store;

use super::{is_in, is_kept_out};
use crate::support::seeds;
use crate::support::{TestApp, V2, V3};

/// A store whose table can be taken away.
struct Breakable {
    store: Arc<Store>,
    url: String,
    _dir: tempfile::TempDir,
}

impl Breakable {
    async fn open() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("gateway.db");
        let url = format!("sqlite://{}", path.to_str().expect("a path"));
        let store = Store::open(&url, 2, Duration::from_secs(2))
            .await
            .expect("a store");
        Self {
            store: Arc::new(store),
            url,
            _dir: dir,
        }
    }

    async fn run(&self, sql: &'static str) {
        let mut connection = AnyConnection::connect(&self.url)
            .await
            .expect("a connection");
        sqlx::query(sql)
            .execute(&mut connection)
            .await
            .expect("a change of the schema");
    }

    async fn fail(&self) {
        self.run("ALTER TABLE channels RENAME TO elsewhere").await;
        assert!(self.store.ping().await.is_err(), "the store fails");
    }
}

#[tokio::test]
async fn without_the_store_membership_alone_decides() {
    for dialect in [V2, V3] {
        let breakable = Breakable::open().await;
        let app = TestApp::builder()
            .upstream(dialect)
            .store(breakable.store.clone())
            .start()
            .await;
        app.group("g", "owner", &["member"]).await;
        app.group("gone", "owner", &["member"]).await;
        app.user("owner").delete_group("gone").await.ok();
        breakable.fail().await;
        is_in(&app, "owner").await;
        is_in(&app, "member").await;
        is_kept_out(&app, "stranger", 403, "not_a_member").await;
        app.user("member").send_to_person("owner", "x").await.ok();
        app.user("member").sync(1, "owner", "").await.ok();
        // What this replica knows to be deleted stays so.
        seeds::group(&app, "gone", &["member"]);
        app.user("member")
            .send_to_group("gone", "x")
            .await
            .fails(404, "channel_not_found");
        // Owning cannot be decided.
        for answer in [
            app.user("owner").add("g", &["friend"]).await,
            app.user("owner").remove("g", &["member"]).await,
            app.user("owner").delete_group("g").await,
            app.user("owner").create_group("new").await,
        ] {
            answer.fails(503, "store_unavailable");
        }
        is_in(&app, "member").await;
    }
}

#[tokio::test]
async fn in_mode_open_a_failing_store_refuses_no_request_either() {
    let breakable = Breakable::open().await;
    let app = TestApp::builder()
        .config(|settings| settings.authorization.mode = Mode::Open)
        .store(breakable.store.clone())
        .start()
        .await;
    seeds::group(&app, "g", &["member"]);
    breakable.fail().await;
    is_in(&app, "member").await;
    is_in(&app, "anybody").await;
}

#[tokio::test]
async fn a_group_deleted_on_one_replica_is_gone_on_another_in_both_modes() {
    for dialect in [V2, V3] {
        for mode in [Mode::Members, Mode::Open] {
            let first = TestApp::start(dialect).await;
            first.group("g", "owner", &["member"]).await;
            first.user("owner").delete_group("g").await.ok();
            // Another gateway over the same store, whose WuKongIM still has it all.
            let second = TestApp::builder()
                .upstream(dialect)
                .config(move |settings| settings.authorization.mode = mode)
                .store(first.store.clone())
                .start()
                .await;
            seeds::group(&second, "g", &["owner", "member"]);
            seeds::message(&second, GROUP, "g", "member", b"before");
            for uid in ["owner", "member", "stranger"] {
                is_kept_out(&second, uid, 404, "channel_not_found").await;
            }
            second
                .admin()
                .sync(GROUP, "g", "")
                .await
                .fails(404, "channel_not_found");
            assert!(second.calls_to("/channel/messagesync").is_empty());
        }
    }
}
