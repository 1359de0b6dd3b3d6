//! Reading and deleting.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::*;

/// The commands that were sent: to whom, and their name and parameters.
fn commands(app: &TestApp) -> Vec<(Value, Value)> {
    let sends = app.sends().into_iter();
    let commands = sends.filter(|call| call.body.get("subscribers").is_some());
    let command = |call: dev_upstream::Call| {
        assert_eq!(
            call.body["header"],
            json!({"no_persist": 1, "sync_once": 1})
        );
        assert_eq!(call.body["subscribers"], json!([call.body["from_uid"]]));
        assert!(call.body.get("channel_id").is_none());
        let payload = STANDARD
            .decode(call.body["payload"].as_str().unwrap())
            .unwrap();
        let payload: Value = serde_json::from_slice(&payload).unwrap();
        (call.body["from_uid"].clone(), payload)
    };
    commands.map(command).collect()
}

#[tokio::test]
async fn reading_goes_forward_only_and_tells_the_users_devices_what_changed() {
    for app in TestApp::both().await {
        let alice = app.user("alice");
        seeds::group(&app, "g", &["alice", "bob"]);
        for _ in 0..5 {
            seeds::message(&app, GROUP, "g", "bob", b"x");
            seeds::message(&app, PERSON, "alice", "bob", b"x");
        }
        for (channel_type, id) in [(GROUP, "g"), (PERSON, "bob")] {
            for (seq, state, changes) in [
                (Some(2), (3, 2), true),
                (Some(2), (3, 2), false),
                (Some(1), (3, 2), false),
                (Some(99), (0, 5), true),
                (None, (0, 5), false),
                (Some(1), (0, 5), false),
            ] {
                app.clear_calls();
                let answer = alice.read(channel_type, id, seq).await;
                assert_eq!(read_state(&answer.ok()), state, "{id} {seq:?}");
                if changes {
                    until(|| commands(&app).len() == 1).await;
                    let param = json!({
                        "channelId": id, "channelType": channel_type, "unread": state.0, "readToSeq": state.1
                    });
                    let command = json!({"type": 99, "cmd": "conversationRead", "param": param});
                    assert_eq!(commands(&app), [(json!("alice"), command)]);
                } else {
                    app.nothing_was_written();
                }
                let data = now(&app, "alice").await;
                assert_eq!(read_state(row(&data, id)), state);
            }
            seeds::message(
                &app,
                channel_type,
                if id == "g" { id } else { "alice" },
                "bob",
                b"x",
            );
            let answer = alice.read(channel_type, id, None).await;
            assert_eq!(
                read_state(&answer.ok()),
                (0, 6),
                "without a seq to the newest"
            );
        }
        // An own message is read: there is nothing to do.
        alice.send_to_group("g", "x").await.ok();
        app.clear_calls();
        assert_eq!(read_state(&alice.read(GROUP, "g", None).await.ok()), (0, 7));
        app.nothing_was_written();
    }
}

#[tokio::test]
async fn in_a_conversation_without_messages_nothing_is_sent() {
    for app in TestApp::both().await {
        app.group("empty", "alice", &["bob"]).await;
        let alice = app.user("alice");
        for (channel_type, id) in [(PERSON, "nobody"), (PERSON, "alice"), (GROUP, "empty")] {
            for seq in [None, Some(3)] {
                let answer = alice.read(channel_type, id, seq).await;
                assert_eq!(read_state(&answer.ok()), (0, 0), "{id}");
            }
            if app.dialect == V2 {
                alice.hide(channel_type, id).await.ok();
            }
            if channel_type == PERSON {
                let stored = app.dialect.person_channel_id("alice", id);
                assert_eq!(
                    app.state().log_owner(PERSON, &stored),
                    None,
                    "no log either"
                );
            }
        }
        app.nothing_was_written();
        // What v2 would never count again.
        app.user("nobody").send_to_person("alice", "x").await.ok();
        assert_eq!(read_state(row(&now(&app, "alice").await, "nobody")), (1, 0));
    }
}

#[tokio::test]
async fn whoever_may_not_read_a_group_neither_reads_nor_deletes_its_conversation() {
    for app in TestApp::both().await {
        app.group("g", "bob", &[]).await;
        app.group("gone", "bob", &["alice"]).await;
        for group in ["g", "gone"] {
            app.user("bob").send_to_group(group, "a secret").await.ok();
        }
        app.user("bob").delete_group("gone").await.ok();
        app.clear_calls();
        let alice = app.user("alice");
        for (group, status, code) in [
            ("g", 403, "not_a_member"),
            ("gone", 404, "channel_not_found"),
            ("none", 404, "channel_not_found"),
        ] {
            failure(status, code).in_each([
                alice.read(GROUP, group, None).await,
                alice.read(GROUP, group, Some(1)).await,
                alice.hide(GROUP, group).await,
            ]);
        }
        if app.dialect == V2 {
            // A clear would give her the group's last message with her next list.
            assert!(app.calls_to("/conversation").is_empty());
        }
        assert!(ids(&now(&app, "alice").await).is_empty());
    }
}

#[tokio::test]
async fn who_was_removed_past_the_gateway_gets_no_row_by_reading_or_deleting() {
    let app = TestApp::start(V2).await;
    let alice = app.user("alice");
    for group in ["g", "h"] {
        seeds::group(&app, group, &["alice", "bob"]);
        seeds::message(&app, GROUP, group, "bob", b"x");
        // From now on her membership is cached.
        alice.sync(GROUP, group, "").await.ok();
        app.state().leave(group, "alice");
    }
    failure(403, "not_a_member").is(alice.read(GROUP, "g", None).await);
    failure(403, "not_a_member").is(alice.hide(GROUP, "h").await);
    assert!(app.calls_to("/conversations/").is_empty());
    for group in ["g", "h"] {
        seeds::message(&app, GROUP, group, "bob", b"a secret");
    }
    assert!(ids(&now(&app, "alice").await).is_empty());
}

