//! Nodes of both generations. They share no data: the gateway uses one generation from its first call until it ends.

use std::net::SocketAddr;

use wukongim_gateway::config::Generation;

use super::{cluster, impatient};
use crate::operations::Ops;
use crate::support::prelude::*;

fn address(node: &DevUpstream) -> SocketAddr {
    node.url().replace("http://", "").parse().unwrap()
}

fn other(dialect: Dialect) -> Dialect {
    if dialect == V2 { V3 } else { V2 }
}

/// A node by itself, with the group `g` of alice.
async fn alone(dialect: Dialect) -> DevUpstream {
    let node = DevUpstream::start(Options::new(dialect)).await.unwrap();
    node.state().ban_group("g", false);
    node.state().join("g", "alice");
    node
}

/// A node of the new cluster in the place of one of the old.
async fn replace(old: &DevUpstream, new: &[DevUpstream], dialect: Dialect) -> DevUpstream {
    old.stop().await;
    let mut options = Options::new(dialect);
    options.listen = address(old);
    match new.first() {
        Some(first) => first.start_beside(options).await.unwrap(),
        None => {
            let node = DevUpstream::start(options).await.unwrap();
            for uid in ["alice", "bob"] {
                node.state().ban_group("g", false);
                node.state().join("g", uid);
            }
            node
        }
    }
}

/// Sends until it is acknowledged: a node's end may cost an answer.
async fn sent(app: &TestApp, number: &str) -> u16 {
    let body = numbered(2, "g", number, number);
    for _ in 0..10 {
        let answer = app.user("alice").send(&body).await;
        if answer.status == 200 {
            return 200;
        }
        assert!([502, 503, 504].contains(&answer.status), "{answer:#?}");
    }
    503
}

/// A gateway in front of these nodes, which share nothing.
async fn in_front_of(nodes: &[&DevUpstream], version: Option<Generation>) -> TestApp {
    let urls = nodes.iter();
    let urls: Vec<_> = urls.map(|node| node.url().parse().unwrap()).collect();
    TestApp::builder()
        .config(move |settings| {
            impatient(settings);
            settings.wukongim.api_urls = urls;
            settings.wukongim.version = version;
        })
        .start()
        .await
}

/// Asserts that nothing but its generation and health was asked of this node.
#[track_caller]
fn is_not_used(node: &DevUpstream) {
    let mut calls = node.calls();
    calls.retain(|call| !["/health", "/healthz", "/readyz"].contains(&&*call.path));
    assert!(calls.is_empty(), "{calls:#?}");
}

#[tokio::test]
async fn the_generation_of_most_nodes_is_used_and_the_others_are_named() {
    for dialect in [V2, V3] {
        let (one, two) = (alone(other(dialect)).await, alone(dialect).await);
        let three = two.start_beside(Options::new(dialect)).await.unwrap();
        let app = in_front_of(&[&one, &two, &three], None).await;
        for n in 0..10 {
            assert_eq!(sent(&app, &format!("n-{n}")).await, 200);
        }
        app.user("alice").sync(2, "g", "").await.ok();
        is_not_used(&one);
        assert_eq!(two.state().messages(2, "g").len(), 10);
        let named = match dialect {
            V2 => "wukongim node n1 is of another generation: v3",
            V3 => "wukongim node n1 is of another generation: v2",
        };
        let ops = Ops::of(&app).await;
        ops.becomes(200, json!({"ready": true, "degraded": [named]}))
            .await;
        let (two, three) = tokio::join!(two.stop(), three.stop());
        let _: ((), ()) = (two, three);
        let down = json!({"ready": false, "reasons": ["no wukongim node answers", named]});
        ops.becomes(503, down).await;
    }
}

#[tokio::test]
async fn in_a_tie_the_first_of_the_list_decides() {
    for dialect in [V2, V3] {
        let (one, two) = (alone(dialect).await, alone(other(dialect)).await);
        let app = in_front_of(&[&one, &two], None).await;
        assert_eq!(sent(&app, "n").await, 200);
        assert_eq!(one.state().messages(2, "g").len(), 1);
        is_not_used(&two);
    }
}

