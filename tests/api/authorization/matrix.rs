//! Mode `members`: who may do what in a group.

use super::{is_in, is_kept_out, nothing_was_sent, tries};
use crate::support::prelude::*;

#[tokio::test]
async fn subscribers_send_and_read() {
    for app in TestApp::both().await {
        app.group("g", "owner", &["member"]).await;
        is_in(&app, "owner").await;
        is_in(&app, "member").await;
        assert_eq!(app.state().messages(GROUP, "g").len(), 2);
    }
}

#[tokio::test]
async fn strangers_and_removed_members_neither_send_nor_read() {
    for app in TestApp::both().await {
        app.group("g", "owner", &["removed", "left"]).await;
        is_in(&app, "removed").await;
        is_in(&app, "left").await;
        app.user("owner").remove("g", &["removed"]).await.ok();
        app.user("left").remove("g", &["left"]).await.ok();
        for uid in ["stranger", "removed", "left", "Owner", "owner2", "g"] {
            is_kept_out(&app, uid, 403, "not_a_member").await;
        }
        is_in(&app, "owner").await;
    }
}

#[tokio::test]
async fn messages_or_a_denylist_alone_make_no_group() {
    let app = TestApp::start(V2).await;
    seeds::message(&app, GROUP, "g", "alice", b"x");
    app.state().deny(GROUP, "g", "alice");
    is_kept_out(&app, "alice", 404, "channel_not_found").await;
}

/// Two group ids with one FNV-1a-64 hash (`crates/dev-upstream/tests`).
const TWINS: [&str; 2] = ["twins-R54o9P90Go-Z", "twins-Q76Q5J92otdM"];

#[tokio::test]
async fn a_group_with_the_hash_of_another_one_is_not_found() {
    let app = TestApp::start(V2).await;
    let [first, second] = TWINS;
    app.group(first, "alice", &[]).await;
    assert_eq!(app.state().members(second), ["alice"]);
    let alice = app.user("alice");
    failure(404, "channel_not_found").in_each([
        alice.sync(GROUP, second, "").await,
        alice.send_to_group(second, "x").await,
    ]);
    alice.send_to_group(first, "x").await.ok();
}

#[tokio::test]
async fn an_admin_that_is_not_a_subscriber_neither_sends_nor_reads() {
    for app in TestApp::both().await {
        app.group("g", "owner", &["member"]).await;
        let root = app.admin();
        failure(403, "not_a_member").is(root.send_to_group("g", "x").await);
        root.sync(GROUP, "g", "").await.fails(403, "not_a_member");
        nothing_was_sent(&app);
        // He manages it, and that opens no conversation either.
        root.add("g", &["friend"]).await.ok();
        root.sync(GROUP, "g", "").await.fails(403, "not_a_member");
        assert!(app.stored_in("g").is_empty());
        root.add("g", &["root"]).await.ok();
        root.send_to_group("g", "x").await.ok();
        root.sync(GROUP, "g", "").await.ok();
        app.state().deny(PERSON, "bob", "root");
        failure(403, "blocked").is(root.send_to_person("bob", "x").await);
        assert!(app.state().messages_between("root", "bob").is_empty());
    }
}

#[tokio::test]
async fn an_admin_sends_as_another_user_under_that_users_permissions() {
    for app in TestApp::both().await {
        app.group("g", "owner", &["member", "denied"]).await;
        app.state().deny(GROUP, "g", "denied");
        app.state().deny(PERSON, "carol", "member");
        let body = |uid: &str| as_user(uid, message(GROUP, "g", "x"));
        let root = app.admin();
        failure(403, "not_a_member").in_each([
            root.send(&body("stranger")).await,
            root.send(&body("root")).await,
        ]);
        failure(403, "blocked").in_each([
            root.send(&body("denied")).await,
            root.send(&as_user("member", message(PERSON, "carol", "x")))
                .await,
        ]);
        nothing_was_sent(&app);
        let sent = root.send(&body("member")).await.ok();
        assert_eq!(sent["messageSeq"], 1);
        assert_eq!(app.stored_in("g").len(), 1);
        assert_eq!(app.stored_in("g")[0].0, "member");
        assert!(app.state().messages_between("member", "carol").is_empty());
        // Nobody else does, not even as a subscriber for a subscriber.
        let owner = app.user("owner");
        app.clear_calls();
        owner.send(&body("member")).await.fails(403, "forbidden");
        app.nothing_was_written();
        owner.send(&body("owner")).await.ok();
        assert_eq!(app.stored_in("g").len(), 2);
    }
}

/// Asserts that `uid` cannot send to the group `g`, with this code, and reads its one message.
async fn reads_without_sending(app: &TestApp, uid: &str, code: &str) {
    let (sent, read) = tries(app, uid).await;
    sent.fails(403, code);
    assert_eq!(seeds::page(read), (vec![1], false), "{:?}", app.dialect);
    nothing_was_sent(app);
}

