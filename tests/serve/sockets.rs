//! Sockets of the whole binary: plain TCP, the end of the process, and what the log says of them.

use dev_upstream::Dialect;
use serde_json::json;
use tokio::time::{Duration, sleep};

use crate::support::process::{Gateway, answer, token};
use crate::support::socket::{Client, Hello};

async fn hello(gateway: &Gateway, uid: &str) -> Hello {
    let request = gateway.post_json(&token(uid), "/token", &json!({"deviceFlag": 1}));
    let (status, told) = answer(request).await;
    assert_eq!(status, 200, "{told}");
    Hello::with(uid, told["data"]["token"].as_str().unwrap().to_owned())
}

/// The lines of the log with this message, once there are so many.
async fn lines(gateway: &Gateway, message: &str, count: usize) -> Vec<serde_json::Value> {
    loop {
        let log = gateway.log().into_iter();
        let lines: Vec<_> = log.filter(|line| line["message"] == message).collect();
        if lines.len() >= count {
            return lines;
        }
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_closes_every_socket_bare_and_the_log_has_a_line_for_each() {
    for dialect in [Dialect::V2, Dialect::V3] {
        let argument = if dialect == Dialect::V2 {
            "--embedded=v2"
        } else {
            "--embedded=v3"
        };
        let mut gateway = Gateway::start(&[argument], &crate::support::process::usual());
        let alice = hello(&gateway, "alice").await;
        let mut sockets = Vec::new();
        for _ in 0..5 {
            let mut client = Client::at(&gateway.api, &[]).await.unwrap();
            client.connect(&alice).await;
            sockets.push(client);
        }
        let ack = sockets[0].send(1, "bob", "hello").await;
        assert_eq!((ack.reason, ack.seq), (1, 1));
        // The others are of the same user, and get it too.
        for socket in &mut sockets[1..] {
            assert_eq!(socket.text_from("alice").await, "hello");
        }
        gateway.signal("TERM");
        for socket in &mut sockets {
            assert_eq!(socket.closed().await, Some(1012));
        }
        gateway.has_ended();
        let ended = lines(&gateway, "socket ended", 5).await;
        for line in &ended {
            assert_eq!(line["user.id"], "alice");
            assert_eq!(line["device.flag"], 1);
            assert_eq!(line["socket.protocol"], "wkproto_ws");
            assert_eq!(line["socket.cause"], "drain");
            assert_eq!(line["socket.frames_out"], 2, "CONNACK, and SENDACK or RECV");
        }
        assert!(
            !gateway.stderr().contains(&alice.token),
            "no token in the log"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trusted_proxy_tells_the_address_of_a_tcp_client_and_another_does_not() {
    const HEADER: &[u8] = b"PROXY TCP4 192.0.2.7 198.51.100.1 5555 5100\r\n";
    for proxies in ["127.0.0.0/8", "198.51.100.1"] {
        let more = [
            ("GATEWAY__SOCKET__TCP_LISTEN", "127.0.0.1:0"),
            ("GATEWAY__PUBLIC__TCP_ADDR", "im.example.com:5100"),
            ("GATEWAY__SERVER__TRUSTED_PROXIES", proxies),
        ];
        let mut gateway = Gateway::embedded(&more);
        let line = gateway.wait_for_line("sockets over plain tcp");
        let address = line["socket.listen"].as_str().unwrap();
        let alice = hello(&gateway, "alice").await;
        let mut plain = Client::tcp(address).await;
        plain.connect(&alice).await;
        assert!(plain.is_alive().await);
        let ack = plain.send(1, "bob", "over tcp").await;
        assert_eq!((ack.reason, ack.seq), (1, 1));
        let mut proxied = Client::tcp(address).await;
        proxied.raw(HEADER).await;
        if proxies == "198.51.100.1" {
            assert_eq!(proxied.closed().await, None, "the header is no frame");
            continue;
        }
        proxied.connect(&alice).await;
        plain.send(1, "bob", "over tcp again").await;
        assert_eq!(proxied.text_from("alice").await, "over tcp again");
        let wrong = Hello {
            token: "wrong".to_owned(),
            ..alice
        };
        let mut refused = Client::tcp(address).await;
        refused.raw(HEADER).await;
        assert_eq!(refused.refused(&wrong).await, (2, None));
        let refused = lines(&gateway, "socket refused", 1).await;
        assert_eq!(refused[0]["client.address"], "192.0.2.7");
        assert_eq!(refused[0]["socket.outcome"], "bad_token");
    }
}
