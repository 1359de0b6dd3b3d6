//! Too much at once: 503 `overloaded` without delay, and `/health` still answers.

use std::time::Instant;

use crate::listener::socket::{Socket, alice};
use crate::support::prelude::*;

const KIB: usize = 1024;

#[tokio::test]
async fn requests_beyond_max_in_flight_are_refused_at_once() {
    for dialect in [V2, V3] {
        let app = TestApp::with(dialect, |settings| settings.server.max_in_flight = 2).await;
        app.anon().get("/health").await.ok();
        app.always("/message/send", Fault::Hold("held".into()));
        let running = async {
            let (alice, bob) = (app.user("alice"), app.user("bob"));
            tokio::join!(
                alice.send_to_person("carol", "hi"),
                bob.send_to_person("carol", "hi")
            )
        };
        let others = async {
            app.faults().wait_held("held", 2).await;
            let started = Instant::now();
            let calls = app.upstream.calls().len();
            for refused in [
                app.user("alice").get("/config").await,
                app.user("dave").send_to_person("carol", "hi").await,
                app.anon().get("/nothing").await,
            ] {
                refused.fails(503, "overloaded").has("retry-after", "1");
            }
            assert_eq!(app.upstream.calls().len(), calls, "nothing was asked");
            assert!(started.elapsed() < Duration::from_secs(5));
            app.anon().get("/health").await.ok();
            let metrics = app.app.metrics.render();
            assert!(metrics.contains("gateway_limited_total{limit=\"in_flight\"} 3\n"));
            app.faults().release("held");
        };
        let ((one, other), ()) = tokio::join!(running, others);
        one.ok();
        other.ok();
        app.user("alice").get("/system/info").await.ok();
    }
}

/// A message of so many KiB, and a third more on its way.
fn large(kib: usize) -> Value {
    json!({"channelId": "carol", "channelType": 1, "payload": payload(&"x".repeat(kib * KIB))})
}

/// A gateway that holds 400 KiB, 100 of each user, and whose sends hang.
async fn narrow() -> TestApp {
    let app = TestApp::with(V2, |settings| {
        settings.server.max_buffered = 400 * KIB;
        settings.limits.payload = 512 * KIB;
    })
    .await;
    app.always("/message/send", Fault::Hold("held".into()));
    app
}

#[tokio::test]
async fn bodies_beyond_max_buffered_are_refused_until_the_others_are_done() {
    let app = narrow().await;
    let send = |uid: &'static str, kib: usize| {
        let app = &app;
        async move { app.user(uid).post("/message/send", &large(kib)).await }
    };
    // Base64 makes 88 KiB of each.
    let running = futures_util::future::join_all(["u1", "u2", "u3", "u4"].map(|uid| send(uid, 66)));
    let others = async {
        app.faults().wait_held("held", 4).await;
        for _ in 0..3 {
            let refused = send("bob", 40).await.fails(503, "overloaded");
            refused.has("retry-after", "1");
            refused.says("发送消息失败");
        }
        app.user("bob").post_nothing("/token").await.ok();
        app.faults().release("held");
    };
    let (sent, ()) = tokio::join!(running, others);
    for sent in sent {
        sent.ok();
    }
    until(|| app.app.byte_budget.held() == 0).await;
    send("bob", 60).await.ok();
    assert_eq!(app.sends().len(), 5);
    let limited = app.metric(r#"gateway_limited_total{limit="buffered"}"#);
    assert_eq!(limited, Some(3.0));
}

