//! Ids whose storage keys v2 holds equal. There are few such ids, and a server keeps what it has seen: these tests need one with fresh
//! data, and say so where it has seen them.

use std::sync::Arc;

use serde_json::json;
use wukongim_gateway::store::Store;

use crate::support::answer::failure;
use crate::support::real::{Kind, Server, TestApp, each_server, people, unique};

/// A user, and a group whose record has the key of his.
const USER: &str = "vZ02MFzwjqqC";
const GROUP: &str = "hv2hY4sse_0C";
/// Two groups with one key.
const ALICES: &str = "hQjDU6YDmH2B";
const MALLORYS: &str = "hUeJu6FQZcZC";

/// Panics where something lies under the key of any of these groups: the ids are fixed, so each run needs a server with fresh data.
async fn assert_fresh(server: &Server, groups: &[&str]) {
    for group in groups {
        let path = format!("/cluster/channels?channel_id={group}&channel_type=2");
        let row = server.get(&path).await;
        assert_eq!(
            row["data"][0]["channel_id"], "",
            "{group} was used before: start the server with fresh data"
        );
    }
}

#[tokio::test]
#[ignore = "needs a WuKongIM"]
async fn a_groups_ban_is_no_users_and_a_deleted_group_keeps_nobody_out() {
    for server in each_server() {
        if server.kind != Kind::V2 {
            continue;
        }
        assert_fresh(&server, &[GROUP]).await;
        let app = TestApp::start_forgetful(&server).await;
        let [mallory] = people(["mallory"]);
        let (user, mallory) = (app.user(USER), app.user(&mallory));
        let old = user.post_nothing("/token").await.ok();
        mallory.create_group(GROUP).await.ok();
        let ban = json!({"channel_id": GROUP, "channel_type": 2, "ban": 1});
        server.post("/channel/info", &ban).await;
        failure(502, "upstream_error").is(user.post_nothing("/token").await);
        user.send_to_person(&unique("peer"), "not banned")
            .await
            .ok();
        let body = json!({"uid": USER});
        app.admin().post("/token/revoke", &body).await.ok();
        mallory.delete_group(GROUP).await.ok();
        let new = user.post_nothing("/token").await.ok();
        assert_ne!(new["token"], old["token"]);
        user.post_nothing("/token/revoke").await.ok();
        failure(409, "channel_deleted").is(mallory.create_group(GROUP).await);
    }
}

#[tokio::test]
#[ignore = "needs a WuKongIM"]
async fn two_groups_with_one_key_that_two_replicas_create_at_once_share_nobody() {
    for server in each_server() {
        if server.kind != Kind::V2 {
            continue;
        }
        assert_fresh(&server, &[ALICES, MALLORYS]).await;
        let store = Store::open("sqlite::memory:", 1, std::time::Duration::from_secs(2));
        let store = Arc::new(store.await.expect("a store in memory opens"));
        let one = TestApp::start_on(&server, store.clone(), |_| {}).await;
        let other = TestApp::start_on(&server, store, |_| {}).await;
        let [alice, mallory] = people(["alice", "mallory"]);
        let (alices, mallorys) = (one.user(&alice), other.user(&mallory));
        let (first, second) =
            tokio::join!(alices.create_group(ALICES), mallorys.create_group(MALLORYS));
        let path = format!("/cluster/channels/{ALICES}/2/subscribers");
        let members = server.get(&path).await;
        let told = [first.status, second.status];
        println!("{told:?} {members}");
        match told {
            [200, 409] => assert_eq!(members, json!([alice])),
            [409, 200] => assert_eq!(members, json!([mallory])),
            [409, 409] => assert!(members.is_null() || members == json!([]), "{members}"),
            _ => panic!("{first:#?} {second:#?}"),
        }
    }
}
