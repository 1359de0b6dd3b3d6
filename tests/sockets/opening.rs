//! What happens before a socket is connected: the upgrade, CONNECT, and who gets in.

use dev_upstream::SocketFault;
use wkproto::{Connect, FrameKind};

use crate::support::prelude::*;
use crate::support::socket::{Client, Hello, Next, token};

#[tokio::test]
async fn a_request_without_an_upgrade_is_426_and_names_it() {
    let app = TestApp::start(V2).await;
    let answer = app.anon().request("GET", "/ws").send().await.unwrap();
    assert_eq!(answer.status(), 426);
    assert_eq!(answer.headers()["upgrade"], "websocket");
    let body: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
    assert_eq!(body["code"], "upgrade_required");
    for (name, value) in [
        ("upgrade", "h2c"),
        ("sec-websocket-version", "8"),
        ("sec-websocket-key", "short"),
    ] {
        let Err(answer) = Client::upgrade(&app, &[(name, value)]).await else {
            // A second value beside the right one.
            continue;
        };
        assert_eq!(answer.status(), 426, "{name}: {value}");
    }
}

#[tokio::test]
async fn a_foreign_origin_is_forbidden_where_origins_are_listed() {
    let app = TestApp::with(V2, |settings| {
        settings.cors.allowed_origins = vec!["https://app.example.com".parse().unwrap()];
    })
    .await;
    let own = app.base.clone();
    for (origin, status) in [
        ("https://app.example.com", 101),
        (own.as_str(), 101),
        ("https://evil.example.com", 403),
        ("null", 403),
    ] {
        let upgraded = Client::upgrade(&app, &[("origin", origin)]).await;
        let got = upgraded.map_or_else(|answer| answer.status().as_u16(), |_| 101);
        assert_eq!(got, status, "{origin}");
    }
    assert!(Client::upgrade(&app, &[]).await.is_ok(), "no origin");
}

