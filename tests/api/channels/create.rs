//! Creating: who owns an id, and what it is called.

use wukongim_gateway::domain::ChannelId;

use super::each_kind;
use crate::support::messages::with;
use crate::support::prelude::*;

fn group(id: &str, more: &Value) -> Value {
    with(json!({"channelId": id, "channelType": 2}), more)
}

#[tokio::test]
async fn the_creator_is_the_first_subscriber_and_the_owner() {
    for app in each_kind().await {
        let told = app.user("alice").create_group("g").await.ok();
        assert_eq!(told, json!({"channelId": "g", "channelType": 2}));
        assert_eq!(app.state().members("g"), ["alice"]);
        app.user("alice").send_to_group("g", "hi").await.ok();
        failure(403, "not_a_member").is(app.user("bob").send_to_group("g", "hi").await);
        assert_eq!(app.state().messages(2, "g").len(), 1);
    }
}

#[tokio::test]
async fn an_owner_may_repeat_it_and_given_fields_are_updated() {
    for app in each_kind().await {
        let alice = app.user("alice");
        let create = async |mut body: Value| {
            body["channelId"] = json!("g");
            body["channelType"] = json!(2);
            alice.post("/channel/create", &body).await.ok()
        };
        let named = create(json!({"name": "群组名称"})).await;
        assert_eq!(named, group("g", &json!({"name": "群组名称"})));
        alice.add("g", &["bob"]).await.ok();
        app.state().ban_group("g", true);
        app.clear_calls();
        let old = json!({"name": "群组名称", "avatar": "https://example.com/a.jpg"});
        for (given, kept) in [
            (json!({}), json!({"name": "群组名称"})),
            (json!({"avatar": old["avatar"]}), old.clone()),
            (
                json!({"name": "B", "avatar": null}),
                with(old.clone(), &json!({"name": "B"})),
            ),
            (json!({"name": ""}), with(old.clone(), &json!({"name": ""}))),
        ] {
            assert_eq!(create(given).await, group("g", &kept));
        }
        // Neither flags nor members were touched.
        assert!(app.state().flags(2, "g").unwrap().ban);
        assert_eq!(app.state().members("g").len(), 2);
        app.nothing_was_written();
    }
}

#[tokio::test]
async fn on_v2_members_or_messages_alone_make_an_id_taken() {
    let app = TestApp::start(V2).await;
    app.state().join("members", "alice");
    app.state().store_message(stored("messages", "x", "", "hi"));
    failure(409, "channel_exists").in_each([
        app.user("alice").create_group("members").await,
        app.user("alice").create_group("messages").await,
    ]);
    app.nothing_was_written();
}

#[tokio::test]
async fn a_person_channel_is_echoed_and_nothing_is_sent_or_stored() {
    for app in each_kind().await {
        let alice = app.user("alice");
        for peer in ["bob", "alice"] {
            let body = json!({"channelId": peer, "channelType": 1, "name": "Bob", "avatar": "http://h/b.png"});
            assert_eq!(alice.post("/channel/create", &body).await.ok(), body);
            let bare = json!({"channelId": peer, "channelType": 1});
            assert_eq!(alice.post("/channel/create", &bare).await.ok(), bare);
        }
        assert_eq!(app.upstream.calls().len(), 0);
        assert_eq!(app.state().flags(PERSON, "bob"), None);
        let id = ChannelId::parse("bob", 128).unwrap();
        assert_eq!(app.store.channel(&id).await.unwrap(), None);
        // The id is free for a group.
        app.user("bob").create_group("bob").await.ok();
    }
}
