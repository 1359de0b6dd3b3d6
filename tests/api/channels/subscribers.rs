//! Adding and removing: who may, and true counts.

use super::{each_kind, kinds, start};
use crate::support::prelude::*;

#[tokio::test]
async fn an_owner_adds_and_removes_and_counts_are_true() {
    for kind in kinds() {
        let app = start(kind).await;
        let counts_are_told = kind.tells_members();
        app.group("g", "alice", &[]).await;
        let alice = app.user("alice");
        let added = async |uids: &[&str]| alice.add("g", uids).await.ok()["added"].clone();
        let removed = async |uids: &[&str]| alice.remove("g", uids).await.ok()["removed"].clone();
        assert_eq!(added(&["bob", "carol", "bob"]).await, 2);
        let again = if counts_are_told { 1 } else { 3 };
        assert_eq!(added(&["bob", "dave", "carol"]).await, again);
        let none = if counts_are_told { 0 } else { 2 };
        assert_eq!(added(&["bob", "alice"]).await, none);
        let mut members = app.state().members("g");
        members.sort();
        assert_eq!(members, ["alice", "bob", "carol", "dave"]);
        let gone = if counts_are_told { 1 } else { 2 };
        assert_eq!(removed(&["bob", "nobody", "bob"]).await, gone);
        let none = u64::from(!counts_are_told);
        assert_eq!(removed(&["bob"]).await, none);
        failure(403, "not_a_member").is(app.user("bob").send_to_group("g", "x").await);
        app.user("dave").send_to_group("g", "x").await.ok();
    }
}

#[tokio::test]
async fn a_group_that_would_be_too_large_stays_as_it_is() {
    for kind in [(V2, false), (V3, true)] {
        let builder = TestApp::builder().upstream(kind.0).manager_port_if(kind.1);
        let builder = builder.config(|settings| settings.limits.group_members = 3);
        let app = builder.start().await;
        app.group("g", "alice", &["bob"]).await;
        let alice = app.user("alice");
        failure(409, "channel_full").is(alice.add("g", &["carol", "dave"]).await);
        app.nothing_was_written();
        assert_eq!(app.state().members("g").len(), 2);
        // Who is in already takes no place.
        let told = alice.add("g", &["carol", "bob", "alice"]).await.ok();
        assert_eq!(told["added"], 1);
        alice.add("g", &["dave"]).await.fails(409, "channel_full");
        alice.remove("g", &["bob"]).await.ok();
        alice.add("g", &["dave"]).await.ok();
    }
}

#[tokio::test]
async fn hundreds_are_added_at_once() {
    for app in each_kind().await {
        app.group("g", "alice", &[]).await;
        let uids: Vec<_> = (0..500).map(|index| format!("u{index}")).collect();
        let uids: Vec<_> = uids.iter().map(String::as_str).collect();
        assert_eq!(app.user("alice").add("g", &uids).await.ok()["added"], 500);
        assert_eq!(app.state().members("g").len(), 501);
        let told = app.user("alice").remove("g", &uids).await.ok();
        assert_eq!(told["removed"], 500);
        assert_eq!(app.state().members("g"), ["alice"]);
    }
}

#[tokio::test]
async fn more_uids_than_configured_are_refused() {
    let app = TestApp::with(V2, |settings| settings.limits.subscribers = 3).await;
    app.group("g", "alice", &[]).await;
    let alice = app.user("alice");
    for answer in [
        alice.add("g", &["a", "b", "c", "d"]).await,
        alice.remove("g", &["a", "b", "c", "d"]).await,
    ] {
        answer.names(&["subscribers"]);
    }
    assert_eq!(app.upstream.calls().len(), 0);
    alice.add("g", &["a", "b", "c"]).await.ok();
}
