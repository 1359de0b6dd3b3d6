//! A client of the gateway's sockets: wkproto or JSON-RPC over WebSocket, wkproto over TCP.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::http::{Request, Response};
use tokio_tungstenite::tungstenite::protocol::Message;
use tokio_tungstenite::tungstenite::{Bytes as WsBytes, Error};
use wkproto::{Cipher, Connack, Connect, Frame, FrameKind, KeyPair, Reason, Recv, Send, Sendack};

use super::actors::Actor;
use super::served::Served;

/// How long anything may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(20);

/// What a CONNECT says.
#[derive(Debug, Clone)]
pub struct Hello {
    pub version: u8,
    pub device_flag: u8,
    pub device_id: String,
    pub uid: Vec<u8>,
    pub token: String,
    /// The client's own where it is `None`.
    pub key: Option<String>,
}

impl Hello {
    /// That of this user, with a token that was just issued.
    pub async fn of(app: &Served, uid: &str) -> Self {
        Self::with(uid, token(app, uid, 1).await)
    }

    /// That of this user's browser with this token.
    pub fn with(uid: &str, token: String) -> Self {
        Self {
            version: 4,
            device_flag: 1,
            device_id: "a-device".to_owned(),
            uid: uid.as_bytes().to_vec(),
            token,
            key: None,
        }
    }
}

/// The connect token of this user and device.
pub async fn token(app: &Served, uid: &str, device_flag: u8) -> String {
    let user: Actor<'_> = app.user(uid);
    let answer = user
        .post("/token", &json!({"deviceFlag": device_flag}))
        .await;
    let data = answer.ok();
    data["token"].as_str().unwrap().to_owned()
}

/// A frame as it came.
#[derive(Debug, Clone)]
pub struct OwnedFrame {
    pub kind: FrameKind,
    pub flags: u8,
    pub body: Vec<u8>,
}

impl OwnedFrame {
    pub fn frame(&self) -> Frame<'_> {
        Frame {
            kind: self.kind,
            flags: self.flags,
            body: &self.body,
        }
    }
}

/// What came next.
#[derive(Debug)]
pub enum Next {
    Frame(OwnedFrame),
    Text(Value),
    /// The connection is closed, with this WebSocket code if there was one.
    Closed(Option<u16>),
}

enum Stream {
    WebSocket(Box<WebSocketStream<TcpStream>>),
    Tcp(TcpStream, Vec<u8>),
}

/// A client with an open connection.
pub struct Client {
    stream: Stream,
    pub version: u8,
    key: KeyPair,
    pub cipher: Option<Cipher>,
    seq: u32,
}

/// What WuKongIM or the gateway answered to a SEND.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ack {
    pub reason: u8,
    pub id: i64,
    pub seq: u64,
    pub client_seq: u32,
    pub client_msg_no: Option<String>,
    pub flags: u8,
}

impl Client {
    fn new(stream: Stream) -> Self {
        Self {
            stream,
            version: 4,
            key: KeyPair::generate().unwrap(),
            cipher: None,
            seq: 0,
        }
    }

    /// Upgrades a connection; nothing is said yet.
    pub async fn open(app: &Served) -> Self {
        Self::upgrade(app, &[]).await.expect("101")
    }

    /// The same with these headers; the answer where it is not 101.
    pub async fn upgrade(
        app: &Served,
        headers: &[(&str, &str)],
    ) -> Result<Self, Box<Response<Option<Vec<u8>>>>> {
        Self::at(&app.base, headers).await
    }

    /// The same at this address of a gateway.
    pub async fn at(
        base: &str,
        headers: &[(&str, &str)],
    ) -> Result<Self, Box<Response<Option<Vec<u8>>>>> {
        let host = base.strip_prefix("http://").unwrap();
        let mut request = Request::get(format!("ws://{host}/api/v1/im/ws"))
            .header("host", host)
            .header("upgrade", "websocket")
            .header("connection", "upgrade")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", generate_key());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let stream = TcpStream::connect(host).await.unwrap();
        let request = request.body(()).unwrap();
        match tokio_tungstenite::client_async(request, stream).await {
            Ok((stream, _)) => Ok(Self::new(Stream::WebSocket(Box::new(stream)))),
            Err(Error::Http(answer)) => Err(answer),
            Err(error) => panic!("{error}"),
        }
    }

