//! Who is let in, and what else may come before and after CONNECT.

use std::time::Duration;

use dev_upstream::{DevUpstream, Dialect, Options};
use serde_json::json;
use tokio::net::TcpStream;
use tokio_tungstenite::client_async;
use wkproto::{Connack, FrameKind, KeyPair, PING, Reason};

use crate::{
    client::{Client, Line, Owned, TRANSPORTS, Transport, Who},
    server::{DIALECTS, get, post, start, start_with},
};

/// What a CONNECT with a good key is answered with; `None` when it is closed without an answer.
async fn answer(server: &DevUpstream, who: Who<'_>) -> Option<Owned> {
    let keys = KeyPair::generate().expect("keys");
    let mut line = Line::open(server, Transport::Tcp).await;
    line.write(who.connect(keys.public_key())).await;
    line.read().await
}

async fn v2_with_tokens() -> DevUpstream {
    start_with(Options {
        token_auth: true,
        connect_idle: Duration::from_millis(200),
        ..Options::new(Dialect::V2)
    })
    .await
}

#[tokio::test]
async fn v2_with_tokens_answers_the_registered_one_only() {
    let server = v2_with_tokens().await;
    let token = json!({ "uid": "alice", "token": "right", "device_flag": 1 });
    post(&server, "/user/token", token).await;
    let alice = Who::new("alice");
    for (who, is_in) in [
        (
            Who {
                token: "right",
                ..alice
            },
            true,
        ),
        (
            Who {
                token: "wrong",
                ..alice
            },
            false,
        ),
        (alice, false),
        (
            Who {
                token: "right",
                device_flag: 7,
                ..alice
            },
            false,
        ),
        (
            Who {
                token: "right",
                ..Who::new("bob")
            },
            false,
        ),
        (Who::new("x___vstr"), true),
        (Who::new("____system"), false),
    ] {
        let connack = answer(&server, who).await;
        assert_eq!(connack.is_some(), is_in, "{who:?}");
    }
}

#[tokio::test]
async fn v3_takes_any_token() {
    let server = start(Dialect::V3).await;
    let token = json!({ "uid": "alice", "token": "right", "device_flag": 1 });
    post(&server, "/user/token", token).await;
    let who = Who {
        token: "wrong",
        ..Who::new("alice")
    };
    Client::connect(&server, Transport::Tcp, who).await;
}

#[tokio::test]
async fn a_banned_user_is_left_out_by_v2_and_let_in_by_v3() {
    for dialect in DIALECTS {
        let server = start_with(Options {
            connect_idle: Duration::from_millis(200),
            ..Options::new(dialect)
        })
        .await;
        server.state().ban_user("alice", true);
        let connack = answer(&server, Who::new("alice")).await;
        assert_eq!(connack.is_some(), dialect == Dialect::V3);
    }
}

#[tokio::test]
async fn ids_of_pairs_are_closed_by_v2_and_let_in_by_v3() {
    for dialect in DIALECTS {
        let server = start(dialect).await;
        let connack = answer(&server, Who::new("a@b")).await;
        assert_eq!(connack.is_some(), dialect == Dialect::V3);
        assert!(answer(&server, Who::new("a\0b\n")).await.is_some());
    }
}

#[tokio::test]
async fn a_bad_client_key_is_closed_by_v2_and_refused_by_v3() {
    for dialect in DIALECTS {
        let server = start(dialect).await;
        for (key, reason) in [("", Reason::CLIENT_KEY_EMPTY), ("aGk=", Reason::AUTH_FAIL)] {
            let mut line = Line::open(&server, Transport::Tcp).await;
            line.write(Who::new("alice").connect(key)).await;
            if dialect == Dialect::V3 {
                let frame = line.read().await.expect("a connack");
                let connack = Connack::parse(frame.frame(), 5).expect("a connack");
                assert_eq!((connack.reason, connack.server_version), (reason, None));
            }
            assert_eq!(line.read().await, None);
        }
        assert!(!server.killed());
    }
}

#[tokio::test]
async fn what_comes_with_connect_or_instead_of_it_closes_the_connection() {
    for dialect in DIALECTS {
        let server = start(dialect).await;
        let keys = KeyPair::generate().expect("keys");
        let connect = Who::new("alice").connect(keys.public_key());
        let with_ping = [&connect[..], &PING].concat();
        for bytes in [with_ping, PING.to_vec(), vec![0xFF; 8]] {
            for transport in TRANSPORTS {
                let mut line = Line::open(&server, transport).await;
                line.write(bytes.clone()).await;
                assert_eq!(line.read().await, None);
            }
        }
    }
}

#[tokio::test]
async fn a_silent_client_is_closed_before_connect() {
    let server = v2_with_tokens().await;
    for transport in TRANSPORTS {
        let mut line = Line::open(&server, transport).await;
        assert_eq!(line.read().await, None);
    }
}

#[tokio::test]
async fn what_clients_do_not_send_is_ignored_by_v2_and_closes_v3() {
    for dialect in DIALECTS {
        let server = start(dialect).await;
        let keys = KeyPair::generate().expect("keys");
        let second = Who::new("alice").connect(keys.public_key());
        let others = [0x90, 0xA0, 0xC0, 0x40].map(|head| vec![head, 1, 0]);
        for bytes in [vec![second], others.to_vec()].concat() {
            let mut alice = Client::of(&server, "alice").await;
            alice.line.write(bytes.clone()).await;
            if dialect == Dialect::V2 {
                alice.is_quiet().await;
            } else {
                assert_eq!(alice.line.read().await, None, "{bytes:?}");
            }
        }
    }
}

#[tokio::test]
async fn v3_has_its_socket_at_the_root_only() {
    for dialect in DIALECTS {
        let server = start(dialect).await;
        let url = server.ws_url();
        let address = url.trim_start_matches("ws://");
        let stream = TcpStream::connect(address).await.expect("tcp");
        let upgraded = client_async(format!("{url}/ws"), stream).await;
        assert_eq!(upgraded.is_ok(), dialect == Dialect::V2);
    }
}

#[tokio::test]
async fn route_tells_where_the_sockets_are() {
    for dialect in DIALECTS {
        let server = start(dialect).await;
        let route = get(&server, "/route?uid=alice").await;
        assert_eq!(route["tcp_addr"], server.tcp_addr().to_string());
        assert_eq!(route["ws_addr"], server.ws_url());
    }
}

#[tokio::test]
async fn a_connack_names_the_node_and_the_clocks_difference() {
    for (dialect, node) in [(Dialect::V2, 1001), (Dialect::V3, 1)] {
        let server = start(dialect).await;
        let frame = answer(&server, Who::new("alice")).await.expect("a connack");
        assert_eq!(frame.kind, FrameKind::Connack);
        let connack = Connack::parse(frame.frame(), 5).expect("a connack");
        assert_eq!(connack.node_id, node);
        assert!(connack.time_diff > 1_700_000_000_000);
    }
}
