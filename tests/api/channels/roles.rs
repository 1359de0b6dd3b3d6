//! `GET /channel/info`, `POST /channel/manager/add|remove` and `/channel/owner`: permissions and answers.

use super::each_kind;
use crate::support::prelude::*;

#[tokio::test]
async fn members_see_a_groups_record() {
    for app in each_kind().await {
        let named =
            json!({"channelId": "g", "channelType": 2, "name": "群", "avatar": "https://h/a.png"});
        let alice = app.user("alice");
        alice.post("/channel/create", &named).await.ok();
        alice.add("g", &["bob", "mike"]).await.ok();
        alice.manager("add", "g", &["mike"]).await.ok();
        for actor in [&alice, &app.user("bob"), &app.user("mike"), &app.admin()] {
            let mut told = actor.info("g").await.ok();
            let created_at = told["createdAt"].take().as_u64().unwrap();
            assert!(created_at > 1_700_000_000_000, "milliseconds: {created_at}");
            let expected = json!({
                "channelId": "g", "channelType": 2, "name": "群", "avatar": "https://h/a.png",
                "owner": "alice", "managers": ["mike"], "createdAt": null,
            });
            assert_eq!(told, expected);
        }
        failure(403, "not_a_member").is(app.user("stranger").info("g").await);
        alice.remove("g", &["bob", "mike"]).await.ok();
        for uid in ["bob", "mike"] {
            app.user(uid).info("g").await.fails(403, "not_a_member");
        }
        assert_eq!(alice.info("g").await.ok()["managers"], json!([]));
    }
}

#[tokio::test]
async fn missing_and_deleted_groups_are_not_found() {
    for app in each_kind().await {
        for actor in [app.user("alice"), app.admin()] {
            actor.info("none").await.fails(404, "channel_not_found");
        }
        seeds::group(&app, "old", &["bob"]);
        for actor in [app.user("bob"), app.admin()] {
            let bare = json!({"channelId": "old", "channelType": 2, "managers": []});
            assert_eq!(actor.info("old").await.ok(), bare);
        }
        failure(403, "not_a_member").is(app.user("alice").info("old").await);
        app.group("g", "alice", &[]).await;
        app.user("alice").delete_group("g").await.ok();
        for actor in [app.user("alice"), app.admin()] {
            failure(404, "channel_not_found").in_each([
                actor.info("g").await,
                actor.manager("add", "g", &["alice"]).await,
                actor.manager("remove", "g", &["alice"]).await,
                actor.transfer_ownership("g", "alice").await,
            ]);
        }
    }
}

#[tokio::test]
async fn a_user_banned_upstream_sees_no_record() {
    let app = TestApp::with_group(V2, &["bob"]).await;
    app.state().ban_user("bob", true);
    app.user("bob").info("g").await.fails(403, "forbidden");
}

#[tokio::test]
async fn managers_are_counted_and_act_as_such() {
    for app in each_kind().await {
        app.group("g", "alice", &["bob", "mike", "mary"]).await;
        let (alice, mike) = (app.user("alice"), app.user("mike"));
        let told = alice.manager("add", "g", &["mike", "mary", "mike"]).await;
        assert_eq!(told.ok(), json!({"added": 2}));
        let told = alice.manager("add", "g", &["mike"]).await;
        assert_eq!(told.ok(), json!({"added": 0}));
        mike.add("g", &["carol"]).await.ok();
        mike.remove("g", &["carol"]).await.ok();
        let told = app.admin().manager("remove", "g", &["mike", "bob"]).await;
        assert_eq!(told.ok(), json!({"removed": 1}));
        mike.add("g", &["carol"]).await.fails(403, "not_owner");
        mike.send_to_group("g", "still a member").await.ok();
    }
}

#[tokio::test]
async fn a_group_changes_hands() {
    for app in each_kind().await {
        app.group("g", "alice", &["bob"]).await;
        let (alice, bob) = (app.user("alice"), app.user("bob"));
        failure(403, "not_a_member").is(alice.transfer_ownership("g", "stranger").await);
        let told = alice.transfer_ownership("g", "bob").await.ok();
        assert_eq!(told, json!({"channelId": "g", "owner": "bob"}));
        assert_eq!(bob.info("g").await.ok()["managers"], json!(["alice"]));
        alice.add("g", &["carol"]).await.ok();
        let told = app.admin().transfer_ownership("g", "carol").await.ok();
        assert_eq!(told["owner"], "carol");
        app.user("carol").delete_group("g").await.ok();
    }
}

#[tokio::test]
async fn an_admin_adopts_a_group_that_was_there_before() {
    for app in each_kind().await {
        seeds::group(&app, "old", &["bob", "carol"]);
        let body = json!({
            "channelId": "old", "channelType": 2, "uid": "bob", "name": "from before", "avatar": "https://h/old.png",
        });
        failure(403, "not_owner").is(app.user("carol").post("/channel/owner", &body).await);
        failure(409, "channel_exists").in_each([
            app.user("bob").create_group("old").await,
            app.admin().create_group("old").await,
        ]);
        failure(403, "not_owner").is(app.user("bob").delete_group("old").await);
        failure(403, "not_a_member").is(app.admin().transfer_ownership("old", "root").await);
        let told = app.admin().post("/channel/owner", &body).await.ok();
        assert_eq!(told, json!({"channelId": "old", "owner": "bob"}));
        let told = app.user("carol").info("old").await.ok();
        assert_eq!(
            (&told["name"], &told["avatar"]),
            (&body["name"], &body["avatar"])
        );
        assert_eq!(app.state().members("old"), ["bob", "carol"]);
        app.user("bob").remove("old", &["carol"]).await.ok();
        app.user("bob").create_group("old").await.ok();
    }
}

