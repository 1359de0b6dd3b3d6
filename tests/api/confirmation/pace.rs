//! The price of a confirmation where the upstream is slow to show what it stored, as a cluster is.

use crate::support::prelude::*;

/// How long the imitated cluster takes to show a message.
const CLUSTER: Duration = Duration::from_millis(120);
/// Enough sends for the gateway to have learned that.
const WARM_UP: usize = 8;

async fn cluster() -> TestApp {
    let builder = TestApp::builder().options(|options| options.visible_after = CLUSTER);
    let app = builder.start().await;
    app.group("g", "alice", &[]).await;
    for _ in 0..WARM_UP {
        app.user("alice").send_to_group("g", "warm up").await.ok();
    }
    app.clear_calls();
    app
}

#[tokio::test]
async fn a_slow_upstream_costs_a_handful_of_polls_a_message() {
    const SENDS: usize = 6;
    let app = cluster().await;
    for _ in 0..SENDS {
        app.user("alice").send_to_group("g", "hi").await.ok();
    }
    let looks = app.looks();
    assert!(looks <= 12 * SENDS, "{looks} looks for {SENDS} messages");
    assert_eq!(app.stored_in("g").len(), WARM_UP + SENDS);
}

#[tokio::test]
async fn all_waiters_of_a_channel_share_its_polls() {
    const SENDS: usize = 50;
    let app = cluster().await;
    let alice = app.user("alice");
    let answers = join_all((0..SENDS).map(|_| alice.send_to_group("g", "hi"))).await;
    let mut seqs: Vec<_> = answers
        .into_iter()
        .map(|answer| usize::try_from(answer.ok()["messageSeq"].as_u64().unwrap()).unwrap())
        .collect();
    seqs.sort_unstable();
    assert!(seqs.into_iter().eq(WARM_UP + 1..=WARM_UP + SENDS));
    let looks = app.looks();
    assert!(looks <= SENDS, "{looks} looks for {SENDS} messages at once");
}

#[tokio::test]
async fn another_channel_of_a_slow_upstream_profits_from_what_was_learned() {
    let app = cluster().await;
    app.group("h", "alice", &[]).await;
    app.user("alice").send_to_group("h", "hi").await.ok();
    let looks = app.looks();
    assert!(
        looks <= 12,
        "{looks} looks for the first message of a channel"
    );
}

#[tokio::test]
async fn there_are_no_polls_without_waiters() {
    let app = cluster().await;
    app.user("alice").send_to_group("g", "hi").await.ok();
    let looks = app.looks();
    tokio::time::sleep(CLUSTER).await;
    assert_eq!(app.looks(), looks);
}
