//! Several nodes of WuKongIM: load balancing, retries after failures, and calls that are never repeated.

mod batches;
mod copies;
mod deaths;
mod generations;
mod hanging;
mod repeats;

use dev_upstream::Call;
use wukongim_gateway::config::Settings;

use crate::support::prelude::*;

/// Does not look for lost messages longer than a test wants to wait.
fn impatient(settings: &mut Settings) {
    settings.wukongim.confirm_timeout = Duration::from_millis(500);
}

/// A gateway in front of a cluster, and the group `g` of alice and bob.
async fn cluster(dialect: Dialect, count: usize) -> TestApp {
    cluster_with(dialect, count, impatient).await
}

async fn cluster_with(
    dialect: Dialect,
    count: usize,
    change: impl FnOnce(&mut Settings) + 'static,
) -> TestApp {
    let builder = TestApp::builder().upstream(dialect).nodes(count);
    let app = builder.config(change).start().await;
    app.group("g", "alice", &["bob"]).await;
    app
}

/// The messages handed to one node, in order.
fn sends_to(node: &DevUpstream) -> Vec<Call> {
    let mut calls = node.calls_to("/message/send");
    calls.retain(|call| call.body["from_uid"] != "____gateway");
    calls
}

/// How often each node was given a message.
fn sends(app: &TestApp) -> Vec<usize> {
    let nodes = app.nodes().into_iter();
    nodes.map(|node| sends_to(node).len()).collect()
}

/// Waits until the gateway knows all of its nodes: calls go to each.
async fn all_are_known(app: &TestApp) {
    all_of(app, &app.nodes()).await;
}

/// Waits until calls go to each of these.
async fn all_of(app: &TestApp, nodes: &[&DevUpstream]) {
    for node in nodes {
        node.clear_calls();
    }
    let alice = app.user("alice");
    for _ in 0..500 {
        join_all((0..8).map(|_| alice.sync(2, "g", ""))).await;
        // Of a group without messages v2 is asked that alone.
        let reads = |node: &&DevUpstream| {
            let asked = node.calls_to("/channel/max_message_seq");
            !asked.is_empty() || !node.calls_to("/channel/messagesync").is_empty()
        };
        if nodes.iter().all(reads) {
            for node in app.nodes() {
                node.clear_calls();
            }
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("a node is never called");
}

#[tokio::test]
async fn calls_are_spread_over_all_nodes() {
    for dialect in [V2, V3] {
        let app = cluster(dialect, 3).await;
        all_are_known(&app).await;
        let alice = app.user("alice");
        for _ in 0..10 {
            let sent = join_all((0..12).map(|_| alice.send_to_group("g", "hi"))).await;
            all_ok(sent);
        }
        let sends = sends(&app);
        assert_eq!(sends.iter().sum::<usize>(), 120, "{dialect:?}");
        assert!(
            sends.iter().all(|count| *count > 0),
            "{dialect:?} {sends:?}"
        );
        assert_eq!(app.stored_in("g").len(), 120, "{dialect:?}");
    }
}

#[tokio::test]
async fn a_node_that_is_down_at_the_start_is_passed_over_and_taken_up_when_it_comes() {
    for dialect in [V2, V3] {
        for down in 0..3 {
            let builder = TestApp::builder().upstream(dialect).nodes(3);
            let app = builder.config(impatient).start().await;
            app.nodes()[down].stop().await;
            app.group("g", "alice", &["bob"]).await;
            let alice = app.user("alice");
            for n in 0..10 {
                let body = numbered(2, "g", "hi", &format!("n-{n}"));
                alice.send(&body).await.ok();
            }
            alice.sync(2, "g", "").await.ok();
            assert_eq!(app.stored_in("g").len(), 10, "{dialect:?} {down}");
            app.nodes()[down].restart().await.unwrap();
            all_are_known(&app).await;
        }
    }
}

#[tokio::test]
async fn when_all_were_down_the_first_that_comes_back_is_used() {
    for dialect in [V2, V3] {
        let app = cluster(dialect, 3).await;
        all_are_known(&app).await;
        for node in app.nodes() {
            node.stop().await;
        }
        let alice = app.user("alice");
        for _ in 0..10 {
            failure(503, "upstream_unavailable").is(alice.send_to_person("bob", "hi").await);
        }
        app.nodes()[1].restart().await.unwrap();
        // The least bad is tried, its next probe is not waited for; only that it was down is believed for a moment.
        let mut statuses = Vec::new();
        while statuses.last() != Some(&200) {
            assert!(statuses.len() < 40, "{dialect:?} {statuses:?}");
            tokio::time::sleep(Duration::from_millis(25)).await;
            statuses.push(alice.send_to_group("g", "hi").await.status);
        }
        for index in [0, 2] {
            app.nodes()[index].restart().await.unwrap();
        }
        all_are_known(&app).await;
    }
}

#[tokio::test]
async fn the_state_of_each_node_is_in_the_metrics() {
    let app = cluster(V2, 2).await;
    all_are_known(&app).await;
    let told = |name: &str, node: &str| -> String {
        let sample = format!("gateway_upstream_{name}{{node=\"{node}\"}}");
        let text = app.app.metrics.render();
        let value = text.lines().find_map(|line| line.strip_prefix(&sample));
        value
            .unwrap_or_else(|| panic!("{sample}"))
            .trim()
            .to_owned()
    };
    for node in ["n1", "n2"] {
        assert_ne!(told("latency_seconds", node), "0.0");
        assert_eq!(told("ejections_total", node), "0");
        assert_eq!(told("ejected", node), "0");
        until(|| told("in_flight", node) == "0").await;
    }
    app.others[0].stop().await;
    let alice = app.user("alice");
    for _ in 0..20 {
        alice.send_to_group("g", "hi").await.ok();
    }
    join_all((0..8).map(|_| alice.sync(2, "g", ""))).await;
    assert_eq!(told("ejections_total", "n1"), "0");
    assert_eq!(told("ejections_total", "n2"), "1");
    assert_eq!(told("ejected", "n2"), "1");
    app.others[0].restart().await.unwrap();
    until(|| told("ejected", "n2") == "0").await;
}
