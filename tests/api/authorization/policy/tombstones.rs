//! Deleted ids stay closed in every mode and on both generations; a store that cannot be asked closes nothing.

use std::sync::Arc;
use std::time::Duration;

use dev_upstream::Dialect;
use sqlx::{Connection as _, Executor as _};
use wukongim_gateway::authorization::{Authorization, Denial, Mode, Rules};
use wukongim_gateway::telemetry::Metrics;

use super::{Fixture, Plan, group_id, uid};

const ALL: [(Dialect, Mode); 4] = [
    (Dialect::V2, Mode::Members),
    (Dialect::V2, Mode::Open),
    (Dialect::V3, Mode::Members),
    (Dialect::V3, Mode::Open),
];

#[tokio::test]
async fn a_deleted_id_is_closed_whatever_upstream_lists() {
    for (dialect, mode) in ALL {
        let fixture = Fixture::new(dialect, mode.clone()).await;
        let g = fixture.group("g", &["alice"]).await;
        fixture
            .store
            .mark_deleted(&group_id("g"), None)
            .await
            .unwrap();
        for _ in 0..2 {
            assert_eq!(
                fixture.may_send("alice", &g).await,
                Err(Denial::ChannelNotFound),
                "{dialect:?} {mode:?}"
            );
            assert_eq!(
                fixture.may_read("alice", &g).await,
                Err(Denial::ChannelNotFound),
                "{dialect:?} {mode:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_delete_takes_effect_at_once_without_further_calls() {
    for (dialect, mode) in ALL {
        let fixture = Fixture::new(dialect, mode.clone()).await;
        let g = fixture.group("g", &["alice"]).await;
        assert_eq!(fixture.may_send("alice", &g).await, Ok(()));
        fixture
            .store
            .mark_deleted(&group_id("g"), None)
            .await
            .unwrap();
        fixture.authorization.group_deleted(&group_id("g"));
        fixture.upstream.clear_calls();
        assert_eq!(
            fixture.may_send("alice", &g).await,
            Err(Denial::ChannelNotFound)
        );
        assert!(fixture.upstream.calls().is_empty(), "{dialect:?} {mode:?}");
    }
}

#[tokio::test]
async fn another_replica_sees_a_change_within_the_cache_ttl() {
    let mut plan = Plan::new(Dialect::V2, Mode::Members);
    plan.rules.cache_ttl = Duration::from_millis(200);
    let fixture = plan.start().await;
    let g = fixture.group("g", &["alice"]).await;
    assert_eq!(fixture.may_read("alice", &g).await, Ok(()));
    fixture
        .store
        .mark_deleted(&group_id("g"), None)
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(210)).await;
    assert_eq!(
        fixture.may_read("alice", &g).await,
        Err(Denial::ChannelNotFound)
    );
}

#[tokio::test]
async fn a_tombstone_counts_while_the_upstream_is_away() {
    let fixture = Fixture::members_v2().await;
    let g = fixture.group("g", &["alice"]).await;
    fixture
        .store
        .mark_deleted(&group_id("g"), None)
        .await
        .unwrap();
    fixture.upstream.stop().await;
    assert_eq!(
        fixture.may_read("alice", &g).await,
        Err(Denial::ChannelNotFound)
    );
}

#[tokio::test]
async fn an_unavailable_store_leaves_the_decision_to_membership() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gateway.db");
    let url = format!("sqlite://{}", path.display());
    let mut plan = Plan::new(Dialect::V2, Mode::Members);
    plan.store_url.clone_from(&url);
    let fixture = plan.start().await;
    let g = fixture.group("g", &["alice"]).await;
    let gone = fixture.group("gone", &["alice"]).await;
    fixture
        .store
        .mark_deleted(&group_id("gone"), None)
        .await
        .unwrap();
    assert_eq!(
        fixture.may_read("alice", &gone).await,
        Err(Denial::ChannelNotFound)
    );
    let mut behind = sqlx::SqliteConnection::connect(&url).await.unwrap();
    behind
        .execute("ALTER TABLE channels RENAME TO hidden")
        .await
        .unwrap();
    assert!(fixture.store.channel(&group_id("g")).await.is_err());

    assert_eq!(fixture.may_read("alice", &g).await, Ok(()));
    assert_eq!(fixture.may_send("eve", &g).await, Err(Denial::NotAMember));
    // What is known already stays known.
    assert_eq!(
        fixture.may_read("alice", &gone).await,
        Err(Denial::ChannelNotFound)
    );
    // To a replica that does not know it yet, upstream's members are the only answer.
    let rules = Rules {
        mode: Mode::Members,
        cache_ttl: Duration::from_mins(1),
        cache_members: 1000,
    };
    let fresh = Authorization::new(
        Arc::clone(&fixture.client),
        Arc::clone(&fixture.store),
        rules,
        Arc::new(Metrics::new()),
    );
    assert!(fresh.may_read(&uid("alice"), &gone).await.is_ok());
    behind
        .execute("ALTER TABLE hidden RENAME TO channels")
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(1050)).await;
    assert_eq!(
        fresh.may_read(&uid("alice"), &gone).await,
        Err(Denial::ChannelNotFound),
        "recovers alone"
    );
}

#[tokio::test]
async fn a_mark_that_may_have_been_set_is_read_at_once() {
    for (dialect, mode) in ALL {
        let fixture = Fixture::new(dialect, mode.clone()).await;
        let g = fixture.group("g", &["alice"]).await;
        assert_eq!(fixture.may_send("alice", &g).await, Ok(()));
        // The mark is set and its answer lost: the channels room only tells that something changed.
        fixture
            .store
            .mark_deleted(&group_id("g"), None)
            .await
            .unwrap();
        fixture.authorization.group_changed(&group_id("g"));
        assert_eq!(
            fixture.may_send("alice", &g).await,
            Err(Denial::ChannelNotFound),
            "{dialect:?} {mode:?}"
        );
        // What is known for certain no change makes doubtful.
        fixture.authorization.group_changed(&group_id("g"));
        fixture.upstream.clear_calls();
        assert_eq!(
            fixture.may_send("alice", &g).await,
            Err(Denial::ChannelNotFound)
        );
        assert!(fixture.upstream.calls().is_empty(), "{dialect:?} {mode:?}");
    }
}
