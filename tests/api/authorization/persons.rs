//! Mode `members`: conversations of two.

use super::nothing_was_sent;
use crate::support::prelude::*;

#[tokio::test]
async fn every_user_writes_to_any_user_and_reads_only_its_own_pairs() {
    for app in TestApp::both().await {
        let done = app.user("alice").send_to_person("bob", "private").await;
        done.ok();
        for (reader, peer) in [("alice", "bob"), ("bob", "alice")] {
            let answer = app.user(reader).sync(PERSON, peer, "").await;
            assert_eq!(page(answer), (vec![1], false), "{reader}");
        }
        for peer in ["alice", "bob"] {
            let answer = app.user("carol").sync(PERSON, peer, "").await;
            assert_eq!(page(answer), (vec![], false), "{peer}");
            let answer = app.admin().sync(PERSON, peer, "").await;
            assert_eq!(page(answer), (vec![], false), "{peer}");
        }
    }
}

#[tokio::test]
async fn the_id_of_a_pair_is_no_way_into_it() {
    for app in TestApp::both().await {
        let done = app.user("alice").send_to_person("bob", "private").await;
        done.ok();
        app.clear_calls();
        for id in ["alice%40bob", "bob%40alice"] {
            for channel_type in [1, 2] {
                let answer = app.user("carol").sync(channel_type, id, "").await;
                answer.names(&["channelId"]);
            }
        }
        assert!(app.upstream.calls().is_empty());
    }
}

#[tokio::test]
async fn whom_the_peer_blocks_cannot_write_and_can_read() {
    for app in TestApp::both().await {
        seeds::message(&app, PERSON, "bob", "alice", b"before");
        app.state().deny(PERSON, "bob", "alice");
        let (alice, bob) = (app.user("alice"), app.user("bob"));
        alice.send_to_person("bob", "x").await.fails(403, "blocked");
        nothing_was_sent(&app);
        assert_eq!(app.state().messages_between("alice", "bob").len(), 1);
        for (reader, peer) in [(&alice, "bob"), (&bob, "alice")] {
            assert_eq!(page(reader.sync(PERSON, peer, "").await), (vec![1], false));
        }
        // It is one way, and nobody else's.
        bob.send_to_person("alice", "x").await.ok();
        if app.dialect == V2 {
            bob.send_to_person("bob", "x").await.ok();
        }
        alice.send_to_person("carol", "x").await.ok();
        app.user("carol").send_to_person("bob", "x").await.ok();
    }
}

#[tokio::test]
async fn a_denylist_of_a_group_named_like_the_peer_does_not_apply() {
    for app in TestApp::both().await {
        app.state().deny(2, "bob", "alice");
        app.user("alice").send_to_person("bob", "x").await.ok();
    }
}