#[tokio::test]
async fn a_member_whose_row_is_beyond_those_that_v2_lists_reads_and_deletes_it() {
    let app = TestApp::start(V2).await;
    for group in ["g", "h"] {
        seeds::group(&app, group, &["alice", "bob"]);
        seeds::message(&app, GROUP, group, "bob", b"x");
    }
    for n in 0..1000 {
        app.state().join(&format!("e{n}"), "alice");
    }
    let alice = app.user("alice");
    assert_eq!(read_state(&alice.read(GROUP, "g", None).await.ok()), (0, 1));
    alice.hide(GROUP, "h").await.ok();
    assert_eq!(app.calls_to("/conversations/").len(), 3);
}

#[tokio::test]
async fn a_conversation_that_v3_cannot_resolve_now_is_a_failure_and_not_empty() {
    let app = TestApp::start(V3).await;
    spoken(&app, 1);
    app.state().set_unresolved(&["s0"]);
    let alice = app.user("alice");
    let answer = alice.read(GROUP, "s0", None).await;
    answer.fails(503, "upstream_unavailable");
    app.nothing_was_written();
    app.state().set_unresolved(&[]);
    assert_eq!(
        read_state(&alice.read(GROUP, "s0", None).await.ok()),
        (0, 1)
    );
}

#[tokio::test]
async fn in_mode_callback_the_backend_decides_as_on_a_history() {
    for dialect in [V2, V3] {
        let backend = Backend::start().await;
        let app = TestApp::with(dialect, backend.decides()).await;
        seeds::group(&app, "g", &["alice", "bob"]);
        seeds::message(&app, GROUP, "g", "bob", b"x");
        let alice = app.user("alice");
        alice.conversations("").await.ok();
        assert!(backend.asked().is_empty(), "the list is one's own");
        alice.read(GROUP, "g", None).await.ok();
        alice.hide(GROUP, "g").await.ok();
        let questions = backend.asked();
        assert!(
            questions
                .iter()
                .all(|question| question.body["action"] == "message.sync")
        );
        assert_eq!(questions.len(), 1, "cached as a history's");
        backend.answers(|_| Reply::allow(false));
        let bob = app.user("bob");
        app.clear_calls();
        failure(403, "forbidden").in_each([
            bob.read(GROUP, "g", None).await,
            bob.hide(GROUP, "g").await,
            bob.read(PERSON, "alice", None).await,
        ]);
        assert!(app.calls_to("/conversation").is_empty());
    }
}

#[tokio::test]
async fn a_deleted_conversation_is_hidden_until_its_next_message() {
    for app in TestApp::both().await {
        let [alice, bob] = app.users(["alice", "bob"]);
        app.group("g", "alice", &["bob"]).await;
        bob.send_to_group("g", "x").await.ok();
        // On v2 the pair is younger than a minute.
        bob.send_to_person("alice", "x").await.ok();
        let is_v3 = app.dialect == V3;
        for (channel_type, id) in [(GROUP, "g"), (PERSON, "bob")] {
            for _ in 0..2 {
                let told = alice.hide(channel_type, id).await.ok();
                assert_eq!(
                    told,
                    json!({"channelId": id, "channelType": channel_type, "historyHidden": is_v3})
                );
            }
            let history = alice.sync(channel_type, id, "").await.ok();
            assert_eq!(history.as_array().unwrap().is_empty(), is_v3, "{id}");
        }
        let data = now(&app, "alice").await;
        assert_eq!((ids(&data), &data["unreadTotal"]), (vec![], &json!(0)));
        let of_bob = now(&app, "bob").await;
        assert_eq!(ids(&of_bob), ["alice", "g"], "the others notice nothing");
        bob.send_to_group("g", "y").await.ok();
        bob.send_to_person("alice", "y").await.ok();
        let data = now(&app, "alice").await;
        assert_eq!(ids(&data), ["bob", "g"]);
        assert_eq!(read_state(row(&data, "g")), (1, 1));
        assert_eq!(
            alice.hide(PERSON, "nobody").await.ok()["historyHidden"],
            is_v3
        );
    }
}

#[tokio::test]
async fn a_failed_read_or_delete_is_the_documented_failure_and_a_failed_command_is_none() {
    for app in TestApp::both().await {
        seeds::group(&app, "g", &["alice", "bob"]);
        seeds::message(&app, GROUP, "g", "bob", b"x");
        let alice = app.user("alice");
        for (fault, status, code) in [
            (Fault::Status(500, "{}".into()), 502, "upstream_error"),
            (Fault::Garbage, 502, "upstream_error"),
            (Fault::Reset, 503, "upstream_unavailable"),
        ] {
            app.always("/conversations/", fault);
            let answer = alice.read(GROUP, "g", None).await;
            answer.fails(status, code).says("标记已读失败");
            let answer = alice.hide(GROUP, "g").await;
            answer.fails(status, code).says("删除会话失败");
            app.faults().clear();
        }
        app.always("/message/send", Fault::Status(500, "{}".into()));
        assert_eq!(read_state(&alice.read(GROUP, "g", None).await.ok()), (0, 1));
        until(|| commands(&app).len() == 1).await;
        // Nor does the answer wait for it.
        seeds::message(&app, GROUP, "g", "bob", b"x");
        app.faults().clear();
        app.once("/message/send", Fault::Hang);
        assert_eq!(read_state(&alice.read(GROUP, "g", None).await.ok()), (0, 2));
    }
}
