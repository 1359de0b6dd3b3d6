//! A cluster that is exchanged node by node for another generation. The two share no data: the gateway speaks to one of them at a time.

use std::net::SocketAddr;

use dev_upstream::{DevUpstream, Dialect, Options};

use super::{all_of, cluster};
use crate::support::messages::{message, numbered};
use crate::support::{TestApp, V2, V3};

fn address(node: &DevUpstream) -> SocketAddr {
    node.url().replace("http://", "").parse().unwrap()
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
            // What an operator has moved before.
            for uid in ["alice", "bob"] {
                node.state().ban_group("g", false);
                node.state().join("g", uid);
            }
            node
        }
    }
}

/// Sends until it is acknowledged: the moment of the change may cost an answer.
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

#[tokio::test]
async fn nodes_are_exchanged_one_by_one_while_messages_flow() {
    for (old, new) in [(V2, V3), (V3, V2)] {
        let app = cluster(old, 3).await;
        let mut fresh: Vec<DevUpstream> = Vec::new();
        let mut n = 0;
        for index in 0..3 {
            let next = replace(app.nodes()[index], &fresh, new).await;
            fresh.push(next);
            for _ in 0..6 {
                n += 1;
                assert_eq!(
                    sent(&app, &format!("n-{n:02}")).await,
                    200,
                    "{old:?} {index}"
                );
            }
            // The permission of the one is never used on the other.
            let answer = app.user("stranger").send(&message(2, "g", "no")).await;
            assert!([403, 503].contains(&answer.status), "{answer:#?}");
            if index < 2 {
                let first = fresh[0].state().messages(2, "g");
                assert!(first.is_empty(), "the old ones are left: {old:?} {index}");
            }
        }
        let stored = app.stored_in("g").len();
        assert_eq!(stored, 12, "the old ones got what was sent before: {old:?}");
        assert_eq!(fresh[0].state().messages(2, "g").len(), 6, "{old:?}");
        let all: Vec<&DevUpstream> = fresh.iter().collect();
        all_of(&app, &all).await;
        let answer = app.user("stranger").send(&message(2, "g", "no")).await;
        answer.fails(403, "not_a_member");
    }
}

#[tokio::test]
async fn a_node_of_the_other_generation_gets_no_calls_while_one_of_the_first_is_left() {
    let app = cluster(V2, 3).await;
    let other = replace(&app.others[0], &[], V3).await;
    for n in 0..20 {
        assert_eq!(sent(&app, &format!("n-{n}")).await, 200);
        app.user("alice").sync(2, "g", "").await.ok();
    }
    assert!(other.calls_to("/message").is_empty());
    assert!(other.calls_to("/channel").is_empty());
    assert_eq!(app.stored_in("g").len(), 20);
}

#[tokio::test]
async fn what_was_permitted_by_one_generation_is_stored_by_no_node_of_the_other() {
    for (old, new) in [(V2, V3), (V3, V2)] {
        let app = cluster(old, 1).await;
        assert_eq!(sent(&app, "before").await, 200);
        // The membership is known still, so the next call to it is the send itself.
        let other = replace(app.nodes()[0], &[], new).await;
        let answer = app.user("alice").send(&numbered(2, "g", "n", "n")).await;
        assert!([200, 502, 503, 504].contains(&answer.status), "{answer:#?}");
        let sends = other.calls_to("/message/send");
        let stored = other.state().messages(2, "g").len();
        let permitted_anew = answer.status == 200;
        assert_eq!(stored, usize::from(permitted_anew), "{sends:#?}");
    }
}
