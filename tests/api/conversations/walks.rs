//! How all rows are found, and what becomes of a walk that fails.

use super::*;

/// The pages of the walk that the upstream was asked for.
fn walked(app: &TestApp) -> usize {
    let path = match app.dialect {
        V2 => "/conversation/sync",
        V3 => "/conversation/list",
    };
    let mut calls = app.calls_to(path);
    calls.retain(|call| call.path == path);
    calls.len()
}

/// How often channels were looked at by name.
fn looks(app: &TestApp) -> usize {
    app.calls_to("/conversation/syncByChannels").len() + app.calls_to("/conversation/retry").len()
}

#[tokio::test]
async fn a_walk_of_one_page_is_its_own_answer_and_a_longer_one_takes_a_second_look() {
    for (app, (one, many)) in TestApp::both().await.zip([(100, 101), (200, 201)]) {
        spoken(&app, one);
        assert_eq!(now(&app, "alice").await["unreadTotal"], one);
        assert_eq!((walked(&app), looks(&app)), (1, 0));
        spoken(&app, many);
        app.clear_calls();
        let alice = app.user("alice");
        let data = alice.conversations("limit=999").await;
        data.has("x-has-more", if many > 200 { "true" } else { "false" });
        let data = data.ok();
        assert_eq!(ids(&data).len(), many.min(200));
        assert_eq!(ids(&data)[0], format!("s{}", many - 1));
        // On v2 a read may have moved a row to the first page.
        let pages = if app.dialect == V2 { 3 } else { 2 };
        assert_eq!((walked(&app), looks(&app)), (pages, 1));
        assert_eq!(data["complete"], true);
        for call in app.upstream.calls() {
            let size = [&call.body["page_size"], &call.body["limit"]];
            assert!(
                size.iter()
                    .all(|size| size.as_u64().is_none_or(|size| size <= 200))
            );
            let channels = call.body["channels"].as_array().map_or(0, Vec::len);
            assert!(channels <= 200, "{}", call.path);
        }
    }
}

#[tokio::test]
async fn pages_that_are_empty_in_the_middle_hide_nothing() {
    for app in TestApp::both().await {
        spoken(&app, 20);
        // Newer rows, none of which is shown.
        for n in 0..230 {
            app.state().join(&format!("e{n}"), "alice");
        }
        let data = now(&app, "alice").await;
        assert_eq!((ids(&data).len(), &data["complete"]), (20, &json!(true)));
    }
}

#[tokio::test]
async fn a_row_that_moves_during_the_walk_is_not_missed_and_read_whole() {
    let app = TestApp::start(V2).await;
    spoken(&app, 150);
    // `s0` is the last row.
    let rule =
        Rule::new("/conversation/sync", Fault::Hold("second".into())).containing("\"page\":2");
    app.add_fault(rule);
    let replica = app.beside(|_| {}).await;
    let alice = replica.user("alice");
    let moving = async {
        until(|| walked(&app) == 2).await;
        app.user("alice").read(GROUP, "s0", None).await.ok();
        app.faults().clear();
        app.faults().release("second");
    };
    let (answer, ()) = tokio::join!(alice.conversations("limit=200"), moving);
    let data = answer.ok();
    assert_eq!((ids(&data).len(), &data["unreadTotal"]), (150, &json!(149)));
    assert_eq!(read_state(row(&data, "s0")), (0, 1));
}

#[tokio::test]
async fn a_row_of_the_page_is_as_the_second_look_has_it() {
    for (app, path) in TestApp::both()
        .await
        .zip(["/conversation/syncByChannels", "/conversation/retry"])
    {
        spoken(&app, 201);
        app.once(path, Fault::Hold("look".into()));
        let alice = app.user("alice");
        let writing = async {
            until(|| looks(&app) == 1).await;
            for _ in 0..2 {
                seeds::message(&app, GROUP, "s199", "bob", b"newer");
            }
            app.faults().release("look");
        };
        let (answer, ()) = tokio::join!(alice.conversations("limit=3"), writing);
        // The cursor is the walk's: the next page neither skips nor repeats.
        let next = answer.header("x-next-cursor").to_owned();
        let data = answer.ok();
        assert_eq!(ids(&data), ["s199", "s200", "s198"], "sorted once more");
        let row = row(&data, "s199");
        assert_eq!(
            (read_state(row), &row["lastMessage"]["messageSeq"]),
            ((3, 0), &json!(3))
        );
        let data = alice
            .conversations(&format!("limit=2&cursor={next}"))
            .await
            .ok();
        assert_eq!(ids(&data), ["s197", "s196"]);
    }
}

