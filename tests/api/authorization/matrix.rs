//! Mode `members`: who may do what in a group.

use dev_upstream::GROUP;
use serde_json::json;

use super::{is_in, is_kept_out, nothing_was_sent, tries};
use crate::support::actors::payload;
use crate::support::seeds;
use crate::support::{TestApp, V2, V3};

#[tokio::test]
async fn subscribers_send_and_read() {
    for dialect in [V2, V3] {
        let app = TestApp::start(dialect).await;
        app.group("g", "owner", &["member"]).await;
        is_in(&app, "owner").await;
        is_in(&app, "member").await;
        assert_eq!(app.state().messages(GROUP, "g").len(), 2);
    }
}

#[tokio::test]
async fn strangers_and_removed_members_neither_send_nor_read() {
    for dialect in [V2, V3] {
        let app = TestApp::start(dialect).await;
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
async fn an_admin_that_is_not_a_subscriber_neither_sends_nor_reads() {
    for dialect in [V2, V3] {
        let app = TestApp::start(dialect).await;
        app.group("g", "owner", &["member"]).await;
        let root = app.admin();
        root.send_to_group("g", "x")
            .await
            .fails(403, "not_a_member");
        root.sync(GROUP, "g", "").await.fails(403, "not_a_member");
        nothing_was_sent(&app);
        // He manages it, and that opens no conversation either.
        root.add("g", &["friend"]).await.ok();
        root.sync(GROUP, "g", "").await.fails(403, "not_a_member");
        root.add("g", &["root"]).await.ok();
        root.send_to_group("g", "x").await.ok();
        root.sync(GROUP, "g", "").await.ok();
    }
}

#[tokio::test]
async fn an_admin_sends_as_another_user_under_that_users_permissions() {
    for dialect in [V2, V3] {
        let app = TestApp::start(dialect).await;
        app.group("g", "owner", &["member", "denied"]).await;
        app.state().deny(GROUP, "g", "denied");
        let body = |uid: &str| json!({"channelId": "g", "channelType": 2, "payload": payload("x"), "fromUid": uid});
        let root = app.admin();
        root.post("/message/send", &body("stranger"))
            .await
            .fails(403, "not_a_member");
        root.post("/message/send", &body("denied"))
            .await
            .fails(403, "blocked");
        root.post("/message/send", &body("root"))
            .await
            .fails(403, "not_a_member");
        nothing_was_sent(&app);
        root.post("/message/send", &body("member")).await.ok();
        let stored = app.state().messages(GROUP, "g");
        assert_eq!(
            (stored.len(), &*stored[0].from_uid),
            (1, "member"),
            "{dialect:?}"
        );
        // Nobody else does, not even as a subscriber for a subscriber.
        let answer = app
            .user("owner")
            .post("/message/send", &body("member"))
            .await;
        answer.fails(403, "forbidden");
        app.user("owner")
            .post("/message/send", &body("owner"))
            .await
            .ok();
    }
}

#[tokio::test]
async fn the_denylist_silences_and_hides_nothing() {
    for dialect in [V2, V3] {
        let app = TestApp::start(dialect).await;
        app.group("g", "owner", &["denied"]).await;
        app.state().deny(GROUP, "g", "denied");
        app.user("owner").send_to_group("g", "x").await.ok();
        app.clear_calls();
        let (sent, read) = tries(&app, "denied").await;
        sent.fails(403, "blocked");
        assert_eq!(seeds::page(read), (vec![1], false), "{dialect:?}");
        nothing_was_sent(&app);
    }
}

#[tokio::test]
async fn an_allowlist_silences_all_others_and_hides_nothing() {
    for dialect in [V2, V3] {
        let app = TestApp::start(dialect).await;
        app.group("g", "owner", &["allowed", "denied"]).await;
        let state = app.state();
        state.allow("g", "allowed");
        state.allow("g", "denied");
        state.allow("g", "stranger");
        state.deny(GROUP, "g", "denied");
        is_in(&app, "allowed").await;
        app.clear_calls();
        for (uid, code) in [("owner", "forbidden"), ("denied", "blocked")] {
            let (sent, read) = tries(&app, uid).await;
            sent.fails(403, code);
            assert_eq!(seeds::page(read), (vec![1], false), "{dialect:?}");
        }
        is_kept_out(&app, "stranger", 403, "not_a_member").await;
        nothing_was_sent(&app);
    }
}

#[tokio::test]
async fn a_banned_group_can_be_read_and_not_written() {
    for dialect in [V2, V3] {
        let app = TestApp::start(dialect).await;
        seeds::group(&app, "g", &["member"]);
        seeds::message(&app, GROUP, "g", "member", b"before");
        app.state().ban_group("g", true);
        let (sent, read) = tries(&app, "member").await;
        sent.fails(403, "channel_banned");
        assert_eq!(seeds::page(read), (vec![1], false), "{dialect:?}");
        nothing_was_sent(&app);
    }
}

#[tokio::test]
async fn an_unknown_group_is_404_for_all_users_and_is_not_created() {
    for dialect in [V2, V3] {
        let app = TestApp::start(dialect).await;
        is_kept_out(&app, "alice", 404, "channel_not_found").await;
        app.admin()
            .sync(GROUP, "g", "")
            .await
            .fails(404, "channel_not_found");
        app.admin()
            .send_to_group("g", "x")
            .await
            .fails(404, "channel_not_found");
        assert_eq!(app.state().flags(GROUP, "g"), None, "{dialect:?}");
        // A user is no group.
        app.user("alice").send_to_person("g", "x").await.ok();
        is_kept_out(&app, "alice", 404, "channel_not_found").await;
    }
}

#[tokio::test]
async fn a_group_that_was_disbanded_upstream_is_404_for_members_and_strangers() {
    for dialect in [V2, V3] {
        let app = TestApp::start(dialect).await;
        seeds::group(&app, "g", &["member"]);
        seeds::message(&app, GROUP, "g", "member", b"before");
        app.state().disband("g");
        is_kept_out(&app, "member", 404, "channel_not_found").await;
        is_kept_out(&app, "stranger", 404, "channel_not_found").await;
    }
}

#[tokio::test]
async fn a_deleted_group_is_404_for_all_users_without_a_call() {
    for dialect in [V2, V3] {
        let app = TestApp::start(dialect).await;
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
    for dialect in [V2, V3] {
        let app = TestApp::start(dialect).await;
        app.group("g", "owner", &["banned"]).await;
        app.state().ban_user("banned", true);
        if dialect == V3 {
            // v3 knows no such ban.
            is_in(&app, "banned").await;
            app.user("banned").send_to_person("owner", "x").await.ok();
            continue;
        }
        is_kept_out(&app, "banned", 403, "forbidden").await;
        let banned = app.user("banned");
        banned
            .send_to_person("owner", "x")
            .await
            .fails(403, "forbidden");
        banned.sync(1, "owner", "").await.fails(403, "forbidden");
        banned
            .send_to_person("banned", "x")
            .await
            .fails(403, "forbidden");
        nothing_was_sent(&app);
        assert!(app.calls_to("/channel/messagesync").is_empty());
        // Others are not concerned, nor are those who write to him.
        is_in(&app, "owner").await;
        app.user("owner").send_to_person("banned", "x").await.ok();
    }
}

#[tokio::test]
async fn each_message_of_a_batch_is_under_the_same_rules() {
    for dialect in [V2, V3] {
        let app = TestApp::start(dialect).await;
        app.group("g", "owner", &["alice"]).await;
        app.group("h", "owner", &[]).await;
        app.state().deny(1, "bob", "alice");
        let to = |id: &str, number: u8| json!({"channelId": id, "channelType": number, "payload": payload("x")});
        let batch = json!([
            to("g", 2),
            to("h", 2),
            to("bob", 1),
            to("none", 2),
            to("carol", 1)
        ]);
        let answer = app.user("alice").post("/message/sendbatch", &batch).await;
        let answer = answer.fails(207, "partial_failure");
        let codes: Vec<_> = (0..5)
            .map(|n| answer.body["data"][n]["error"]["code"].as_str())
            .collect();
        assert_eq!(
            codes,
            [
                None,
                Some("not_a_member"),
                Some("blocked"),
                Some("channel_not_found"),
                None
            ],
            "{dialect:?}"
        );
        let state = app.state();
        assert_eq!(
            state.messages(GROUP, "h").len() + state.messages(GROUP, "none").len(),
            0
        );
        assert_eq!(state.messages_between("alice", "bob").len(), 0);
        assert_eq!(state.messages(GROUP, "g").len(), 1);
    }
}
