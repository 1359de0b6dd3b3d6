//! Bodies that an answer leaves unread: the next request is answered, or the client is told that there is none.

use super::socket::{RawAnswer, Socket, alice, good_requests_are_served};
use crate::support::{TestApp, V2};

const HEALTH: &str = "GET /api/v1/im/health HTTP/1.1\r\nhost: h\r\n\r\n";

/// A head that announces so many bytes.
fn head(method: &str, path: &str, length: usize, more: &str) -> String {
    format!(
        "{method} /api/v1/im{path} HTTP/1.1\r\nhost: h\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n{more}\r\n"
    )
}

fn says_close(answer: &RawAnswer) -> bool {
    answer.head.contains("connection: close\r\n")
}

#[tokio::test]
async fn a_small_unread_body_is_drained_and_the_connection_is_kept() {
    let app = TestApp::start(V2).await;
    let alice = alice();
    for (method, path, auth, status) in [
        ("POST", "/message/send", "", 401),
        ("PUT", "/message/send", &*alice, 405),
        ("POST", "/nothing", &*alice, 404),
        ("GET", "/health", "", 200),
        ("GET", "/config", &*alice, 200),
    ] {
        let mut socket = Socket::to(&app).await;
        for length in [1, 300, 60_000] {
            let body = "x".repeat(length);
            socket
                .send(head(method, path, length, auth) + &body + HEALTH)
                .await;
            let answer = socket.answers(status).await;
            assert!(!says_close(&answer), "{answer:#?}");
            socket.answers(200).await;
        }
    }
    good_requests_are_served(&app).await;
}

#[tokio::test]
async fn a_slow_or_long_unread_body_closes_the_connection() {
    let app = TestApp::start(V2).await;
    for (length, sent) in [(300, 0), (300, 299), (70_000, 0), (70_000, 70_000)] {
        let request = head("POST", "/message/send", length, "") + &"x".repeat(sent);
        let mut socket = Socket::sending(&app, request).await;
        let answer = socket.answers(401).await;
        assert!(says_close(&answer), "{answer:#?}");
        socket.ends().await;
    }
    good_requests_are_served(&app).await;
}

#[tokio::test]
async fn a_too_large_body_is_not_drained() {
    let app = TestApp::with(V2, |settings| {
        settings.limits.requests_per_second = 1;
        settings.limits.burst = 1;
    })
    .await;
    app.user("alice").get("/config").await.ok();
    let request = head("POST", "/message/send", 3, &alice()) + "{ }";
    let mut socket = Socket::sending(&app, &request).await;
    let answer = socket.answers(429).await;
    assert!(says_close(&answer), "{answer:#?}");
    socket.ends().await;
    let share = app.app.byte_budget.new_reservation();
    share.force_reserve(app.settings.server.max_buffered);
    let mut socket = Socket::sending(&app, &request).await;
    let answer = socket.answers(503).await;
    assert!(says_close(&answer), "{answer:#?}");
    socket.ends().await;
    drop(share);
    // Without a body there is nothing to read.
    let token = alice();
    let request = format!("GET /api/v1/im/config HTTP/1.1\r\nhost: h\r\n{token}\r\n");
    let mut socket = Socket::sending(&app, request + HEALTH).await;
    let answer = socket.answers(429).await;
    assert!(!says_close(&answer), "{answer:#?}");
    socket.answers(200).await;
}

#[tokio::test]
async fn a_too_large_body_with_expect_is_refused_at_once() {
    let app = TestApp::start(V2).await;
    for expect in ["expect: 100-continue\r\n", ""] {
        let more = format!("{expect}{}", alice());
        let request = head("POST", "/message/send", 50_000_000, &more);
        let mut socket = Socket::sending(&app, request).await;
        let answer = socket.answers(413).await;
        answer.fails(413, "payload_too_large");
        assert!(says_close(&answer), "{answer:#?}");
        socket.ends().await;
    }
    for (auth, status) in [(String::new(), 401), ("authorization: x\r\n".into(), 401)] {
        let request = head(
            "POST",
            "/token",
            10,
            &format!("expect: 100-continue\r\n{auth}"),
        );
        let mut socket = Socket::sending(&app, request).await;
        let answer = socket.answers(status).await;
        assert!(says_close(&answer), "{answer:#?}");
        socket.ends().await;
    }
    good_requests_are_served(&app).await;
}
