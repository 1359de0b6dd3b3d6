//! Deleted ids stay closed in every mode and on both generations; a store that cannot be asked closes nothing.

use std::sync::Arc;
use std::time::Duration;

use sqlx::{Connection as _, Executor as _};
use wukongim_gateway::authorization::{Authorization, Denial, Mode, Rules};
use wukongim_gateway::embedded::Dialect;
use wukongim_gateway::telemetry::Metrics;

use crate::support::{House, Plan, group_id, uid};

const ALL: [(Dialect, Mode); 4] = [
    (Dialect::V2, Mode::Members),
    (Dialect::V2, Mode::Open),
    (Dialect::V3, Mode::Members),
    (Dialect::V3, Mode::Open),
];

#[tokio::test]
async fn a_deleted_id_is_closed_whatever_upstream_lists() {
    for (dialect, mode) in ALL {
        let house = House::new(dialect, mode.clone()).await;
        let g = house.group("g", &["alice"]).await;
        house
            .store
            .mark_deleted(&group_id("g"), None)
            .await
            .unwrap();
        for _ in 0..2 {
            assert_eq!(
                house.may_send("alice", &g).await,
                Err(Denial::ChannelNotFound),
                "{dialect:?} {mode:?}"
            );
            assert_eq!(
                house.may_read("alice", &g).await,
                Err(Denial::ChannelNotFound),
                "{dialect:?} {mode:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_delete_shows_at_once_and_nothing_is_asked_any_more() {
    for (dialect, mode) in ALL {
        let house = House::new(dialect, mode.clone()).await;
        let g = house.group("g", &["alice"]).await;
        assert_eq!(house.may_send("alice", &g).await, Ok(()));
        house
            .store
            .mark_deleted(&group_id("g"), None)
            .await
            .unwrap();
        house.authorization.group_deleted(&group_id("g"));
        house.upstream.clear_calls();
        assert_eq!(
            house.may_send("alice", &g).await,
            Err(Denial::ChannelNotFound)
        );
        assert!(house.upstream.calls().is_empty(), "{dialect:?} {mode:?}");
    }
}

#[tokio::test]
async fn another_replica_learns_of_it_within_the_time_answers_are_believed() {
    let mut plan = Plan::new(Dialect::V2, Mode::Members);
    plan.rules.cache_ttl = Duration::from_millis(200);
    let house = plan.start().await;
    let g = house.group("g", &["alice"]).await;
    assert_eq!(house.may_read("alice", &g).await, Ok(()));
    house
        .store
        .mark_deleted(&group_id("g"), None)
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(210)).await;
    assert_eq!(
        house.may_read("alice", &g).await,
        Err(Denial::ChannelNotFound)
    );
}

#[tokio::test]
async fn a_tombstone_counts_while_the_upstream_is_away() {
    let house = House::members_v2().await;
    let g = house.group("g", &["alice"]).await;
    house
        .store
        .mark_deleted(&group_id("g"), None)
        .await
        .unwrap();
    house.upstream.stop().await;
    assert_eq!(
        house.may_read("alice", &g).await,
        Err(Denial::ChannelNotFound)
    );
}

#[tokio::test]
async fn a_store_that_cannot_be_asked_leaves_it_to_membership() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gateway.db");
    let url = format!("sqlite://{}", path.display());
    let mut plan = Plan::new(Dialect::V2, Mode::Members);
    plan.store_url.clone_from(&url);
    let house = plan.start().await;
    let g = house.group("g", &["alice"]).await;
    let gone = house.group("gone", &["alice"]).await;
    house
        .store
        .mark_deleted(&group_id("gone"), None)
        .await
        .unwrap();
    assert_eq!(
        house.may_read("alice", &gone).await,
        Err(Denial::ChannelNotFound)
    );
    let mut behind = sqlx::SqliteConnection::connect(&url).await.unwrap();
    behind
        .execute("ALTER TABLE channels RENAME TO hidden")
        .await
        .unwrap();
    assert!(house.store.channel(&group_id("g")).await.is_err());

    assert_eq!(house.may_read("alice", &g).await, Ok(()));
    assert_eq!(house.may_send("eve", &g).await, Err(Denial::NotAMember));
    // What is known already stays known.
    assert_eq!(
        house.may_read("alice", &gone).await,
        Err(Denial::ChannelNotFound)
    );
    // To a replica that does not know it yet, upstream's members are the only answer.
    let rules = Rules {
        mode: Mode::Members,
        cache_ttl: Duration::from_mins(1),
        cache_members: 1000,
    };
    let fresh = Authorization::new(
        Arc::clone(&house.client),
        Arc::clone(&house.store),
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
async fn a_mark_that_may_have_been_set_is_looked_for_at_once() {
    for (dialect, mode) in ALL {
        let house = House::new(dialect, mode.clone()).await;
        let g = house.group("g", &["alice"]).await;
        assert_eq!(house.may_send("alice", &g).await, Ok(()));
        // The mark is set and its answer lost: the channels room only tells that something changed.
        house
            .store
            .mark_deleted(&group_id("g"), None)
            .await
            .unwrap();
        house.authorization.group_changed(&group_id("g"));
        assert_eq!(
            house.may_send("alice", &g).await,
            Err(Denial::ChannelNotFound),
            "{dialect:?} {mode:?}"
        );
        // What is known for certain no change makes doubtful.
        house.authorization.group_changed(&group_id("g"));
        house.upstream.clear_calls();
        assert_eq!(
            house.may_send("alice", &g).await,
            Err(Denial::ChannelNotFound)
        );
        assert!(house.upstream.calls().is_empty(), "{dialect:?} {mode:?}");
    }
}
