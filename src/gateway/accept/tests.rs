//! Connections and their timeouts, on in-memory streams with a paused clock.

use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::routing::{get, post};
use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::time::Instant;

use super::*;
use crate::context::ByteBudget;

const SECOND: Duration = Duration::from_secs(1);

const LARGE: usize = 300_000;

/// A connection to a gateway that knows `/quick`, `/slow` (a minute), `/large` and `/body`.
fn connect_to(memory: &Arc<ByteBudget>) -> DuplexStream {
    connect_by(false, memory)
}

fn connect_by(http2: bool, memory: &Arc<ByteBudget>) -> DuplexStream {
    let (client, server) = duplex(64 * 1024);
    let memory = memory.clone();
    let large = async move || {
        let share = memory.new_reservation();
        share.force_reserve(LARGE);
        let mut response = Response::new(Body::from(vec![b'x'; LARGE]));
        response.extensions_mut().insert(Arc::new(share));
        response
    };
    let router = Router::new()
        .route("/quick", get(async || "quick"))
        .route("/body", post(async |body: Bytes| body.len().to_string()))
        .route("/large", get(large))
        .route(
            "/slow",
            get(async || {
                tokio::time::sleep(Duration::from_mins(1)).await;
                "slow"
            }),
        );
    // Dropping it ends its connections.
    let all = Box::leak(Box::new(Server::new(router, DEFAULT_TIMEOUTS, http2)));
    let peer = IpAddr::from([127, 0, 0, 1]);
    all.serve(server, peer, ConnectionPermit::for_test());
    client
}

fn connect() -> DuplexStream {
    connect_to(&ByteBudget::unbounded())
}

/// Sends a request and reads the answer up to its body, which is `ending`.
async fn ask(client: &mut DuplexStream, path: &str, ending: &str) {
    let request = format!("GET {path} HTTP/1.1\r\nhost: h\r\n\r\n");
    client.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(ending.as_bytes()) {
        let read = client.read_buf(&mut answer).await.unwrap();
        assert!(read > 0, "{}", String::from_utf8_lossy(&answer));
    }
}

/// How long until the other end closes, while it says nothing.
async fn closed_after(client: &mut DuplexStream) -> Duration {
    let started = Instant::now();
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).await.unwrap();
    assert!(rest.is_empty(), "{}", String::from_utf8_lossy(&rest));
    started.elapsed()
}

