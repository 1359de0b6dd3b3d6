//! A v2 cluster with a manager token, whose nodes refuse each other's calls: the list is put together by hand.

use super::*;

const TOKEN: &str = "a-manager-token";

/// Three nodes, and a gateway with their token.
async fn start() -> TestApp {
    let builder = TestApp::builder().nodes(3);
    builder
        .options(|options| options.manager_token = Some(TOKEN.into()))
        .config(|settings| settings.wukongim.manager_token = Some(TOKEN.to_owned().into()))
        .start()
        .await
}

/// The calls to this path at all nodes.
fn calls(app: &TestApp, path: &str) -> usize {
    let nodes = app.nodes();
    let calls = nodes.iter().flat_map(|node| node.calls_to(path));
    calls
        .filter(|call| call.path.split('?').next() == Some(path))
        .count()
}

#[tokio::test]
async fn the_list_is_put_together_from_all_nodes_and_as_whole_as_any() {
    let app = start().await;
    let [alice, bob] = app.users(["alice", "bob"]);
    for group in ["g", "empty", "own", "read"] {
        app.group(group, "alice", &["bob"]).await;
    }
    for (group, count) in [("g", 3), ("own", 2), ("read", 4)] {
        for _ in 0..count {
            seeds::message(&app, GROUP, group, "bob", b"x");
        }
    }
    seeds::message(&app, GROUP, "own", "alice", b"x");
    seeds::message(&app, GROUP, "own", "bob", b"x");
    seeds::message(&app, PERSON, "alice", "bob", b"x");
    assert_eq!(
        read_state(&alice.read(GROUP, "read", Some(3)).await.ok()),
        (1, 3)
    );
    for node in app.nodes() {
        node.clear_calls();
    }
    let data = alice.conversations("").await.ok();
    assert_eq!(ids(&data), ["bob", "own", "read", "g"]);
    for (id, state) in [
        ("g", (3, 0)),
        ("own", (1, 3)),
        ("read", (1, 3)),
        ("bob", (1, 0)),
    ] {
        assert_eq!(read_state(row(&data, id)), state, "{id}");
    }
    assert_eq!(
        (&data["unreadTotal"], &data["complete"]),
        (&json!(6), &json!(true))
    );
    for (path, count) in [
        ("/conversation/channels", 1),
        ("/conversation/syncMessages", 3),
        ("/cluster/conversations", 1),
        ("/conversation/sync", 0),
        ("/conversation/syncByChannels", 0),
    ] {
        assert_eq!(calls(&app, path), count, "{path}");
    }
    assert_eq!(ids(&bob.conversations("").await.ok()).len(), 4);
}

#[tokio::test]
async fn more_than_a_page_is_walked_in_parts_and_looked_at_again() {
    let app = start().await;
    spoken(&app, 150);
    let data = app.user("alice").conversations("limit=200").await.ok();
    assert_eq!((ids(&data).len(), &data["unreadTotal"]), (150, &json!(150)));
    assert_eq!(data["complete"], true);
    assert_eq!(calls(&app, "/conversation/syncMessages"), 3 * 3);
    assert_eq!(calls(&app, "/cluster/conversations"), 2);
}

#[tokio::test]
async fn one_node_may_be_missing_but_no_message() {
    let app = start().await;
    spoken(&app, 2);
    app.others[1].stop().await;
    assert_eq!(ids(&now(&app, "alice").await), ["s1", "s0"]);
    app.others[0].faults().always(
        "/conversation/syncMessages",
        Fault::Status(500, "{}".into()),
    );
    let replica = app.beside(|_| {}).await;
    let answer = replica.user("alice").conversations("").await;
    assert!([502, 503].contains(&answer.status), "{answer:#?}");
}

#[tokio::test]
async fn no_conversation_can_be_deleted_there() {
    let app = start().await;
    app.group("g", "alice", &["bob"]).await;
    app.user("bob").send_to_group("g", "x").await.ok();
    app.clear_calls();
    let [alice, mallory] = app.users(["alice", "mallory"]);
    let answer = alice.hide(GROUP, "g").await;
    answer.fails(501, "not_supported").says("删除会话失败");
    alice.hide(PERSON, "bob").await.fails(501, "not_supported");
    mallory.hide(GROUP, "g").await.fails(403, "not_a_member");
    mallory
        .hide(GROUP, "none")
        .await
        .fails(404, "channel_not_found");
    assert_eq!(calls(&app, "/conversations/delete"), 0);
    // Without the token, or on a single node with one, it can.
    for nodes in [1, 3] {
        let builder = TestApp::builder().nodes(nodes);
        let app = builder
            .options(move |options| options.manager_token = (nodes == 1).then(|| TOKEN.into()))
            .config(move |settings| {
                settings.wukongim.manager_token = (nodes == 1).then(|| TOKEN.to_owned().into());
            })
            .start()
            .await;
        spoken(&app, 1);
        app.user("alice").hide(GROUP, "s0").await.ok();
        assert!(ids(&now(&app, "alice").await).is_empty());
    }
}
