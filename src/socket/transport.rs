//! The client's side of a socket: bytes and texts in, frames and a closing out, over WebSocket or plain TCP. Knows no frame.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::{SinkExt as _, StreamExt as _};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error as WsError, Message, Utf8Bytes};

/// How much of a client is read at once; a message may be larger. The library clears as many bytes each time it looks for more, and with its
/// default of 128 KiB a connection takes 110 KB and more (measured).
const READ_BYTES: usize = 1024;
/// The same over TCP, where nothing is cleared.
const TCP_READ_BYTES: usize = 4 * 1024;
/// How much a client may send before its CONNECT is accepted: twice what CONNECT may have, for the framing.
const UNAUTHENTICATED_BYTES: usize = 8 * 1024;
/// How long a closing client may take to acknowledge it.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// WebSocket close codes (RFC 6455).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CloseCode {
    /// Malformed, or not allowed.
    Protocol = 1002,
    /// Text on a binary connection, or the other way round.
    Unsupported = 1003,
    /// Everything final, and time-outs of the client.
    Policy = 1008,
    /// Too large.
    TooLarge = 1009,
    /// The gateway stops.
    Restart = 1012,
    /// What passes by itself.
    TryAgain = 1013,
}

/// What came from the client.
pub(super) enum Received {
    /// Binary data, with or without whole frames.
    Bytes(Bytes),
    /// A text message; only over WebSocket.
    Text(Utf8Bytes),
    /// Nothing more comes.
    Closed,
    /// Not WebSocket, or too large.
    Broken(CloseCode),
}

/// The client did not read for the write time-out, or is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WriteError {
    Slow,
    Gone,
}

/// A client's connection.
pub(super) struct Transport {
    stream: Stream,
    /// Framed and not written yet; without capacity while it is empty. A write that is given up leaves the rest here, so that what follows
    /// does not begin in the middle of a frame.
    unwritten: BytesMut,
}

enum Stream {
    WebSocket(Box<WebSocketStream<Metered<TokioIo<Upgraded>>>>),
    Tcp(TcpStream),
}

impl Transport {
    fn new(stream: Stream) -> Self {
        Self {
            stream,
            unwritten: BytesMut::new(),
        }
    }

    /// Over plain TCP.
    pub(super) fn tcp(stream: TcpStream) -> Self {
        Self::new(Stream::Tcp(stream))
    }

