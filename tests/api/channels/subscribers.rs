//! Adding and removing: who may, and true counts.

use super::{kinds, start};
use crate::support::{TestApp, V2, V3};

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
        app.user("bob")
            .send_to_group("g", "x")
            .await
            .fails(403, "not_a_member");
        app.user("dave").send_to_group("g", "x").await.ok();
    }
}

#[tokio::test]
async fn an_admin_manages_without_being_a_member() {
    for kind in kinds() {
        let app = start(kind).await;
        app.group("g", "alice", &[]).await;
        assert_eq!(app.admin().add("g", &["bob"]).await.ok()["added"], 1);
        assert_eq!(app.admin().remove("g", &["bob"]).await.ok()["removed"], 1);
        app.admin()
            .send_to_group("g", "x")
            .await
            .fails(403, "not_a_member");
        app.admin()
            .sync(2, "g", "")
            .await
            .fails(403, "not_a_member");
    }
}

#[tokio::test]
async fn a_subscriber_removes_only_itself() {
    for kind in kinds() {
        let app = start(kind).await;
        app.group("g", "alice", &["bob", "carol"]).await;
        let bob = app.user("bob");
        bob.add("g", &["dave"]).await.fails(403, "not_owner");
        bob.remove("g", &["carol"]).await.fails(403, "not_owner");
        bob.remove("g", &["bob", "carol"])
            .await
            .fails(403, "not_owner");
        bob.remove("g", &["alice"]).await.fails(403, "not_owner");
        app.user("mallory")
            .add("g", &["mallory"])
            .await
            .fails(403, "not_owner");
        app.nothing_was_written();
        assert_eq!(bob.remove("g", &["bob"]).await.ok()["removed"], 1);
        bob.send_to_group("g", "x").await.fails(403, "not_a_member");
        let counts_are_told = kind.tells_members();
        let none = u64::from(!counts_are_told);
        assert_eq!(
            app.user("mallory").remove("g", &["mallory"]).await.ok()["removed"],
            none
        );
    }
}

#[tokio::test]
async fn removing_the_owner_is_refused_and_removes_no_other_member() {
    for kind in kinds() {
        let app = start(kind).await;
        app.group("g", "alice", &["bob"]).await;
        for actor in [app.user("alice"), app.admin()] {
            for uids in [&["alice"][..], &["bob", "alice"]] {
                actor
                    .remove("g", uids)
                    .await
                    .fails(409, "owner_cannot_leave");
            }
        }
        app.nothing_was_written();
        assert_eq!(app.state().members("g").len(), 2);
    }
}

#[tokio::test]
async fn a_group_that_would_be_too_large_stays_as_it_is() {
    for kind in [(V2, false), (V3, true)] {
        let builder = TestApp::builder()
            .upstream(kind.0)
            .config(|settings| settings.limits.group_members = 3);
        let app = if kind.1 {
            builder.manager_port().start().await
        } else {
            builder.start().await
        };
        app.group("g", "alice", &["bob"]).await;
        let alice = app.user("alice");
        alice
            .add("g", &["carol", "dave"])
            .await
            .fails(409, "channel_full");
        app.nothing_was_written();
        assert_eq!(app.state().members("g").len(), 2);
        // Who is in already takes no place.
        assert_eq!(
            alice.add("g", &["carol", "bob", "alice"]).await.ok()["added"],
            1
        );
        alice.add("g", &["dave"]).await.fails(409, "channel_full");
        alice.remove("g", &["bob"]).await.ok();
        alice.add("g", &["dave"]).await.ok();
    }
}

#[tokio::test]
async fn changes_show_at_once_in_what_members_may_do() {
    for kind in kinds() {
        let app = start(kind).await;
        app.group("g", "alice", &[]).await;
        let bob = app.user("bob");
        for _ in 0..3 {
            bob.sync(2, "g", "").await.fails(403, "not_a_member");
            app.user("alice").add("g", &["bob"]).await.ok();
            bob.send_to_group("g", "in").await.ok();
            bob.sync(2, "g", "").await.ok();
            app.user("alice").remove("g", &["bob"]).await.ok();
            bob.send_to_group("g", "out")
                .await
                .fails(403, "not_a_member");
        }
        assert_eq!(app.state().messages(2, "g").len(), 3);
    }
}

#[tokio::test]
async fn hundreds_are_added_at_once() {
    for kind in kinds() {
        let app = start(kind).await;
        app.group("g", "alice", &[]).await;
        let uids: Vec<_> = (0..500).map(|index| format!("u{index}")).collect();
        let uids: Vec<_> = uids.iter().map(String::as_str).collect();
        assert_eq!(app.user("alice").add("g", &uids).await.ok()["added"], 500);
        assert_eq!(app.state().members("g").len(), 501);
        assert_eq!(
            app.user("alice").remove("g", &uids).await.ok()["removed"],
            500
        );
        assert_eq!(app.state().members("g"), ["alice"]);
    }
}
