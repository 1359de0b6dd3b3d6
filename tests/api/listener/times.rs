//! Time bounds and the number of connections. What is exact about times is tested on a clock that stands, beside the code.

use std::time::Instant;

use super::socket::{BOUND, Socket, alice, good_requests_are_served};
use crate::support::prelude::*;

const SHORT: Duration = Duration::from_millis(200);
const LONG: Duration = Duration::from_hours(1);
const HEALTH: &str = "GET /api/v1/im/health HTTP/1.1\r\nhost: h\r\n\r\n";

async fn timed(head: Duration, idle: Duration, request: Duration) -> TestApp {
    TestApp::with(V2, move |settings| {
        settings.server.header_timeout = head;
        settings.server.idle_timeout = idle;
        settings.server.request_timeout = request;
    })
    .await
}

#[tokio::test]
async fn silent_and_dripping_connections_are_closed() {
    let app = timed(SHORT, LONG, LONG).await;
    Socket::to(&app).await.ends().await;
    Socket::sending(&app, "GET /api/v1/im/health HTTP/1.1\r\n")
        .await
        .ends()
        .await;
    let mut dripping = Socket::to(&app).await;
    let started = Instant::now();
    while dripping.try_send("x").await {
        tokio::time::sleep(SHORT / 10).await;
        assert!(started.elapsed() < BOUND, "drips on");
    }
    good_requests_are_served(&app).await;
}

#[tokio::test]
async fn an_idle_connection_outlives_the_time_of_a_head() {
    let app = timed(SHORT, LONG, LONG).await;
    let mut socket = Socket::sending(&app, HEALTH).await;
    socket.answers(200).await;
    tokio::time::sleep(SHORT * 3).await;
    socket.send(HEALTH).await;
    socket.answers(200).await;
    // But a head that begins is timed again.
    socket.send("GET /api").await;
    socket.ends().await;
}

#[tokio::test]
async fn an_idle_connection_is_closed_when_its_time_is_over() {
    let app = timed(LONG, SHORT, LONG).await;
    let mut socket = Socket::sending(&app, HEALTH).await;
    socket.answers(200).await;
    socket.ends().await;
    good_requests_are_served(&app).await;
}

#[tokio::test]
async fn a_body_that_drips_is_408_when_the_requests_time_is_over() {
    let app = timed(LONG, LONG, SHORT).await;
    for framing in ["content-length: 1000", "transfer-encoding: chunked"] {
        let head = format!(
            "POST /api/v1/im/message/send HTTP/1.1\r\nhost: h\r\ncontent-type: application/json\r\n{framing}\r\n{}\r\n",
            alice()
        );
        let mut socket = Socket::sending(&app, head).await;
        if framing.starts_with("transfer") {
            socket.send("100\r\n").await;
        }
        let (mut sent, started) = (0, Instant::now());
        // Still dripping when the answer comes: it must not be lost.
        while started.elapsed() < SHORT * 2 && socket.try_send(" ").await {
            sent += 1;
            tokio::time::sleep(SHORT / 10).await;
        }
        assert!(sent > 2);
        let answer = socket.answers(408).await;
        answer.fails(408, "request_timeout");
        assert!(answer.head.contains("connection: close"), "{answer:#?}");
        socket.ends().await;
    }
    app.nothing_was_written();
    app.clear_calls();
}

#[tokio::test]
async fn connections_beyond_the_most_are_refused_and_taken_again_when_others_end() {
    let app = TestApp::with(V2, |settings| {
        settings.server.max_connections = 2;
        settings.server.max_connections_per_address = Some(0);
    })
    .await;
    let mut one = Socket::sending(&app, HEALTH).await;
    let mut two = Socket::sending(&app, HEALTH).await;
    one.answers(200).await;
    two.answers(200).await;
    for asks in [true, false] {
        let mut three = Socket::to(&app).await;
        if asks {
            three.send(HEALTH).await;
        }
        let answer = three.answers(503).await;
        answer.fails(503, "overloaded");
        assert!(answer.head.contains("retry-after: 1\r\n"), "{answer:#?}");
        assert!(answer.head.contains("connection: close\r\n"), "{answer:#?}");
        three.ends().await;
    }
    one.send(HEALTH).await;
    one.answers(200).await;
    let limited = app.metric(r#"gateway_limited_total{limit="connections"}"#);
    assert_eq!(limited, Some(2.0));
    drop(one);
    let started = Instant::now();
    loop {
        let mut again = Socket::sending(&app, HEALTH).await;
        if again
            .answer()
            .await
            .is_some_and(|answer| answer.status == 200)
        {
            break;
        }
        assert!(started.elapsed() < BOUND, "never taken again");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn an_address_has_a_quarter_of_the_connections_and_a_trusted_proxy_all_of_them() {
    for (proxies, most) in [(None, 2), (Some("127.0.0.1"), 8)] {
        let app = TestApp::with(V2, move |settings| {
            settings.server.max_connections = 8;
            let proxies = proxies.into_iter();
            settings.server.trusted_proxies = proxies.map(|it| it.parse().unwrap()).collect();
        })
        .await;
        let mut sockets = Vec::new();
        for _ in 0..most {
            let mut socket = Socket::sending(&app, HEALTH).await;
            socket.answers(200).await;
            sockets.push(socket);
        }
        let mut refused = Socket::to(&app).await;
        let answer = refused.answers(503).await;
        answer.fails(503, "overloaded");
        assert!(answer.head.contains("connection: close\r\n"), "{answer:#?}");
        refused.ends().await;
        let limit = if most == 2 {
            "address_connections"
        } else {
            "connections"
        };
        let counted = format!("gateway_limited_total{{limit=\"{limit}\"}} 1\n");
        let metrics = app.app.metrics.render();
        assert!(metrics.contains(&counted), "{metrics}");
        sockets.pop();
        let metric = "gateway_connections";
        until(|| app.metric(metric) == Some(f64::from(most - 1))).await;
        Socket::sending(&app, HEALTH).await.answers(200).await;
    }
}

#[tokio::test]
async fn the_bytes_of_a_disconnected_client_are_freed() {
    let app = TestApp::start(V2).await;
    let head = format!(
        "POST /api/v1/im/message/send HTTP/1.1\r\nhost: h\r\ncontent-type: application/json\r\ncontent-length: 100000\r\n{}\r\n",
        alice()
    );
    let mut socket = Socket::sending(&app, head).await;
    socket.send(" ".repeat(50_000)).await;
    until(|| app.app.byte_budget.held() == 50_000).await;
    drop(socket);
    until(|| app.app.byte_budget.held() == 0).await;
}
