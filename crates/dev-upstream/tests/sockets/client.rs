//! A client of the protocol over either transport.

use std::time::Duration;

use dev_upstream::DevUpstream;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_tungstenite::{WebSocketStream, client_async, tungstenite::Message};
use wkproto::{
    Cipher, Connack, Connect, Frame, FrameKind, KeyPair, PING, Reason, Recv, Send, Sendack, flags,
    next_frame,
};

/// A generous bound for what should come at once.
const PATIENCE: Duration = Duration::from_secs(20);

/// The two transports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    Tcp,
    WebSocket,
}

pub(crate) const TRANSPORTS: [Transport; 2] = [Transport::Tcp, Transport::WebSocket];

/// A connection that frames go over.
pub(crate) enum Wire {
    Tcp(TcpStream),
    WebSocket(Box<WebSocketStream<TcpStream>>),
}

/// A frame with its own bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Owned {
    pub(crate) kind: FrameKind,
    pub(crate) flags: u8,
    pub(crate) body: Vec<u8>,
}

impl Owned {
    pub(crate) fn frame(&self) -> Frame<'_> {
        Frame {
            kind: self.kind,
            flags: self.flags,
            body: &self.body,
        }
    }
}

/// A wire and what came over it.
pub(crate) struct Line {
    pub(crate) wire: Wire,
    buffer: Vec<u8>,
}

impl Line {
    pub(crate) async fn open(server: &DevUpstream, transport: Transport) -> Self {
        let wire = match transport {
            Transport::Tcp => Wire::Tcp(TcpStream::connect(server.tcp_addr()).await.expect("tcp")),
            Transport::WebSocket => {
                let url = server.ws_url();
                let address = url.trim_start_matches("ws://");
                let stream = TcpStream::connect(address).await.expect("tcp");
                let (stream, _) = client_async(url, stream).await.expect("upgrade");
                Wire::WebSocket(Box::new(stream))
            }
        };
        Self {
            wire,
            buffer: Vec::new(),
        }
    }

    pub(crate) async fn write(&mut self, bytes: Vec<u8>) {
        // What the server has closed is seen by reading.
        let _ = match &mut self.wire {
            Wire::Tcp(stream) => stream.write_all(&bytes).await.map_err(drop),
            Wire::WebSocket(stream) => stream
                .send(Message::Binary(bytes.into()))
                .await
                .map_err(drop),
        };
    }

    /// The next frame, `None` when the server has closed.
    pub(crate) async fn read(&mut self) -> Option<Owned> {
        timeout(PATIENCE, self.read_forever())
            .await
            .expect("a frame or the end")
    }

    async fn read_forever(&mut self) -> Option<Owned> {
        loop {
            if let Some((frame, length)) = next_frame(&self.buffer, 1 << 20).expect("a frame") {
                let owned = Owned {
                    kind: frame.kind,
                    flags: frame.flags,
                    body: frame.body.to_vec(),
                };
                self.buffer.drain(..length);
                return Some(owned);
            }
            match &mut self.wire {
                Wire::Tcp(stream) => {
                    let read = stream.read_buf(&mut self.buffer).await;
                    if matches!(read, Ok(0) | Err(_)) {
                        return None;
                    }
                }
                Wire::WebSocket(stream) => {
                    assert!(self.buffer.is_empty(), "one frame is one message");
                    match stream.next().await {
                        Some(Ok(Message::Binary(bytes))) => self.buffer.extend(bytes),
                        Some(Ok(Message::Close(_)) | Err(_)) | None => return None,
                        Some(Ok(other)) => panic!("{other:?}"),
                    }
                }
            }
        }
    }
}

/// Who connects.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Who<'a> {
    pub(crate) uid: &'a str,
    pub(crate) token: &'a str,
    pub(crate) device_flag: u8,
    pub(crate) device_id: &'a str,
    pub(crate) version: u8,
}

impl<'a> Who<'a> {
    pub(crate) fn new(uid: &'a str) -> Self {
        Self {
            uid,
            token: "",
            device_flag: 1,
            device_id: "device",
            version: 5,
        }
    }

    pub(crate) fn connect(self, client_key: &str) -> Vec<u8> {
        let connect = Connect {
            version: self.version,
            device_flag: self.device_flag,
            device_id: self.device_id,
            uid: self.uid.as_bytes(),
            token: self.token,
            client_timestamp: 0,
            client_key,
        };
        let mut out = Vec::new();
        connect.write(&mut out).expect("a frame");
        out
    }
}

/// A connected client.
pub(crate) struct Client {
    pub(crate) line: Line,
    pub(crate) version: u8,
    cipher: Cipher,
    sent: u32,
}

