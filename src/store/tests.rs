//! The store by itself, in every database there is here, and in memory.

#[path = "../../tests/support/database.rs"]
mod database;
mod files;
#[path = "../../tests/support/line.rs"]
mod line;
mod postgres;

use super::*;
use database::{Database, Kind};
use sqlx::{AnyConnection, Connection as _};
use std::sync::Arc;
use std::time::Instant;

const SECOND: Duration = Duration::from_secs(1);

fn id(text: &str) -> ChannelId {
    ChannelId::parse(text, 255).unwrap()
}

fn uid(text: &str) -> Uid {
    Uid::parse(text, 255).unwrap()
}

fn roles<'a>(owner: &'a Uid, managers: &'a [Uid]) -> Roles<'a> {
    Roles {
        owner: Some(owner),
        managers,
    }
}

fn url(folder: &tempfile::TempDir) -> String {
    format!("sqlite://{}/deep/er/g w?.db", folder.path().display()).replace('?', "%3F")
}

async fn memory() -> Store {
    Store::open("sqlite::memory:", 10, 30 * SECOND)
        .await
        .unwrap()
}

async fn open(database: &Database) -> Store {
    Store::open(&database.url, 8, 30 * SECOND).await.unwrap()
}

/// Runs a test in every kind of database.
macro_rules! in_every_database {
    ($(async fn $name:ident($database:ident) $body:block)*) => {$(
        #[tokio::test]
        async fn $name() {
            for kind in database::kinds() {
                println!("{kind:?}");
                let $database = Database::new(kind).await;
                $body
            }
        }
    )*};
}

in_every_database! {
    async fn a_claim_is_won_once(database) {
        let store = open(&database).await;
        assert!(
            store
                .claim(&id("g"), &uid("a"), Some("n"), None)
                .await
                .unwrap()
        );
        assert!(!store.claim(&id("g"), &uid("b"), None, None).await.unwrap());
        assert!(!store.claim(&id("g"), &uid("a"), None, None).await.unwrap());
        let record = store.channel(&id("g")).await.unwrap().unwrap();
        assert_eq!(record.state, ChannelStage::Creating);
        assert!(record.is_owned_by(&uid("a")) && !record.is_deleted() && !record.is_live());
        assert_eq!((record.name.as_deref(), record.avatar), (Some("n"), None));
        assert!(record.created_at_ms > 1_700_000_000_000);
        assert_eq!(
            store.channel(&id("G")).await.unwrap(),
            None,
            "ids compare byte for byte"
        );
    }

    async fn the_records_of_many_ids_are_read_at_once(database) {
        let store = open(&database).await;
        let ids: Vec<ChannelId> = (0..600).map(|n| id(&format!("g{n}"))).collect();
        for id in &ids[590..] {
            store.claim(id, &uid("a"), None, None).await.unwrap();
        }
        store.mark_deleted(&ids[595], None).await.unwrap();
        for count in [0, 1, 8, 9, 591, 600] {
            let mut records = store.channels(&ids[..count]).await.unwrap();
            records.sort_by(|a, b| a.id.cmp(&b.id));
            let found: Vec<&ChannelId> = records.iter().map(|record| &record.id).collect();
            assert_eq!(found, ids[count.min(590)..count].iter().collect::<Vec<_>>());
            let deleted = records.iter().filter(|record| record.is_deleted());
            assert_eq!(deleted.count(), usize::from(count > 595));
        }
    }

    async fn concurrent_claims_have_one_winner(database) {
        let store = Arc::new(open(&database).await);
        let other = match database.kind {
            Kind::Sqlite => store.clone(),
            Kind::Postgres => Arc::new(open(&database).await),
        };
        let mut claims = tokio::task::JoinSet::new();
        for n in 0..32 {
            let store = if n % 2 == 0 { store.clone() } else { other.clone() };
            claims.spawn(async move {
                store
                    .claim(&id("g"), &uid(&format!("u{n}")), None, None)
                    .await
                    .unwrap()
            });
        }
        let won = claims
            .join_all()
            .await
            .into_iter()
            .filter(|won| *won)
            .count();
        assert_eq!(won, 1);
    }

    async fn fields_that_are_given_are_written_and_absent_ones_stay(database) {
        let store = open(&database).await;
        store
            .claim(&id("g"), &uid("a"), Some("one"), Some("http://a"))
            .await
            .unwrap();
        let live = store
            .make_live(&id("g"), &uid("a"), None, Some("http://b"))
            .await
            .unwrap()
            .unwrap();
        assert!(live.is_live());
        assert_eq!(
            (live.name.as_deref(), live.avatar.as_deref()),
            (Some("one"), Some("http://b"))
        );
        let again = store
            .make_live(&id("g"), &uid("a"), Some("群 🦀"), None)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(
            (again.name.as_deref(), again.avatar.as_deref()),
            (Some("群 🦀"), Some("http://b"))
        );
        assert_eq!(again.created_at_ms, live.created_at_ms);
        assert_eq!(store.channel(&id("g")).await.unwrap(), Some(again));
        assert_eq!(
            store
                .make_live(&id("g"), &uid("b"), Some("x"), None)
                .await
                .unwrap(),
            None
        );
        assert_eq!(
            store
                .make_live(&id("h"), &uid("a"), Some("x"), None)
                .await
                .unwrap(),
            None
        );
    }

    async fn a_mark_is_never_taken_back(database) {
        let store = open(&database).await;
        store.claim(&id("g"), &uid("a"), None, None).await.unwrap();
        store.finish_delete(&id("g")).await.unwrap();
        assert!(
            !store.channel(&id("g")).await.unwrap().unwrap().is_deleted(),
            "only what is marked is finished"
        );
        store.mark_deleted(&id("g"), None).await.unwrap();
        let marked = store.channel(&id("g")).await.unwrap().unwrap();
        assert_eq!(marked.state, ChannelStage::Deleting);
        assert!(marked.is_deleted() && marked.is_owned_by(&uid("a")));
        assert_eq!(
            store
                .make_live(&id("g"), &uid("a"), None, None)
                .await
                .unwrap(),
            None
        );
        store.finish_delete(&id("g")).await.unwrap();
        store.mark_deleted(&id("g"), None).await.unwrap();
        assert_eq!(
            store.channel(&id("g")).await.unwrap().unwrap().state,
            ChannelStage::Deleted
        );
        assert!(!store.claim(&id("g"), &uid("a"), None, None).await.unwrap());
        store.mark_deleted(&id("nobodys"), None).await.unwrap();
        let nobodys = store.channel(&id("nobodys")).await.unwrap().unwrap();
        assert_eq!(
            (nobodys.owner, nobodys.state),
            (None, ChannelStage::Deleting)
        );
    }
}

