//! Kept connections die without a word, most often all of them: what changes nothing is asked once more on a new one.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::support::prelude::*;

/// A way to `upstream` on which every connection bears one call, and breaks when it is used for another.
async fn brittle(upstream: SocketAddr) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(carry_one(client, upstream));
        }
    });
    format!("http://{address}")
}

/// Passes on whatever comes, until the client speaks again after it was answered.
async fn carry_one(mut client: TcpStream, upstream: SocketAddr) -> std::io::Result<()> {
    let mut server = TcpStream::connect(upstream).await?;
    let (mut from_client, mut from_server) = ([0; 16 * 1024], [0; 16 * 1024]);
    let mut answered = false;
    loop {
        tokio::select! {
            read = client.read(&mut from_client) => match read? {
                0 => return Ok(()),
                _ if answered => return Ok(()),
                read => server.write_all(&from_client[..read]).await?,
            },
            read = server.read(&mut from_server) => match read? {
                0 => return Ok(()),
                read => {
                    answered = true;
                    client.write_all(&from_server[..read]).await?;
                }
            },
        }
    }
}

#[tokio::test]
async fn reads_and_tokens_succeed_if_all_pooled_connections_are_dead() {
    for dialect in [V2, V3] {
        let upstream = DevUpstream::start(Options::new(dialect)).await.unwrap();
        let address = upstream
            .url()
            .trim_start_matches("http://")
            .parse()
            .unwrap();
        let url = brittle(address).await;
        let app = TestApp::builder()
            .upstream(dialect)
            .config(move |settings| {
                settings.wukongim.api_urls = vec![url.parse().unwrap()];
                // Each is asked for anew.
                settings.authorization.cache_ttl = std::time::Duration::ZERO;
            })
            .start_on(upstream)
            .await;
        let alice = app.user("alice");
        // More often than repetitions are paid for.
        for n in 0..20 {
            let read = alice.sync(1, "bob", "").await.ok();
            assert_eq!(read, Value::Array(vec![]), "{dialect:?} {n}");
            alice.post_nothing("/token").await.ok();
        }
        alice.get("/config").await.ok();
        alice.get("/system/info").await.ok();
        app.anon().get("/health").await.ok();
        let broken = app.metric(
            r#"gateway_upstream_requests_total{node="n1",call="user_token",outcome="lost"}"#,
        );
        assert!(broken >= Some(5.0), "{broken:?}");
    }
}

#[tokio::test]
async fn a_second_broken_connection_is_an_error_and_sends_are_not_repeated() {
    let app = TestApp::with(V2, |settings| {
        settings.wukongim.confirm_timeout = std::time::Duration::from_millis(200);
    })
    .await;
    let alice = app.user("alice");
    alice.send_to_person("bob", "hi").await.ok();
    app.clear_calls();
    app.faults().always("/channel/messagesync", Fault::Reset);
    failure(503, "upstream_unavailable").is(alice.sync(1, "bob", "").await);
    assert_eq!(app.calls_to("/channel/messagesync").len(), 2);
    app.faults().clear();
    app.faults().always("/message/send", Fault::Reset);
    failure(504, "message_unconfirmed").is(alice.send_to_person("bob", "lost").await);
    assert_eq!(app.calls_to("/message/send").len(), 1);
}
