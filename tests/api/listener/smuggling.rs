//! Request smuggling: none of the bytes of a request with an ambiguous end is taken for another request.

use super::socket::{Socket, alice, good_requests_are_served};
use crate::support::{TestApp, V2};

/// The smuggled request of an attacker.
fn smuggled() -> String {
    format!(
        "POST /api/v1/im/token HTTP/1.1\r\nhost: h\r\n{}\r\n",
        alice()
    )
}

fn send(framing: &str, body: &str) -> String {
    format!(
        "POST /api/v1/im/message/send HTTP/1.1\r\nhost: h\r\ncontent-type: application/json\r\n{framing}{}\r\n{body}",
        alice()
    )
}

#[tokio::test]
async fn a_length_beside_chunked_is_passed_over_and_nothing_behind_it_is_a_request() {
    let app = TestApp::start(V2).await;
    let json = r#"{"channelId":"bob","channelType":1,"payload":"aGk="}"#;
    let chunked = format!("{:x}\r\n{json}\r\n0\r\n\r\n", json.len());
    let behind = smuggled();
    let all = chunked.len() + behind.len();
    for (n, framing) in [
        // As long as everything: who goes by the length sees one request.
        format!("content-length: {all}\r\ntransfer-encoding: chunked\r\n"),
        format!("transfer-encoding: chunked\r\ncontent-length: {all}\r\n"),
        format!("Transfer-Encoding: Chunked\r\nContent-Length: {all}\r\n"),
        format!("content-length: {all}\r\ncontent-length: {all}\r\ntransfer-encoding: chunked\r\n"),
        // Shorter than the chunks: who goes by the length sees the rest as another.
        "content-length: 4\r\ntransfer-encoding: chunked\r\n".to_owned(),
        "content-length: 0\r\ntransfer-encoding: chunked\r\n".to_owned(),
        // And without any length.
        "transfer-encoding: chunked\r\n".to_owned(),
    ]
    .iter()
    .enumerate()
    {
        let text = format!("{}{behind}", send(framing, &chunked));
        let mut socket = Socket::sending(&app, text).await;
        let answer = socket.answers(200).await;
        assert_eq!(answer.body["data"]["messageSeq"], n as u64 + 1, "{framing}");
        assert!(answer.head.contains("connection: close"), "{answer:#?}");
        socket.ends().await;
    }
    assert_eq!(app.calls_to("/user/token").len(), 0);
    good_requests_are_served(&app).await;
}

#[tokio::test]
async fn a_body_whose_end_is_unclear_is_400_and_the_connections_end() {
    let app = TestApp::start(V2).await;
    let behind = smuggled();
    for framing in [
        "content-length: 4\r\ncontent-length: 5\r\n",
        "content-length: 4, 5\r\n",
        "content-length: 4, 4\r\n",
        "content-length: +4\r\n",
        "content-length: -4\r\n",
        "content-length: 0x4\r\n",
        "content-length: 4 4\r\n",
        "content-length: \r\n",
        "content-length: 99999999999999999999\r\n",
        "transfer-encoding: identity\r\n",
        "transfer-encoding: gzip\r\n",
        "transfer-encoding: chunked, identity\r\n",
        "transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n",
        "transfer-encoding: xchunked\r\n",
        "transfer-encoding: chunkedx\r\n",
        "transfer-encoding: \"chunked\"\r\n",
        "transfer-encoding: \r\n",
        "transfer-encoding : chunked\r\n",
        "content-length : 4\r\n",
        " transfer-encoding: chunked\r\n",
        "x: y\r\n transfer-encoding: chunked\r\n",
        "transfer-encoding:\x0bchunked\r\n",
        "transfer\0-encoding: chunked\r\n",
        "x: a\rtransfer-encoding: chunked\r\n",
    ] {
        let text = format!("{}{behind}", send(framing, "0\r\n\r\n"));
        let mut socket = Socket::sending(&app, text).await;
        let answer = socket.answer().await.expect("an answer");
        assert_eq!(answer.status, 400, "{framing:?} {answer:#?}");
        socket.ends().await;
    }
    let old = send("transfer-encoding: chunked\r\n", "0\r\n\r\n").replace("HTTP/1.1", "HTTP/1.0");
    let mut socket = Socket::sending(&app, format!("{old}{behind}")).await;
    socket.answers(400).await;
    socket.ends().await;
    assert_eq!(app.calls_to("/user/token").len(), 0);
    assert_eq!(app.sends().len(), 0);
    good_requests_are_served(&app).await;
}

#[tokio::test]
async fn broken_chunks_are_the_connections_end() {
    let app = TestApp::start(V2).await;
    let behind = smuggled();
    for chunks in [
        "zz\r\n",
        "-1\r\n",
        "0x2\r\n{}\r\n0\r\n\r\n",
        "fffffffffffffffff\r\n",
        "2\r\n{}X\r\n0\r\n\r\n",
        "2;\n\r\n{}\r\n0\r\n\r\n",
        "2\n{}\n0\n\n",
    ] {
        let text = format!("{}{behind}", send("transfer-encoding: chunked\r\n", chunks));
        let mut socket = Socket::sending(&app, text).await;
        if let Some(answer) = socket.answer().await {
            assert_eq!(answer.status, 400, "{chunks:?} {answer:#?}");
        }
        socket.ends().await;
    }
    assert_eq!(app.calls_to("/user/token").len(), 0);
    assert_eq!(app.sends().len(), 0);
    good_requests_are_served(&app).await;
}

#[tokio::test]
async fn what_is_no_http_at_all_is_the_connections_end() {
    let app = TestApp::start(V2).await;
    for text in [
        "\x16\x03\x01\x02\x00\x01\x00\x01\x7c\x03\x03",
        "SSH-2.0-OpenSSH_9.9\r\n",
        "GET\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
        "GET  / HTTP/1.1\r\n\r\n",
        "\0\0\0\0\r\n\r\n",
        "{\"channelId\":\"bob\"}\r\n\r\n",
    ] {
        let mut socket = Socket::sending(&app, text.as_bytes()).await;
        if let Some(answer) = socket.answer().await {
            assert_eq!(answer.status, 400, "{text:?} {answer:#?}");
            socket.ends().await;
        }
    }
    good_requests_are_served(&app).await;
}