in_every_database! {
    async fn a_newer_schema_is_told_apart(database) {
        drop(open(&database).await);
        let sql = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (9999, 'later', TRUE, '', 0)";
        database.run(sql).await;
        let opened = Store::open(&database.url, 4, 30 * SECOND).await;
        assert!(matches!(opened, Err(StoreError::Newer(9999))));
    }

    async fn a_store_that_is_there_already_is_opened_again(database) {
        let store = open(&database).await;
        store.claim(&id("g"), &uid("a"), None, None).await.unwrap();
        drop(store);
        let store = open(&database).await;
        assert!(store.channel(&id("g")).await.unwrap().is_some());
        store.ping().await.unwrap();
    }
}

#[tokio::test]
async fn what_is_no_database_cannot_be_opened() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("text.db");
    std::fs::write(
        &path,
        "this is no database, only a text that is long enough to be read as a header".repeat(20),
    )
    .unwrap();
    let opened = Store::open(&format!("sqlite://{}", path.display()), 4, SECOND).await;
    assert!(matches!(opened, Err(StoreError::Open(_))));
    let below_a_file = format!("sqlite://{}/x.db", path.display());
    assert!(matches!(
        Store::open(&below_a_file, 4, SECOND).await,
        Err(StoreError::Open(_))
    ));
}

in_every_database! {
    async fn an_operation_ends_at_its_deadline_and_the_store_recovers(database) {
        let timeout = Duration::from_millis(200);
        // Makes the tables, however long that takes: with the short timeout the store may begin without its server.
        drop(open(&database).await);
        let store = Store::open(&database.url, 2, timeout).await.unwrap();
        while store.channel(&id("g")).await.is_err() {
            tokio::time::sleep(timeout).await;
        }
        let mut writer = AnyConnection::connect(&database.url).await.unwrap();
        let lock = match database.kind {
            Kind::Sqlite => "BEGIN IMMEDIATE",
            Kind::Postgres => "BEGIN; LOCK TABLE channels IN ACCESS EXCLUSIVE MODE",
        };
        sqlx::raw_sql(lock).execute(&mut writer).await.unwrap();
        for _ in 0..4 {
            let started = Instant::now();
            let claimed = store.claim(&id("g"), &uid("a"), None, None).await;
            assert!(matches!(claimed, Err(StoreError::Unavailable(_))));
            assert!(started.elapsed() < 2 * SECOND, "{:?}", started.elapsed());
        }
        sqlx::raw_sql("COMMIT").execute(&mut writer).await.unwrap();
        tokio::time::sleep(2 * timeout).await;
        // A claim that was reported as failed may have succeeded: no other user can have it.
        let left = store.channel(&id("g")).await.unwrap();
        assert!(left.is_none_or(|record| record.is_owned_by(&uid("a"))));
        assert!(store.claim(&id("h"), &uid("a"), None, None).await.unwrap());
    }
}

