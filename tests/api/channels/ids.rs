//! Who chooses a group's id.

use wukongim_gateway::config::GroupIds;

use super::each_kind;
use crate::support::prelude::*;

async fn made(app: &TestApp, uid: &str) -> String {
    let body = json!({"channelType": 2, "name": "ours"});
    let told = app.user(uid).post("/channel/create", &body).await.ok();
    let id = told["channelId"].as_str().unwrap().to_owned();
    assert_eq!(
        told,
        json!({"channelId": id, "channelType": 2, "name": "ours"})
    );
    id
}

#[tokio::test]
async fn a_group_without_an_id_gets_a_new_one_each_time() {
    for app in each_kind().await {
        let ids = [made(&app, "alice").await, made(&app, "alice").await];
        assert_ne!(ids[0], ids[1]);
        for id in &ids {
            let random = id.strip_prefix("g_").unwrap();
            assert_eq!(random.len(), 22, "{id}");
            assert!(
                random
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
            );
            app.user("alice").send_to_group(id, "hi").await.ok();
            app.user("alice").add(id, &["bob"]).await.ok();
            // It may come again, as any other.
            app.user("alice").create_group(id).await.ok();
            failure(409, "channel_exists").is(app.user("bob").create_group(id).await);
            app.user("alice").delete_group(id).await.ok();
            failure(409, "channel_deleted").is(app.user("alice").create_group(id).await);
        }
    }
}

#[tokio::test]
async fn null_is_no_id_and_none_is_made_that_would_not_be_taken_back() {
    let app = TestApp::start(V2).await;
    let body = json!({"channelId": null, "channelType": 2});
    app.user("alice").post("/channel/create", &body).await.ok();
    let short = TestApp::with(V2, |settings| settings.limits.id_bytes = 23).await;
    let body = json!({"channelType": 2});
    let answer = short.user("alice").post("/channel/create", &body).await;
    answer.names(&["channelId"]);
    short.nothing_was_written();
}

#[tokio::test]
async fn with_group_ids_admins_others_may_only_repeat_their_own_ids() {
    let app = TestApp::with(V2, |settings| settings.limits.group_ids = GroupIds::Admins).await;
    let alice = app.user("alice");
    let refused = alice.create_group("team").await;
    refused.names(&["channelId"]);
    app.nothing_was_written();
    let english = alice.posting("/channel/create", r#"{"channelId":"team","channelType":2}"#);
    let english = Answer::to(english.header("accept-language", "en")).await;
    let said = english.body["details"][0]["message"].as_str().unwrap();
    assert!(said.contains("left out"), "{english:#?}");

    let id = made(&app, "alice").await;
    alice.create_group(&id).await.ok();
    let refused = app.user("bob").create_group(&id).await;
    refused.names(&["channelId"]);
    app.admin().create_group("team").await.ok();
    // What an admin made is its new owner's as well.
    app.admin().add("team", &["bob"]).await.ok();
    app.admin().transfer_ownership("team", "bob").await.ok();
    app.user("bob").create_group("team").await.ok();
    alice.delete_group(&id).await.ok();
    alice.create_group(&id).await.fails(409, "channel_deleted");
    // A person channel is no group.
    let person = json!({"channelId": "bob", "channelType": 1});
    alice.post("/channel/create", &person).await.ok();
}
