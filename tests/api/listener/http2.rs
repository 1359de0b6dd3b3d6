//! HTTP/2 without TLS, by prior knowledge: off unless configured, and bounded against resets.

use std::time::Instant;

use bytes::Bytes;
use h2::client::SendRequest;
use http::Request;
use tokio::net::TcpStream;

use super::socket::{BOUND, Socket, alice, good_requests_are_served};
use crate::support::prelude::*;

async fn speaking_http2() -> TestApp {
    TestApp::with(V2, |settings| settings.server.http2 = true).await
}

/// A connection of HTTP/2 and the task that drives it, which ends with the connection.
async fn connect(
    app: &TestApp,
) -> (
    SendRequest<Bytes>,
    tokio::task::JoinHandle<Result<(), h2::Error>>,
) {
    let address = app.base.strip_prefix("http://").unwrap();
    let stream = TcpStream::connect(address).await.unwrap();
    let (sender, connection) = h2::client::handshake(stream).await.unwrap();
    (sender, tokio::spawn(connection))
}

fn request(app: &TestApp, path: &str) -> Request<()> {
    let token = alice();
    let token = token.trim().strip_prefix("authorization: ").unwrap();
    Request::get(format!("{}/api/v1/im{path}", app.base))
        .header("authorization", token)
        .body(())
        .unwrap()
}

async fn get(app: &TestApp, sender: &mut SendRequest<Bytes>, path: &str) -> (u16, Value) {
    let mut ready = sender.clone().ready().await.unwrap();
    let (answer, _) = ready.send_request(request(app, path), true).unwrap();
    let answer = answer.await.unwrap();
    let status = answer.status().as_u16();
    let mut body = answer.into_body();
    let mut text = Vec::new();
    while let Some(data) = body.data().await {
        let data = data.unwrap();
        body.flow_control().release_capacity(data.len()).unwrap();
        text.extend_from_slice(&data);
    }
    (status, serde_json::from_slice(&text).unwrap())
}

#[tokio::test]
async fn it_is_not_spoken_unless_configured() {
    let app = TestApp::start(V2).await;
    let mut socket = Socket::sending(&app, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    if let Some(answer) = socket.answer().await {
        assert_eq!(answer.status, 400, "{answer:#?}");
    }
    socket.ends().await;
    good_requests_are_served(&app).await;
}

#[tokio::test]
async fn where_configured_both_are_spoken_on_one_port() {
    let app = speaking_http2().await;
    let (mut sender, _driver) = connect(&app).await;
    let (status, body) = get(&app, &mut sender, "/system/info").await;
    assert_eq!((status, &body["success"]), (200, &true.into()));
    let (status, body) = get(&app, &mut sender, "/nothing").await;
    assert_eq!((status, &body["code"]), (404, &"not_found".into()));
    let (_, told) = get(&app, &mut sender, "/config").await;
    let own = app.base.replace("http://", "ws://");
    assert_eq!(told["data"]["wsUrl"], format!("{own}/api/v1/im/ws"));
    good_requests_are_served(&app).await;
    // Streams side by side.
    let mut many = Vec::new();
    for _ in 0..50 {
        let (app, mut sender) = (&app, sender.clone());
        many.push(async move { get(app, &mut sender, "/health").await.0 });
    }
    let all = futures_util::future::join_all(many).await;
    assert!(all.iter().all(|status| *status == 200), "{all:?}");
}

#[tokio::test]
async fn streams_opened_and_reset_at_once_end_only_their_connection() {
    let app = speaking_http2().await;
    app.faults().always("/varz", Fault::Hang);
    let (sender, driver) = connect(&app).await;
    let (mut resets, started) = (0, Instant::now());
    while let Ok(mut ready) = sender.clone().ready().await {
        let Ok((_, mut stream)) = ready.send_request(request(&app, "/system/info"), true) else {
            break;
        };
        stream.send_reset(h2::Reason::CANCEL);
        resets += 1;
        assert!(
            resets < 100_000 && started.elapsed() < BOUND,
            "{resets} resets borne"
        );
        if resets % 50 == 0 {
            tokio::task::yield_now().await;
        }
    }
    let ended = tokio::time::timeout(BOUND, driver)
        .await
        .expect("an end in time");
    let error = ended.unwrap().expect_err("closed for it");
    assert_eq!(
        error.reason(),
        Some(h2::Reason::ENHANCE_YOUR_CALM),
        "{error}"
    );
    app.faults().clear();
    good_requests_are_served(&app).await;
}

#[tokio::test]
async fn an_idle_connection_of_http_2_is_closed_whatever_it_pings() {
    let app = TestApp::with(V2, |settings| {
        settings.server.http2 = true;
        settings.server.idle_timeout = Duration::from_millis(300);
    })
    .await;
    let address = app.base.strip_prefix("http://").unwrap();
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, mut connection) = h2::client::handshake(stream).await.unwrap();
    let mut pings = connection.ping_pong().unwrap();
    let driver = tokio::spawn(connection);
    assert_eq!(get(&app, &mut sender, "/health").await.0, 200);
    let started = Instant::now();
    while pings.ping(h2::Ping::opaque()).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(started.elapsed() < BOUND, "pinged on");
    }
    drop(sender);
    let _ = tokio::time::timeout(BOUND, driver)
        .await
        .expect("an end in time");
}

#[tokio::test]
async fn unread_answers_of_one_connection_are_bounded() {
    for (proxies, status) in [(None, 429), (Some("127.0.0.1"), 200)] {
        let app = TestApp::with(V2, move |settings| {
            settings.server.http2 = true;
            settings.server.max_buffered = 3200 * 1024;
            let proxies = proxies.into_iter();
            settings.server.trusted_proxies = proxies.map(|it| it.parse().unwrap()).collect();
        })
        .await;
        seeds::group(&app, "g", &["alice"]);
        for _ in 0..4 {
            seeds::message(&app, GROUP, "g", "alice", &vec![b'x'; 40 * 1024]);
        }
        let address = app.base.strip_prefix("http://").unwrap();
        let stream = TcpStream::connect(address).await.unwrap();
        // No more than this of an answer, until it is taken.
        let mut client = h2::client::Builder::new();
        client.initial_window_size(4000);
        let (sender, connection) = client.handshake::<_, Bytes>(stream).await.unwrap();
        tokio::spawn(connection);
        let sync = "/message/sync?channelId=g&channelType=2";
        let begin = async || {
            let mut ready = sender.clone().ready().await.unwrap();
            let (answer, _) = ready.send_request(request(&app, sync), true).unwrap();
            answer.await.unwrap()
        };
        let unfetched = begin().await;
        assert_eq!(unfetched.status(), 200);
        assert_eq!(begin().await.status(), status);
        assert_eq!(get(&app, &mut sender.clone(), "/health").await.0, 200);
        let counted = app.metric("gateway_limited_total{limit=\"unwritten\"}");
        assert_eq!(counted, Some(if status == 429 { 1.0 } else { 0.0 }));
        // It is fetched after all.
        let mut body = unfetched.into_body();
        let mut length = 0;
        while let Some(data) = body.data().await {
            let data = data.unwrap();
            length += data.len();
            body.flow_control().release_capacity(data.len()).unwrap();
        }
        assert!(length > 4 * 40 * 1024, "{length}");
        if status == 429 {
            assert_eq!(begin().await.status(), 200);
        }
    }
}