#[tokio::test]
async fn the_denylist_silences_and_hides_nothing() {
    for app in TestApp::both().await {
        app.group("g", "owner", &["denied"]).await;
        app.state().deny(GROUP, "g", "denied");
        app.user("owner").send_to_group("g", "x").await.ok();
        app.clear_calls();
        reads_without_sending(&app, "denied", "blocked").await;
        if app.dialect == V2 {
            app.state().deny(GROUP, "g", "eve");
            is_kept_out(&app, "eve", 403, "not_a_member").await;
        }
    }
}

#[tokio::test]
async fn an_allowlist_silences_all_others_and_hides_nothing() {
    for app in TestApp::both().await {
        app.group("g", "owner", &["allowed", "denied"]).await;
        let state = app.state();
        state.allow("g", "allowed");
        state.allow("g", "denied");
        state.allow("g", "stranger");
        state.deny(GROUP, "g", "denied");
        is_in(&app, "allowed").await;
        app.clear_calls();
        for (uid, code) in [("owner", "forbidden"), ("denied", "blocked")] {
            reads_without_sending(&app, uid, code).await;
        }
        is_kept_out(&app, "stranger", 403, "not_a_member").await;
        nothing_was_sent(&app);
    }
}

#[tokio::test]
async fn a_banned_group_can_be_read_and_not_written() {
    for app in TestApp::both().await {
        seeds::group(&app, "g", &["member"]);
        seeds::message(&app, GROUP, "g", "member", b"before");
        app.state().ban_group("g", true);
        reads_without_sending(&app, "member", "channel_banned").await;
        if app.dialect == V2 {
            app.nothing_was_written();
            is_kept_out(&app, "stranger", 403, "not_a_member").await;
        }
    }
}

#[tokio::test]
async fn an_unknown_group_is_404_for_all_users_and_is_not_created() {
    for app in TestApp::both().await {
        is_kept_out(&app, "alice", 404, "channel_not_found").await;
        failure(404, "channel_not_found").in_each([
            app.admin().sync(GROUP, "g", "").await,
            app.admin().send_to_group("g", "x").await,
        ]);
        assert_eq!(app.state().flags(GROUP, "g"), None);
        // A user is no group.
        app.user("alice").send_to_person("g", "x").await.ok();
        is_kept_out(&app, "alice", 404, "channel_not_found").await;
    }
}

#[tokio::test]
async fn a_group_that_was_disbanded_upstream_is_404_for_members_and_strangers() {
    for app in TestApp::both().await {
        seeds::group(&app, "g", &["member"]);
        seeds::message(&app, GROUP, "g", "member", b"before");
        app.state().disband("g");
        assert_eq!(app.state().members("g"), ["member"], "still listed");
        is_kept_out(&app, "member", 404, "channel_not_found").await;
        is_kept_out(&app, "stranger", 404, "channel_not_found").await;
        if app.dialect == V2 {
            app.nothing_was_written();
        }
    }
}

#[tokio::test]
async fn a_deleted_group_is_404_for_all_users_without_a_call() {
    for app in TestApp::both().await {
        app.group("g", "owner", &["member"]).await;
        is_in(&app, "member").await;
        app.user("owner").delete_group("g").await.ok();
        // Upstream has it back, with its members: the gateway's word counts.
        app.state().forget_channel("g");
        seeds::group(&app, "g", &["owner", "member"]);
        for uid in ["owner", "member", "stranger"] {
            is_kept_out(&app, uid, 404, "channel_not_found").await;
            assert!(
                app.upstream.calls().is_empty(),
                "{:#?}",
                app.upstream.calls()
            );
        }
    }
}

#[tokio::test]
async fn a_banned_user_neither_sends_nor_reads_on_v2() {
    for app in TestApp::both().await {
        app.group("g", "owner", &["banned"]).await;
        app.state().ban_user("banned", true);
        if app.dialect == V3 {
            // v3 knows no such ban.
            is_in(&app, "banned").await;
            app.user("banned").send_to_person("owner", "x").await.ok();
            continue;
        }
        is_kept_out(&app, "banned", 403, "forbidden").await;
        let banned = app.user("banned");
        failure(403, "forbidden").in_each([
            banned.send_to_person("owner", "x").await,
            banned.sync(1, "owner", "").await,
            banned.send_to_person("banned", "x").await,
        ]);
        nothing_was_sent(&app);
        assert!(app.calls_to("/channel/messagesync").is_empty());
        // Others are not concerned, nor are those who write to him.
        is_in(&app, "owner").await;
        app.user("owner").send_to_person("banned", "x").await.ok();
    }
}
