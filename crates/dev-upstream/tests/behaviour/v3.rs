//! What v3 checks, refuses and shows.

use std::time::Duration;

use dev_upstream::{Dialect, EPOCH_MS, Fault, GROUP, Options, PERSON};
use serde_json::{Value, json};

use crate::support::{Answer, Upstream, message};

async fn reason(upstream: &Upstream, from: &str, to: &str, channel_type: u8) -> Value {
    upstream.send(from, to, channel_type, "x").await.ok()["reason"].clone()
}

#[tokio::test]
async fn every_refusal_has_its_reason() {
    let upstream = Upstream::v3().await;
    let state = upstream.server.state();
    upstream.create("g", &["a", "b", "c"]).await;
    assert_eq!(reason(&upstream, "a", "no", 2).await, 5);
    assert_eq!(reason(&upstream, "stranger", "g", 2).await, 3);
    assert_eq!(reason(&upstream, "a", "g", 2).await, 1);
    state.deny(GROUP, "g", "b");
    assert_eq!(reason(&upstream, "b", "g", 2).await, 4);
    state.allow("g", "a");
    assert_eq!(reason(&upstream, "a", "g", 2).await, 1);
    assert_eq!(reason(&upstream, "c", "g", 2).await, 13);
    assert_eq!(
        reason(&upstream, "____system", "g", 2).await,
        1,
        "the system may"
    );
    state.ban_group("g", true);
    assert_eq!(reason(&upstream, "a", "g", 2).await, 19);
    state.ban_group("g", false);
    state.disband("g");
    assert_eq!(reason(&upstream, "a", "g", 2).await, 24);
    assert_eq!(reason(&upstream, "____system", "g", 2).await, 24);
    state.deny(PERSON, "b", "a");
    assert_eq!(reason(&upstream, "a", "b", 1).await, 4);
    assert_eq!(reason(&upstream, "b", "a", 1).await, 1);
}

#[tokio::test]
async fn the_system_device_skips_the_checks() {
    let upstream = Upstream::v3().await;
    upstream.create("g", &["a"]).await;
    let mut body = message("stranger", "g", 2, "x");
    body["device_id"] = json!("____device");
    assert_eq!(upstream.post("/message/send", body).await.ok()["reason"], 1);
}

#[tokio::test]
async fn a_repeated_send_is_the_same_message_and_another_payload_a_conflict() {
    let upstream = Upstream::v3().await;
    let send = |text: &str, from: &str| {
        let mut body = message(from, "b", 1, text);
        body["client_msg_no"] = json!("n");
        upstream.post("/message/send", body)
    };
    let first = send("x", "a").await.ok();
    assert_eq!(send("x", "a").await.ok(), first);
    let conflict = send("y", "a").await;
    assert_eq!(conflict.status, 500);
    assert!(
        conflict.json()["error"]
            .as_str()
            .is_some_and(|e| e.ends_with("log conflict"))
    );
    assert_eq!(upstream.texts("a", "b", 1).await, ["x"]);
    let id = first["message_id"].as_i64().expect("id");
    assert!((id >> 22) + EPOCH_MS > 1_700_000_000_000);
}

#[tokio::test]
async fn a_send_with_a_lost_answer_can_be_retried() {
    let upstream = Upstream::v3().await;
    upstream
        .server
        .faults()
        .always("/message/send", Fault::ResetAfter);
    let mut body = message("a", "b", 1, "x");
    body["client_msg_no"] = json!("n");
    upstream
        .try_post("/message/send", &body)
        .await
        .expect_err("lost");
    upstream.server.faults().clear();
    assert_eq!(
        upstream.post("/message/send", body).await.ok()["message_seq"],
        1
    );
}

#[tokio::test]
async fn members_see_nothing_older_than_their_joining() {
    let upstream = Upstream::v3().await;
    upstream.create("g", &["a"]).await;
    upstream.send("a", "g", 2, "before").await.ok();
    let change = |uid: &str| json!({ "channel_id": "g", "channel_type": 2, "subscribers": [uid] });
    upstream
        .post("/channel/subscriber_add", change("b"))
        .await
        .ok();
    upstream.send("a", "g", 2, "after").await.ok();
    upstream
        .post("/channel/subscriber_add", change("a"))
        .await
        .ok();
    assert_eq!(upstream.texts("a", "g", 2).await, ["before", "after"]);
    assert_eq!(upstream.texts("b", "g", 2).await, ["after"]);
    upstream
        .post("/channel/subscriber_remove", change("a"))
        .await
        .ok();
    let refusal = upstream.sync("a", "g", 2).await.refusal();
    assert_eq!(
        refusal,
        "internal/message: valid channel membership required"
    );
    upstream
        .post("/channel/subscriber_add", change("a"))
        .await
        .ok();
    assert!(upstream.texts("a", "g", 2).await.is_empty(), "joined anew");
}

#[tokio::test]
async fn an_empty_group_is_not_found_and_a_silent_pair_has_no_members() {
    let upstream = Upstream::v3().await;
    upstream.create("g", &["a"]).await;
    assert!(
        upstream
            .sync("a", "g", 2)
            .await
            .refusal()
            .contains("channel not found")
    );
    let refusal = upstream.sync("a", "b", 1).await.refusal();
    assert!(refusal.ends_with("membership required"), "{refusal}");
}

