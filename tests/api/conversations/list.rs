//! What the list shows.

use wukongim_gateway::config::Mode;

use super::*;

#[tokio::test]
async fn strings_that_json_escapes_come_out_as_they_went_in() {
    for app in TestApp::both().await {
        let [alice, bob] = app.users(["alice", "bob"]);
        let (group, number) = (r#"g"1"#, r#"a"\b"#);
        app.group(group, "alice", &["bob"]).await;
        let message = numbered(GROUP, group, "x", number);
        bob.post("/message/send", &message).await.ok();
        let data = alice.conversations("").await.ok();
        let newest = &row(&data, group)["lastMessage"];
        assert_eq!(newest["channelId"], group);
        assert_eq!(newest["clientMsgNo"], number);
        assert_eq!(newest["fromUid"], "bob");
    }
}

#[tokio::test]
async fn a_row_says_what_a_chat_window_needs_and_the_newest_message_is_first() {
    for app in TestApp::both().await {
        let [alice, bob] = app.users(["alice", "bob"]);
        let group =
            json!({"channelId": "g", "channelType": 2, "name": "群", "avatar": "https://h/a.png"});
        alice.post("/channel/create", &group).await.ok();
        alice.add("g", &["bob"]).await.ok();
        alice.create_group("h").await.ok();
        alice.add("h", &["bob"]).await.ok();
        bob.send_to_group("g", "one").await.ok();
        bob.send_to_person("alice", "hi").await.ok();
        bob.send_to_group("h", "x").await.ok();
        // An own message is read, and so is what was before it.
        alice.send_to_group("h", "y").await.ok();
        bob.send_to_group("g", "two").await.ok();
        bob.send_to_group("g", "three").await.ok();
        let data = alice.conversations("").await.ok();
        assert_eq!(ids(&data), ["g", "h", "bob"]);
        assert_eq!(
            (&data["unreadTotal"], &data["complete"]),
            (&json!(4), &json!(true))
        );
        for (id, channel_type, state) in [("g", 2, (3, 0)), ("h", 2, (0, 2)), ("bob", 1, (1, 0))] {
            let row = row(&data, id);
            assert_eq!(
                (&row["channelType"], read_state(row)),
                (&json!(channel_type), state)
            );
            let newest = alice.sync(channel_type, id, "&limit=1").await.ok();
            assert_eq!(row["lastMessage"], newest[0], "as a history has it");
            assert_eq!(row["timestamp"], time_of(&row["lastMessage"]["messageId"]));
        }
        assert_eq!(
            (&row(&data, "g")["name"], &row(&data, "g")["avatar"]),
            (&json!("群"), &json!("https://h/a.png"))
        );
        assert!(row(&data, "bob").get("name").is_none() && row(&data, "h").get("avatar").is_none());
        let data = alice.conversations("unreadOnly=true").await.ok();
        assert_eq!(
            (ids(&data), &data["unreadTotal"]),
            (vec!["g".into(), "bob".into()], &json!(4))
        );
        assert!(ids(&app.user("stranger").conversations("").await.ok()).is_empty());
    }
}

#[tokio::test]
async fn pages_give_each_conversation_once_and_a_cursor_is_its_users_on_every_replica() {
    for app in TestApp::both().await {
        spoken(&app, 7);
        let alice = app.user("alice");
        let all = ids(&alice.conversations("").await.ok());
        assert_eq!(all, ["s6", "s5", "s4", "s3", "s2", "s1", "s0"]);
        let paged = pages(&alice, "limit=3").await;
        assert_eq!(paged.iter().map(Vec::len).collect::<Vec<_>>(), [3, 3, 1]);
        assert_eq!(paged.concat(), all);
        let answer = alice.conversations("limit=2").await;
        let cursor = answer.header("x-next-cursor").to_owned();
        // Something moves up meanwhile: what was on the first page stays there.
        seeds::message(&app, GROUP, "s0", "bob", b"again");
        let replica = app.beside(|_| {}).await;
        let query = format!("cursor={cursor}");
        let next = replica.user("alice").conversations(&query).await;
        assert_eq!(ids(&next.ok()), ["s4", "s3", "s2", "s1"]);
        app.user("bob")
            .conversations(&format!("cursor={cursor}"))
            .await
            .names(&["cursor"]);
        let members = alice.members("s0", &format!("&cursor={cursor}")).await;
        members.names(&["cursor"]);
        for bad in ["AAAA", &cursor[1..], &cursor[..cursor.len() - 2], "a%20b"] {
            alice
                .conversations(&format!("cursor={bad}"))
                .await
                .names(&["cursor"]);
        }
    }
}

#[tokio::test]
async fn what_is_no_conversation_of_the_user_is_left_out() {
    for app in TestApp::both().await {
        let [alice, bob] = app.users(["alice", "bob"]);
        for group in ["stays", "deleted", "left", "removed", "empty", "disbanded"] {
            bob.create_group(group).await.ok();
            bob.add(group, &["alice"]).await.ok();
            if group != "empty" {
                bob.send_to_group(group, "x").await.ok();
            }
        }
        bob.delete_group("deleted").await.ok();
        alice.remove("left", &["alice"]).await.ok();
        app.state().leave("removed", "alice");
        // Commands, the system, and ids and types that the gateway has no name for.
        for (id, channel_type, from) in [
            ("stays____cmd", GROUP, "bob"),
            ("a&b", GROUP, "bob"),
            ("strange", 4, "bob"),
            ("alice", PERSON, "____system"),
        ] {
            app.state().join(id, "alice");
            seeds::message(&app, channel_type, id, from, b"x");
        }
        assert_eq!(
            ids(&alice.conversations("").await.ok()),
            ["disbanded", "stays"]
        );
    }
}

#[tokio::test]
async fn who_only_claimed_an_id_does_not_name_the_group_that_exists_under_it() {
    let app = TestApp::start(V2).await;
    app.always("/channel", Fault::Reset);
    let claim =
        json!({"channelId": "g", "channelType": 2, "name": "Bank", "avatar": "https://h/a.png"});
    let answer = app.user("mallory").post("/channel/create", &claim).await;
    answer.fails(503, "upstream_unavailable");
    app.faults().clear();
    // The application's backend makes it, past the gateway.
    seeds::group(&app, "g", &["alice", "bob"]);
    seeds::message(&app, GROUP, "g", "bob", b"x");
    let data = now(&app, "alice").await;
    let row = row(&data, "g");
    assert!(
        row.get("name").is_none() && row.get("avatar").is_none(),
        "{row}"
    );
}

#[tokio::test]
async fn a_row_with_another_channels_message_is_left_out() {
    let app = TestApp::start(V2).await;
    // `TWIN` has the hash of the pair of hc-alice and hc-bob.
    let twin = "xbdZAqbat_QtXO";
    let [alice, bob] = app.users(["hc-alice", "hc-bob"]);
    alice.send_to_person("hc-bob", "a secret").await.ok();
    app.state().join(twin, "mallory");
    let clear = json!({"uid": "mallory", "channel_id": twin, "channel_type": 2});
    let url = format!("{}/conversations/clearUnread", app.upstream.url());
    let cleared = app.http.post(url).body(clear.to_string()).send().await;
    assert!(cleared.unwrap().status().is_success());
    let answer = app.user("mallory").conversations("").await;
    assert!(!answer.text.contains("secret") && ids(&answer.ok()).is_empty());
    assert_eq!(ids(&bob.conversations("").await.ok()), ["hc-alice"]);
}

#[tokio::test]
async fn the_byte_limit_of_a_sync_ends_a_page_early() {
    for dialect in [V2, V3] {
        for count in [3, 103] {
            let app = TestApp::with(dialect, |settings| settings.limits.sync_bytes = 2500).await;
            spoken(&app, count);
            for n in 0..3 {
                seeds::message(&app, GROUP, &format!("s{n}"), "bob", &[b'x'; 1000]);
            }
            let paged = pages(&app.user("alice"), "limit=3").await;
            assert_eq!(
                paged[..2],
                [vec!["s2".to_owned(), "s1".into()], {
                    let mut second = vec!["s0".to_owned()];
                    second.extend(
                        (0..2)
                            .filter(|_| count > 3)
                            .map(|n| format!("s{}", count - 1 - n)),
                    );
                    second
                }]
            );
            assert_eq!(paged.concat().len(), count);
        }
    }
}

#[tokio::test]
async fn a_list_costs_by_its_rows() {
    let app = TestApp::with(V2, |settings| settings.limits.burst = 100).await;
    spoken(&app, 45);
    let alice = app.user("alice");
    let mut left = 100;
    for (query, cost) in [("", 3), ("limit=39", 2), ("limit=3", 1)] {
        let answer = alice.conversations(query).await;
        left -= cost;
        answer.has("ratelimit-remaining", &left.to_string());
        answer.ok();
    }
}

#[tokio::test]
async fn a_banned_user_is_refused_in_every_mode() {
    for mode in [Mode::Members, Mode::Open, Mode::Callback] {
        let backend = Backend::start().await;
        let decides = backend.decides();
        let app = TestApp::with(V2, move |settings| {
            decides(settings);
            settings.authorization.mode = mode;
        })
        .await;
        seeds::group(&app, "g", &["alice", "bob"]);
        seeds::message(&app, GROUP, "g", "bob", b"x");
        app.state().ban_user("alice", true);
        let alice = app.user("alice");
        failure(403, "forbidden").in_each([
            alice.conversations("").await,
            alice.read(GROUP, "g", None).await,
            alice.hide(GROUP, "g").await,
            alice.read(PERSON, "bob", None).await,
            alice.members("g", "").await,
        ]);
        app.nothing_was_written();
        assert!(app.calls_to("/conversation").is_empty());
    }
}

#[tokio::test]
async fn a_groups_record_is_read_once_and_a_new_name_is_shown_at_once() {
    for app in TestApp::both().await {
        let [alice, bob] = app.users(["alice", "bob"]);
        let rename = async |name: &str| {
            let group = json!({"channelId": "g", "channelType": 2, "name": name});
            alice.post("/channel/create", &group).await.ok();
        };
        rename("old").await;
        alice.add("g", &["bob"]).await.ok();
        alice.send_to_group("g", "x").await.ok();
        spoken(&app, 2);
        let shown = async |who: &Actor<'_>| {
            let data = who.conversations("").await.ok();
            assert_eq!(ids(&data), ["s1", "s0", "g"]);
            row(&data, "g")["name"].clone()
        };
        assert_eq!(shown(&bob).await, "old");
        let misses = r#"gateway_cache_lookups_total{cache="tombstones",outcome="miss"}"#;
        let before = app.metric(misses);
        assert_eq!(shown(&alice).await, "old");
        assert_eq!(app.metric(misses), before, "bob's list has read them");
        rename("new").await;
        assert_eq!(shown(&bob).await, "new");
        alice.delete_group("g").await.ok();
        assert_eq!(ids(&bob.conversations("").await.ok()), ["s1", "s0"]);
    }
}

#[tokio::test]
async fn without_the_store_there_is_no_list_of_groups() {
    for app in TestApp::both().await {
        app.user("bob").send_to_person("alice", "x").await.ok();
        app.store.close().await;
        // Only the store knows which groups were deleted.
        assert_eq!(
            ids(&app.user("alice").conversations("").await.ok()),
            ["bob"]
        );
        spoken(&app, 1);
        let replica = app.beside(|_| {}).await;
        let answer = replica.user("alice").conversations("").await;
        answer.fails(503, "store_unavailable");
    }
}