#[tokio::test]
async fn one_users_bodies_are_bounded_to_a_quarter() {
    let app = narrow().await;
    let (alice, bob) = (app.user("alice"), app.user("bob"));
    let running = async {
        let (first, last) = (large(66), large(60));
        tokio::join!(
            alice.post("/message/send", &first),
            bob.post("/message/send", &last)
        )
    };
    let others = async {
        app.faults().wait_held("held", 2).await;
        for _ in 0..2 {
            let refused = alice.post("/message/send", &large(12)).await;
            refused.fails(429, "rate_limited").has("retry-after", "1");
        }
        alice.post_nothing("/token").await.ok();
        app.faults().release("held");
    };
    let ((one, other), ()) = tokio::join!(running, others);
    one.ok();
    other.ok();
    until(|| app.app.byte_budget.held() == 0).await;
    alice.post("/message/send", &large(12)).await.ok();
    // One that alone is too much never gets anywhere, and leaves nothing behind.
    failure(429, "rate_limited").is(alice.post("/message/send", &large(90)).await);
    until(|| app.app.byte_budget.held() == 0).await;
    let limited = app.metric(r#"gateway_limited_total{limit="user_buffered"}"#);
    assert_eq!(limited, Some(3.0));
}

#[tokio::test]
async fn one_users_requests_are_bounded_to_a_quarter() {
    for dialect in [V2, V3] {
        let app = TestApp::with(dialect, |settings| settings.server.max_in_flight = 8).await;
        let head = format!(
            "POST /api/v1/im/message/sendbatch HTTP/1.1\r\nhost: h\r\ncontent-type: application/json\r\ncontent-length: 100000\r\n{}\r\n[",
            alice()
        );
        let mut unfinished = Vec::new();
        for count in 1..=2 {
            unfinished.push(Socket::sending(&app, &head).await);
            until(|| app.app.requests_in_flight() == count).await;
        }
        let mut third = Socket::sending(&app, &head).await;
        let refused = third.answers(429).await;
        refused.fails(429, "rate_limited");
        assert!(refused.head.contains("retry-after: 1\r\n"), "{refused:#?}");
        third.ends().await;
        failure(429, "rate_limited").is(app.user("alice").get("/config").await);
        for _ in 0..10 {
            app.user("bob").send_to_person("carol", "hi").await.ok();
        }
        drop(unfinished);
        until(|| app.app.requests_in_flight() == 0).await;
        app.user("alice").get("/system/info").await.ok();
        let metrics = app.app.metrics.render();
        assert!(metrics.contains("gateway_limited_total{limit=\"user_in_flight\"} 2\n"));
    }
}

#[tokio::test]
async fn with_the_memory_full_nothing_but_health_is_answered() {
    let app = TestApp::with(V2, |settings| settings.server.max_buffered = 10).await;
    let alice = app.user("alice");
    let share = app.app.byte_budget.new_reservation();
    share.try_reserve(10).unwrap();
    alice.get("/system/info").await.fails(503, "overloaded");
    app.anon().get("/health").await.ok();
    drop(share);
    alice.get("/system/info").await.ok();
}

#[tokio::test]
async fn unread_answers_of_one_user_are_bounded() {
    for dialect in [V2, V3] {
        let app = TestApp::with(dialect, |settings| {
            // 10 MB of each user; a page below takes half of that, and no socket holds it.
            settings.server.max_buffered = 40 * KIB * KIB;
            settings.limits.sync_bytes = 16 * KIB * KIB;
        })
        .await;
        seeds::group(&app, "g", &["alice", "bob"]);
        for _ in 0..70 {
            seeds::message(&app, GROUP, "g", "alice", &vec![b'x'; 50 * KIB]);
        }
        let head = format!(
            "GET /api/v1/im/message/sync?channelId=g&channelType=2&limit=100 HTTP/1.1\r\nhost: h\r\n{}\r\n",
            alice()
        );
        let mut unfetched = Vec::new();
        loop {
            let mut socket = Socket::sending(&app, &head).await;
            if socket.status().await == 429 {
                break;
            }
            unfetched.push(socket);
            assert!(unfetched.len() < 10, "never refused");
        }
        assert!(!unfetched.is_empty());
        app.user("bob").sync(2, "g", "&limit=100").await.ok();
        drop(unfetched);
        until(|| app.app.byte_budget.held() == 0).await;
        app.user("alice").sync(2, "g", "&limit=100").await.ok();
    }
}

#[tokio::test]
async fn a_page_for_which_there_is_no_room_is_refused_and_given_when_there_is() {
    for dialect in [V2, V3] {
        let app = TestApp::with(dialect, |settings| {
            settings.server.max_buffered = 1200 * KIB;
        })
        .await;
        seeds::group(&app, "g", &["alice"]);
        for _ in 0..4 {
            seeds::message(&app, GROUP, "g", "alice", &vec![b'x'; 40 * KIB]);
        }
        let alice = app.user("alice");
        alice.sync(2, "g", "").await.ok();
        until(|| app.app.byte_budget.held() == 0).await;
        let elsewhere = app.app.byte_budget.new_reservation();
        elsewhere.try_reserve(1050 * KIB).unwrap();
        let refused = alice.sync(2, "g", "").await.fails(503, "overloaded");
        refused.says("同步消息失败");
        drop(elsewhere);
        alice.sync(2, "g", "").await.ok();
        until(|| app.app.byte_budget.held() == 0).await;
    }
}

#[tokio::test]
async fn a_send_that_goes_on_without_its_client_is_counted_until_it_ends() {
    for app in TestApp::both().await {
        app.always("/message/send", Fault::Hold("held".into()));
        let body = json!({
            "channelId": "bob", "channelType": 1, "payload": payload(&"x".repeat(4 * KIB)), "clientMsgNo": "n-00000001"
        });
        let held = app.faults().wait_held("held", 1);
        app.user("alice").send_and_hang_up(&body, held).await;
        // The request itself has ended when the gauge says so.
        until(|| app.app.requests_in_flight() == 0).await;
        assert!(app.app.byte_budget.held() > 4 * KIB);
        app.faults().release("held");
        until(|| app.app.byte_budget.held() == 0).await;
    }
}