#[tokio::test]
async fn a_node_that_tells_its_generation_too_late_does_not_decide() {
    let (one, two) = (alone(V3).await, alone(V2).await);
    one.faults().always("/", Fault::Hold("held".into()));
    let app = in_front_of(&[&one, &two], None).await;
    assert_eq!(sent(&app, "n").await, 200);
    assert_eq!(two.state().messages(2, "g").len(), 1);
    one.faults().clear();
    one.faults().release("held");
    assert_eq!(sent(&app, "m").await, 200);
    is_not_used(&one);
}

#[tokio::test]
async fn the_configured_generation_is_used_whatever_most_nodes_are() {
    for (dialect, version) in [(V2, Generation::V2), (V3, Generation::V3)] {
        let (one, three) = (alone(other(dialect)).await, alone(dialect).await);
        let options = Options::new(other(dialect));
        let two = one.start_beside(options).await.unwrap();
        let app = in_front_of(&[&one, &two, &three], Some(version)).await;
        for n in 0..5 {
            assert_eq!(sent(&app, &format!("n-{n}")).await, 200);
        }
        assert_eq!(three.state().messages(2, "g").len(), 5);
        is_not_used(&one);
        is_not_used(&two);
    }
}

#[tokio::test]
async fn nodes_are_exchanged_one_by_one_and_the_last_of_the_old_ones_is_used_to_its_end() {
    for old in [V2, V3] {
        let app = cluster(old, 3).await;
        let mut fresh: Vec<DevUpstream> = Vec::new();
        for index in 0..2 {
            let next = replace(app.nodes()[index], &fresh, other(old)).await;
            fresh.push(next);
            for n in 0..6 {
                assert_eq!(sent(&app, &format!("n-{index}-{n}")).await, 200, "{old:?}");
            }
            app.user("alice").sync(2, "g", "").await.ok();
        }
        fresh.push(replace(app.nodes()[2], &fresh, other(old)).await);
        for who in ["alice", "stranger"] {
            for _ in 0..3 {
                let answer = app.user(who).send(&message(2, "g", "no")).await;
                assert!([502, 503, 504].contains(&answer.status), "{answer:#?}");
                let answer = app.user(who).sync(2, "g", "").await;
                assert!([502, 503].contains(&answer.status), "{answer:#?}");
            }
        }
        for node in &fresh {
            let reads = node.calls_to("/channel/messagesync");
            assert!(reads.is_empty(), "{old:?} {reads:#?}");
        }
        assert!(fresh[0].state().messages(2, "g").is_empty(), "{old:?}");
        let ops = Ops::of(&app).await;
        let (status, told) = ops.ready().await;
        assert_eq!(status, 503);
        assert_eq!(
            told["reasons"][0],
            "every wukongim node is of another generation"
        );
        assert_eq!(told["reasons"].as_array().unwrap().len(), 4, "{told}");
        // One of the old ones is back.
        fresh[1].stop().await;
        app.nodes()[1].restart().await.unwrap();
        ops.becomes(
            200,
            json!({"ready": true, "degraded": [told["reasons"][1], told["reasons"][3]]}),
        )
        .await;
        assert_eq!(sent(&app, "back").await, 200);
        assert_eq!(app.stored_in("g").len(), 13, "{old:?}");
    }
}

#[tokio::test]
async fn a_message_that_one_generation_permitted_is_never_stored_by_the_other() {
    for old in [V2, V3] {
        let app = cluster(old, 1).await;
        assert_eq!(sent(&app, "before").await, 200);
        // The membership is cached, so the next call is the send itself.
        let new = replace(app.nodes()[0], &[], other(old)).await;
        for _ in 0..3 {
            let answer = app.user("alice").send(&numbered(2, "g", "n", "n")).await;
            assert!([502, 503, 504].contains(&answer.status), "{answer:#?}");
        }
        assert!(
            new.state().messages(2, "g").is_empty(),
            "{:#?}",
            new.calls()
        );
    }
}
