//! Conversation lists where they are not what was said last: what is cut, hidden, lost and refused.

use dev_upstream::{DevUpstream, Dialect, Options};
use serde_json::{Value, json};

use crate::support::{Answer, Upstream};

const TOKEN: &str = "secret";

async fn sync(upstream: &Upstream, uid: &str, page: i64) -> Vec<Value> {
    let body = json!({ "uid": uid, "msg_count": 1, "page": page, "page_size": 100 });
    let rows = upstream.post("/conversation/sync", body).await.ok();
    rows.as_array().expect("rows").clone()
}

async fn ids(upstream: &Upstream, uid: &str) -> Vec<String> {
    let rows = sync(upstream, uid, 0).await;
    rows.iter().map(channel_id).collect()
}

fn channel_id(row: &Value) -> String {
    row["channel_id"].as_str().expect("id").to_owned()
}

async fn row_call(upstream: &Upstream, call: &str, channel_id: &str, channel_type: u8) -> Answer {
    let body = json!({ "uid": "u", "channel_id": channel_id, "channel_type": channel_type });
    upstream.post(&format!("/conversations/{call}"), body).await
}

async fn list(upstream: &Upstream, limit: usize, cursor: &str) -> Value {
    let body = json!({ "uid": "u", "limit": limit, "cursor": cursor });
    upstream.post("/conversation/list", body).await.ok()
}

#[tokio::test]
async fn v2_cuts_the_oldest_rows_whatever_was_said_last() {
    let upstream = Upstream::v2().await;
    let state = upstream.server.state();
    for group in 0..1_001 {
        state.join(&format!("g{group}"), "u");
    }
    for group in ["g5", "g1000", "g0"] {
        upstream.send("a", group, 2, "x").await.ok();
    }
    assert_eq!(ids(&upstream, "u").await, ["g1000", "g5"]);
    let body = json!({ "uid": "u" });
    let channels = upstream.post("/conversation/channels", body).await.ok();
    assert_eq!(channels.as_array().map(Vec::len), Some(1_000));
    row_call(&upstream, "clearUnread", "g0", 2).await.ok();
    assert_eq!(ids(&upstream, "u").await, ["g0", "g1000", "g5"]);
}

#[tokio::test]
async fn v2_cuts_pages_before_it_leaves_empty_groups_out() {
    let upstream = Upstream::v2().await;
    for group in 0..250 {
        upstream.server.state().join(&format!("g{group}"), "u");
    }
    for group in 0..20 {
        let group = format!("g{group}");
        upstream.send("a", &group, 2, "x").await.ok();
    }
    for (page, rows) in [(1, 0), (2, 0), (3, 20), (4, 0), (0, 20)] {
        assert_eq!(sync(&upstream, "u", page).await.len(), rows, "page {page}");
    }
}

#[tokio::test]
async fn v2_hides_no_pair_that_is_not_saved_and_loses_it_in_a_crash() {
    let upstream = Upstream::v2().await;
    let state = upstream.server.state();
    upstream.send("a", "u", 1, "one").await.ok();
    row_call(&upstream, "delete", "a", 1).await.ok();
    assert_eq!(ids(&upstream, "u").await, ["a"]);
    state.save_conversations();
    row_call(&upstream, "delete", "a", 1).await.ok();
    assert!(ids(&upstream, "u").await.is_empty());
    let hidden = json!({ "uid": "u", "msg_count": 1, "channels": [{ "channel_id": "a", "channel_type": 1 }] });
    let rows = upstream.post("/conversation/syncByChannels", hidden).await;
    assert_eq!(rows.ok()[0]["last_msg_seq"], 1, "by its name it shows");

    upstream.send("b", "u", 1, "new").await.ok();
    assert_eq!(ids(&upstream, "u").await, ["b"]);
    let deadly = json!({ "uid": "u", "msg_count": 1_000_000_000 });
    let died = upstream.try_post("/conversation/sync", &deadly).await;
    died.expect_err("out of memory");
    upstream.server.restart().await.expect("restarts");
    upstream.send("b", "u", 1, "newer").await.ok();
    assert!(ids(&upstream, "u").await.is_empty());
    row_call(&upstream, "clearUnread", "b", 1).await.ok();
    assert_eq!(ids(&upstream, "u").await, ["b"]);
}

async fn ask(upstream: &Upstream, node: &DevUpstream, path: &str, body: Value) -> Answer {
    let url = format!("{}{path}", node.url());
    let answer = upstream.call("POST", &url, &[("token", TOKEN)], Some(body.to_string()));
    answer.await.expect("an answer")
}

#[tokio::test]
async fn a_v2_cluster_with_a_token_has_a_list_only_in_parts() {
    let options = Options {
        manager_token: Some(TOKEN.to_owned()),
        visible_after: std::time::Duration::ZERO,
        ..Options::new(Dialect::V2)
    };
    let upstream = Upstream::start(options.clone()).await;
    let one = &upstream.server;
    let two = one.start_beside(options).await.expect("starts");
    one.state().join("g", "u");
    let send = |text: &str| crate::support::message("a", "g", 2, text);
    ask(&upstream, one, "/message/send", send("one")).await.ok();
    let named = json!([{ "channel_id": "g", "channel_type": 2 }]);
    let of_user = json!({ "uid": "u", "msg_count": 1, "channels": named });
    for path in ["/conversation/sync", "/conversation/syncByChannels"] {
        for node in [one, &two] {
            let refusal = ask(&upstream, node, path, of_user.clone()).await.refusal();
            assert_eq!(refusal, "获取最近消息失败！");
        }
    }
    let channels = ask(&upstream, &two, "/conversation/channels", of_user.clone()).await;
    assert_eq!(channels.ok(), named);
    one.state().stop_copying();
    ask(&upstream, one, "/message/send", send("two")).await.ok();
    for (node, seq) in [(one, 2), (&two, 1)] {
        let parts = ask(
            &upstream,
            node,
            "/conversation/syncMessages",
            of_user.clone(),
        )
        .await;
        assert_eq!(parts.ok()[0]["messages"][0]["message_seq"], seq);
    }
}

#[tokio::test]
async fn v3_walks_a_list_by_activation_and_then_by_id() {
    let upstream = Upstream::v3().await;
    for group in ["ga", "gc", "gbb", "gd"] {
        upstream.create(group, &["u"]).await;
        upstream.send("u", group, 2, "x").await.ok();
    }
    upstream.create("empty", &["u"]).await;
    row_call(&upstream, "activate", "gc", 2).await.ok();
    upstream.server.state().set_unresolved(&["gd"]);
    let (mut cursor, mut pages) = (String::new(), Vec::new());
    loop {
        let page = list(&upstream, 2, &cursor).await;
        let ids = |part: &str| -> Vec<String> {
            let rows = page[part].as_array().expect("rows");
            rows.iter().map(channel_id).collect()
        };
        pages.push(
            [ids("conversations"), ids("unresolved"), ids("deletes")]
                .concat()
                .join(" "),
        );
        if page["done"] == true {
            break;
        }
        page["next_cursor"]
            .as_str()
            .expect("cursor")
            .clone_into(&mut cursor);
    }
    assert_eq!(pages, ["gc ga", "gbb gd", "empty"]);
}