#[tokio::test]
async fn an_admin_names_managers_in_a_group_that_was_there_before() {
    for app in each_kind().await {
        seeds::group(&app, "old", &["bob", "carol"]);
        let (admin, carol) = (app.admin(), app.user("carol"));
        let told = admin.manager("remove", "old", &["carol"]).await.ok();
        assert_eq!(told, json!({"removed": 0}));
        assert_eq!(admin.info("old").await.ok()["createdAt"], Value::Null);
        for verb in ["add", "remove"] {
            failure(403, "not_owner").is(carol.manager(verb, "old", &["carol"]).await);
            failure(404, "channel_not_found").is(admin.manager(verb, "none", &["carol"]).await);
        }
        let told = admin.manager("add", "old", &["carol", "dave"]).await.ok();
        assert_eq!(told, json!({"added": 2}));
        let told = carol.info("old").await.ok();
        assert_eq!(told["owner"], Value::Null);
        assert_eq!(told["managers"], json!(["carol", "dave"]));
        assert!(told["createdAt"].as_u64().unwrap() > 1_700_000_000_000);
        // What managers may do, and no more; nor does anybody own it now.
        carol.add("old", &["erin"]).await.ok();
        failure(403, "not_owner").in_each([
            carol.transfer_ownership("old", "carol").await,
            carol.delete_group("old").await,
        ]);
        let told = admin.manager("remove", "old", &["dave"]).await.ok();
        assert_eq!(told, json!({"removed": 1}));
        carol.remove("old", &["carol"]).await.ok();
        assert_eq!(admin.info("old").await.ok()["managers"], json!([]));
        admin.manager("add", "old", &["erin"]).await.ok();
        let body =
            json!({"channelId": "old", "channelType": 2, "uid": "bob", "name": "from before"});
        admin.post("/channel/owner", &body).await.ok();
        let told = app.user("bob").info("old").await.ok();
        assert_eq!(told["owner"], "bob");
        assert_eq!(told["name"], "from before");
        assert_eq!(told["managers"], json!(["erin"]));
        app.user("bob").delete_group("old").await.ok();
    }
}

#[tokio::test]
async fn with_members_may_invite_every_subscriber_adds() {
    for dialect in [V2, V3] {
        let app = TestApp::with(dialect, |settings| {
            settings.authorization.members_may_invite = true;
        });
        let app = app.await;
        app.group("g", "alice", &["bob"]).await;
        app.user("bob").add("g", &["carol"]).await.ok();
        failure(403, "not_owner").in_each([
            app.user("stranger").add("g", &["stranger"]).await,
            app.user("bob").remove("g", &["carol"]).await,
        ]);
    }
}

#[tokio::test]
async fn bad_parameters_of_info_are_reported_without_a_call() {
    let app = TestApp::start(V2).await;
    let alice = app.user("alice");
    for (query, fields) in [
        ("", &["channelId", "channelType"][..]),
        ("?channelId=g&channelType=1", &["channelType"]),
        ("?channelId=g&channelType=x", &["channelType"]),
        ("?channelId=a%2Fb&channelType=2", &["channelId"]),
        ("?channelId=g&channelId=h&channelType=2", &["channelId"]),
    ] {
        println!("{query}");
        let answer = alice.get(&format!("/channel/info{query}")).await;
        let words_of_sync = "channelId and channelType are required";
        assert_ne!(answer.names(fields).body["message"], words_of_sync);
    }
    assert_eq!(app.upstream.calls().len(), 0);
}

#[tokio::test]
async fn only_admin_actions_on_other_users_groups_are_audited() {
    let app = TestApp::with_group(V2, &["bob"]).await;
    let (lines, _listening) = crate::support::audit::listen();
    app.user("alice").manager("add", "g", &["bob"]).await.ok();
    failure(403, "not_owner").is(app.user("bob").manager("add", "g", &["bob"]).await);
    app.admin().create_group("roots").await.ok();
    app.admin().add("roots", &["alice"]).await.ok();
    app.admin().transfer_ownership("roots", "alice").await.ok();
    assert_eq!(lines.take(), Vec::<Value>::new());
    app.admin().transfer_ownership("g", "bob").await.ok();
    app.admin().manager("remove", "g", &["alice"]).await.ok();
    failure(403, "not_a_member").is(app.admin().transfer_ownership("g", "stranger").await);
    failure(404, "channel_not_found").is(app.admin().delete_group("none").await);
    let parts = ["audit.actor", "audit.action", "channel.id", "audit.outcome"];
    let told = lines.take();
    let told = told.iter().map(|line| {
        let part = |name| line[name].as_str().unwrap_or_default();
        parts.map(part).join(" ")
    });
    let told: Vec<_> = told.collect();
    let expected = [
        "root owner.transfer g done",
        "root manager.remove g done",
        "root owner.transfer g not a subscriber",
        "root channel.delete none channel not found",
    ];
    assert_eq!(told, expected);
}
