//! Deletion: permissions, remaining state, and completion of a partial one.

use super::{each_kind, kinds, start};
use crate::support::prelude::*;

#[tokio::test]
async fn an_owner_deletes_and_nothing_is_left() {
    for app in each_kind().await {
        app.group("g", "alice", &["bob", "carol"]).await;
        app.user("bob").send_to_group("g", "before").await.ok();
        let told = app.user("alice").delete_group("g").await.ok();
        assert_eq!(told, json!({"channelId": "g"}));
        assert_eq!(app.state().members("g").len(), 0);
        assert!(app.state().flags(GROUP, "g").unwrap().disband);
        for uid in ["alice", "bob"] {
            let user = app.user(uid);
            failure(404, "channel_not_found").in_each([
                user.send_to_group("g", "after").await,
                user.sync(2, "g", "").await,
                user.add("g", &["dave"]).await,
                user.remove("g", &[uid]).await,
                user.delete_group("g").await,
            ]);
        }
        failure(404, "channel_not_found").is(app.admin().delete_group("g").await);
        let bob = app.user("bob");
        let answer = bob.send_batch(&[message(GROUP, "g", "x")]).await;
        let answer = answer.fails(404, "channel_not_found");
        assert_eq!(answer.outcomes(), ["channel_not_found"]);
        bob.create_group("g").await.fails(409, "channel_deleted");
        assert_eq!(app.stored_in("g").len(), 1);
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
                failure(404, "channel_not_found").is(bob.send_to_group("g", "x").await);
                bob.sync(2, "g", "").await.fails(404, "channel_not_found");
                bob.create_group("g").await.fails(409, "channel_deleted");
                bob.delete_group("g").await.fails(404, "channel_not_found");
                app.faults().clear();
                app.user("alice").delete_group("g").await.ok();
                assert_eq!(app.state().members("g").len(), 0);
                assert!(app.state().flags(GROUP, "g").unwrap().disband);
                failure(404, "channel_not_found").is(app.user("alice").delete_group("g").await);
            }
        }
    }
}