/// A RECV that was opened and whose msgKey is right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Received {
    pub(crate) flags: u8,
    pub(crate) from: String,
    pub(crate) channel: String,
    pub(crate) channel_type: u8,
    pub(crate) seq: u64,
    pub(crate) id: i64,
    pub(crate) topic: String,
    pub(crate) text: String,
}

/// A SENDACK.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Acked {
    pub(crate) flags: u8,
    pub(crate) reason: Reason,
    pub(crate) seq: u64,
    pub(crate) id: i64,
    pub(crate) client_msg_no: Option<String>,
}

impl Client {
    pub(crate) async fn of(server: &DevUpstream, uid: &str) -> Self {
        Self::connect(server, Transport::Tcp, Who::new(uid)).await
    }

    pub(crate) async fn connect(server: &DevUpstream, transport: Transport, who: Who<'_>) -> Self {
        let mut line = Line::open(server, transport).await;
        let keys = KeyPair::generate().expect("keys");
        line.write(who.connect(keys.public_key())).await;
        let frame = line.read().await.expect("a connack");
        let connack = Connack::parse(frame.frame(), who.version).expect("a connack");
        assert_eq!(connack.reason, Reason::SUCCESS);
        Self {
            cipher: keys.agree(connack.server_key, connack.salt).expect("a key"),
            version: connack.server_version.unwrap_or(who.version),
            line,
            sent: 0,
        }
    }

    /// Writes a SEND with all that may be said in it.
    pub(crate) async fn write_send(&mut self, send: Send<'_>, bits: u8) {
        let mut out = Vec::new();
        send.write(self.version, bits, &mut out).expect("a frame");
        self.line.write(out).await;
    }

    /// Seals a text for this channel.
    pub(crate) async fn say(
        &mut self,
        to: &str,
        channel_type: u8,
        text: &str,
        rest: Send<'_>,
        bits: u8,
    ) {
        self.sent += 1;
        let payload = self.cipher.seal(text.as_bytes());
        let mut send = Send {
            client_seq: self.sent,
            channel_id: to.as_bytes(),
            channel_type,
            payload: &payload,
            ..rest
        };
        let msg_key = self.cipher.send_msg_key(&send);
        send.msg_key = &msg_key;
        self.write_send(send, bits).await;
    }

    /// Sends a text and waits for its SENDACK.
    pub(crate) async fn send(&mut self, to: &str, channel_type: u8, text: &str) -> Acked {
        let number = format!("no-{}", self.sent + 1);
        let rest = Send {
            client_msg_no: &number,
            ..NOTHING
        };
        self.say(to, channel_type, text, rest, flags::RED_DOT).await;
        self.ack().await
    }

    pub(crate) async fn ack(&mut self) -> Acked {
        let frame = self.line.read().await.expect("a sendack");
        let ack = Sendack::parse(frame.frame(), self.version).expect("a sendack");
        assert_eq!(ack.client_seq, self.sent);
        Acked {
            flags: frame.flags,
            reason: ack.reason,
            seq: ack.message_seq,
            id: ack.message_id,
            client_msg_no: ack.client_msg_no.map(str::to_owned),
        }
    }

    pub(crate) async fn receive(&mut self) -> Received {
        let frame = self.line.read().await.expect("a recv");
        let recv = Recv::parse(frame.frame(), self.version).expect("a recv");
        assert_eq!(recv.msg_key, self.cipher.recv_msg_key(&recv));
        assert!(recv.timestamp > 1_700_000_000, "{recv:?}");
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("utf-8");
        Received {
            flags: frame.flags,
            from: text(recv.from_uid),
            channel: text(recv.channel_id),
            channel_type: recv.channel_type,
            seq: recv.message_seq,
            id: recv.message_id,
            topic: recv.topic.to_owned(),
            text: text(&self.cipher.open(recv.payload).expect("opens")),
        }
    }

    /// Waits until everything written before has been taken; nothing else may come.
    pub(crate) async fn is_quiet(&mut self) {
        self.line.write(PING.to_vec()).await;
        let frame = self.line.read().await.expect("a pong");
        assert_eq!(frame.kind, FrameKind::Pong, "{frame:?}");
    }
}

/// What a SEND has where nothing is said.
pub(crate) const NOTHING: Send<'_> = Send {
    setting: 0,
    client_seq: 0,
    client_msg_no: "",
    stream_no: "",
    channel_id: b"",
    channel_type: 0,
    expire: 0,
    msg_key: "",
    topic: "",
    payload: b"",
};
