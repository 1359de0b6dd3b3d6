//! What v2 does that a caller would not expect.

use std::time::Duration;

use dev_upstream::{Dialect, GROUP, Options, PERSON, V2Release};
use serde_json::json;

use crate::support::{Upstream, message};

#[tokio::test]
async fn a_message_is_acknowledged_before_it_is_visible() {
    let upstream = Upstream::start(Options {
        visible_after: Duration::from_hours(1),
        ..Options::new(Dialect::V2)
    })
    .await;
    upstream.send("a", "b", 1, "soon").await.ok();
    assert!(upstream.texts("a", "b", 1).await.is_empty());
    let seq = upstream
        .get("/channel/max_message_seq?channel_id=b&channel_type=1&login_uid=a")
        .await;
    assert_eq!(seq.ok()["message_seq"], 0);
}

#[tokio::test]
async fn a_message_becomes_visible_in_its_time() {
    let upstream = Upstream::start(Options::new(Dialect::V2)).await;
    upstream.send("a", "b", 1, "soon").await.ok();
    let looks = async {
        while upstream.texts("a", "b", 1).await.is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), looks)
        .await
        .expect("visible");
}

#[tokio::test]
async fn banned_and_disbanded_groups_swallow_messages() {
    let upstream = Upstream::v2().await;
    let state = upstream.server.state();
    upstream.create("g", &["a"]).await;
    upstream.send("a", "g", 2, "one").await.ok();
    state.ban_group("g", true);
    upstream.send("a", "g", 2, "banned").await.ok();
    state.ban_group("g", false);
    upstream
        .post(
            "/channel/delete",
            json!({ "channel_id": "g", "channel_type": 2 }),
        )
        .await
        .ok();
    upstream.send("a", "g", 2, "disbanded").await.ok();
    assert_eq!(
        upstream.texts("anybody", "g", 2).await,
        ["one"],
        "readable all the same"
    );
    let row = upstream
        .get("/cluster/channels?channel_id=g&channel_type=2")
        .await
        .ok();
    assert_eq!(row["data"][0]["disband"], 1, "{row}");
    assert_eq!(row["data"][0]["ban"], 0, "{row}");
    assert_eq!(state.members("g"), ["a"], "members stay");

    upstream.create("g", &[]).await;
    assert_eq!(
        state.flags(GROUP, "g").map(|flags| flags.disband),
        Some(false)
    );
    upstream.send("a", "g", 2, "again").await.ok();
    assert_eq!(upstream.texts("a", "g", 2).await, ["one", "again"]);
}

#[tokio::test]
async fn no_permission_is_fetched() {
    let upstream = Upstream::v2().await;
    upstream.create("g", &["a"]).await;
    let state = upstream.server.state();
    state.deny(GROUP, "g", "b");
    state.deny(PERSON, "a", "b");
    upstream.send("stranger", "g", 2, "1").await.ok();
    upstream.send("b", "g", 2, "2").await.ok();
    upstream.send("b", "a", 1, "3").await.ok();
    assert_eq!(upstream.texts("anybody", "g", 2).await, ["1", "2"]);
    assert_eq!(upstream.texts("a", "b", 1).await, ["3"]);
    let denied = upstream.get("/cluster/channels/a/1/denylist").await;
    assert_eq!(denied.ok(), json!(["b"]));
}

#[tokio::test]
async fn an_unknown_channel_is_a_row_without_an_id() {
    let upstream = Upstream::v2().await;
    let row = upstream
        .get("/cluster/channels?channel_id=no&channel_type=2")
        .await
        .ok();
    assert_eq!(row["data"][0]["channel_id"], "");
    assert_eq!(row["data"].as_array().map(Vec::len), Some(1));
    upstream.server.state().ban_user("u", true);
    let row = upstream
        .get("/cluster/channels?channel_id=u&channel_type=1")
        .await
        .ok();
    assert_eq!(row["data"][0]["channel_id"], "u");
    assert_eq!(row["data"][0]["ban"], 1);
}

#[tokio::test]
async fn a_received_message_has_the_reader_as_its_channel() {
    let upstream = Upstream::v2().await;
    upstream.send("alice", "bob", 1, "hello").await.ok();
    let mut system = message("", "alice", 1, "from the system");
    system["from_uid"] = json!("");
    upstream.post("/message/send", system).await.ok();
    let page = upstream.sync("bob", "alice", 1).await.ok();
    assert_eq!(page["messages"][0]["channel_id"], "bob");
    let page = upstream.sync("alice", "____system", 1).await.ok();
    assert_eq!(page["messages"][0]["from_uid"], "");
}

#[tokio::test]
async fn a_retried_send_stores_a_second_message() {
    let upstream = Upstream::v2().await;
    let mut body = message("a", "g", 2, "x");
    body["client_msg_no"] = json!("n");
    let ids = [
        upstream.post("/message/send", body.clone()).await.ok()["data"]["message_id"].clone(),
        upstream.post("/message/send", body).await.ok()["data"]["message_id"].clone(),
    ];
    assert_ne!(ids[0], ids[1]);
    assert_eq!(upstream.texts("a", "g", 2).await.len(), 2);
}