#[tokio::test]
async fn memory_survives_idleness_and_concurrency() {
    let store = Arc::new(memory().await);
    let mut claims = tokio::task::JoinSet::new();
    for n in 0..50 {
        let store = store.clone();
        claims.spawn(async move {
            store
                .claim(&id(&format!("g{n}")), &uid("a"), None, None)
                .await
                .unwrap()
        });
    }
    assert!(claims.join_all().await.into_iter().all(|won| won));
    for n in 0..50 {
        assert!(
            store
                .channel(&id(&format!("g{n}")))
                .await
                .unwrap()
                .is_some()
        );
    }
}

in_every_database! {
    async fn roles_change_only_from_what_they_were(database) {
        let store = open(&database).await;
        store.claim(&id("g"), &uid("a"), None, None).await.unwrap();
        let claimed = store.channel(&id("g")).await.unwrap().unwrap();
        assert_eq!(claimed.managers, []);
        let early = store.set_roles(&claimed, roles(&uid("a"), &[uid("m")]), None, None).await.unwrap();
        assert_eq!(early, None, "not live yet");
        let live = store.make_live(&id("g"), &uid("a"), None, None).await.unwrap().unwrap();
        let managers = [uid("m"), uid("经理\"'🦀")];
        let managed = store.set_roles(&live, roles(&uid("a"), &managers), None, None).await.unwrap().unwrap();
        assert_eq!(managed.managers, managers);
        assert!(managed.is_managed_by(&managers[1]) && !managed.is_managed_by(&uid("a")));
        assert_eq!(store.channel(&id("g")).await.unwrap(), Some(managed.clone()));
        let late = store.set_roles(&live, roles(&uid("b"), &[]), None, None).await.unwrap();
        assert_eq!(late, None, "others were named meanwhile");
        let transferred = store.set_roles(&managed, roles(&uid("m"), &[uid("a")]), None, None).await.unwrap().unwrap();
        assert!(transferred.is_owned_by(&uid("m")) && transferred.is_managed_by(&uid("a")));
        let late = store.set_roles(&managed, roles(&uid("b"), &managers), None, None).await.unwrap();
        assert_eq!(late, None, "another one owns it by now");
        let again = store.make_live(&id("g"), &uid("m"), Some("n"), None).await.unwrap().unwrap();
        assert_eq!(again.managers, transferred.managers, "they stay");
        store.mark_deleted(&id("g"), None).await.unwrap();
        assert_eq!(store.set_roles(&again, roles(&uid("b"), &[]), None, None).await.unwrap(), None);
    }

    async fn only_groups_without_a_record_are_adopted(database) {
        let store = open(&database).await;
        let adopted = store.adopt(&id("g"), None, roles(&uid("a"), &[]), Some("n"), None).await.unwrap().unwrap();
        assert!(adopted.is_live() && adopted.is_owned_by(&uid("a")));
        assert_eq!(adopted.name.as_deref(), Some("n"));
        assert!(adopted.created_at_ms > 1_700_000_000_000);
        assert_eq!(store.adopt(&id("g"), None, roles(&uid("b"), &[]), None, None).await.unwrap(), None);
        assert_eq!(store.adopt(&id("g"), Some(&adopted), roles(&uid("b"), &[]), None, None).await.unwrap(), None);

        store.claim(&id("c"), &uid("a"), Some("hers"), None).await.unwrap();
        let claim = store.channel(&id("c")).await.unwrap().unwrap();
        assert_eq!(store.adopt(&id("c"), None, roles(&uid("b"), &[]), None, None).await.unwrap(), None);
        let over = store.adopt(&id("c"), Some(&claim), roles(&uid("b"), &[]), None, None).await.unwrap().unwrap();
        assert!(over.is_live() && over.is_owned_by(&uid("b")));
        assert_eq!(over.name, None, "the claim's is gone");
        assert_eq!(store.make_live(&id("c"), &uid("a"), None, None).await.unwrap(), None);

        store.mark_deleted(&id("d"), None).await.unwrap();
        assert_eq!(store.adopt(&id("d"), None, roles(&uid("a"), &[]), None, None).await.unwrap(), None);
    }

    async fn a_group_may_be_adopted_without_an_owner_and_get_one_later(database) {
        let store = open(&database).await;
        let managers = [uid("m")];
        let without_owner = Roles { owner: None, managers: &managers };
        let adopted = store.adopt(&id("g"), None, without_owner, None, None).await.unwrap().unwrap();
        assert_eq!((&adopted.owner, &adopted.managers[..]), (&None, &managers[..]));
        assert_eq!(store.make_live(&id("g"), &uid("a"), None, None).await.unwrap(), None);
        let more = [uid("m"), uid("n")];
        let more = Roles { owner: None, managers: &more };
        let named = store.set_roles(&adopted, more, None, None).await.unwrap().unwrap();
        let late = store.set_roles(&adopted, without_owner, None, None).await.unwrap();
        assert_eq!(late, None, "others were named meanwhile");
        let owned = store.set_roles(&named, roles(&uid("a"), &managers), Some("n"), None).await;
        let owned = owned.unwrap().unwrap();
        assert!(owned.is_owned_by(&uid("a")) && owned.name.as_deref() == Some("n"));
        let late = store.set_roles(&named, without_owner, None, None).await.unwrap();
        assert_eq!(late, None, "it has an owner by now");
    }

    async fn concurrent_changes_of_roles_are_all_made_or_told_to_be_too_late(database) {
        let store = Arc::new(open(&database).await);
        store.claim(&id("g"), &uid("a"), None, None).await.unwrap();
        let live = store.make_live(&id("g"), &uid("a"), None, None).await.unwrap().unwrap();
        let mut changes = tokio::task::JoinSet::new();
        for n in 0..16 {
            let (store, live) = (store.clone(), live.clone());
            changes.spawn(async move {
                store.set_roles(&live, roles(&uid(&format!("u{n}")), &[uid("a")]), None, None).await.unwrap()
            });
        }
        let made = changes.join_all().await.into_iter().flatten().count();
        assert_eq!(made, 1);
    }
}

