//! How sessions end, and how v2 does.

use dev_upstream::{DevUpstream, Dialect, Options, PERSON};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use wkproto::{Disconnect, KeyPair, Reason, Send};

use crate::{
    client::{Client, Line, NOTHING, TRANSPORTS, Transport, Who},
    server::{DIALECTS, eventually, online, post, start, start_with},
};

/// Registers a token, so that there is a device to end.
async fn register(server: &DevUpstream, level: u8) {
    let token = json!({ "uid": "alice", "token": "t", "device_flag": 1, "device_level": level });
    post(server, "/user/token", token).await;
}

async fn disconnect_of(client: &mut Client) -> (Reason, String) {
    let frame = client.line.read().await.expect("a disconnect");
    let disconnect = Disconnect::parse(frame.frame()).expect("a disconnect");
    (disconnect.reason, disconnect.text.to_owned())
}

#[tokio::test]
async fn device_quit_ends_the_devices_sockets() {
    for dialect in DIALECTS {
        for transport in TRANSPORTS {
            let server = start(dialect).await;
            register(&server, 0).await;
            let mut alice = Client::connect(&server, transport, Who::new("alice")).await;
            let app = Who {
                device_flag: 0,
                ..Who::new("alice")
            };
            let mut app = Client::connect(&server, transport, app).await;
            assert_eq!(online(&server, "alice").await, 2);
            let quit = json!({ "uid": "alice", "device_flag": 1 });
            post(&server, "/user/device_quit", quit).await;
            if dialect == Dialect::V2 {
                let said = disconnect_of(&mut alice).await;
                assert_eq!(said, (Reason::CONNECT_KICK, String::new()));
            }
            assert_eq!(alice.line.read().await, None);
            app.is_quiet().await;
            assert_eq!(online(&server, "alice").await, 1);
        }
    }
}

#[tokio::test]
async fn a_token_for_a_master_device_ends_its_sockets_on_v2_only() {
    for dialect in DIALECTS {
        let server = start(dialect).await;
        let mut alice = Client::of(&server, "alice").await;
        register(&server, 0).await;
        alice.is_quiet().await;
        register(&server, 1).await;
        if dialect == Dialect::V3 {
            alice.is_quiet().await;
            continue;
        }
        let (reason, text) = disconnect_of(&mut alice).await;
        assert_eq!(
            (reason, &*text),
            (Reason::CONNECT_KICK, "账号在其他设备上登录")
        );
        assert_eq!(alice.line.read().await, None);
    }
}

#[tokio::test]
async fn a_client_that_leaves_is_offline() {
    for dialect in DIALECTS {
        let server = start(dialect).await;
        let alice = Client::of(&server, "alice").await;
        assert_eq!(online(&server, "alice").await, 1);
        assert_eq!(server.state().connections(), 1);
        drop(alice);
        eventually("alice is offline", async || {
            online(&server, "alice").await == 0
        })
        .await;
    }
}

#[tokio::test]
async fn v2_closes_an_older_connection_with_the_same_device_id() {
    let server = start(Dialect::V2).await;
    let mut older = Client::of(&server, "alice").await;
    let mut newer = Client::of(&server, "alice").await;
    assert_eq!(older.line.read().await, None);
    newer.is_quiet().await;
}

#[tokio::test]
async fn a_stop_ends_all_sockets_and_a_restart_has_the_same_addresses() {
    for dialect in DIALECTS {
        let server = start(dialect).await;
        let addresses = (server.tcp_addr(), server.ws_url());
        let mut clients = Vec::new();
        for transport in TRANSPORTS {
            clients.push(Client::connect(&server, transport, Who::new("alice")).await);
        }
        server.stop().await;
        for client in &mut clients {
            assert_eq!(client.line.read().await, None);
        }
        assert!(TcpStream::connect(server.tcp_addr()).await.is_err());
        server.restart().await.expect("restarts");
        assert_eq!(addresses, (server.tcp_addr(), server.ws_url()));
        assert_eq!(server.state().connections(), 0);
        Client::of(&server, "alice").await.is_quiet().await;
    }
}

async fn with_manager_token(dialect: Dialect) -> DevUpstream {
    start_with(Options {
        manager_token: Some("secret".into()),
        ..Options::new(dialect)
    })
    .await
}

#[tokio::test]
async fn one_connect_as_the_manager_ends_a_v2_with_a_manager_token() {
    for dialect in DIALECTS {
        let server = with_manager_token(dialect).await;
        let keys = KeyPair::generate().expect("keys");
        let mut line = Line::open(&server, Transport::WebSocket).await;
        let connect = Who::new("____manager").connect(keys.public_key());
        line.write(connect).await;
        if dialect == Dialect::V2 {
            assert_eq!(line.read().await, None);
        } else {
            assert!(line.read().await.is_some());
        }
        assert_eq!(server.killed(), dialect == Dialect::V2);
    }
    let server = with_manager_token(Dialect::V2).await;
    let who = Who {
        token: "secret",
        ..Who::new("____manager")
    };
    Client::connect(&server, Transport::Tcp, who).await;
    assert!(!server.killed());
}

#[tokio::test]
async fn a_person_with_an_id_of_32767_bytes_ends_v2() {
    for dialect in DIALECTS {
        let server = start(dialect).await;
        let mut alice = Client::of(&server, "alice").await;
        let long = "x".repeat(wkproto::MAX_STRING);
        let send = Send {
            channel_id: long.as_bytes(),
            channel_type: PERSON,
            ..NOTHING
        };
        alice.write_send(send, 0).await;
        let is_v2 = dialect == Dialect::V2;
        assert_eq!(alice.line.read().await.is_none(), is_v2);
        assert_eq!(server.killed(), is_v2);
    }
}

#[tokio::test]
async fn a_second_websocket_head_of_2_to_62_bytes_before_connect_ends_v2() {
    for dialect in DIALECTS {
        let server = start(dialect).await;
        let address = server.ws_url();
        let address = address.trim_start_matches("ws://");
        let mut stream = TcpStream::connect(address).await.expect("tcp");
        let upgrade = format!(
            "GET / HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        stream.write_all(upgrade.as_bytes()).await.expect("written");
        let mut upgraded = Vec::new();
        while !upgraded.ends_with(b"\r\n\r\n") {
            upgraded.push(stream.read_u8().await.expect("an answer"));
        }
        assert!(upgraded.starts_with(b"HTTP/1.1 101"));
        // A masked binary message with the first byte of a CONNECT, then the head of the next.
        let mut frames = vec![0x82, 0x81, 0, 0, 0, 0, 0x10, 0x82, 0xFF, 0x40];
        frames.extend([0; 11]);
        stream.write_all(&frames).await.expect("written");
        // A reset is an end as well.
        let _ = stream.read_to_end(&mut Vec::new()).await;
        assert_eq!(server.killed(), dialect == Dialect::V2);
    }
}
