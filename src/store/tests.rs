//! The store by itself, on files and in memory.

use super::*;
use sqlx::Connection as _;
use std::time::Instant;

const SECOND: Duration = Duration::from_secs(1);

fn id(text: &str) -> ChannelId {
    ChannelId::parse(text, 255).unwrap()
}

fn uid(text: &str) -> Uid {
    Uid::parse(text, 255).unwrap()
}

fn url(folder: &tempfile::TempDir) -> String {
    format!("sqlite://{}/deep/er/g w?.db", folder.path().display()).replace('?', "%3F")
}

async fn memory() -> Store {
    Store::open("sqlite::memory:", 10, SECOND).await.unwrap()
}

async fn raw(folder: &tempfile::TempDir) -> sqlx::SqliteConnection {
    sqlx::SqliteConnection::connect(&url(folder)).await.unwrap()
}

#[tokio::test]
async fn a_claim_is_won_once() {
    let store = memory().await;
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

#[tokio::test]
async fn concurrent_claims_have_one_winner() {
    let folder = tempfile::tempdir().unwrap();
    let store = std::sync::Arc::new(Store::open(&url(&folder), 8, 5 * SECOND).await.unwrap());
    let mut claims = tokio::task::JoinSet::new();
    for n in 0..32 {
        let store = store.clone();
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

#[tokio::test]
async fn fields_that_are_given_are_written_and_absent_ones_stay() {
    let store = memory().await;
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

#[tokio::test]
async fn a_mark_is_never_taken_back() {
    let store = memory().await;
    store.claim(&id("g"), &uid("a"), None, None).await.unwrap();
    store.finish_delete(&id("g")).await.unwrap();
    assert!(
        !store.channel(&id("g")).await.unwrap().unwrap().is_deleted(),
        "only what is marked is finished"
    );
    store.mark_deleted(&id("g")).await.unwrap();
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
    store.mark_deleted(&id("g")).await.unwrap();
    assert_eq!(
        store.channel(&id("g")).await.unwrap().unwrap().state,
        ChannelStage::Deleted
    );
    assert!(!store.claim(&id("g"), &uid("a"), None, None).await.unwrap());
    store.mark_deleted(&id("nobodys")).await.unwrap();
    let nobodys = store.channel(&id("nobodys")).await.unwrap().unwrap();
    assert_eq!(
        (nobodys.owner, nobodys.state),
        (None, ChannelStage::Deleting)
    );
}

#[tokio::test]
async fn a_file_keeps_its_records_and_serves_one_process() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&url(&folder), 4, SECOND).await.unwrap();
    store.claim(&id("g"), &uid("a"), None, None).await.unwrap();
    assert!(folder.path().join("deep/er/g w?.db").exists());
    assert!(matches!(
        Store::open(&url(&folder), 4, SECOND).await,
        Err(StoreError::Locked)
    ));
    let roundabout = url(&folder).replace("deep/er", "deep/../deep/er");
    assert!(matches!(
        Store::open(&roundabout, 4, SECOND).await,
        Err(StoreError::Locked)
    ));
    drop(store);
    let store = Store::open(&url(&folder), 4, SECOND).await.unwrap();
    assert!(store.channel(&id("g")).await.unwrap().is_some());
    store.ping().await.unwrap();
}

#[tokio::test]
async fn a_newer_schema_is_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    drop(Store::open(&url(&folder), 4, SECOND).await.unwrap());
    let mut connection = raw(&folder).await;
    sqlx::query("INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (9999, 'later', 1, x'00', 0)")
        .execute(&mut connection)
        .await
        .unwrap();
    let opened = Store::open(&url(&folder), 4, SECOND).await;
    assert!(matches!(opened, Err(StoreError::Newer(9999))));
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

#[tokio::test]
async fn an_operation_ends_at_its_deadline_and_the_store_recovers() {
    let folder = tempfile::tempdir().unwrap();
    let timeout = Duration::from_millis(200);
    let store = Store::open(&url(&folder), 2, timeout).await.unwrap();
    let mut writer = raw(&folder).await;
    sqlx::query("BEGIN IMMEDIATE")
        .execute(&mut writer)
        .await
        .unwrap();
    for _ in 0..4 {
        let started = Instant::now();
        let claimed = store.claim(&id("g"), &uid("a"), None, None).await;
        assert!(matches!(claimed, Err(StoreError::Unavailable(_))));
        assert!(started.elapsed() < 2 * SECOND, "{:?}", started.elapsed());
    }
    sqlx::query("COMMIT").execute(&mut writer).await.unwrap();
    tokio::time::sleep(2 * timeout).await;
    // A claim that was told to have failed may have been made after all: it is nobody else's.
    let left = store.channel(&id("g")).await.unwrap();
    assert!(left.is_none_or(|record| record.is_owned_by(&uid("a"))));
    assert!(store.claim(&id("h"), &uid("a"), None, None).await.unwrap());
}

#[tokio::test]
async fn memory_survives_idleness_and_concurrency() {
    let store = std::sync::Arc::new(memory().await);
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
