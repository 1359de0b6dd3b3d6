//! Too much at once: 503 `overloaded` without delay, and `/health` still answers.

use std::time::{Duration, Instant};

use serde_json::json;
use wukongim_gateway::embedded::{Fault, GROUP};

use crate::support::actors::payload;
use crate::support::messages::until;
use crate::support::{TestApp, V2, V3, seeds};

const KIB: usize = 1024;

#[tokio::test]
async fn requests_beyond_max_in_flight_are_refused_at_once() {
    for dialect in [V2, V3] {
        let app = TestApp::builder()
            .upstream(dialect)
            .config(|settings| settings.server.max_in_flight = 2)
            .start()
            .await;
        app.anon().get("/health").await.ok();
        app.upstream
            .faults()
            .always("/message/send", Fault::Hold("held".into()));
        let running = async {
            let (alice, bob) = (app.user("alice"), app.user("bob"));
            tokio::join!(
                alice.send_to_person("carol", "hi"),
                bob.send_to_person("carol", "hi")
            )
        };
        let others = async {
            app.upstream.faults().wait_held("held", 2).await;
            let started = Instant::now();
            let calls = app.upstream.calls().len();
            for refused in [
                app.user("alice").get("/config").await,
                app.user("dave").send_to_person("carol", "hi").await,
                app.anon().get("/nothing").await,
            ] {
                let refused = refused.fails(503, "overloaded");
                assert_eq!(refused.header("retry-after"), "1");
            }
            assert_eq!(app.upstream.calls().len(), calls, "nothing was asked");
            assert!(started.elapsed() < Duration::from_secs(5));
            app.anon().get("/health").await.ok();
            let metrics = app.app.metrics().render();
            assert!(metrics.contains("gateway_limited_total{limit=\"in_flight\"} 3\n"));
            app.upstream.faults().release("held");
        };
        let ((one, other), ()) = tokio::join!(running, others);
        one.ok();
        other.ok();
        app.user("alice").get("/system/info").await.ok();
    }
}

#[tokio::test]
async fn bodies_beyond_max_buffered_are_refused_until_the_others_are_done() {
    let app = TestApp::builder()
        .config(|settings| {
            settings.server.max_buffered = 100 * KIB;
            settings.limits.payload = 512 * KIB;
        })
        .start()
        .await;
    app.upstream
        .faults()
        .always("/message/send", Fault::Hold("held".into()));
    let of = |kib: usize| payload(&"x".repeat(kib * KIB));
    let send = |uid: &'static str, kib: usize| {
        let body = json!({"channelId": "carol", "channelType": 1, "payload": of(kib)});
        let app = &app;
        async move { app.user(uid).post("/message/send", &body).await }
    };
    // Base64 makes 88 KiB of it.
    let running = send("alice", 66);
    let others = async {
        app.upstream.faults().wait_held("held", 1).await;
        for _ in 0..3 {
            let refused = send("bob", 12).await.fails(503, "overloaded");
            assert_eq!(refused.header("retry-after"), "1");
            assert_eq!(refused.body["message"], "发送消息失败");
        }
        app.user("bob").post_nothing("/token").await.ok();
        app.upstream.faults().release("held");
    };
    let (sent, ()) = tokio::join!(running, others);
    sent.ok();
    until(|| app.app.memory().held() == 0).await;
    send("bob", 60).await.ok();
    // One that alone is too much never gets anywhere, and leaves nothing behind.
    send("bob", 90).await.fails(503, "overloaded");
    until(|| app.app.memory().held() == 0).await;
    assert_eq!(app.sends().len(), 2);
    let metrics = app.app.metrics().render();
    assert!(
        metrics.contains("gateway_limited_total{limit=\"buffered\"} 4\n"),
        "{metrics}"
    );
}

#[tokio::test]
async fn with_the_memory_full_nothing_but_health_is_answered() {
    let app = TestApp::builder()
        .config(|settings| settings.server.max_buffered = 10)
        .start()
        .await;
    let share = app.app.memory().share();
    share.grow(10).unwrap();
    app.user("alice")
        .get("/system/info")
        .await
        .fails(503, "overloaded");
    app.anon().get("/health").await.ok();
    drop(share);
    app.user("alice").get("/system/info").await.ok();
}

#[tokio::test]
async fn a_page_for_which_there_is_no_room_is_refused_and_given_when_there_is() {
    for dialect in [V2, V3] {
        let app = TestApp::builder()
            .upstream(dialect)
            .config(|settings| settings.server.max_buffered = 300 * KIB)
            .start()
            .await;
        seeds::group(&app, "g", &["alice"]);
        for _ in 0..4 {
            seeds::message(&app, GROUP, "g", "alice", &vec![b'x'; 40 * KIB]);
        }
        let alice = app.user("alice");
        alice.sync(2, "g", "").await.ok();
        until(|| app.app.memory().held() == 0).await;
        let elsewhere = app.app.memory().share();
        elsewhere.grow(150 * KIB).unwrap();
        let refused = alice.sync(2, "g", "").await.fails(503, "overloaded");
        assert_eq!(refused.body["message"], "同步消息失败");
        drop(elsewhere);
        alice.sync(2, "g", "").await.ok();
        until(|| app.app.memory().held() == 0).await;
    }
}

#[tokio::test]
async fn a_send_that_goes_on_without_its_client_is_counted_until_it_ends() {
    for dialect in [V2, V3] {
        let app = TestApp::start(dialect).await;
        let sends = Fault::Hold("held".into());
        app.upstream.faults().always("/message/send", sends);
        let body = json!({
            "channelId": "bob", "channelType": 1, "payload": payload(&"x".repeat(4 * KIB)), "clientMsgNo": "n-00000001"
        });
        let held = app.upstream.faults().wait_held("held", 1);
        app.user("alice").send_and_hang_up(&body, held).await;
        // The request itself has ended when the gauge says so.
        until(|| app.app.metrics().in_flight.get() == 0).await;
        assert!(app.app.memory().held() > 4 * KIB);
        app.upstream.faults().release("held");
        until(|| app.app.memory().held() == 0).await;
    }
}
