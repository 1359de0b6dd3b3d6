//! Creating: who owns an id, and what it is called.

use dev_upstream::{Fault, PERSON, StoredMessage};
use serde_json::{Value, json};
use wukongim_gateway::domain::ChannelId;

use super::{kinds, start};
use crate::support::{TestApp, V2, V3};

fn group(id: &str, more: &Value) -> Value {
    let mut body = json!({"channelId": id, "channelType": 2});
    body.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    body
}

#[tokio::test]
async fn the_creator_is_the_first_subscriber_and_the_owner() {
    for kind in kinds() {
        let app = start(kind).await;
        let told = app.user("alice").create_group("g").await.ok();
        assert_eq!(told, json!({"channelId": "g", "channelType": 2}));
        assert_eq!(app.state().members("g"), ["alice"]);
        app.user("alice").send_to_group("g", "hi").await.ok();
        app.user("bob")
            .send_to_group("g", "hi")
            .await
            .fails(403, "not_a_member");
        assert_eq!(app.state().messages(2, "g").len(), 1);
    }
}

#[tokio::test]
async fn an_owner_may_repeat_it_and_given_fields_are_updated() {
    for kind in kinds() {
        let app = start(kind).await;
        let alice = app.user("alice");
        let create =
            async |more: Value| alice.post("/channel/create", &group("g", &more)).await.ok();
        let named = create(json!({"name": "群组名称"})).await;
        assert_eq!(named, group("g", &json!({"name": "群组名称"})));
        alice.add("g", &["bob"]).await.ok();
        app.state().ban_group("g", true);
        app.clear_calls();
        for (given, stored) in [
            (json!({}), json!({"name": "群组名称"})),
            (
                json!({"avatar": "https://example.com/a.jpg"}),
                json!({"name": "群组名称", "avatar": "https://example.com/a.jpg"}),
            ),
            (
                json!({"name": "B", "avatar": null}),
                json!({"name": "B", "avatar": "https://example.com/a.jpg"}),
            ),
            (
                json!({"name": ""}),
                json!({"name": "", "avatar": "https://example.com/a.jpg"}),
            ),
        ] {
            assert_eq!(create(given).await, group("g", &stored));
        }
        // Neither flags nor members were touched.
        assert!(app.state().flags(2, "g").unwrap().ban);
        assert_eq!(app.state().members("g").len(), 2);
        app.nothing_was_written();
    }
}

#[tokio::test]
async fn an_existing_id_is_refused_to_other_users() {
    for kind in kinds() {
        let app = start(kind).await;
        app.group("g", "alice", &["bob"]).await;
        for actor in [app.user("bob"), app.user("mallory"), app.admin()] {
            actor.create_group("g").await.fails(409, "channel_exists");
        }
        app.nothing_was_written();
        app.user("bob")
            .delete_group("g")
            .await
            .fails(403, "not_owner");
        app.user("alice").delete_group("g").await.ok();
    }
}

#[tokio::test]
async fn a_channel_that_exists_upstream_cannot_be_taken_over() {
    for kind in kinds() {
        let app = start(kind).await;
        let state = app.state();
        // Made past the gateway, the caller being its member or not.
        state.ban_group("made", false);
        state.join("made", "alice");
        app.user("alice")
            .create_group("made")
            .await
            .fails(409, "channel_exists");
        app.user("alice")
            .delete_group("made")
            .await
            .fails(403, "not_owner");
        app.nothing_was_written();
        assert_eq!(state.members("made"), ["alice"]);
        // An admin manages what belongs to nobody.
        app.admin().add("made", &["carol"]).await.ok();
        app.admin().delete_group("made").await.ok();
        app.user("alice")
            .create_group("made")
            .await
            .fails(409, "channel_deleted");
    }
}

#[tokio::test]
async fn on_v2_members_or_messages_alone_make_an_id_taken() {
    let app = TestApp::start(V2).await;
    let state = app.state();
    state.join("members", "alice");
    state.store_message(StoredMessage {
        channel_id: "messages".into(),
        channel_type: 2,
        from_uid: "x".into(),
        payload: b"{}".to_vec(),
        ..StoredMessage::default()
    });
    for id in ["members", "messages"] {
        app.user("alice")
            .create_group(id)
            .await
            .fails(409, "channel_exists");
    }
    app.nothing_was_written();
}

