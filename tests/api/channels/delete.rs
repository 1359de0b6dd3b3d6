//! Deletion: permissions, remaining state, and completion of a partial one.

use dev_upstream::{Fault, GROUP};
use serde_json::json;

use super::{kinds, start};
use crate::support::actors::payload;

#[tokio::test]
async fn an_owner_deletes_and_nothing_is_left() {
    for kind in kinds() {
        let app = start(kind).await;
        app.group("g", "alice", &["bob", "carol"]).await;
        app.user("bob").send_to_group("g", "before").await.ok();
        let told = app.user("alice").delete_group("g").await.ok();
        assert_eq!(told, json!({"channelId": "g"}));
        assert_eq!(app.state().members("g").len(), 0);
        assert!(app.state().flags(GROUP, "g").unwrap().disband);
        for uid in ["alice", "bob"] {
            let user = app.user(uid);
            user.send_to_group("g", "after")
                .await
                .fails(404, "channel_not_found");
            user.sync(2, "g", "").await.fails(404, "channel_not_found");
            user.add("g", &["dave"])
                .await
                .fails(404, "channel_not_found");
            user.remove("g", &[uid])
                .await
                .fails(404, "channel_not_found");
            user.delete_group("g").await.fails(404, "channel_not_found");
        }
        app.admin()
            .delete_group("g")
            .await
            .fails(404, "channel_not_found");
        assert_eq!(app.state().messages(2, "g").len(), 1);
    }
}

#[tokio::test]
async fn only_owner_and_admin_delete() {
    for kind in kinds() {
        let app = start(kind).await;
        app.group("g", "alice", &["bob"]).await;
        for uid in ["bob", "mallory"] {
            app.user(uid)
                .delete_group("g")
                .await
                .fails(403, "not_owner");
        }
        app.nothing_was_written();
        app.user("bob").send_to_group("g", "still").await.ok();
        app.admin().delete_group("g").await.ok();
    }
}

#[tokio::test]
async fn an_unknown_group_is_404_and_nothing_is_made_by_asking() {
    for kind in kinds() {
        let app = start(kind).await;
        for actor in [app.user("alice"), app.admin()] {
            actor
                .delete_group("none")
                .await
                .fails(404, "channel_not_found");
            actor
                .add("none", &["bob"])
                .await
                .fails(404, "channel_not_found");
            actor
                .remove("none", &["bob"])
                .await
                .fails(404, "channel_not_found");
        }
        app.user("alice")
            .remove("none", &["alice"])
            .await
            .fails(404, "channel_not_found");
        app.nothing_was_written();
        assert_eq!(app.state().flags(GROUP, "none"), None);
        // The id is still free.
        app.user("bob").create_group("none").await.ok();
    }
}

#[tokio::test]
async fn a_deleted_group_stays_closed_whatever_upstream_lists_say() {
    for kind in kinds() {
        let app = start(kind).await;
        app.group("g", "alice", &["bob"]).await;
        app.user("alice").delete_group("g").await.ok();
        app.state().forget_channel("g");
        app.state().ban_group("g", false);
        app.state().join("g", "bob");
        app.clear_calls();
        let bob = app.user("bob");
        bob.send_to_group("g", "again")
            .await
            .fails(404, "channel_not_found");
        bob.sync(2, "g", "").await.fails(404, "channel_not_found");
        app.admin()
            .add("g", &["dave"])
            .await
            .fails(404, "channel_not_found");
        app.nothing_was_written();
        let batch = json!([{"channelId": "g", "channelType": 2, "payload": payload("x")}]);
        let answer = bob.post("/message/sendbatch", &batch).await;
        let answer = answer.fails(404, "channel_not_found");
        assert_eq!(answer.body["data"][0]["error"]["code"], "channel_not_found");
    }
}

#[tokio::test]
async fn a_delete_that_failed_half_way_is_finished_by_its_repeat() {
    for kind in kinds() {
        for path in ["/channel/subscriber_remove_all", "/channel/delete"] {
            for fault in [
                Fault::Status(500, "boom".into()),
                Fault::Reset,
                Fault::ResetAfter,
            ] {
                let app = start(kind).await;
                app.group("g", "alice", &["bob"]).await;
                app.faults().always(path, fault.clone());
                let answer = app.user("alice").delete_group("g").await;
                assert!(answer.status >= 500, "{path} {fault:?}: {answer:#?}");
                assert_eq!(answer.body["message"], "删除频道失败");
                // The mark stands from the first moment on.
                let bob = app.user("bob");
                bob.send_to_group("g", "x")
                    .await
                    .fails(404, "channel_not_found");
                bob.sync(2, "g", "").await.fails(404, "channel_not_found");
                bob.create_group("g").await.fails(409, "channel_deleted");
                bob.delete_group("g").await.fails(404, "channel_not_found");
                app.faults().clear();
                app.user("alice").delete_group("g").await.ok();
                assert_eq!(app.state().members("g").len(), 0);
                assert!(app.state().flags(GROUP, "g").unwrap().disband);
                app.user("alice")
                    .delete_group("g")
                    .await
                    .fails(404, "channel_not_found");
            }
        }
    }
}
