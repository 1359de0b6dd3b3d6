//! Heads: too large, of old versions, pipelined, with expectations.

use super::socket::{Socket, alice, good_requests_are_served};
use crate::support::prelude::*;
use crate::support::{TestApp, V2};

const HEALTH: &str = "GET /api/v1/im/health HTTP/1.1\r\nhost: h\r\n\r\n";

#[tokio::test]
async fn headers_that_are_too_large_are_431() {
    let app = TestApp::start(V2).await;
    let with = |header: &str, bytes: usize| {
        format!(
            "GET /api/v1/im/health HTTP/1.1\r\nhost: h\r\n{header}: {}\r\n\r\n",
            "x".repeat(bytes)
        )
    };
    let mut socket = Socket::sending(&app, with("x-large", 30_000)).await;
    socket.answers(200).await;
    // The connection is as good as before.
    socket.send(with("x-large", 33_000)).await;
    socket.answers(431).await.fails(431, "headers_too_large");
    socket.send(HEALTH).await;
    socket.answers(200).await;
    // Beyond what hyper reads there is no request to answer; the status arrives all the same.
    let mut socket = Socket::to(&app).await;
    socket.try_send(with("x-huge", 300_000)).await;
    socket.answers(431).await;
    socket.ends().await;
    let many = "x: 1\r\n".repeat(200);
    let head = format!("GET /api/v1/im/health HTTP/1.1\r\nhost: h\r\n{many}\r\n");
    let mut socket = Socket::sending(&app, head).await;
    socket.answers(431).await;
    socket.ends().await;
    let long = format!("GET /{} HTTP/1.1\r\nhost: h\r\n\r\n", "x".repeat(100_000));
    let mut socket = Socket::to(&app).await;
    socket.try_send(long).await;
    let status = socket.answer().await.unwrap().status;
    assert!(matches!(status, 414 | 431), "{status}");
    good_requests_are_served(&app).await;
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_their_order() {
    let app = TestApp::start(V2).await;
    let ids = ["one", "two", "three", "four"];
    let request = |id: &&str| {
        format!("GET /api/v1/im/config HTTP/1.1\r\nhost: h\r\nx-request-id: {id}\r\n\r\n")
    };
    let requests: Vec<_> = ids.iter().map(request).collect();
    let requests = requests.concat();
    let mut socket = Socket::sending(&app, requests).await;
    for id in ids {
        let answer = socket.answers(401).await;
        assert_eq!(answer.body["requestId"], id);
    }
    // Also behind a body, and one that nobody read.
    for auth in [alice(), String::new()] {
        let body = r#"{"channelId":"bob","channelType":1}"#;
        let request = format!(
            "POST /api/v1/im/message/send HTTP/1.1\r\nhost: h\r\ncontent-type: application/json\r\ncontent-length: {}\r\n{auth}\r\n{body}{HEALTH}",
            body.len()
        );
        let mut socket = Socket::sending(&app, request).await;
        let refused = socket.answer().await.unwrap();
        assert!(matches!(refused.status, 400 | 401), "{refused:#?}");
        // Served, or left to be sent again: never taken for anything else.
        if let Some(answer) = socket.answer().await {
            assert_eq!(
                (answer.status, &answer.body["success"]),
                (200, &true.into())
            );
        }
    }
}

#[tokio::test]
async fn http_1_0_is_spoken() {
    let app = TestApp::start(V2).await;
    let mut socket = Socket::sending(&app, "GET /api/v1/im/health HTTP/1.0\r\n\r\n").await;
    let answer = socket.answers(200).await;
    assert!(answer.head.starts_with("http/1.0 200"), "{answer:#?}");
    socket.ends().await;
    let keeping = "GET /api/v1/im/health HTTP/1.0\r\nconnection: keep-alive\r\n\r\n";
    let mut socket = Socket::sending(&app, keeping).await;
    for _ in 0..2 {
        let answer = socket.answers(200).await;
        shows(&answer.head, "connection: keep-alive");
        socket.send(keeping).await;
    }
}

#[tokio::test]
async fn expect_100_is_answered_only_if_the_body_is_read() {
    let app = TestApp::start(V2).await;
    let body = r#"{"channelId":"bob","channelType":1,"payload":"aGk="}"#;
    let head = |auth: &str| {
        format!(
            "POST /api/v1/im/message/send HTTP/1.1\r\nhost: h\r\ncontent-type: application/json\r\nexpect: 100-continue\r\ncontent-length: {}\r\n{auth}\r\n",
            body.len()
        )
    };
    let mut socket = Socket::sending(&app, head(&alice())).await;
    socket.answers(100).await;
    socket.send(body).await;
    socket.answers(200).await;
    let mut socket = Socket::sending(&app, head("")).await;
    socket.answers(401).await;
    socket.ends().await;
}