#[tokio::test]
async fn a_pair_may_read_only_some_time_after_its_first_message() {
    let upstream = Upstream::start(Options {
        membership_after: Duration::from_hours(1),
        ..Options::new(Dialect::V3)
    })
    .await;
    upstream.send("a", "b", 1, "x").await.ok();
    for (login, peer) in [("a", "b"), ("b", "a")] {
        let refusal = upstream.sync(login, peer, 1).await.refusal();
        assert!(refusal.ends_with("membership required"), "{refusal}");
    }
}

#[tokio::test]
async fn a_deleted_group_stays_deleted() {
    let upstream = Upstream::v3().await;
    let key = json!({ "channel_id": "g", "channel_type": 2 });
    for path in ["/channel/delete", "/channel/subscriber_remove_all"] {
        assert_eq!(
            upstream.post(path, key.clone()).await.refusal(),
            "db: not found"
        );
    }
    upstream.create("g", &["a"]).await;
    upstream.send("a", "g", 2, "x").await.ok();
    upstream.post("/channel/delete", key).await.ok();
    upstream.create("g", &["a"]).await;
    assert_eq!(
        upstream.sync("a", "g", 2).await.refusal(),
        "internal/message: channel disbanded"
    );
    assert_eq!(reason(&upstream, "a", "g", 2).await, 24);
}

struct Manager<'a> {
    upstream: &'a Upstream,
    url: String,
    authorization: String,
}

impl Manager<'_> {
    async fn call(&self, method: &str, path: &str, body: Option<Value>) -> Answer {
        let url = format!("{}{path}", self.url);
        let headers = [("authorization", self.authorization.as_str())];
        let body = body.map(|body| body.to_string());
        let answer = self.upstream.call(method, &url, &headers, body).await;
        answer.expect("an answer")
    }
}

#[tokio::test]
async fn the_manager_port_logs_in_looks_up_pages_and_counts() {
    let upstream = Upstream::start(Options {
        manager: Some(("admin".to_owned(), "secret".to_owned())),
        ..Options::new(Dialect::V3)
    })
    .await;
    let url = upstream.server.manager_url().expect("a manager port");
    let mut manager = Manager {
        upstream: &upstream,
        url,
        authorization: String::new(),
    };
    let login = |word: &str| Some(json!({ "username": "admin", "password": word }));
    let refused = manager.call("POST", "/manager/login", login("wrong")).await;
    assert_eq!(
        (refused.status, refused.json()["error"].clone()),
        (401, json!("invalid_credentials"))
    );
    let path = "/manager/channels/2/g";
    assert_eq!(manager.call("GET", path, None).await.status, 401);
    let token = manager
        .call("POST", "/manager/login", login("secret"))
        .await
        .ok();
    manager.authorization = format!("Bearer {}", token["access_token"].as_str().expect("token"));

    assert_eq!(manager.call("GET", path, None).await.status, 404);
    upstream.create("g", &["c", "a"]).await;
    let detail = manager.call("GET", path, None).await.ok();
    assert_eq!(
        (&detail["disband"], &detail["has_subscribers"]),
        (&json!(false), &json!(true))
    );
    let uids = |uids: &[&str]| Some(json!({ "uids": uids }));
    let add = format!("{path}/subscribers/add");
    let added = manager
        .call("POST", &add, uids(&["a", "b", "b"]))
        .await
        .ok();
    assert_eq!(
        (&added["requested_count"], &added["changed_count"]),
        (&json!(2), &json!(1))
    );
    let one = manager
        .call("GET", &format!("{path}/subscribers?uid=b"), None)
        .await
        .ok();
    assert_eq!(one, json!({ "items": [{ "uid": "b" }], "has_more": false }));
    let none = manager
        .call("GET", &format!("{path}/subscribers?uid=z"), None)
        .await
        .ok();
    assert_eq!(none["items"], json!([]));
    let first = manager
        .call("GET", &format!("{path}/subscribers?limit=2"), None)
        .await
        .ok();
    assert_eq!(first["items"], json!([{ "uid": "a" }, { "uid": "b" }]));
    assert_eq!(first["has_more"], true);
    let cursor = first["next_cursor"].as_str().expect("cursor");
    let rest = format!("{path}/subscribers?limit=2&cursor={cursor}");
    let rest = manager.call("GET", &rest, None).await.ok();
    assert_eq!(
        rest,
        json!({ "items": [{ "uid": "c" }], "has_more": false })
    );
    let remove = format!("{path}/subscribers/remove");
    let removed = manager.call("POST", &remove, uids(&["b", "z"])).await.ok();
    assert_eq!(
        (&removed["requested_count"], &removed["changed_count"]),
        (&json!(2), &json!(1))
    );
    for id in ["a%2Fb", "a%25b"] {
        let path = format!("/manager/channels/2/{id}");
        assert_eq!(manager.call("GET", &path, None).await.status, 404, "{id}");
    }
    assert!(upstream.server.calls().iter().any(|call| call.manager_port));
}
