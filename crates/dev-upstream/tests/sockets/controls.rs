//! The controls for tests: scripted CONNECTs, a server that stops reading, recorded frames, raw bytes, cuts.

use std::time::Duration;

use dev_upstream::{Dialect, Options, PERSON, SocketFault};
use wkproto::{Connect, FrameKind, KeyPair, Recvack, Send};

use crate::{
    client::{Client, Line, Transport, Who},
    server::{eventually, start, start_with},
};

#[tokio::test]
async fn scripted_connects_are_unanswered_or_closed_and_then_answered() {
    let server = start_with(Options {
        connect_idle: Duration::from_millis(200),
        ..Options::new(Dialect::V2)
    })
    .await;
    server.sockets().script(SocketFault::Unanswered, 1);
    server.sockets().script(SocketFault::Closed, 1);
    let keys = KeyPair::generate().expect("keys");
    for left in [1, 0] {
        let mut line = Line::open(&server, Transport::Tcp).await;
        line.write(Who::new("alice").connect(keys.public_key()))
            .await;
        assert_eq!(line.read().await, None);
        assert_eq!(server.sockets().scripted(), left);
    }
    Client::of(&server, "alice").await.is_quiet().await;
}

#[tokio::test]
async fn frames_are_recorded_as_they_came() {
    let server = start(Dialect::V2).await;
    let mut alice = Client::of(&server, "alice").await;
    let connects = server.sockets().frames_of(FrameKind::Connect);
    let connect = Connect::parse(connects[0].frame()).expect("a connect");
    assert_eq!((connect.uid, connect.device_id), (&b"alice"[..], "device"));
    server.sockets().clear();
    alice.send("bob", PERSON, "hi").await;
    let mut bytes = Vec::new();
    let recvack = Recvack {
        message_id: 7,
        message_seq: 1,
    };
    recvack.write(5, 0, &mut bytes).expect("a frame");
    alice.line.write(bytes).await;
    alice.is_quiet().await;
    let frames = server.sockets().frames();
    let kinds: Vec<_> = frames.iter().map(|frame| frame.kind).collect();
    let expected = [FrameKind::Send, FrameKind::Recvack, FrameKind::Ping];
    assert_eq!(kinds, expected);
    assert!(frames.iter().all(|frame| frame.uid == "alice"));
    let send = Send::parse(frames[0].frame(), 5).expect("a send");
    assert_eq!(send.channel_id, b"bob");
    assert_eq!(Recvack::parse(frames[1].frame(), 5), Ok(recvack));
}

#[tokio::test]
async fn a_server_that_stops_reading_still_delivers() {
    let server = start(Dialect::V2).await;
    let mut alice = Client::of(&server, "alice").await;
    let mut bob = Client::of(&server, "bob").await;
    // The session looks at it between two reads.
    server.sockets().set_reading(false);
    bob.is_quiet().await;
    bob.line.write(wkproto::PING.to_vec()).await;
    server.write_to("bob", &wkproto::PONG);
    server.write_to("alice", &[0xC0, 1, 0]);
    let event = alice.line.read().await.expect("an event");
    assert_eq!(event.kind, FrameKind::Event);
    assert_eq!(bob.line.read().await.expect("raw").kind, FrameKind::Pong);
    let pings = || server.sockets().frames_of(FrameKind::Ping).len();
    assert_eq!(pings(), 1);
    server.sockets().set_reading(true);
    eventually("the second ping is read", async || pings() == 2).await;
}

#[tokio::test]
async fn a_cut_connection_ends_without_a_word() {
    let server = start(Dialect::V2).await;
    let mut alice = Client::of(&server, "alice").await;
    server.cut("alice");
    assert_eq!(alice.line.read().await, None);
    assert_eq!(server.state().connections(), 0);
}
