//! The channel endpoints.

use serde_json::json;

use crate::support::answer::failure;
use crate::support::real::{Kind, TestApp, each_server, people, unique};

#[tokio::test]
#[ignore = "needs a WuKongIM"]
async fn a_group_is_created_once_and_only_its_owner_can_repeat_it() {
    for server in each_server() {
        let app = TestApp::start(&server).await;
        let [alice, bob] = people(["alice", "bob"]);
        let id = unique("群");
        let named = json!({"channelId": id, "channelType": 2, "name": "名字", "avatar": "https://example.com/a.png"});
        let created = app.user(&alice).post("/channel/create", &named).await.ok();
        assert_eq!(created, named);
        app.user(&alice).send_to_group(&id, "first").await.ok();
        let renamed = json!({"channelId": id, "channelType": 2, "name": "other"});
        let again = app.user(&alice).post("/channel/create", &renamed).await;
        let again = again.ok();
        assert_eq!(again["name"], "other");
        assert_eq!(again["avatar"], "https://example.com/a.png");
        failure(409, "channel_exists").is(app.user(&bob).create_group(&id).await);
        let person = json!({"channelId": bob, "channelType": 1});
        let echo = app.user(&alice).post("/channel/create", &person).await.ok();
        assert_eq!(echo, person);
    }
}

#[tokio::test]
#[ignore = "needs a WuKongIM"]
async fn a_group_that_exists_only_upstream_cannot_be_taken_over() {
    for server in each_server() {
        let app = TestApp::start(&server).await;
        let [alice, bob] = people(["alice", "bob"]);
        let id = unique("g");
        let body = json!({"channel_id": id, "channel_type": 2, "subscribers": [alice]});
        server.post("/channel", &body).await;
        for uid in [&alice, &bob] {
            failure(409, "channel_exists").is(app.user(uid).create_group(&id).await);
        }
        failure(403, "not_owner").is(app.user(&alice).add(&id, &[&bob]).await);
        app.admin().add(&id, &[&bob]).await.ok();
        app.user(&bob).send_to_group(&id, "hi").await.ok();
    }
}

#[tokio::test]
#[ignore = "needs a WuKongIM"]
async fn a_deleted_group_is_gone_for_all_users_and_its_id_cannot_be_reused() {
    for server in each_server() {
        let app = TestApp::start(&server).await;
        let [alice, bob] = people(["alice", "bob"]);
        let id = app.group(&alice, &[&bob]).await;
        app.user(&bob).send_to_group(&id, "hi").await.ok();
        failure(403, "not_owner").is(app.user(&bob).delete_group(&id).await);
        let deleted = app.user(&alice).delete_group(&id).await.ok();
        assert_eq!(deleted, json!({"channelId": id}));
        for uid in [&alice, &bob] {
            let user = app.user(uid);
            failure(404, "channel_not_found").is(user.send_to_group(&id, "late").await);
            user.sync(2, &id, "").await.fails(404, "channel_not_found");
        }
        let owner = app.user(&alice);
        failure(404, "channel_not_found").is(owner.delete_group(&id).await);
        failure(404, "channel_not_found").is(owner.add(&id, &[&bob]).await);
        owner.create_group(&id).await.fails(409, "channel_deleted");
        failure(409, "channel_deleted").is(app.user(&bob).create_group(&id).await);
        // A gateway that knows nothing of it finds no member left upstream.
        let other = TestApp::start(&server).await;
        failure(404, "channel_not_found").is(other.user(&bob).sync(2, &id, "").await);
    }
}

#[tokio::test]
#[ignore = "needs a WuKongIM"]
async fn unknown_groups_are_reported_and_not_created() {
    for server in each_server() {
        let app = TestApp::start(&server).await;
        let [alice, bob] = people(["alice", "bob"]);
        let id = unique("g");
        for actor in [app.user(&alice), app.admin()] {
            failure(404, "channel_not_found").is(actor.add(&id, &[&bob]).await);
            failure(404, "channel_not_found").is(actor.remove(&id, &[&bob]).await);
            failure(404, "channel_not_found").is(actor.delete_group(&id).await);
            actor.sync(2, &id, "").await.fails(404, "channel_not_found");
            failure(404, "channel_not_found").is(actor.send_to_group(&id, "hi").await);
        }
        app.user(&alice).create_group(&id).await.ok();
    }
}

#[tokio::test]
#[ignore = "needs a WuKongIM"]
async fn adding_and_removing_tell_how_many_changed() {
    for server in each_server() {
        let app = TestApp::start(&server).await;
        let [alice, bob, carol, dave] = people(["alice", "bob", "carol", "dave"]);
        let id = app.group(&alice, &[]).await;
        let owner = app.user(&alice);
        // v3 without its manager port tells no members: what was asked for is what is told.
        let exact = server.kind != Kind::V3;
        let added = owner.add(&id, &[&bob, &carol, &bob]).await.ok();
        assert_eq!(added["added"], 2);
        let added = owner.add(&id, &[&carol, &dave]).await.ok();
        assert_eq!(added["added"], if exact { 1 } else { 2 });
        app.user(&dave).send_to_group(&id, "hi").await.ok();

        failure(403, "not_owner").is(app.user(&bob).remove(&id, &[&carol]).await);
        failure(409, "owner_cannot_leave").is(owner.remove(&id, &[&alice, &bob]).await);
        app.user(&bob).send_to_group(&id, "still here").await.ok();
        let left = app.user(&bob).remove(&id, &[&bob]).await.ok();
        assert_eq!(left["removed"], 1);
        let removed = owner.remove(&id, &[&bob, &carol]).await.ok();
        assert_eq!(removed["removed"], if exact { 1 } else { 2 });
        for uid in [&bob, &carol] {
            let user = app.user(uid);
            failure(403, "not_a_member").is(user.send_to_group(&id, "late").await);
            user.sync(2, &id, "").await.fails(403, "not_a_member");
        }
        app.user(&dave).send_to_group(&id, "hi").await.ok();
    }
}

#[tokio::test]
#[ignore = "needs a WuKongIM"]
async fn a_full_group_accepts_no_member_and_five_hundred_are_added_in_one_call() {
    for server in each_server() {
        let app =
            TestApp::start_with(&server, |settings| settings.limits.group_members = 502).await;
        let [alice] = people(["alice"]);
        let id = app.group(&alice, &[]).await;
        let many: Vec<_> = (0..500).map(|_| unique("m")).collect();
        let many: Vec<_> = many.iter().map(String::as_str).collect();
        let added = app.user(&alice).add(&id, &many).await.ok();
        assert_eq!(added["added"], 500);
        app.user(many[499]).send_to_group(&id, "hi").await.ok();
        if server.kind != Kind::V3 {
            failure(409, "channel_full").is(app.user(&alice).add(&id, &["one", "two"]).await);
        }
        let removed = app.user(&alice).remove(&id, &many).await.ok();
        assert_eq!(removed["removed"], 500);
        failure(403, "not_a_member").is(app.user(many[499]).send_to_group(&id, "late").await);
    }
}
