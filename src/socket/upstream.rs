//! WuKongIM's side of a socket: a TCP connection, its CONNECT and CONNACK, and the frames that come. Always TCP: v2's WebSocket port loses
//! frames that a read cuts (seen).

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use wkproto::{Connack, Connect, Frame, FrameKind, Reason, next_frame};

use crate::auth::DeviceFlag;
use crate::domain::Uid;
use crate::state::App;
use crate::wukongim::Generation;

/// How much is read at once; a frame may be larger.
const READ_BYTES: usize = 16 * 1024;
/// The largest body of a frame from WuKongIM, which takes up to 1 MiB itself (source).
const MAX_BODY_BYTES: usize = 2 * 1024 * 1024;
/// How often CONNECT is sent: v2 leaves 1 % of them unanswered (18 of 1,655 seen).
const CONNECT_ATTEMPTS: u32 = 3;

/// A connection to one of WuKongIM's nodes.
pub(super) struct Upstream {
    stream: TcpStream,
    /// Received and not split into frames yet; without capacity while it is empty.
    buffer: BytesMut,
}

/// WuKongIM closed the connection, or sent what is no frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Closed;

/// A frame in its own bytes.
pub(super) struct OwnedFrame {
    pub(super) kind: FrameKind,
    pub(super) bytes: Bytes,
}

impl OwnedFrame {
    /// The frame's parts.
    pub(super) fn parts(&self) -> Option<Frame<'_>> {
        let frame = next_frame(&self.bytes, MAX_BODY_BYTES).ok().flatten();
        frame.map(|(frame, _)| frame)
    }

    /// The version agreed by this CONNACK, which answers a CONNECT of `version`. Below version 4 it names none: then it is the client's.
    pub(super) fn agreed_version(&self, version: u8) -> Option<u8> {
        let connack = Connack::parse(self.parts()?, version).ok()?;
        let server = connack.server_version.unwrap_or(version);
        Some(server.min(version))
    }
}

/// Why there is no connection to WuKongIM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ConnectError {
    /// The user is banned there.
    Banned,
    /// It cannot be reached, does not answer, or refuses what is right here.
    Unavailable,
}

/// What CONNECT is made of; everything else in it is the gateway's own.
pub(super) struct Identity<'a> {
    pub(super) uid: &'a Uid,
    pub(super) device: DeviceFlag,
    pub(super) token: &'a str,
    pub(super) version: u8,
    pub(super) timestamp_ms: i64,
    pub(super) key: &'a str,
}

impl Identity<'_> {
    /// The whole frame. The device id is a new one: some names give rights that no client may have (`____device`, seen).
    fn connect(&self) -> Vec<u8> {
        let mut frame = Vec::with_capacity(512);
        let device_id = format!("gw_{:016x}", fastrand::u64(..));
        let connect = Connect {
            version: self.version,
            device_flag: self.device.number(),
            device_id: &device_id,
            uid: self.uid.as_str().as_bytes(),
            token: self.token,
            client_timestamp: self.timestamp_ms,
            client_key: self.key,
        };
        // Each part was checked to be far shorter than a string may be.
        let _ = connect.write(&mut frame);
        frame
    }
}

impl Upstream {
    /// Connects to a healthy node, and returns the answer to CONNECT as it came. A node that does not know a token that is good here (it
    /// lost its data) is told once more.
    pub(super) async fn connect(
        app: &App,
        generation: Generation,
        identity: &Identity<'_>,
    ) -> Result<(Self, OwnedFrame), ConnectError> {
        let mut tried = Vec::new();
        let mut is_registered_again = false;
        for _ in 0..CONNECT_ATTEMPTS {
            let Ok(stream) = app.client.connect_socket(&mut tried).await else {
                continue;
            };
            let mut upstream = Self {
                stream,
                buffer: BytesMut::new(),
            };
            let answer = upstream.handshake(identity);
            match timeout(app.settings.socket.connack_timeout, answer).await {
                Ok(Ok(answer)) => match reason_of(&answer, identity.version) {
                    Some(Reason::SUCCESS) => return Ok((upstream, answer)),
                    Some(Reason::BAN) => return Err(ConnectError::Banned),
                    _ => tracing::debug!("wukongim refuses a socket"),
                },
                // v2 says nothing where it does not know the token, and closes after 3 s (seen).
                Ok(Err(Closed)) | Err(_)
                    if generation == Generation::V2 && !is_registered_again =>
                {
                    is_registered_again = true;
                    // The next attempt tells whether it helped.
                    let again = app.im_tokens.register_again(identity.uid, identity.device);
                    let _ = again.await;
                }
                Ok(Err(Closed)) | Err(_) => {}
            }
        }
        Err(ConnectError::Unavailable)
    }

    async fn handshake(&mut self, identity: &Identity<'_>) -> Result<OwnedFrame, Closed> {
        self.write(&identity.connect()).await?;
        loop {
            if let Some(frame) = self.next()? {
                return Ok(frame);
            }
            self.read().await?;
        }
    }

    /// Waits for more bytes and reads them. Dropping the future loses nothing.
    pub(super) async fn read(&mut self) -> Result<(), Closed> {
        // Memory is taken only when there is something to read.
        self.stream.readable().await.map_err(|_| Closed)?;
        self.buffer.reserve(READ_BYTES);
        // `try_read_buf` would leave the stream readable, so that the next read would ask the system in vain and keep the memory.
        match self.stream.read_buf(&mut self.buffer).await {
            Ok(1..) => Ok(()),
            Ok(0) | Err(_) => Err(Closed),
        }
    }

    /// The next whole frame that was read.
    pub(super) fn next(&mut self) -> Result<Option<OwnedFrame>, Closed> {
        let frame = next_frame(&self.buffer, MAX_BODY_BYTES).map_err(|_| Closed)?;
        let Some((kind, length)) = frame.map(|(frame, length)| (frame.kind, length)) else {
            if self.buffer.is_empty() {
                self.buffer = BytesMut::new();
            }
            return Ok(None);
        };
        let bytes = self.buffer.split_to(length).freeze();
        Ok(Some(OwnedFrame { kind, bytes }))
    }

    /// Bytes that were read and not taken yet.
    pub(super) fn buffered(&self) -> usize {
        self.buffer.len()
    }

    /// Writes one frame.
    pub(super) async fn write(&mut self, frame: &[u8]) -> Result<(), Closed> {
        self.stream.write_all(frame).await.map_err(|_| Closed)
    }

    /// The same, unless it takes longer than `limit`.
    pub(super) async fn write_within(
        &mut self,
        frame: &[u8],
        limit: Duration,
    ) -> Result<(), Closed> {
        timeout(limit, self.write(frame))
            .await
            .unwrap_or(Err(Closed))
    }
}

fn reason_of(answer: &OwnedFrame, version: u8) -> Option<Reason> {
    let connack = Connack::parse(answer.parts()?, version).ok()?;
    Some(connack.reason)
}