#[track_caller]
fn about(time: Duration, expected: Duration) {
    let off = time.abs_diff(expected);
    assert!(
        off < Duration::from_millis(10),
        "{time:?}, not {expected:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_sends_nothing_is_closed() {
    about(closed_after(&mut connect()).await, DEFAULT_TIMEOUTS.head);
}

#[tokio::test(start_paused = true)]
async fn a_slow_head_times_out_despite_activity() {
    let mut client = connect();
    let started = Instant::now();
    for byte in b"GET /quick HTTP/1.1\r\nx: ".iter().cycle() {
        if client.write_all(&[*byte]).await.is_err() {
            break;
        }
        tokio::time::sleep(SECOND / 2).await;
    }
    // Noticed with the next byte.
    let noticed = DEFAULT_TIMEOUTS.head..=DEFAULT_TIMEOUTS.head + SECOND / 2;
    assert!(
        noticed.contains(&started.elapsed()),
        "{:?}",
        started.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_may_stay_longer_than_a_head_may_take() {
    let mut client = connect();
    for idle in [0, 9, 11, 74] {
        tokio::time::sleep(SECOND * idle.min(9)).await;
        ask(&mut client, "/quick", "quick").await;
        tokio::time::sleep(SECOND * idle).await;
    }
    ask(&mut client, "/quick", "quick").await;
    about(closed_after(&mut client).await, DEFAULT_TIMEOUTS.idle);
}

#[tokio::test(start_paused = true)]
async fn a_later_head_is_timed_from_its_own_first_byte() {
    let mut client = connect();
    ask(&mut client, "/quick", "quick").await;
    tokio::time::sleep(SECOND * 60).await;
    client.write_all(b"GET /qui").await.unwrap();
    tokio::time::sleep(SECOND * 9).await;
    client
        .write_all(b"ck HTTP/1.1\r\nhost: h\r\n\r\n")
        .await
        .unwrap();
    let mut answer = vec![0; 12];
    client.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, b"HTTP/1.1 200");
    while !answer.ends_with(b"quick") {
        client.read_buf(&mut answer).await.unwrap();
    }
    tokio::time::sleep(SECOND * 60).await;
    client.write_all(b"G").await.unwrap();
    about(closed_after(&mut client).await, DEFAULT_TIMEOUTS.head);
}

#[tokio::test(start_paused = true)]
async fn a_running_request_is_never_timed_out_by_the_connection() {
    let mut client = connect();
    ask(&mut client, "/slow", "slow").await;
    ask(&mut client, "/slow", "slow").await;
    about(closed_after(&mut client).await, DEFAULT_TIMEOUTS.idle);
}

#[tokio::test(start_paused = true)]
async fn a_body_has_the_time_of_its_request_and_not_of_a_head() {
    let mut client = connect();
    let head = b"POST /body HTTP/1.1\r\nhost: h\r\ncontent-length: 30\r\n\r\n";
    client.write_all(head).await.unwrap();
    for _ in 0..30 {
        tokio::time::sleep(SECOND).await;
        client.write_all(b"x").await.unwrap();
    }
    let mut answer = Vec::new();
    while !answer.ends_with(b"30") {
        assert!(client.read_buf(&mut answer).await.unwrap() > 0);
    }
}

#[tokio::test(start_paused = true)]
async fn an_unread_answer_times_out_and_frees_its_bytes() {
    let memory = ByteBudget::unbounded();
    let mut client = connect_to(&memory);
    // The second must not keep the first alive.
    let request = b"GET /large HTTP/1.1\r\nhost: h\r\n\r\n";
    client.write_all(&request.repeat(2)).await.unwrap();
    tokio::time::sleep(SECOND * 74).await;
    assert!(memory.held() >= LARGE, "{} held", memory.held());
    tokio::time::sleep(SECOND * 2).await;
    assert_eq!(memory.held(), 0);
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).await.unwrap();
    assert!(rest.len() < LARGE, "{} fetched", rest.len());
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_has_a_timeout_per_piece() {
    let memory = ByteBudget::unbounded();
    let mut client = connect_to(&memory);
    let request = b"GET /large HTTP/1.1\r\nhost: h\r\n\r\n";
    client.write_all(request).await.unwrap();
    let mut fetched = vec![0; 64 * 1024];
    for _ in 0..3 {
        tokio::time::sleep(SECOND * 70).await;
        client.read_exact(&mut fetched).await.unwrap();
    }
    // The one piece that is left went into the stream with the last read.
    tokio::time::sleep(SECOND * 74).await;
    assert!(memory.held() >= LARGE, "{} held", memory.held());
    tokio::time::sleep(SECOND * 2).await;
    assert_eq!(memory.held(), 0);
}

#[tokio::test(start_paused = true)]
async fn other_requests_do_not_keep_an_unread_http2_answer() {
    let memory = ByteBudget::unbounded();
    let client = connect_by(true, &memory);
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(1000);
    let (mut sender, connection) = builder.handshake::<_, Bytes>(client).await.unwrap();
    let mut driver = tokio::spawn(connection);
    let get = |path: &str| Request::get(format!("http://h{path}")).body(()).unwrap();
    sender = sender.ready().await.unwrap();
    let (large, _) = sender.send_request(get("/large"), true).unwrap();
    let _unfetched = large.await.unwrap();
    let started = Instant::now();
    let ended = loop {
        let Ok(ready) = sender.ready().await else {
            break started.elapsed();
        };
        sender = ready;
        let (quick, _) = sender.send_request(get("/quick"), true).unwrap();
        match quick.await {
            Ok(answer) => drop(answer),
            Err(_) => break started.elapsed(),
        }
        assert!(memory.held() >= LARGE, "{} held", memory.held());
        tokio::select! {
            _ = &mut driver => break started.elapsed(),
            () = tokio::time::sleep(SECOND * 15) => {}
        }
    };
    about(ended, DEFAULT_TIMEOUTS.idle);
    assert_eq!(memory.held(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_answers_bytes_are_freed_when_it_is_written() {
    let memory = ByteBudget::unbounded();
    let mut client = connect_to(&memory);
    ask(&mut client, "/large", &"x".repeat(LARGE)).await;
    tokio::time::sleep(SECOND).await;
    assert_eq!(memory.held(), 0);
    ask(&mut client, "/quick", "quick").await;
}

#[tokio::test(start_paused = true)]
async fn a_refused_body_is_read_on_for_a_while_so_that_the_answer_arrives() {
    let mut client = connect();
    let head = b"POST /quick HTTP/1.1\r\nhost: h\r\ncontent-length: 1000000\r\n\r\n";
    client.write_all(head).await.unwrap();
    // More than all buffers hold before it is read.
    client.write_all(&vec![b'x'; 200_000]).await.unwrap();
    let started = Instant::now();
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 405"), "{answer:?}");
    let done = AtomicBool::new(false);
    let drip = async {
        while client.write_all(b"x").await.is_ok() {
            tokio::time::sleep(SECOND / 10).await;
        }
        done.store(true, Ordering::Relaxed);
    };
    drip.await;
    assert!(done.load(Ordering::Relaxed) && started.elapsed() <= SECOND * 2);
}

#[tokio::test(start_paused = true)]
async fn an_unread_body_is_drained_briefly_and_then_the_answer_closes_the_connection() {
    let mut client = connect();
    let started = Instant::now();
    let head = b"POST /quick HTTP/1.1\r\nhost: h\r\ncontent-length: 10\r\n\r\n";
    client.write_all(head).await.unwrap();
    tokio::time::sleep(SECOND / 20).await;
    client.write_all(b"0123456789").await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        client.read_buf(&mut answer).await.unwrap();
    }
    let text = String::from_utf8_lossy(&answer).into_owned();
    assert!(text.starts_with("HTTP/1.1 405"), "{text}");
    assert!(!text.contains("connection: close"), "{text}");
    about(started.elapsed(), SECOND / 20);

    let started = Instant::now();
    client.write_all(head).await.unwrap();
    client.write_all(b"0").await.unwrap();
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).await.unwrap();
    let text = String::from_utf8_lossy(&answer).into_owned();
    assert!(text.starts_with("HTTP/1.1 405"), "{text}");
    assert!(text.contains("connection: close"), "{text}");
    about(started.elapsed(), SECOND / 10);
    // What is still on its way is read for a while, so that the answer is not lost to a reset.
    tokio::time::sleep(SECOND * 9 / 10).await;
    client.write_all(b"1").await.unwrap();
    tokio::time::sleep(SECOND / 5).await;
    assert!(client.write_all(b"2").await.is_err());
}
