//! Who is refused, and how.

use serde_json::json;

use crate::support::actors::payload;
use crate::support::answer::failure;
use crate::support::real::{TestApp, each_server, people};

#[tokio::test]
#[ignore = "needs a WuKongIM"]
async fn a_non_member_neither_sends_to_nor_reads_a_group() {
    for server in each_server() {
        let app = TestApp::start(&server).await;
        let [alice, eve] = people(["alice", "eve"]);
        let group = app.group(&alice, &[]).await;
        app.user(&alice).send_to_group(&group, "hi").await.ok();
        for actor in [app.user(&eve), app.admin()] {
            failure(403, "not_a_member").is(actor.send_to_group(&group, "me too").await);
            actor.sync(2, &group, "").await.fails(403, "not_a_member");
        }
        app.user(&alice).add(&group, &[&eve]).await.ok();
        app.user(&eve).send_to_group(&group, "hi").await.ok();
        app.user(&eve).sync(2, &group, "").await.ok();
    }
}

#[tokio::test]
#[ignore = "needs a WuKongIM"]
async fn a_denylisted_subscriber_reads_and_sends_nothing() {
    for server in each_server() {
        let app = TestApp::start_forgetful(&server).await;
        let [alice, bob] = people(["alice", "bob"]);
        let group = app.group(&alice, &[&bob]).await;
        app.user(&bob).send_to_group(&group, "hi").await.ok();
        server.deny(2, &group, &[&bob]).await;
        failure(403, "blocked").is(app.user(&bob).send_to_group(&group, "again").await);
        let read = app.user(&bob).sync(2, &group, "").await.ok();
        assert_eq!(read.as_array().unwrap().len(), 1, "{read}");
    }
}

#[tokio::test]
#[ignore = "needs a WuKongIM"]
async fn an_allowlist_silences_all_others() {
    for server in each_server() {
        let app = TestApp::start_forgetful(&server).await;
        let [alice, bob, carol] = people(["alice", "bob", "carol"]);
        let group = app.group(&alice, &[&bob, &carol]).await;
        let list = json!({"channel_id": group, "channel_type": 2, "uids": [bob]});
        server.post("/channel/whitelist_add", &list).await;
        app.user(&bob).send_to_group(&group, "hi").await.ok();
        failure(403, "forbidden").is(app.user(&carol).send_to_group(&group, "hi").await);
        app.user(&carol).sync(2, &group, "").await.ok();
    }
}

#[tokio::test]
#[ignore = "needs a WuKongIM"]
async fn a_peer_that_blocks_the_caller_receives_nothing() {
    for server in each_server() {
        let app = TestApp::start_forgetful(&server).await;
        let [alice, bob] = people(["alice", "bob"]);
        app.user(&alice).send_to_person(&bob, "hi").await.ok();
        server.deny(1, &bob, &[&alice]).await;
        failure(403, "blocked").is(app.user(&alice).send_to_person(&bob, "again").await);
        let read = app.user(&alice).sync(1, &bob, "").await.ok();
        assert_eq!(read.as_array().unwrap().len(), 1, "{read}");
    }
}

#[tokio::test]
#[ignore = "needs a WuKongIM"]
async fn a_banned_group_is_read_and_not_written() {
    for server in each_server() {
        let app = TestApp::start_forgetful(&server).await;
        let [alice] = people(["alice"]);
        let group = app.group(&alice, &[]).await;
        app.user(&alice).send_to_group(&group, "hi").await.ok();
        server.ban(2, &group).await;
        failure(403, "channel_banned").is(app.user(&alice).send_to_group(&group, "again").await);
        let read = app.user(&alice).sync(2, &group, "").await.ok();
        assert_eq!(read.as_array().unwrap().len(), 1, "{read}");
    }
}

#[tokio::test]
#[ignore = "needs a WuKongIM"]
async fn a_ban_that_is_not_cached_yet_is_reported() {
    for server in each_server() {
        let app = TestApp::start(&server).await;
        let [alice] = people(["alice"]);
        let group = app.group(&alice, &[]).await;
        app.user(&alice).send_to_group(&group, "hi").await.ok();
        server.ban(2, &group).await;
        failure(403, "channel_banned").is(app.user(&alice).send_to_group(&group, "again").await);
    }
}

#[tokio::test]
#[ignore = "needs a WuKongIM"]
async fn a_user_banned_by_v2_gets_no_token_and_neither_sends_nor_reads() {
    for server in each_server() {
        if !server.is_v2() {
            continue;
        }
        let app = TestApp::start(&server).await;
        let [alice, bob] = people(["alice", "bob"]);
        server.ban(1, &alice).await;
        let user = app.user(&alice);
        user.post_nothing("/token").await.fails(403, "forbidden");
        failure(403, "forbidden").is(user.send_to_person(&bob, "hi").await);
        user.sync(1, &bob, "").await.fails(403, "forbidden");
    }
}

#[tokio::test]
#[ignore = "needs a WuKongIM"]
async fn only_an_admin_sends_as_another_user() {
    for server in each_server() {
        let app = TestApp::start(&server).await;
        let [alice, bob] = people(["alice", "bob"]);
        let body =
            json!({"channelId": bob, "channelType": 1, "payload": payload("hi"), "fromUid": alice});
        app.user(&bob).send(&body).await.fails(403, "forbidden");
        app.admin().send(&body).await.ok();
        let read = app.user(&bob).sync(1, &alice, "").await.ok();
        assert_eq!(read[0]["fromUid"], *alice);
    }
}