    /// A connection over plain TCP.
    pub async fn tcp(address: &str) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        Self::new(Stream::Tcp(stream, Vec::new()))
    }

    /// A connected client of this user.
    pub async fn connected(app: &Served, uid: &str) -> Self {
        let hello = Hello::of(app, uid).await;
        let mut client = Self::open(app).await;
        client.connect(&hello).await;
        client
    }

    /// Says CONNECT, and expects to be accepted.
    pub async fn connect(&mut self, hello: &Hello) {
        self.say_connect(hello).await;
        match self.next().await {
            Next::Frame(frame) if frame.kind == FrameKind::Connack => {
                let connack = Connack::parse(frame.frame(), hello.version).unwrap();
                assert_eq!(connack.reason, Reason::SUCCESS, "{connack:?}");
                let cipher = self.key.agree(connack.server_key, connack.salt);
                self.cipher = Some(cipher.unwrap());
                self.version = connack
                    .server_version
                    .unwrap_or(hello.version)
                    .min(hello.version);
            }
            other => panic!("{other:?}"),
        }
    }

    /// The CONNECT frame of this client.
    pub fn connect_frame(&self, hello: &Hello) -> Vec<u8> {
        let connect = Connect {
            version: hello.version,
            device_flag: hello.device_flag,
            device_id: &hello.device_id,
            uid: &hello.uid,
            token: &hello.token,
            client_timestamp: 0,
            client_key: hello.key.as_deref().unwrap_or(self.key.public_key()),
        };
        let mut frame = Vec::new();
        connect.write(&mut frame).unwrap();
        frame
    }

    pub async fn say_connect(&mut self, hello: &Hello) {
        let frame = self.connect_frame(hello);
        self.write(&frame).await;
    }

    /// The reason of the CONNACK that refuses this, and the code with which the connection is closed.
    pub async fn refused(&mut self, hello: &Hello) -> (u8, Option<u16>) {
        self.say_connect(hello).await;
        let reason = match self.next().await {
            Next::Frame(frame) if frame.kind == FrameKind::Connack => {
                Connack::parse(frame.frame(), hello.version)
                    .unwrap()
                    .reason
                    .0
            }
            Next::Closed(code) => return (0, code),
            other => panic!("{other:?}"),
        };
        (reason, self.closed().await)
    }

    /// Writes bytes, over WebSocket in one message. A connection that is closed meanwhile is no failure: the next read tells it.
    pub async fn write(&mut self, bytes: &[u8]) {
        match &mut self.stream {
            Stream::WebSocket(stream) => {
                let message = Message::Binary(WsBytes::copy_from_slice(bytes));
                let _ = stream.send(message).await;
            }
            Stream::Tcp(stream, _) => {
                let _ = stream.write_all(bytes).await;
            }
        }
    }

    /// Writes a text.
    pub async fn text(&mut self, text: &str) {
        self.message(Message::text(text)).await;
    }

    /// Writes any WebSocket message.
    pub async fn message(&mut self, message: Message) {
        let Stream::WebSocket(stream) = &mut self.stream else {
            panic!("not over TCP");
        };
        let _ = stream.send(message).await;
    }

    /// The bytes below WebSocket, for what no library sends.
    pub async fn raw(&mut self, bytes: &[u8]) {
        let stream = match &mut self.stream {
            Stream::WebSocket(stream) => stream.get_mut(),
            Stream::Tcp(stream, _) => stream,
        };
        let _ = stream.write_all(bytes).await;
    }

    /// What comes next. Fails where a WebSocket message has more than one frame or a part of one: SDK 1.0.4 loses those.
    pub async fn next(&mut self) -> Next {
        timeout(LIMIT, self.next_of_stream())
            .await
            .expect("something comes")
    }

    /// What comes within a moment; `None` for nothing. Only for what must not come, after something that would come later.
    pub async fn next_within(&mut self, limit: Duration) -> Option<Next> {
        timeout(limit, self.next_of_stream()).await.ok()
    }

    async fn next_of_stream(&mut self) -> Next {
        match &mut self.stream {
            Stream::WebSocket(stream) => loop {
                match stream.next().await {
                    Some(Ok(Message::Binary(bytes))) => {
                        let (frame, length) = parse(&bytes).expect("a whole frame");
                        assert_eq!(length, bytes.len(), "one frame a message");
                        return Next::Frame(frame);
                    }
                    Some(Ok(Message::Text(text))) => {
                        return Next::Text(serde_json::from_str(&text).unwrap());
                    }
                    Some(Ok(Message::Close(frame))) => {
                        return Next::Closed(frame.map(|frame| frame.code.into()));
                    }
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => return Next::Closed(None),
                }
            },
            Stream::Tcp(stream, buffer) => loop {
                if let Some((frame, length)) = parse(buffer) {
                    buffer.drain(..length);
                    return Next::Frame(frame);
                }
                match stream.read_buf(buffer).await {
                    Ok(1..) => {}
                    Ok(0) | Err(_) => return Next::Closed(None),
                }
            },
        }
    }

    /// Waits for a ping of WebSocket.
    pub async fn pinged(&mut self) -> bool {
        let Stream::WebSocket(stream) = &mut self.stream else {
            panic!("not over TCP");
        };
        let next = timeout(LIMIT, stream.next())
            .await
            .expect("something comes");
        matches!(next, Some(Ok(Message::Ping(_))))
    }

    /// The next frame, which is of this kind.
    pub async fn frame(&mut self, kind: FrameKind) -> OwnedFrame {
        match self.next().await {
            Next::Frame(frame) if frame.kind == kind => frame,
            other => panic!("no {kind:?} but {other:?}"),
        }
    }

    /// Reads to the end; the code of the closing. Fails on anything before it.
    pub async fn closed(&mut self) -> Option<u16> {
        match self.next().await {
            Next::Closed(code) => code,
            other => panic!("not closed but {other:?}"),
        }
    }

    /// The reason of the DISCONNECT that comes next, and the code of the closing.
    pub async fn disconnected(&mut self) -> (u8, Option<u16>) {
        let frame = self.frame(FrameKind::Disconnect).await;
        (frame.body[0], self.closed().await)
    }

    /// Whether the connection still answers a PING.
    pub async fn is_alive(&mut self) -> bool {
        self.write(&wkproto::PING).await;
        matches!(self.next().await, Next::Frame(frame) if frame.kind == FrameKind::Pong)
    }

    /// A SEND of this client, to be changed by `change` before it is sealed and signed.
    pub fn send_frame(
        &mut self,
        channel: (u8, &'static [u8]),
        text: &str,
        flags: u8,
        change: impl FnOnce(&mut Send<'static>),
    ) -> Vec<u8> {
        self.seq += 1;
        let cipher = self.cipher.as_ref().expect("connected");
        let payload = cipher.seal(json!({"type": 1, "content": text}).to_string().as_bytes());
        // Leaked, so that `change` may put anything in.
        let number = format!("number-{}", self.seq).leak();
        let payload = payload.leak();
        let mut send = Send {
            setting: 0,
            client_seq: self.seq,
            client_msg_no: number,
            stream_no: "",
            channel_id: channel.1,
            channel_type: channel.0,
            expire: 0,
            msg_key: "",
            topic: "",
            payload,
        };
        change(&mut send);
        let msg_key = cipher.send_msg_key(&send);
        if send.msg_key.is_empty() {
            send.msg_key = msg_key.leak();
        }
        let mut frame = Vec::new();
        send.write(self.version, flags, &mut frame).unwrap();
        frame
    }

    /// Sends a text and waits for its acknowledgement.
    pub async fn send(&mut self, channel_type: u8, channel_id: &str, text: &str) -> Ack {
        let channel_id = channel_id.as_bytes().to_vec().leak();
        let frame = self.send_frame((channel_type, channel_id), text, 0, |_| ());
        self.write(&frame).await;
        self.ack().await
    }

    /// The next frame, which is a SENDACK.
    pub async fn ack(&mut self) -> Ack {
        let frame = self.frame(FrameKind::Sendack).await;
        let ack = Sendack::parse(frame.frame(), self.version).unwrap();
        Ack {
            reason: ack.reason.0,
            id: ack.message_id,
            seq: ack.message_seq,
            client_seq: ack.client_seq,
            client_msg_no: ack.client_msg_no.map(str::to_owned),
            flags: frame.flags,
        }
    }

    /// The text of the next frame, which is a RECV of this sender.
    pub async fn text_from(&mut self, sender: &str) -> String {
        let frame = self.frame(FrameKind::Recv).await;
        let recv = Recv::parse(frame.frame(), self.version).unwrap();
        assert_eq!(recv.from_uid, sender.as_bytes());
        let cipher = self.cipher.as_ref().expect("connected");
        assert_eq!(cipher.recv_msg_key(&recv), recv.msg_key);
        let payload: Value = serde_json::from_slice(&cipher.open(recv.payload).unwrap()).unwrap();
        payload["content"].as_str().unwrap().to_owned()
    }

    /// Calls a method of JSON-RPC; what comes next.
    pub async fn call(&mut self, method: &str, params: Value) -> Value {
        let request = json!({"jsonrpc": "2.0", "id": "1", "method": method, "params": params});
        self.text(&request.to_string()).await;
        self.json().await
    }

    /// What comes next, which is a text.
    pub async fn json(&mut self) -> Value {
        match self.next().await {
            Next::Text(value) => value,
            other => panic!("no text but {other:?}"),
        }
    }

    /// A client of JSON-RPC that is connected as this user.
    pub async fn json_rpc(app: &Served, uid: &str) -> Self {
        let token = token(app, uid, 1).await;
        let mut client = Self::open(app).await;
        let answer = client
            .call("connect", json!({"uid": uid, "token": token}))
            .await;
        assert_eq!(answer["result"]["reasonCode"], 1, "{answer}");
        client
    }
}

fn parse(bytes: &[u8]) -> Option<(OwnedFrame, usize)> {
    let (frame, length) = wkproto::next_frame(bytes, 4 << 20).expect("a frame")?;
    let owned = OwnedFrame {
        kind: frame.kind,
        flags: frame.flags,
        body: frame.body.to_vec(),
    };
    Some((owned, length))
}