    /// Over an upgraded HTTP connection, whose messages have at most `max_bytes` bytes.
    pub(super) async fn websocket(upgraded: Upgraded, max_bytes: usize) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BYTES)
            .write_buffer_size(0)
            .max_message_size(Some(max_bytes))
            .max_frame_size(Some(max_bytes));
        let stream = Metered {
            stream: TokioIo::new(upgraded),
            left: Some(UNAUTHENTICATED_BYTES),
        };
        let stream = WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await;
        Self::new(Stream::WebSocket(Box::new(stream)))
    }

    /// The label of metrics and log, with the protocol's name where it is not wkproto.
    pub(super) fn is_websocket(&self) -> bool {
        matches!(self.stream, Stream::WebSocket(_))
    }

    /// From now on the client may send as much as it likes.
    pub(super) fn lift_quota(&mut self) {
        if let Stream::WebSocket(stream) = &mut self.stream {
            stream.get_mut().left = None;
        }
    }

    /// The next data of the client. Dropping the future loses nothing.
    pub(super) async fn receive(&mut self) -> Received {
        match &mut self.stream {
            Stream::WebSocket(stream) => loop {
                match stream.next().await {
                    Some(Ok(Message::Binary(bytes))) => return Received::Bytes(bytes),
                    Some(Ok(Message::Text(text))) => return Received::Text(text),
                    // Its answer is written with the next read or write.
                    Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                    Some(Ok(Message::Close(_))) | None => return Received::Closed,
                    Some(Err(error)) => return broken(&error),
                }
            },
            Stream::Tcp(stream) => {
                // Allocated only when there is something to read.
                if stream.readable().await.is_err() {
                    return Received::Closed;
                }
                let mut bytes = BytesMut::with_capacity(TCP_READ_BYTES);
                // Not `try_read_buf`, after which the stream counts as readable still.
                match stream.read_buf(&mut bytes).await {
                    Ok(1..) => Received::Bytes(bytes.freeze()),
                    Ok(0) | Err(_) => Received::Closed,
                }
            }
        }
    }

    /// Writes these messages in one piece, and waits until they are on their way.
    pub(super) async fn send(
        &mut self,
        messages: impl IntoIterator<Item = Message>,
        write_timeout: Duration,
    ) -> Result<(), WriteError> {
        for message in messages {
            self.queue(message);
        }
        timeout(write_timeout, self.flush())
            .await
            .unwrap_or(Err(WriteError::Slow))
    }

    /// Frames a message. Not by the WebSocket stream, which handles one at a time and writes 4 KiB at most: see docs/PERFORMANCE.md.
    fn queue(&mut self, message: Message) {
        if !self.is_websocket() {
            self.unwritten.extend_from_slice(&message.into_data());
            return;
        }
        let frame = match message {
            Message::Text(text) => Frame::message(text, OpCode::Data(Data::Text), true),
            Message::Ping(data) => Frame::ping(data),
            other => Frame::message(other.into_data(), OpCode::Data(Data::Binary), true),
        };
        // Writing to memory does not fail.
        let _ = frame.format(&mut (&mut self.unwritten).writer());
    }

    async fn flush(&mut self) -> Result<(), WriteError> {
        let written = match &mut self.stream {
            Stream::WebSocket(stream) => {
                // Its own answers to pings come first, whole.
                stream.flush().await.map_err(|_| WriteError::Gone)?;
                stream.get_mut().write_all_buf(&mut self.unwritten).await
            }
            Stream::Tcp(stream) => stream.write_all_buf(&mut self.unwritten).await,
        };
        written.map_err(|_| WriteError::Gone)?;
        self.unwritten = BytesMut::new();
        Ok(())
    }

    /// Closes the connection, over WebSocket with this code, and waits shortly for the client to have read it.
    pub(super) async fn close(&mut self, code: CloseCode) {
        let close = async {
            let is_flushed = self.flush().await.is_ok();
            match &mut self.stream {
                Stream::WebSocket(stream) if is_flushed => {
                    let frame = CloseFrame {
                        code: (code as u16).into(),
                        reason: Utf8Bytes::default(),
                    };
                    if stream.send(Message::Close(Some(frame))).await.is_ok() {
                        while let Some(Ok(_)) = stream.next().await {}
                    }
                }
                Stream::Tcp(stream) if is_flushed => {
                    let mut discarded = [0; 512];
                    if stream.shutdown().await.is_ok() {
                        while matches!(stream.read(&mut discarded).await, Ok(1..)) {}
                    }
                }
                _ => {}
            }
        };
        let _ = timeout(CLOSE_TIMEOUT, close).await;
    }
}

fn broken(error: &WsError) -> Received {
    match error {
        WsError::Capacity(_) => Received::Broken(CloseCode::TooLarge),
        // As a process ends, or a phone changes its network.
        WsError::Protocol(ProtocolError::ResetWithoutClosingHandshake) => Received::Closed,
        WsError::Protocol(_) | WsError::Utf8(_) => Received::Broken(CloseCode::Protocol),
        WsError::Io(error) if error.kind() == io::ErrorKind::QuotaExceeded => {
            Received::Broken(CloseCode::TooLarge)
        }
        _ => Received::Closed,
    }
}

/// A stream of which only so much is read, until that limit is lifted.
pub(super) struct Metered<S> {
    stream: S,
    left: Option<usize>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        let read = buffer.filled().len() - before;
        if let Some(left) = self.left {
            let left = left.checked_sub(read);
            self.left = Some(left.ok_or(io::ErrorKind::QuotaExceeded)?);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
