//! The files of SQLite: who may open and read them, what is left of them, and what an error names.

use super::*;

#[tokio::test]
async fn a_file_keeps_its_records_and_serves_one_process() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&url(&folder), 4, 30 * SECOND).await.unwrap();
    store.claim(&id("g"), &uid("a"), None, None).await.unwrap();
    assert!(folder.path().join("deep/er/g w?.db").exists());
    assert!(matches!(
        Store::open(&url(&folder), 4, 30 * SECOND).await,
        Err(StoreError::Locked(_))
    ));
    let roundabout = url(&folder).replace("deep/er", "deep/../deep/er");
    assert!(matches!(
        Store::open(&roundabout, 4, SECOND).await,
        Err(StoreError::Locked(_))
    ));
    drop(store);
    let store = Store::open(&url(&folder), 4, 30 * SECOND).await.unwrap();
    assert!(store.channel(&id("g")).await.unwrap().is_some());
    store.ping().await.unwrap();
}

/// The names of the files in a folder that others may read or write, and of all.
fn files(folder: &std::path::Path) -> (Vec<String>, Vec<String>) {
    use std::os::unix::fs::PermissionsExt as _;
    let mut all: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(Result::unwrap)
        .collect();
    all.sort_by_key(std::fs::DirEntry::file_name);
    let is_open =
        |file: &&std::fs::DirEntry| file.metadata().unwrap().permissions().mode() & 0o077 != 0;
    let name = |file: &std::fs::DirEntry| file.file_name().into_string().unwrap();
    (
        all.iter().filter(is_open).map(name).collect(),
        all.iter().map(name).collect(),
    )
}

#[tokio::test]
async fn the_files_are_for_this_user_alone_and_a_closed_store_leaves_no_journal() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}/g.db", folder.path().display());
    let store = Store::open(&url, 4, 30 * SECOND).await.unwrap();
    store.claim(&id("g"), &uid("a"), None, None).await.unwrap();
    let (open, all) = files(folder.path());
    assert_eq!(open, [""; 0]);
    assert_eq!(all, ["g.db", "g.db-shm", "g.db-wal", "g.db.lock"]);
    store.close().await;
    assert_eq!(files(folder.path()).1, ["g.db", "g.db.lock"]);
    assert!(store.claim(&id("h"), &uid("a"), None, None).await.is_err());
    drop(store);
    let store = Store::open(&url, 4, 30 * SECOND).await.unwrap();
    assert!(store.channel(&id("g")).await.unwrap().is_some());
}

#[tokio::test]
async fn closing_the_store_is_bounded_in_time() {
    let store = Arc::new(memory().await);
    let held = store.database.pool.acquire().await.unwrap();
    let closing = tokio::time::timeout(2 * CLOSE_TIMEOUT, store.close());
    assert!(closing.await.is_ok());
    drop(held);
}

#[tokio::test]
async fn an_error_of_opening_names_the_file_the_user_and_the_cause_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("g.db");
    let url = format!("sqlite://{}", path.display());
    let as_user = format!("as user {}", rustix::process::geteuid().as_raw());
    let message = async |url: &str| {
        let error = Store::open(url, 4, SECOND / 5).await.err().unwrap();
        error.to_string()
    };
    let path = path.canonicalize().unwrap_or(path);
    let start = format!("cannot open the store: {} {as_user}: ", path.display());

    let store = Store::open(&url, 4, 30 * SECOND).await.unwrap();
    assert_eq!(
        message(&url).await,
        format!("{start}locked by another process")
    );
    store.close().await;
    drop(store);

    // By a program that is no gateway.
    let mut other = AnyConnection::connect(&url).await.unwrap();
    let lock = "PRAGMA journal_mode = DELETE; BEGIN EXCLUSIVE";
    sqlx::raw_sql(lock).execute(&mut other).await.unwrap();
    let started = Instant::now();
    let locked = message(&url).await;
    assert!(started.elapsed() < 5 * SECOND, "{:?}", started.elapsed());
    assert!(locked.starts_with(&start), "{locked}");
    assert!(locked.contains("database is locked"), "{locked}");
    drop(other);

    let nowhere = "sqlite:///proc/nothing/g.db";
    let cause = "No such file or directory (os error 2)";
    let said = format!("cannot open the store: /proc/nothing {as_user}: {cause}");
    assert_eq!(message(nowhere).await, said);
}
