//! What only a database behind a network does: start with many replicas at once, and vanish without a word.

use super::database::skips_postgres;
use super::line::Line;
use super::*;

/// A database on PostgreSQL, where there is one here.
async fn database() -> Option<Database> {
    if skips_postgres() {
        return None;
    }
    Some(Database::new(Kind::Postgres).await)
}

#[tokio::test]
async fn replicas_that_start_at_once_migrate_once() {
    let Some(database) = database().await else {
        return;
    };
    let mut starts = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let url = database.url.clone();
        starts.spawn(async move { Store::open(&url, 2, 5 * SECOND).await.unwrap() });
    }
    let stores = starts.join_all().await;
    for (n, store) in stores.iter().enumerate() {
        let won = store.claim(&id("g"), &uid("a"), None, None).await.unwrap();
        assert_eq!(won, n == 0);
    }
}

#[tokio::test]
async fn a_migration_may_take_longer_than_a_question() {
    let Some(database) = database().await else {
        return;
    };
    drop(open(&database).await);
    let mut migrating = AnyConnection::connect(&database.url).await.unwrap();
    let lock = "BEGIN; LOCK TABLE _sqlx_migrations IN ACCESS EXCLUSIVE MODE";
    sqlx::raw_sql(lock).execute(&mut migrating).await.unwrap();
    let url = database.url.clone();
    let timeout = Duration::from_millis(300);
    let store = Store::open(&url, 2, timeout).await.unwrap();
    tokio::time::sleep(2 * timeout).await;
    assert_eq!(unavailable(&store).await, "no answer in time");
    sqlx::raw_sql("COMMIT")
        .execute(&mut migrating)
        .await
        .unwrap();
    becomes_usable(&store).await;
}

/// Why a claim fails, at once.
async fn unavailable(store: &Store) -> String {
    let started = Instant::now();
    let claimed = store.claim(&id("g"), &uid("a"), None, None).await;
    assert!(started.elapsed() < SECOND, "{:?}", started.elapsed());
    match claimed {
        Err(StoreError::Unavailable(cause)) => cause.to_string(),
        other => panic!("{other:?}"),
    }
}

async fn becomes_usable(store: &Store) {
    let started = Instant::now();
    while store.ping().await.is_err() {
        assert!(started.elapsed() < 20 * SECOND, "it never comes");
        tokio::time::sleep(SECOND / 20).await;
    }
    assert!(store.claim(&id("g"), &uid("a"), None, None).await.unwrap());
}

#[tokio::test]
async fn a_server_that_is_not_up_yet_is_connected_later() {
    let Some(database) = database().await else {
        return;
    };
    for (silent, cause) in [(false, "no connection: "), (true, "no answer in time")] {
        let (url, line) = Line::to_database(&database.url).await;
        if silent {
            line.silence();
        } else {
            line.cut();
        }
        let (started, timeout) = (Instant::now(), Duration::from_millis(300));
        let store = Store::open(&url, 2, timeout).await.unwrap();
        assert!(started.elapsed() < 5 * SECOND, "{:?}", started.elapsed());
        let message = unavailable(&store).await;
        assert!(message.starts_with(cause), "{message}");
        line.mend();
        becomes_usable(&store).await;
        database.run("DELETE FROM channels").await;
    }
}

#[tokio::test]
async fn a_servers_first_error_is_final_and_later_errors_are_logged() {
    let Some(database) = database().await else {
        return;
    };
    let refused = "PostgreSQL answers SQLSTATE 28000 (login refused)";
    let url = database.as_user("marked_nobody");
    let error = Store::open(&url, 2, 30 * SECOND).await.err().unwrap();
    assert_eq!(
        error.to_string(),
        format!("cannot open the store: {refused}")
    );
    let (url, line) = Line::to_database(&url).await;
    line.cut();
    let store = Store::open(&url, 2, SECOND).await.unwrap();
    line.mend();
    let started = Instant::now();
    loop {
        let message = unavailable(&store).await;
        if message == refused {
            break;
        }
        assert!(!message.contains("marked"), "{message}");
        assert!(started.elapsed() < 20 * SECOND, "it says {message}");
        tokio::time::sleep(SECOND / 20).await;
    }
}