#[tokio::test]
async fn tokens_are_kept_cleared_and_refused_to_the_banned() {
    let upstream = Upstream::v2().await;
    let state = upstream.server.state();
    let token =
        |level: u8| json!({ "uid": "u", "token": "t", "device_flag": 1, "device_level": level });
    state.connect("u", 1);
    state.connect("u", 0);
    let online = upstream
        .post("/user/onlinestatus", json!(["u", "v"]))
        .await
        .ok();
    assert_eq!(
        online[0],
        json!({ "uid": "u", "device_flag": 1, "online": 1 })
    );
    upstream.post("/user/token", token(0)).await.ok();
    assert_eq!(
        (state.token_of("u", 1).as_deref(), state.connections()),
        (Some("t"), 2)
    );
    upstream.post("/user/token", token(1)).await.ok();
    assert_eq!(
        state.connections(),
        1,
        "a master token kicks its own device"
    );
    upstream
        .post(
            "/user/device_quit",
            json!({ "uid": "u", "device_flag": -1 }),
        )
        .await
        .ok();
    assert_eq!(state.token_of("u", 1).as_deref(), Some(""));
    state.ban_user("u", true);
    assert_eq!(
        upstream.post("/user/token", token(0)).await.ok(),
        json!({ "status": 19 })
    );
}

#[tokio::test]
async fn without_the_manager_token_nothing_answers() {
    let upstream = Upstream::start(Options {
        manager_token: Some("secret".to_owned()),
        ..Options::new(Dialect::V2)
    })
    .await;
    for path in [
        "/health",
        "/nope",
        "/cluster/channels?channel_id=g&channel_type=2",
    ] {
        let answer = upstream.get(path).await;
        assert_eq!((answer.status, answer.body.as_str()), (401, ""), "{path}");
    }
}

#[tokio::test]
async fn an_id_with_a_slash_is_not_found() {
    let upstream = Upstream::v2().await;
    upstream.create("a/b", &["u"]).await;
    assert_eq!(
        upstream
            .get("/cluster/channels/a%2Fb/2/subscribers")
            .await
            .status,
        404
    );
    assert_eq!(upstream.server.state().members("a/b"), ["u"]);
}

#[tokio::test]
async fn resets_removals_and_a_lost_channel() {
    let upstream = Upstream::v2().await;
    let state = upstream.server.state();
    upstream.create("g", &["a", "b"]).await;
    let reset = json!({ "channel_id": "g", "channel_type": 2, "reset": 1, "subscribers": ["c"] });
    upstream.post("/channel/subscriber_add", reset).await.ok();
    assert_eq!(state.members("g"), ["c"]);
    let all = json!({ "channel_id": "g", "channel_type": 2 });
    upstream
        .post("/channel/subscriber_remove_all", all.clone())
        .await
        .ok();
    assert!(state.members("g").is_empty());
    state.join("g", "d");
    state.leave("g", "d");
    state.forget_channel("g");
    assert_eq!(state.flags(GROUP, "g"), None);
    upstream
        .post("/channel/subscriber_remove_all", all)
        .await
        .ok();
    assert_eq!(state.flags(GROUP, "g"), None, "emptying makes no channel");
}

#[tokio::test]
async fn lists_are_added_to_set_and_emptied() {
    let upstream = Upstream::v2().await;
    for (list, path) in [("blacklist", "denylist"), ("whitelist", "allowlist")] {
        let listed = format!("/cluster/channels/g/2/{path}");
        let body = |uids: &[&str]| json!({ "channel_id": "g", "channel_type": 2, "uids": uids });
        let steps: [(&str, &[&str], usize); 4] = [
            ("add", &["a", "b"], 2),
            ("remove", &["a"], 1),
            ("set", &["c", "d", "e"], 3),
            ("remove_all", &[], 0),
        ];
        for (step, uids, left) in steps {
            upstream
                .post(&format!("/channel/{list}_{step}"), body(uids))
                .await
                .ok();
            let now = upstream.get(&listed).await.ok();
            assert_eq!(
                now.as_array().map(Vec::len),
                Some(left),
                "{list} {step}: {now}"
            );
        }
    }
}

#[tokio::test]
async fn older_releases_lack_a_call_and_ignore_disbanded_records_of_users() {
    for release in V2Release::ALL {
        let upstream = Upstream::start(Options {
            release,
            ..Options::new(Dialect::V2)
        })
        .await;
        upstream.create("g", &["a", "b"]).await;
        let body = json!({ "channel_id": "g", "channel_type": 2 });
        let path = "/channel/subscriber_remove_all";
        let removed = upstream.post(path, body.clone()).await;
        let expected = if release < V2Release::V2_2_5 {
            404
        } else {
            200
        };
        assert_eq!(removed.status, expected, "{release:?}");
        // It comes with the upgrade.
        upstream.server.set_release(V2Release::V2_2_5);
        upstream.post(path, body).await.ok();
        upstream.server.set_release(release);

        let disbanded = json!({ "channel_id": "a", "channel_type": 1, "disband": 1 });
        upstream.post("/channel/info", disbanded).await.ok();
        let token = json!({ "uid": "a", "token": "t", "device_flag": 1 });
        let told = upstream.post("/user/token", token.clone()).await.ok();
        let expected = if release < V2Release::V2_2_1 { 200 } else { 24 };
        assert_eq!(told["status"], expected, "{release:?}");
        upstream.server.state().ban_user("a", true);
        let told = upstream.post("/user/token", token).await.ok();
        assert_eq!(told["status"], 19, "{release:?}");
    }
}
