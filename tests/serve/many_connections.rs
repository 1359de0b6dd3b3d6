//! Ten thousand concurrent connections, and the warning about an unconfigured proxy.

use std::time::Instant;

use dev_upstream::{DevUpstream, Dialect, Options};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::process::{Gateway, TIMEOUT_BOUND, answer, say, token};

const CONNECTIONS: usize = 10_000;
/// The gateway's memory at most.
const MAX_BYTES: u64 = 150_000_000;

/// Raises this process's limit of open files, which the gateway inherits; `false` where the system does not let it.
fn files_allowed(needed: u64) -> bool {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= needed) {
        return true;
    }
    let most = limit.maximum.map_or(needed, |most| most.min(needed));
    let wanted = Rlimit {
        current: Some(most),
        maximum: limit.maximum,
    };
    most >= needed && setrlimit(Resource::Nofile, wanted).is_ok()
}

async fn health_on(stream: &mut TcpStream) -> String {
    let request = b"GET /api/v1/im/health HTTP/1.1\r\nhost: h\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut text = Vec::new();
    while !text.ends_with(b"}}") && stream.read_buf(&mut text).await.unwrap() > 0 {}
    String::from_utf8(text).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_connections_are_held_and_served_and_the_next_ones_refused() {
    if !files_allowed(CONNECTIONS as u64 + 4096) {
        say(
            "\n!!! SKIPPED: 10,000 CONNECTIONS NOT TRIED: the system allows too few open files (ulimit -Hn) !!!",
        );
        return;
    }
    let upstream = DevUpstream::start(Options::new(Dialect::V2)).await.unwrap();
    let most = CONNECTIONS.to_string();
    let more = [
        ("GATEWAY__SERVER__MAX_CONNECTIONS", &*most),
        ("GATEWAY__SERVER__MAX_CONNECTIONS_PER_ADDRESS", "0"),
        // Longer than the test runs.
        ("GATEWAY__SERVER__HEADER_TIMEOUT", "1h"),
        ("GATEWAY__SERVER__IDLE_TIMEOUT", "1h"),
    ];
    let gateway = Gateway::before(&upstream, &more);
    let address = gateway.api.strip_prefix("http://").unwrap();
    let before = gateway.resident_bytes();
    let started = Instant::now();
    let mut streams = Vec::with_capacity(CONNECTIONS);
    for index in 0..CONNECTIONS {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // Half of them have asked something, the others never say a byte.
        if index % 2 == 0 {
            let text = health_on(&mut stream).await;
            assert!(text.starts_with("HTTP/1.1 200"), "{index}: {text}");
        }
        streams.push(stream);
        assert!(started.elapsed() < TIMEOUT_BOUND * 3, "{index} connections");
    }
    let all = gateway.resident_bytes();
    let grown = all.saturating_sub(before);
    let [in_all, more] = [all, grown].map(|bytes| bytes / 1_000_000);
    say(&format!(
        "{CONNECTIONS} connections: {in_all} MB, {more} of them theirs"
    ));
    // The promise is about the binary that people run. A debug build is larger from the start, and by what, nobody promises.
    let counted = if cfg!(debug_assertions) { grown } else { all };
    assert!(counted < MAX_BYTES, "{all} bytes, {grown} more than before");
    let mut text = String::new();
    let mut one_more = TcpStream::connect(address).await.unwrap();
    one_more.read_to_string(&mut text).await.unwrap();
    assert!(
        text.starts_with("HTTP/1.1 503") && text.contains("\"overloaded\""),
        "{text}"
    );
    for index in [0, 1, CONNECTIONS / 2, CONNECTIONS - 1] {
        let text = health_on(&mut streams[index]).await;
        assert!(text.starts_with("HTTP/1.1 200"), "{index}: {text}");
    }
    drop(streams);
    // And when they are gone, others come.
    let (status, sent) = loop {
        let request = gateway.send(&token("alice"), "hi");
        if let Ok(response) = request.try_clone().unwrap().send().await
            && response.status() != 503
        {
            break answer(request).await;
        }
        assert!(started.elapsed() < TIMEOUT_BOUND * 4, "never taken again");
    };
    assert_eq!(status, 200, "{sent}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unconfigured_proxy_is_logged_once() {
    let upstream = DevUpstream::start(Options::new(Dialect::V2)).await.unwrap();
    let told = |gateway: &Gateway| {
        let log = gateway.stderr();
        log.matches("server.trusted_proxies is empty").count()
    };
    for (trusted, expected) in [("[]", 1), ("127.0.0.0/8", 0)] {
        let more = [("GATEWAY__SERVER__TRUSTED_PROXIES", trusted)];
        let mut gateway = Gateway::before(&upstream, &more);
        let plain = answer(gateway.get("/health")).await;
        assert_eq!((plain.0, told(&gateway)), (200, 0));
        for _ in 0..3 {
            let request = gateway.get("/health");
            answer(request.header("x-forwarded-for", "203.0.113.7")).await;
        }
        gateway.signal("TERM");
        gateway.wait();
        assert_eq!(told(&gateway), expected, "{}", gateway.stderr());
    }
}