#[tokio::test]
async fn the_last_place_is_taken_and_the_next_is_503_until_one_is_free() {
    let app = TestApp::with(V2, |settings| settings.socket.max_connections = 1).await;
    let mut first = Client::connected(&app, "alice").await;
    let refused = Client::upgrade(&app, &[]).await.map(drop).unwrap_err();
    assert_eq!(refused.status(), 503);
    assert_eq!(refused.headers()["retry-after"], "1");
    assert!(first.is_alive().await);
    drop(first);
    while Client::upgrade(&app, &[]).await.is_err() {}
    let full = app.metric(r#"gateway_socket_connects_total{outcome="full"}"#);
    assert!(full >= Some(1.0), "{full:?}");
}

#[tokio::test]
async fn sockets_that_are_off_are_an_unknown_path() {
    let app = TestApp::with(V2, |settings| settings.socket.enabled = false).await;
    let refused = Client::upgrade(&app, &[]).await.map(drop).unwrap_err();
    assert_eq!(refused.status(), 404);
}

#[tokio::test]
async fn a_message_goes_to_the_other_and_is_acknowledged_with_its_seq() {
    for app in TestApp::both().await {
        for version in 2..=6 {
            let mut alice = Client::open(&app).await;
            let hello = Hello {
                version,
                ..Hello::of(&app, "alice").await
            };
            alice.connect(&hello).await;
            let mut bob = Client::connected(&app, "bob").await;
            let number: &str = format!("of version {version}").leak();
            let frame = alice.send_frame((1, b"bob"), "hello", 0, |send| {
                send.client_msg_no = number;
            });
            alice.write(&frame).await;
            let ack = alice.ack().await;
            assert_eq!(
                (ack.reason, ack.seq),
                (1, u64::from(version - 1)),
                "{version}"
            );
            assert_eq!(bob.text_from("alice").await, "hello");
            assert!(alice.is_alive().await);
        }
    }
}

#[tokio::test]
async fn only_the_token_of_this_user_and_device_gets_in() {
    for app in TestApp::both().await {
        let good = Hello::of(&app, "alice").await;
        let of_bob = token(&app, "bob", 1).await;
        let of_app = token(&app, "alice", 0).await;
        let refused = [
            Hello {
                token: String::new(),
                ..good.clone()
            },
            Hello {
                token: of_bob,
                ..good.clone()
            },
            Hello {
                token: of_app,
                ..good.clone()
            },
            Hello {
                token: good.token[1..].to_owned(),
                ..good.clone()
            },
            Hello {
                device_flag: 7,
                ..good.clone()
            },
            Hello {
                device_flag: 99,
                ..good.clone()
            },
            Hello {
                uid: b"".to_vec(),
                ..good.clone()
            },
            Hello {
                uid: b"\xff".to_vec(),
                ..good.clone()
            },
            Hello {
                uid: b"alice\0".to_vec(),
                ..good.clone()
            },
            Hello {
                uid: b"alice@bob".to_vec(),
                ..good.clone()
            },
            Hello {
                uid: b"x___vstr".to_vec(),
                ..good.clone()
            },
            Hello {
                uid: b"____system".to_vec(),
                ..good.clone()
            },
            Hello {
                uid: b"____manager".to_vec(),
                ..good.clone()
            },
            Hello {
                key: Some(String::new()),
                ..good.clone()
            },
            Hello {
                key: Some("c2hvcnQ=".to_owned()),
                ..good.clone()
            },
        ];
        for hello in refused {
            for version in [2, 4, 6] {
                let hello = Hello {
                    version,
                    ..hello.clone()
                };
                let mut client = Client::open(&app).await;
                assert_eq!(client.refused(&hello).await, (2, Some(1008)), "{hello:?}");
            }
        }
        assert_eq!(app.upstream.sockets().frames(), [], "nothing reached it");
        let mut client = Client::open(&app).await;
        client.connect(&good).await;
    }
}

#[tokio::test]
async fn no_client_chooses_its_device_id() {
    let app = TestApp::start(V2).await;
    let hello = Hello {
        device_id: "____device".to_owned(),
        ..Hello::of(&app, "alice").await
    };
    Client::open(&app).await.connect(&hello).await;
    let frames = app.upstream.sockets().frames_of(FrameKind::Connect);
    let connect = Connect::parse(frames[0].frame()).unwrap();
    assert!(
        connect.device_id.starts_with("gw_"),
        "{}",
        connect.device_id
    );
    assert_eq!(connect.uid, b"alice");
}

#[tokio::test]
async fn what_is_no_connect_ends_the_connection() {
    let app = TestApp::start(V2).await;
    let hello = Hello::of(&app, "alice").await;
    let connect = Client::open(&app).await.connect_frame(&hello);
    let long_token = Hello {
        token: "t".repeat(1025),
        ..hello.clone()
    };
    let long_token = Client::open(&app).await.connect_frame(&long_token);
    let long_device = Hello {
        device_id: "d".repeat(256),
        ..hello.clone()
    };
    let long_device = Client::open(&app).await.connect_frame(&long_device);
    let too_large = Hello {
        token: "t".repeat(5000),
        ..hello.clone()
    };
    let too_large = Client::open(&app).await.connect_frame(&too_large);
    let old = Client::open(&app).await.connect_frame(&Hello {
        version: 1,
        ..hello
    });
    let twice = [connect.clone(), vec![0x70]].concat();
    for (bytes, code, what) in [
        (vec![0x70], 1002, "PING first"),
        (vec![0x30, 0], 1002, "SEND first"),
        (vec![0xF0, 0], 1002, "no frame"),
        (vec![0x10, 0], 1002, "an empty CONNECT"),
        (twice, 1002, "something behind CONNECT"),
        (old, 1002, "version 1"),
        (long_token, 1009, "a long token"),
        (long_device, 1009, "a long device id"),
        (too_large, 1009, "a large CONNECT"),
    ] {
        let mut client = Client::open(&app).await;
        client.write(&bytes).await;
        assert_eq!(client.closed().await, Some(code), "{what}");
    }
    // A CONNECT in pieces is one.
    let mut client = Client::open(&app).await;
    for piece in connect.chunks(7) {
        client.write(piece).await;
    }
    client.frame(FrameKind::Connack).await;
}

#[tokio::test]
async fn a_client_that_says_nothing_is_closed_after_the_connect_timeout() {
    let app = TestApp::with(V2, |settings| {
        settings.socket.connect_timeout = Duration::from_millis(200);
    })
    .await;
    let mut silent = Client::open(&app).await;
    assert_eq!(silent.closed().await, Some(1008));
    let mut half = Client::open(&app).await;
    half.write(&[0x10, 50, 4]).await;
    assert_eq!(half.closed().await, Some(1008));
    let timeouts = r#"gateway_socket_connects_total{outcome="timeout"}"#;
    assert_eq!(app.metric(timeouts), Some(2.0));
}

#[tokio::test]
async fn an_unanswered_connect_is_asked_again_and_three_of_them_end_bare() {
    let app = TestApp::with(V2, |settings| {
        settings.socket.connack_timeout = Duration::from_millis(300);
    })
    .await;
    let hello = Hello::of(&app, "alice").await;
    let sockets = app.upstream.sockets();
    sockets.script(SocketFault::Unanswered, 2);
    Client::open(&app).await.connect(&hello).await;
    sockets.script(SocketFault::Unanswered, 3);
    assert_eq!(
        Client::open(&app).await.refused(&hello).await,
        (0, Some(1013))
    );
}

#[tokio::test]
async fn a_v2_that_lost_its_tokens_is_told_once_more() {
    let app = TestApp::builder()
        .options(|options| options.token_auth = true)
        .start()
        .await;
    let hello = Hello::of(&app, "alice").await;
    app.upstream.restart().await.unwrap();
    app.clear_calls();
    app.upstream.sockets().script(SocketFault::Closed, 1);
    Client::open(&app).await.connect(&hello).await;
    assert_eq!(app.calls_to("/user/token").len(), 1);
}

#[tokio::test]
async fn failed_connects_are_charged_to_the_address_and_good_ones_never_refused() {
    let app = TestApp::with(V2, |settings| settings.limits.anonymous_per_second = 2).await;
    let good = Hello::of(&app, "alice").await;
    let bad = Hello {
        token: "x".repeat(43),
        ..good.clone()
    };
    for expected in [(2, Some(1008)), (2, Some(1008)), (0, Some(1013))] {
        assert_eq!(Client::open(&app).await.refused(&bad).await, expected);
    }
    Client::open(&app).await.connect(&good).await;
}

#[tokio::test]
async fn a_banned_user_is_told_so_at_connect() {
    let app = TestApp::start(V2).await;
    let hello = Hello::of(&app, "alice").await;
    app.state().ban_user("alice", true);
    let mut client = Client::open(&app).await;
    assert_eq!(client.refused(&hello).await, (19, Some(1008)));
}

#[tokio::test]
async fn a_store_or_wukongim_that_is_gone_is_a_bare_closing() {
    let app = TestApp::start(V2).await;
    let hello = Hello::of(&app, "alice").await;
    app.upstream.stop().await;
    let mut client = Client::open(&app).await;
    assert_eq!(client.refused(&hello).await, (0, Some(1013)));
    app.store.close().await;
    let mut client = Client::open(&app).await;
    assert_eq!(client.refused(&hello).await, (0, Some(1013)));
    let mut text = Client::open(&app).await;
    text.text(r#"{"jsonrpc":"2.0","id":"1","method":"connect","params":{"uid":"a","token":"t"}}"#)
        .await;
    assert!(matches!(text.next().await, Next::Closed(Some(1013))));
}