#[tokio::test]
async fn on_v2_an_id_with_the_hash_of_a_chat_is_taken() {
    let app = TestApp::start(V2).await;
    app.user("hc-alice")
        .send_to_person("hc-bob", "secret")
        .await
        .ok();
    app.clear_calls();
    let mallory = app.user("mallory");
    mallory
        .create_group("xbdZAqbat_QtXO")
        .await
        .fails(409, "channel_exists");
    app.nothing_was_written();
    assert_eq!(app.state().members("xbdZAqbat_QtXO").len(), 0);
}

#[tokio::test]
async fn a_deleted_id_cannot_be_reused_by_any_user() {
    for kind in kinds() {
        let app = start(kind).await;
        app.group("g", "alice", &[]).await;
        app.user("alice").delete_group("g").await.ok();
        app.clear_calls();
        for actor in [app.user("alice"), app.user("bob"), app.admin()] {
            actor.create_group("g").await.fails(409, "channel_deleted");
        }
        app.nothing_was_written();
    }
}

#[tokio::test]
async fn a_person_channel_is_echoed_and_nothing_is_sent_or_stored() {
    for kind in kinds() {
        let app = start(kind).await;
        for peer in ["bob", "alice"] {
            let body = json!({"channelId": peer, "channelType": 1, "name": "Bob", "avatar": "http://h/b.png"});
            assert_eq!(
                app.user("alice").post("/channel/create", &body).await.ok(),
                body
            );
            let bare = json!({"channelId": peer, "channelType": 1});
            assert_eq!(
                app.user("alice").post("/channel/create", &bare).await.ok(),
                bare
            );
        }
        assert_eq!(app.upstream.calls().len(), 0);
        assert_eq!(app.state().flags(PERSON, "bob"), None);
        let id = ChannelId::parse("bob", 128).unwrap();
        assert_eq!(app.store.channel(&id).await.unwrap(), None);
        // The id is free for a group.
        app.user("bob").create_group("bob").await.ok();
    }
}

#[tokio::test]
async fn a_group_that_wukongim_has_lost_is_made_again() {
    for kind in kinds() {
        let app = start(kind).await;
        app.group("g", "alice", &["bob"]).await;
        app.state().forget_channel("g");
        app.user("bob")
            .create_group("g")
            .await
            .fails(409, "channel_exists");
        app.nothing_was_written();
        app.user("alice").create_group("g").await.ok();
        assert_eq!(app.state().members("g"), ["alice"]);
    }
}

#[tokio::test]
async fn a_failed_create_is_completed_by_its_owners_retry_only() {
    for kind in kinds() {
        for fault in [
            Fault::Status(500, "boom".into()),
            Fault::Reset,
            Fault::ResetAfter,
            Fault::HalfAnswer,
        ] {
            let app = start(kind).await;
            let rule = dev_upstream::Rule::exact("/channel", fault.clone());
            app.faults().add(rule);
            let answer = app.user("alice").create_group("g").await;
            assert!(answer.status >= 500, "{fault:?} {answer:#?}");
            assert_eq!(answer.body["message"], "创建频道失败");
            app.faults().clear();
            app.user("bob")
                .create_group("g")
                .await
                .fails(409, "channel_exists");
            app.user("alice").create_group("g").await.ok();
            assert_eq!(app.state().members("g"), ["alice"], "{fault:?}");
            app.user("alice").add("g", &["bob"]).await.ok();
        }
    }
}

#[tokio::test]
async fn concurrent_creates_of_one_id_have_one_owner_on_one_gateway() {
    for dialect in [V2, V3] {
        let app = TestApp::start(dialect).await;
        let uids: Vec<_> = (0..8).map(|index| format!("u{index}")).collect();
        let actors: Vec<_> = uids.iter().map(|uid| app.user(uid)).collect();
        let answers = actors.iter().map(|actor| actor.create_group("g"));
        let answers = futures_util::future::join_all(answers).await;
        let winners: Vec<_> = answers
            .into_iter()
            .zip(&uids)
            .filter_map(|(answer, uid)| {
                if answer.status == 200 {
                    return Some(uid.clone());
                }
                answer.fails(409, "channel_exists");
                None
            })
            .collect();
        assert_eq!(winners.len(), 1, "{winners:?}");
        assert_eq!(app.state().members("g"), winners);
    }
}
