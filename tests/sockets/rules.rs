//! What a client may send, and the reason with which anything else is refused.

use wkproto::{FrameKind, Send};

use crate::support::prelude::*;
use crate::support::socket::{Client, Hello};

/// The reason with which a SEND is answered that `change` changes.
async fn reason(
    client: &mut Client,
    channel: (u8, &'static [u8]),
    change: impl FnOnce(&mut Send<'static>),
) -> u8 {
    let frame = client.send_frame(channel, "hello", 0, change);
    client.write(&frame).await;
    client.ack().await.reason
}

#[tokio::test]
async fn a_send_that_breaks_a_rule_is_answered_with_its_reason_and_reaches_nothing() {
    for app in TestApp::both().await {
        let mut alice = Client::connected(&app, "alice").await;
        app.upstream.sockets().clear();
        for (channel_type, reason_of_type) in [(0, 23), (3, 23), (6, 23), (11, 23), (99, 23)] {
            let got = reason(&mut alice, (channel_type, b"bob"), |_| ()).await;
            assert_eq!(got, reason_of_type, "type {channel_type}");
        }
        let long: &'static str = "x".repeat(129).leak();
        for id in [
            "",
            "alice@bob",
            "g1____cmd",
            "____system",
            "a b",
            "a\0",
            ".",
            long,
        ] {
            for channel_type in [1, 2] {
                let got = reason(&mut alice, (channel_type, id.as_bytes()), |_| ()).await;
                assert_eq!(got, 16, "{channel_type}: {id:?}");
            }
        }
        assert_eq!(reason(&mut alice, (1, b"b\xff"), |_| ()).await, 16);
        let topic: &'static str = "t".repeat(129).leak();
        let bob = (1, &b"bob"[..]);
        assert_eq!(
            reason(&mut alice, bob, |send| send.client_msg_no = long).await,
            9
        );
        assert_eq!(
            reason(&mut alice, bob, |send| send.client_msg_no = "a\n").await,
            9
        );
        assert_eq!(reason(&mut alice, bob, |send| send.payload = b"").await, 9);
        assert_eq!(reason(&mut alice, bob, |send| send.expire = 1).await, 9);
        for setting in [0x01, 0x02, 0x04, 0x10, 0x20, 0x40] {
            let got = reason(&mut alice, bob, |send| send.setting = setting).await;
            assert_eq!(got, 9, "setting {setting:#x}");
        }
        let got = reason(&mut alice, bob, |send| {
            send.setting = 0x08;
            send.topic = topic;
        });
        assert_eq!(got.await, 9, "a long topic");
        // The first rule that is broken has its reason.
        assert_eq!(
            reason(&mut alice, (6, b"a b"), |send| send.payload = b"").await,
            23
        );
        assert_eq!(
            reason(&mut alice, (1, b"a b"), |send| send.payload = b"").await,
            16
        );
        assert_eq!(app.upstream.sockets().frames(), []);
        assert!(alice.is_alive().await);
        assert_eq!(
            app.metric(r#"gateway_socket_refused_total{reason="23"}"#),
            Some(6.0)
        );
    }
}

#[tokio::test]
async fn an_answer_to_a_refused_send_looks_like_this_generations_own() {
    for (dialect, number, flags) in [(V2, None, 0x0A), (V3, Some("number-1"), 0)] {
        let app = TestApp::start(dialect).await;
        let mut alice = Client::connected(&app, "alice").await;
        let frame = alice.send_frame((6, b"bob"), "hello", 0x0A, |_| ());
        alice.write(&frame).await;
        let ack = alice.ack().await;
        assert_eq!((ack.id, ack.seq, ack.client_seq), (0, 0, 1));
        assert_eq!((ack.client_msg_no.as_deref(), ack.flags), (number, flags));
    }
}

#[tokio::test]
async fn what_may_be_set_passes_and_flags_are_cut_to_red_dot() {
    for app in TestApp::both().await {
        let mut alice = Client::connected(&app, "alice").await;
        app.upstream.sockets().clear();
        let frame = alice.send_frame((1, b"bob"), "hello", 0x0F, |send| {
            send.setting = 0x88;
            send.topic = "topic";
            send.client_msg_no = "";
        });
        alice.write(&frame).await;
        assert_eq!(alice.ack().await.reason, 1);
        let sent = app.upstream.sockets().frames_of(FrameKind::Send);
        assert_eq!(sent[0].flags, 2);
        let sent = Send::parse(sent[0].frame(), alice.version).unwrap();
        assert_eq!((sent.setting, sent.topic), (0x88, "topic"));
    }
}

#[tokio::test]
async fn a_payload_of_the_limit_passes_and_one_of_a_block_more_does_not() {
    for app in TestApp::both().await {
        let mut alice = Client::connected(&app, "alice").await;
        let config = app.user("alice").get("/config").await;
        let limit = config.ok()["limits"]["payloadBytes"].as_u64().unwrap();
        let limit = usize::try_from(limit).unwrap();
        for (bytes, expected) in [(limit, 1), (limit + 16, 9)] {
            let cipher = alice.cipher.clone().unwrap();
            let padding = "x".repeat(bytes - r#"{"type":1,"content":""}"#.len());
            let payload = format!(r#"{{"type":1,"content":"{padding}"}}"#);
            let sealed: &'static [u8] = cipher.seal(payload.as_bytes()).leak();
            let got = reason(&mut alice, (1, b"bob"), |send| send.payload = sealed).await;
            assert_eq!(got, expected, "{bytes}");
        }
        assert!(alice.is_alive().await);
    }
}

#[tokio::test]
async fn sends_and_calls_have_one_bucket() {
    let app = TestApp::with(V2, |settings| {
        settings.limits.requests_per_second = 1;
        settings.limits.burst = 10;
    })
    .await;
    // The token cost 5.
    let mut alice = Client::connected(&app, "alice").await;
    let mut reasons = Vec::new();
    for _ in 0..7 {
        reasons.push(alice.send(1, "bob", "hello").await.reason);
    }
    assert_eq!(reasons, [1, 1, 1, 1, 1, 22, 22]);
    let answer = app.user("alice").send_to_person("bob", "hello").await;
    failure(429, "rate_limited").is(answer);
    assert_eq!(
        alice.send(6, "bob", "hello").await.reason,
        23,
        "the first rule"
    );
}

#[tokio::test]
async fn groups_are_checked_by_wukongim_and_deleted_ones_by_the_gateway() {
    for app in TestApp::both().await {
        app.group("g1", "alice", &["bob"]).await;
        app.group("g2", "alice", &["bob"]).await;
        let mut alice = Client::connected(&app, "alice").await;
        let mut bob = Client::connected(&app, "bob").await;
        let mut mallory = Client::connected(&app, "mallory").await;
        assert_eq!(alice.send(2, "g1", "to all").await.reason, 1);
        assert_eq!(bob.text_from("alice").await, "to all");
        assert_eq!(mallory.send(2, "g1", "let me in").await.reason, 3);
        app.user("alice").delete_group("g2").await.ok();
        app.upstream.sockets().clear();
        assert_eq!(bob.send(2, "g2", "anyone?").await.reason, 24);
        assert_eq!(app.upstream.sockets().frames(), []);
    }
}

#[tokio::test]
async fn a_message_to_oneself_is_refused_on_v3_alone() {
    for (dialect, expected) in [(V2, 1), (V3, 11)] {
        let app = TestApp::start(dialect).await;
        let mut alice = Client::connected(&app, "alice").await;
        assert_eq!(alice.send(1, "alice", "a note").await.reason, expected);
    }
}

#[tokio::test]
async fn the_backend_is_asked_in_mode_callback_and_its_silence_ends_the_socket() {
    for dialect in [V2, V3] {
        let backend = Backend::start().await;
        backend.answers(|question| match question["channelId"].as_str() {
            Some("bob") => Reply::allow(true),
            Some("carol") => Reply::allow(false),
            _ => Reply::Body(500, String::new()),
        });
        let app = TestApp::with(dialect, backend.decides()).await;
        let mut alice = Client::connected(&app, "alice").await;
        assert_eq!(alice.send(1, "bob", "hello").await.reason, 1);
        assert_eq!(alice.send(1, "carol", "hello").await.reason, 11);
        let frame = alice.send_frame((1, b"dave"), "hello", 0, |_| ());
        alice.write(&frame).await;
        assert_eq!(alice.closed().await, Some(1013));
    }
}

#[tokio::test]
async fn frames_that_are_not_a_clients_end_the_socket() {
    for app in TestApp::both().await {
        let hello = Hello::of(&app, "alice").await;
        let connect = Client::open(&app).await.connect_frame(&hello);
        let max = app.settings.socket_frame_bytes();
        let huge = [vec![0x30], vec![0xFF, 0xFF, 0xFF, 0x07]].concat();
        for (bytes, code, what) in [
            (connect, 1002, "a second CONNECT"),
            (vec![0x20, 0], 1002, "CONNACK"),
            (vec![0x40, 0], 1002, "SENDACK"),
            (vec![0x50, 0], 1002, "RECV"),
            (vec![0x60, 1, 0], 1002, "half a RECVACK"),
            (
                [vec![0x60, 12], vec![0xFF; 12]].concat(),
                1002,
                "a RECVACK of id -1",
            ),
            (vec![0x80], 1002, "PONG"),
            (vec![0xA0, 0], 1002, "SUB"),
            (vec![0xB0, 0], 1002, "SUBACK"),
            (vec![0xC0, 0], 1002, "EVENT"),
            (vec![0x00, 0], 1002, "type 0"),
            (vec![0xF0, 0], 1002, "type 15"),
            (vec![0x30, 1, 0], 1002, "half a SEND"),
            (huge, 1009, "a frame that claims too much"),
            (vec![0x30; max + 20_000], 1009, "a large message"),
        ] {
            let mut client = Client::connected(&app, "alice").await;
            app.upstream.sockets().clear();
            client.write(&bytes).await;
            assert_eq!(client.closed().await, Some(code), "{what}");
            assert_eq!(app.upstream.sockets().frames(), [], "{what}");
        }
        let mut client = Client::connected(&app, "alice").await;
        client.text("{}").await;
        assert_eq!(client.closed().await, Some(1003), "text");
    }
}

#[tokio::test]
async fn a_recvack_passes_and_one_of_an_unstored_message_is_dropped() {
    let app = TestApp::start(V2).await;
    let mut alice = Client::connected(&app, "alice").await;
    app.upstream.sockets().clear();
    for (id, seq) in [(7_i64, 0_u32), (7, 9)] {
        let mut frame = vec![0x62, 12];
        frame.extend(id.to_be_bytes());
        frame.extend(seq.to_be_bytes());
        alice.write(&frame).await;
    }
    assert!(alice.is_alive().await);
    let acks = app.upstream.sockets().frames_of(FrameKind::Recvack);
    assert_eq!(acks.len(), 1);
    assert_eq!((acks[0].flags, acks[0].body[11]), (2, 9));
}

#[tokio::test]
async fn several_frames_in_a_message_and_a_frame_in_several_are_frames() {
    let app = TestApp::start(V2).await;
    let mut alice = Client::connected(&app, "alice").await;
    let frames: Vec<u8> = (0..3)
        .flat_map(|index| alice.send_frame((1, b"bob"), &format!("text {index}"), 0, |_| ()))
        .collect();
    alice.write(&frames).await;
    for seq in 1..=3 {
        assert_eq!(alice.ack().await.seq, seq);
    }
    let frame = alice.send_frame((1, b"bob"), "in pieces", 0, |_| ());
    for piece in frame.chunks(11) {
        alice.write(piece).await;
    }
    assert_eq!(alice.ack().await.seq, 4);
}
