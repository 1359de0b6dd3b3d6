//! How a connected socket ends, and what its client is told.

use tokio_tungstenite::tungstenite::Message;

use crate::support::prelude::*;
use crate::support::socket::{Client, Hello, Next, token};

fn ends(app: &TestApp, cause: &str) -> Option<f64> {
    app.metric(&format!(r#"gateway_socket_ends_total{{cause="{cause}"}}"#))
}

/// Waits until a socket has ended for this cause.
async fn ended(app: &TestApp, cause: &str) {
    while ends(app, cause) == Some(0.0) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_revocation_ends_the_sockets_of_its_device_and_their_token() {
    for app in TestApp::both().await {
        let of_web = Hello::of(&app, "alice").await;
        let of_app = Hello {
            device_flag: 0,
            token: token(&app, "alice", 0).await,
            ..of_web.clone()
        };
        let [mut web, mut web_too, mut phone] = [
            Client::open(&app).await,
            Client::open(&app).await,
            Client::open(&app).await,
        ];
        web.connect(&of_web).await;
        web_too.connect(&of_web).await;
        phone.connect(&of_app).await;
        let mut bob = Client::connected(&app, "bob").await;
        let alice = app.user("alice");
        alice
            .post("/token/revoke", &json!({"deviceFlag": 1}))
            .await
            .ok();
        assert_eq!(web.disconnected().await, (12, Some(1008)));
        assert_eq!(web_too.disconnected().await, (12, Some(1008)));
        assert!(phone.is_alive().await);
        assert!(bob.is_alive().await);
        assert_eq!(
            Client::open(&app).await.refused(&of_web).await,
            (2, Some(1008))
        );
        Client::connected(&app, "alice").await;
        assert_eq!(ends(&app, "revoked"), Some(2.0));
    }
}

#[tokio::test]
async fn a_revocation_on_another_replica_ends_sockets_too() {
    for app in TestApp::both().await {
        let replica = app.beside(|_| ()).await;
        let mut alice = Client::connected(&app, "alice").await;
        replica
            .user("alice")
            .post_nothing("/token/revoke")
            .await
            .ok();
        assert_eq!(alice.disconnected().await, (12, Some(1008)));
    }
}

#[tokio::test]
async fn a_banned_user_is_told_at_the_next_send_or_ping() {
    let app = TestApp::with(V2, |settings| {
        settings.authorization.cache_ttl = Duration::ZERO;
    })
    .await;
    let mut alice = Client::connected(&app, "alice").await;
    let mut alice_too = Client::connected(&app, "alice").await;
    app.state().ban_user("alice", true);
    let frame = alice.send_frame((1, b"bob"), "hello", 0, |_| ());
    alice.write(&frame).await;
    assert_eq!(alice.ack().await.reason, 19);
    assert_eq!(alice.disconnected().await, (19, Some(1008)));
    alice_too.write(&wkproto::PING).await;
    assert_eq!(alice_too.disconnected().await, (19, Some(1008)));
    assert_eq!(app.state().messages_between("alice", "bob").len(), 0);
}

#[tokio::test]
async fn one_socket_more_than_a_user_may_have_ends_the_oldest_of_its_device() {
    let app = TestApp::with(V3, |settings| settings.socket.per_user = 3).await;
    let web = Hello::of(&app, "alice").await;
    let of_app = Hello {
        device_flag: 0,
        token: token(&app, "alice", 0).await,
        ..web.clone()
    };
    let of_pc = Hello {
        device_flag: 2,
        token: token(&app, "alice", 2).await,
        ..web.clone()
    };
    let mut sockets = Vec::new();
    for hello in [&of_app, &web, &web, &web, &of_pc] {
        let mut client = Client::open(&app).await;
        client.connect(hello).await;
        sockets.push(client);
    }
    // The second web socket pushed out the first, and the one of the PC the oldest of all.
    assert_eq!(sockets[1].disconnected().await, (12, Some(1008)));
    assert_eq!(sockets[0].disconnected().await, (12, Some(1008)));
    for alive in [2, 3, 4] {
        assert!(sockets[alive].is_alive().await, "{alive}");
    }
    assert_eq!(ends(&app, "replaced"), Some(2.0));
}

#[tokio::test]
async fn a_socket_without_frames_ends_whatever_else_its_client_says() {
    let app = TestApp::with(V2, |settings| {
        settings.socket.idle_timeout = Duration::from_millis(600);
        settings.socket.ping_interval = Duration::from_millis(50);
    })
    .await;
    let mut idle = Client::connected(&app, "alice").await;
    // Answers the gateway's pings while it waits, which count for nothing.
    assert_eq!(idle.closed().await, Some(1008));
    assert_eq!(ends(&app, "idle"), Some(1.0));
    let mut busy = Client::connected(&app, "alice").await;
    for _ in 0..8 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(busy.is_alive().await);
    }
}

#[tokio::test]
async fn the_gateway_pings_so_that_proxies_keep_the_connection() {
    let app = TestApp::with(V2, |settings| {
        settings.socket.ping_interval = Duration::from_millis(50);
    })
    .await;
    let mut alice = Client::connected(&app, "alice").await;
    assert!(alice.pinged().await);
}

#[tokio::test]
async fn a_client_that_does_not_read_ends_and_what_waited_for_it_is_released() {
    let app = TestApp::with(V3, |settings| {
        settings.socket.write_timeout = Duration::from_millis(500);
    })
    .await;
    let slow = Client::connected(&app, "bob").await;
    let text = "x".repeat(20_000);
    let alice = app.user("alice");
    while ends(&app, "slow") == Some(0.0) {
        alice.send_to_person("bob", &text).await.ok();
    }
    drop(slow);
    while app.app.byte_budget.held() > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_socket_ends_bare_where_no_more_bytes_may_wait() {
    let app = TestApp::with(V3, |settings| settings.server.max_buffered = 10_000).await;
    let mut bob = Client::connected(&app, "bob").await;
    app.upstream.write_to(
        "bob",
        &[&[0x50, 0x80, 0xFD, 0x00][..], &[0; 16_000]].concat(),
    );
    assert_eq!(bob.closed().await, Some(1013));
}

#[tokio::test]
async fn wukongims_end_is_a_bare_closing_and_its_disconnect_is_passed_on() {
    for app in TestApp::both().await {
        let mut alice = Client::connected(&app, "alice").await;
        app.upstream.cut("alice");
        assert_eq!(alice.closed().await, Some(1013));
        let mut bob = Client::connected(&app, "bob").await;
        app.upstream.write_to("bob", &[0x90, 3, 12, 0, 0]);
        assert_eq!(bob.disconnected().await, (12, Some(1008)));
        let mut carol = Client::connected(&app, "carol").await;
        app.upstream.write_to("carol", &[0xF0, 0]);
        assert_eq!(carol.closed().await, Some(1013), "no frame");
    }
}

#[tokio::test]
async fn a_socket_whose_sends_get_no_answer_is_closed_bare_and_works_when_it_is_back() {
    for dialect in [V2, V3] {
        let app = TestApp::with(dialect, |settings| {
            settings.wukongim.timeout = Duration::from_secs(1);
        })
        .await;
        let mut alice = Client::connected(&app, "alice").await;
        assert_eq!(alice.send(1, "bob", "answered").await.reason, 1);
        app.upstream.sockets().set_reading(false);
        // One may have been read already.
        let code = loop {
            let frame = alice.send_frame((1, b"bob"), "never answered", 0, |_| ());
            alice.write(&frame).await;
            match alice.next().await {
                Next::Closed(code) => break code,
                Next::Frame(frame) => assert_eq!(frame.kind, wkproto::FrameKind::Sendack),
                other @ Next::Text(_) => panic!("{other:?}"),
            }
        };
        assert_eq!(code, Some(1013));
        app.upstream.sockets().set_reading(true);
        let mut alice = Client::connected(&app, "alice").await;
        let frame = alice.send_frame((1, b"bob"), "again", 0, |send| send.client_msg_no = "again");
        alice.write(&frame).await;
        assert_eq!(alice.ack().await.reason, 1);
    }
}

#[tokio::test]
async fn events_go_to_clients_that_know_them_alone() {
    let app = TestApp::start(V3).await;
    for (version, gets_it) in [(4, false), (5, true)] {
        let mut alice = Client::open(&app).await;
        let hello = Hello {
            version,
            ..Hello::of(&app, "alice").await
        };
        alice.connect(&hello).await;
        app.upstream.write_to("alice", &[0xC0, 1, 0]);
        app.upstream.write_to("alice", &[0x80]);
        let got = match alice.next().await {
            Next::Frame(frame) => frame.kind == wkproto::FrameKind::Event,
            other => panic!("{other:?}"),
        };
        assert_eq!(got, gets_it, "{version}");
    }
}

#[tokio::test]
async fn a_client_that_leaves_is_forgotten() {
    let app = TestApp::start(V2).await;
    let mut closing = Client::connected(&app, "alice").await;
    closing.message(Message::Close(None)).await;
    ended(&app, "client").await;
    drop(Client::connected(&app, "bob").await);
    let mut saying_so = Client::connected(&app, "carol").await;
    saying_so.write(&[0x90, 3, 0, 0, 0]).await;
    while ends(&app, "client") < Some(3.0) || app.state().connections() > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(
        app.metric(r#"gateway_sockets{protocol="wkproto_ws"}"#),
        Some(0.0)
    );
}

#[tokio::test]
async fn a_gateway_that_stops_takes_no_more_sockets_and_ends_all_bare() {
    let app = TestApp::start(V2).await;
    let mut alice = Client::connected(&app, "alice").await;
    let mut unconnected = Client::open(&app).await;
    app.app.sockets.refuse_new();
    assert_eq!(unconnected.closed().await, Some(1012));
    let refused = Client::upgrade(&app, &[]).await.map(drop).unwrap_err();
    assert_eq!(refused.status(), 503);
    assert!(alice.is_alive().await, "shutdown_delay");
    let ((), code) = tokio::join!(
        app.app.sockets.close_all(Duration::from_secs(5)),
        alice.closed()
    );
    assert_eq!(code, Some(1012));
    assert_eq!(ends(&app, "drain"), Some(1.0));
}