in_every_database! {
    async fn revocations_are_counted_by_uid_and_device(database) {
        let store = open(&database).await;
        assert_eq!(store.revocations(&uid("a"), 1).await.unwrap(), 0);
        assert_eq!(store.revoke(&uid("a"), 1).await.unwrap(), 1);
        assert_eq!(store.revoke(&uid("a"), 1).await.unwrap(), 2);
        assert_eq!(store.revoke(&uid("a"), 0).await.unwrap(), 1);
        assert_eq!(store.revocations(&uid("a"), 1).await.unwrap(), 2);
        for (other, device) in [("a", 2), ("A", 1), ("b", 1)] {
            assert_eq!(store.revocations(&uid(other), device).await.unwrap(), 0);
        }
    }

    async fn no_revocation_is_lost_among_many(database) {
        let store = Arc::new(open(&database).await);
        let mut calls = tokio::task::JoinSet::new();
        for _ in 0..24 {
            let store = store.clone();
            calls.spawn(async move { store.revoke(&uid("a"), 1).await.unwrap() });
        }
        let mut numbers = calls.join_all().await;
        numbers.sort_unstable();
        assert_eq!(numbers, (1..=24).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn a_full_disk_takes_no_claim_and_shows_those_there_are() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&url(&folder), 1, 30 * SECOND).await.unwrap();
    let limit = async |pages: u32| {
        let sql = format!("PRAGMA max_page_count = {pages}");
        let sql = sqlx::raw_sql(sqlx::AssertSqlSafe(sql));
        sql.execute(&store.database.pool).await.unwrap();
    };
    // No fewer than there are.
    limit(1).await;
    let name = "x".repeat(4096);
    let mut claimed = 0;
    let full = loop {
        let next = id(&format!("g{claimed}"));
        match store.claim(&next, &uid("a"), Some(&name), None).await {
            Ok(won) => assert!(won),
            Err(error) => break error,
        }
        claimed += 1;
        assert!(claimed < 100, "never full");
    };
    assert!(matches!(full, StoreError::Unavailable(_)));
    assert!(full.to_string().contains("disk is full"), "{full}");
    let refused = format!("g{claimed}");
    assert_eq!(store.channel(&id(&refused)).await.unwrap(), None);
    for kept in 0..claimed {
        let kept = store.channel(&id(&format!("g{kept}"))).await.unwrap();
        assert_eq!(kept.unwrap().name.as_deref(), Some(&*name));
    }
    limit(100_000).await;
    assert!(
        store
            .claim(&id(&refused), &uid("a"), Some(&name), None)
            .await
            .unwrap()
    );
}
