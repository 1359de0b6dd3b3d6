//! One client's connection: bytes in over either transport, whole frames out.

use std::{io, time::Duration};

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream, accept_hdr_async_with_config,
    tungstenite::{
        Error, Message, Utf8Bytes,
        handshake::server::{ErrorResponse, Request, Response},
        http::StatusCode,
        protocol::{CloseFrame, WebSocketConfig, frame::coding::CloseCode},
    },
};

use super::Transport;
use crate::Dialect;

/// A read at a time; tungstenite's default takes 128 KiB a connection.
const READ_BYTES: usize = 4096;
/// The longest WebSocket message: more than a frame of the protocol may have.
const MAX_MESSAGE: usize = (1 << 20) + 64;

/// How long a closed connection waits for the client to close as well.
const LINGER: Duration = Duration::from_secs(1);

/// What a read brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Read {
    Bytes,
    /// The client is gone, or said what is no binary message.
    Closed,
    /// The head of a WebSocket frame claims more than may be.
    TooLarge,
}

/// An open connection.
pub(super) enum Link {
    Tcp(TcpStream),
    WebSocket(Box<WebSocketStream<TcpStream>>),
}

impl Link {
    /// Opens the transport: for a WebSocket its handshake. v3 takes the path `/` only.
    pub(super) async fn open(
        stream: TcpStream,
        transport: Transport,
        dialect: Dialect,
    ) -> Option<Self> {
        if transport == Transport::Tcp {
            return Some(Self::Tcp(stream));
        }
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BYTES)
            .write_buffer_size(0)
            .max_message_size(Some(MAX_MESSAGE))
            .max_frame_size(Some(MAX_MESSAGE));
        #[expect(
            clippy::result_large_err,
            reason = "tungstenite's own type for a refusal"
        )]
        let on_request = move |request: &Request, response: Response| {
            if dialect == Dialect::V3 && request.uri().path() != "/" {
                let mut refusal = ErrorResponse::new(None);
                *refusal.status_mut() = StatusCode::NOT_FOUND;
                return Err(refusal);
            }
            Ok(response)
        };
        let opened = accept_hdr_async_with_config(stream, on_request, Some(config)).await;
        Some(Self::WebSocket(Box::new(opened.ok()?)))
    }

    /// Waits for bytes and appends them to `buffer`. Dropping the future loses none.
    pub(super) async fn read(&mut self, buffer: &mut Vec<u8>) -> Read {
        match self {
            Self::Tcp(stream) => {
                buffer.reserve(READ_BYTES);
                match stream.read_buf(buffer).await {
                    Ok(1..) => Read::Bytes,
                    Ok(0) | Err(_) => Read::Closed,
                }
            }
            Self::WebSocket(stream) => loop {
                match stream.next().await {
                    Some(Ok(Message::Binary(bytes))) => {
                        buffer.extend_from_slice(&bytes);
                        return Read::Bytes;
                    }
                    // Answered by tungstenite.
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                    Some(Err(Error::Capacity(_))) => return Read::TooLarge,
                    _ => return Read::Closed,
                }
            },
        }
    }

    /// Writes one frame, in a WebSocket as one message.
    pub(super) async fn write(&mut self, frame: Vec<u8>) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.write_all(&frame).await,
            Self::WebSocket(stream) => stream
                .send(Message::Binary(frame.into()))
                .await
                .map_err(io::Error::other),
        }
    }

    /// Says goodbye, in a WebSocket with code 1000, and waits a moment for the client's own end: unread bytes would make it a reset, which
    /// takes what was written last with it.
    pub(super) async fn close(mut self) {
        let goodbye = CloseFrame {
            code: CloseCode::Normal,
            reason: Utf8Bytes::default(),
        };
        // Either fails where the client is gone.
        match &mut self {
            Self::Tcp(stream) => drop(stream.shutdown().await),
            Self::WebSocket(stream) => drop(WebSocketStream::close(stream, Some(goodbye)).await),
        }
        let mut rest = Vec::new();
        let drained = async {
            while self.read(&mut rest).await == Read::Bytes {
                rest.clear();
            }
        };
        let _ = timeout(LINGER, drained).await;
    }
}