#[tokio::test]
async fn a_walk_is_shared_until_the_user_changes_something() {
    for app in TestApp::both().await {
        spoken(&app, 3);
        let alice = app.user("alice");
        let lists = (0..5).map(|_| alice.conversations(""));
        all_ok(join_all(lists).await);
        alice.conversations("limit=1").await.ok();
        assert_eq!(walked(&app), 1);
        alice.read(GROUP, "s0", None).await.ok();
        let data = alice.conversations("").await.ok();
        assert_eq!((read_state(row(&data, "s0")), walked(&app)), ((0, 1), 2));
        alice.hide(GROUP, "s1").await.ok();
        assert_eq!(ids(&alice.conversations("").await.ok()), ["s2", "s0"]);
        alice.remove("s2", &["alice"]).await.ok();
        assert_eq!(ids(&alice.conversations("").await.ok()), ["s0"]);
        app.admin().delete_group("s0").await.ok();
        assert!(ids(&alice.conversations("").await.ok()).is_empty());
        // Another's change does not end it, and it is over by itself.
        let before = walked(&app);
        app.user("bob").read(GROUP, "s1", None).await.ok();
        alice.conversations("").await.ok();
        assert_eq!(walked(&app), before);
        let entries = r#"gateway_cache_entries{cache="conversations"}"#;
        until(|| app.metric(entries) == Some(0.0)).await;
        alice.conversations("").await.ok();
        assert_eq!(walked(&app), before + 1);
    }
}

#[tokio::test]
async fn a_list_that_wukongim_cut_says_so() {
    let app = TestApp::start(V2).await;
    for n in 0..999 {
        app.state().join(&format!("e{n}"), "alice");
    }
    assert_eq!(now(&app, "alice").await["complete"], true);
    app.state().join("e999", "alice");
    assert_eq!(now(&app, "alice").await["complete"], false);

    let app = TestApp::start(V3).await;
    spoken(&app, 2);
    app.state().set_unresolved(&["s0"]);
    let data = now(&app, "alice").await;
    assert_eq!(
        (ids(&data), &data["complete"]),
        (vec!["s1".to_owned()], &json!(false))
    );
    app.state().set_unresolved(&[]);
    spoken(&app, 2001);
    let data = now(&app, "alice").await;
    assert_eq!((&data["complete"], walked(&app)), (&json!(false), 11));
    assert_eq!(
        data["unreadTotal"].as_u64().unwrap() / 100,
        20,
        "of 2,000 rows"
    );
}

#[tokio::test]
async fn a_walk_that_fails_anywhere_is_a_failure_and_no_shorter_list() {
    let of_v2 = [
        "/conversation/channels",
        "/conversation/sync",
        "/conversation/syncByChannels",
    ];
    let of_v3 = ["/conversation/list", "/conversation/retry"];
    let nonsense = [
        r#"{"status":200}"#,
        r#"[{"channel_id":7}]"#,
        r#"{"conversations":null,"done":true}"#,
        r#"{"conversations":[],"done":false}"#,
    ];
    for (app, paths) in TestApp::both().await.zip([&of_v2[..], &of_v3[..]]) {
        spoken(&app, 201);
        for path in paths {
            let mut faults = vec![
                (Fault::Status(500, "{}".into()), 502, "upstream_error"),
                (Fault::Garbage, 502, "upstream_error"),
                (Fault::ResetAfter, 503, "upstream_unavailable"),
            ];
            faults.extend(
                nonsense.map(|text| (Fault::Status(200, text.into()), 502, "upstream_error")),
            );
            // Of a walk a later page fails as well as the first one.
            let skips = match *path {
                "/conversation/sync" | "/conversation/list" => 0..2,
                _ => 0..1,
            };
            for ((fault, status, code), skip) in faults
                .iter()
                .flat_map(|fault| skips.clone().map(move |skip| (fault, skip)))
            {
                println!("{path} {fault:?} after {skip}");
                app.add_fault(Rule::exact(*path, fault.clone()).skip(skip));
                let replica = app.beside(|_| {}).await;
                let answer = replica.user("alice").conversations("").await;
                answer.fails(*status, code).says("获取会话列表失败");
                app.faults().clear();
            }
        }
        assert_eq!(now(&app, "alice").await["unreadTotal"], 201, "by itself");
    }
}

#[tokio::test]
async fn a_slow_walk_is_504_and_does_not_outlive_its_failure() {
    for dialect in [V2, V3] {
        let app = TestApp::with(dialect, |settings| {
            settings.wukongim.timeout = Duration::from_millis(300);
        })
        .await;
        spoken(&app, 1);
        app.once("/conversation/", Fault::Hang);
        let alice = app.user("alice");
        alice.conversations("").await.fails(504, "upstream_timeout");
        alice.conversations("").await.ok();
    }
}

#[tokio::test]
async fn a_conversation_that_comes_twice_on_one_page_is_listed_once() {
    let app = TestApp::start(V3).await;
    let row = |seq: u64| json!({"channel_id": "g", "channel_type": 2, "unread": 1, "last_message": {"message_id": seq << 22, "message_seq": seq}});
    let body = json!({"conversations": [row(1), row(2)], "next_cursor": "", "done": true});
    app.once("/conversation/list", Fault::Status(200, body.to_string()));
    let data = app.user("alice").conversations("").await.ok();
    assert_eq!(
        (ids(&data), &data["unreadTotal"]),
        (vec!["g".into()], &json!(1))
    );
    let newest = &data["conversations"][0]["lastMessage"]["messageSeq"];
    assert_eq!(newest, 2, "the later row is the newer one");
}
