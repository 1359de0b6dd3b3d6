//! Each user has a bucket, and a call takes what it makes WuKongIM do.

use crate::listener::socket::{Socket, alice};
use crate::support::prelude::*;

/// A gateway with these limits for users.
async fn limited(per_second: u32, burst: u32) -> TestApp {
    TestApp::with(V2, move |settings| {
        settings.limits.requests_per_second = per_second;
        settings.limits.burst = burst;
        settings.public.ws_url = Some("ws://im".into());
        settings.public.tcp_addr = Some("im:5100".into());
    })
    .await
}

/// `RateLimit-Limit`, `-Remaining`, `-Reset`.
#[track_caller]
fn told(answer: &Answer) -> [u32; 3] {
    ["limit", "remaining", "reset"].map(|name| {
        let value = answer.header(&format!("ratelimit-{name}"));
        value
            .parse()
            .unwrap_or_else(|_| panic!("ratelimit-{name} is {value:?}: {answer:#?}"))
    })
}

#[tokio::test]
async fn a_call_costs_what_it_makes_wukongim_do() {
    let app = limited(50, 10_000).await;
    app.group("g", "alice", &["bob"]).await;
    let alice = app.user("alice");
    let uids: Vec<_> = (0..25).map(|n| format!("u{n}")).collect();
    let uids: Vec<_> = uids.iter().map(String::as_str).collect();
    let batch: Vec<_> = (0..7).map(|_| message(2, "g", "x")).collect();
    let mut left = told(&alice.get("/config").await)[1];
    let mut costs = |name: &str, cost: u32, answer: &Answer| {
        let now = told(answer)[1];
        assert_eq!(left - now, cost, "{name}: {answer:#?}");
        left = now;
    };
    costs("config", 1, &alice.get("/config").await);
    costs("system", 1, &alice.get("/system/info").await);
    costs("token", 5, &alice.post_nothing("/token").await);
    costs("send", 1, &alice.send_to_group("g", "x").await);
    costs("batch", 7, &alice.send_batch(&batch).await);
    costs("add", 3, &alice.add("g", &uids).await);
    costs("remove", 2, &alice.remove("g", &uids[..10]).await);
    costs("remove", 1, &alice.remove("g", &uids[..9]).await);
    costs("sync of 50", 2, &alice.sync(2, "g", "").await);
    costs("sync", 1, &alice.sync(2, "g", "&limit=49").await);
    costs("sync", 5, &alice.sync(2, "g", "&limit=999").await);
    costs("create", 5, &alice.create_group("h").await);
    let managers = |uids: &[&str]| json!({"channelId": "g", "channelType": 2, "uids": uids});
    for (verb, count, cost) in [("add", 9, 1), ("add", 25, 3), ("remove", 10, 2)] {
        let path = format!("/channel/manager/{verb}");
        let answer = alice.post(&path, &managers(&uids[..count])).await;
        costs(&path, cost, &answer);
    }
    let info = "/channel/info?channelId=g&channelType=2";
    costs("info", 1, &alice.get(info).await);
    let successor = json!({"channelId": "g", "channelType": 2, "uid": "bob"});
    costs("owner", 1, &alice.post("/channel/owner", &successor).await);
    costs("revoke", 5, &alice.post_nothing("/token/revoke").await);
    costs("delete", 1, &alice.delete_group("h").await);
}

#[tokio::test]
async fn every_answer_to_a_user_tells_what_is_left_and_no_other_does() {
    for dialect in [V2, V3] {
        let app = TestApp::with(dialect, |settings| {
            settings.limits.requests_per_second = 50;
            settings.limits.burst = 1000;
            settings.server.request_timeout = Duration::from_millis(300);
        })
        .await;
        seeds::group(&app, "g", &["alice"]);
        let alice = app.user("alice");
        for (status, answer) in [
            (200, alice.sync(2, "g", "").await),
            (400, alice.get("/message/sync").await),
            (400, alice.post("/message/send", &json!({})).await),
            (400, alice.post_text("/message/sendbatch", "[").await),
            (403, app.user("mallory").send_to_group("g", "x").await),
            (404, alice.send_to_group("none", "x").await),
            (404, alice.get("/nothing").await),
            (415, {
                let request = alice.request("POST", "/message/sendbatch").body("[]");
                Answer::to(request).await
            }),
        ] {
            assert_eq!(answer.status, status, "{answer:#?}");
            let [limit, remaining, reset] = told(&answer);
            assert!(limit == 1000 && remaining < 1000 && reset >= 1);
        }
        app.faults().always("/", Fault::Hang);
        let answer = alice.post_nothing("/token").await;
        told(&answer.fails(504, "upstream_timeout"));
        for answer in [
            app.anon().get("/config").await,
            app.anon().get("/nothing").await,
            app.anon().get("/health").await,
            app.anon().post_nothing("/health").await,
        ] {
            assert_eq!(answer.header("ratelimit-limit"), "", "{answer:#?}");
        }
    }
}

#[tokio::test]
async fn a_user_with_nothing_left_gets_429_and_others_do_not() {
    let app = limited(50, 100).await;
    let alice = app.user("alice");
    for left in (0..100).rev() {
        let answer = alice.get("/config").await;
        assert_eq!(told(&answer)[..2], [100, left]);
        answer.ok();
    }
    app.clear_calls();
    let refused = alice.get("/config").await.fails(429, "rate_limited");
    assert_eq!(refused.header("retry-after"), "1");
    assert_eq!(told(&refused), [100, 0, 2]);
    assert_eq!(refused.body["message"], "请求过于频繁");
    for refused in [
        alice.send_to_person("bob", "hi").await,
        alice.post_nothing("/token").await,
        alice.sync(1, "bob", "").await,
        alice.post_text("/message/sendbatch", "not json").await,
        alice.get("/nothing").await,
    ] {
        refused.fails(429, "rate_limited");
    }
    assert_eq!(app.upstream.calls().len(), 0, "nothing reached WuKongIM");
    app.user("bob").get("/config").await.ok();
    alice.get("/health").await.ok();

    // One token is new after 20 ms.
    app.time.pass(Duration::from_millis(19));
    alice.get("/config").await.fails(429, "rate_limited");
    app.time.pass(Duration::from_millis(1));
    alice.get("/config").await.ok();
    alice.get("/config").await.fails(429, "rate_limited");
}