#[tokio::test]
async fn the_server_cancels_abandoned_statements() {
    let Some(database) = database().await else {
        return;
    };
    let name = uuid::Uuid::new_v4().simple().to_string();
    let url = format!("{}&application_name={name}", database.url);
    let store = Store::open(&url, 2, SECOND).await.unwrap();
    let mut holder = AnyConnection::connect(&database.url).await.unwrap();
    let lock = "BEGIN; LOCK TABLE channels IN ACCESS EXCLUSIVE MODE";
    sqlx::raw_sql(lock).execute(&mut holder).await.unwrap();
    let claim = async { store.claim(&id("g"), &uid("a"), None, None).await };
    let hung_up = tokio::time::timeout(SECOND / 5, claim).await;
    assert!(hung_up.is_err());
    // Not the holder's: in a transaction the activity is that of its beginning.
    let mut onlooker = AnyConnection::connect(&database.url).await.unwrap();
    let sql = "SELECT application_name FROM pg_stat_activity WHERE application_name = $1 AND state = 'active'";
    let started = Instant::now();
    loop {
        let running = sqlx::query(sql).bind(&name).fetch_all(&mut onlooker).await;
        if running.unwrap().is_empty() {
            break;
        }
        assert!(started.elapsed() < 20 * SECOND, "it runs on");
        tokio::time::sleep(SECOND / 20).await;
    }
}

#[tokio::test]
async fn a_database_that_vanished_is_found_again() {
    let Some(database) = database().await else {
        return;
    };
    let (url, line) = Line::to_database(&database.url).await;
    let timeout = Duration::from_millis(300);
    let store = Arc::new(Store::open(&url, 3, timeout).await.unwrap());
    store.claim(&id("g"), &uid("a"), None, None).await.unwrap();
    for silent in [true, false] {
        // So that there are questions under way.
        let mut holder = AnyConnection::connect(&database.url).await.unwrap();
        let lock = "BEGIN; LOCK TABLE channels IN ACCESS EXCLUSIVE MODE";
        sqlx::raw_sql(lock).execute(&mut holder).await.unwrap();
        // More at once than there are connections.
        let mut questions = tokio::task::JoinSet::new();
        for _ in 0..9 {
            let store = store.clone();
            questions.spawn(async move {
                let started = Instant::now();
                (store.channel(&id("g")).await, started.elapsed())
            });
        }
        tokio::time::sleep(timeout / 3).await;
        if silent {
            line.silence();
        } else {
            line.cut();
        }
        for (answer, took) in questions.join_all().await {
            assert!(matches!(answer, Err(StoreError::Unavailable(_))));
            assert!(took < 2 * SECOND, "{took:?}");
        }
        drop(holder);
        line.mend();
        let mended = Instant::now();
        while store.ping().await.is_err() {
            assert!(mended.elapsed() < 20 * SECOND, "it never recovers");
        }
        assert!(store.channel(&id("g")).await.unwrap().is_some());
    }
}

#[tokio::test]
async fn no_error_contains_a_part_of_the_url() {
    let Some(database) = database().await else {
        return;
    };
    for (url, said) in [
        (database.as_user("marked_nobody"), "SQLSTATE 28000"),
        (
            database.url.replace("/postgres?", "/marked_nowhere?"),
            "SQLSTATE 3D000 (no such database)",
        ),
        (
            format!("{}&sslmode=marked", database.url),
            "store.url is not understood",
        ),
    ] {
        let error = Store::open(&url, 2, 30 * SECOND).await.err().unwrap();
        let message = format!("{error} {error:?}");
        assert!(
            message.contains(said) && !message.contains("marked"),
            "{message}"
        );
    }
    let url = database.as_role().await;
    let store = Store::open(&url, 2, 5 * SECOND).await.unwrap();
    database.shut_role_out().await;
    // The first ones meet the connections that end.
    let message = loop {
        let error = store.channel(&id("g")).await.unwrap_err();
        let message = format!("{error} {error:?}");
        assert!(!message.contains("marked"), "{message}");
        if message.contains("28000") {
            break error.to_string();
        }
    };
    assert_eq!(
        message,
        "the store is unavailable: PostgreSQL answers SQLSTATE 28000 (login refused)"
    );
}