#[tokio::test]
async fn one_call_may_put_a_user_into_debt() {
    let app = limited(10, 100).await;
    let alice = app.user("alice");
    let batch: Vec<Value> = (0..80).map(|_| message(1, "bob", "x")).collect();
    assert_eq!(told(&alice.send_batch(&batch).await), [100, 20, 8]);
    // 60 of these are owed.
    let answer = alice.send_batch(&batch).await;
    assert_eq!(told(&answer), [100, 0, 16]);
    answer.ok();
    for _ in 0..3 {
        let refused = alice.send_batch(&batch).await.fails(429, "rate_limited");
        assert_eq!(refused.header("retry-after"), "7");
        assert_eq!(told(&refused), [100, 0, 16]);
    }
    alice.get("/config").await.fails(429, "rate_limited");
    assert_eq!(app.sends().len(), 160, "the refused ones sent nothing");
    app.time.pass(Duration::from_millis(6_099));
    alice.get("/config").await.fails(429, "rate_limited");
    app.time.pass(Duration::from_millis(1));
    alice.get("/config").await.ok();
}

#[tokio::test]
async fn a_batch_larger_than_the_burst_is_sent_and_paid_in_full() {
    let app = limited(10, 3).await;
    let alice = app.user("alice");
    let batch: Vec<Value> = (0..10).map(|_| message(1, "bob", "x")).collect();
    let answer = alice.send_batch(&batch).await;
    assert_eq!(told(&answer), [3, 0, 1]);
    answer.ok();
    app.time.pass(Duration::from_millis(799));
    let refused = alice.post_nothing("/token").await;
    assert_eq!(told(&refused), [3, 0, 1]);
    refused.fails(429, "rate_limited");
    app.time.pass(Duration::from_millis(1));
    alice.post_nothing("/token").await.ok();
}

#[tokio::test]
async fn an_invalid_request_costs_one_token() {
    let app = limited(50, 100).await;
    let alice = app.user("alice");
    for (status, answer) in [
        (400, alice.post_text("/message/sendbatch", "[").await),
        (400, alice.post("/token", &json!({"deviceFlag": 9})).await),
        (400, alice.post("/channel/create", &json!({})).await),
        (400, alice.get("/message/sync?limit=x").await),
        (413, {
            let large = " ".repeat(1024 * 1024 + 1);
            alice.post_text("/message/sendbatch", large).await
        }),
    ] {
        assert_eq!(answer.status, status, "{answer:#?}");
    }
    assert_eq!(told(&alice.get("/config").await), [100, 94, 1]);
}

#[tokio::test]
async fn of_calls_at_once_that_cost_more_than_is_left_one_is_owed_and_the_others_are_refused() {
    let app = limited(10, 4).await;
    let batch: Vec<Value> = (0..10).map(|_| message(1, "bob", "x")).collect();
    let batch = Value::from(batch).to_string();
    let head = format!(
        "POST /api/v1/im/message/sendbatch HTTP/1.1\r\nhost: h\r\ncontent-type: application/json\r\ncontent-length: {}\r\n{}\r\n",
        batch.len(),
        alice()
    );
    // Each has paid the one that it begins with before any has sent its body.
    let mut sockets = Vec::new();
    for others in 1..=4 {
        sockets.push(Socket::sending(&app, &head).await);
        until(|| app.app.requests_in_flight() == others).await;
    }
    let mut statuses = Vec::new();
    for socket in &mut sockets {
        socket.send(&batch).await;
        statuses.push(socket.answer().await.unwrap().status);
    }
    assert_eq!(statuses, [200, 429, 429, 429]);
    assert_eq!(app.sends().len(), 10);
}

#[tokio::test]
async fn bodies_that_never_end_are_paid_for_before_they_are_read() {
    let app = limited(10, 3).await;
    let head = format!(
        "POST /api/v1/im/message/sendbatch HTTP/1.1\r\nhost: h\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n{}\r\n[",
        alice()
    );
    let mut unfinished = Vec::new();
    for others in 1..=3 {
        unfinished.push(Socket::sending(&app, &head).await);
        until(|| app.app.requests_in_flight() == others).await;
    }
    let mut refused = Socket::sending(&app, &head).await;
    refused.answers(429).await.fails(429, "rate_limited");
    app.user("bob").get("/config").await.ok();
}

#[tokio::test]
async fn an_admin_is_charged_for_sends_as_other_users() {
    let app = limited(10, 2).await;
    let mut body = message(1, "carol", "x");
    body["fromUid"] = json!("bob");
    app.admin().send(&body).await.ok();
    app.admin().send(&body).await.ok();
    app.admin().send(&body).await.fails(429, "rate_limited");
    app.user("bob").send_to_person("carol", "x").await.ok();
}

#[tokio::test]
async fn the_metrics_say_which_limit_refused() {
    let app = limited(10, 1).await;
    app.user("alice").get("/config").await.ok();
    app.user("alice").get("/config").await;
    let limited = app.metric(r#"gateway_limited_total{limit="user"}"#);
    assert_eq!(limited, Some(1.0));
}
