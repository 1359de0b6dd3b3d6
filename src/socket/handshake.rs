//! From an open connection to a session: the client's CONNECT, who it is, WuKongIM's CONNACK, and what a refused client is told.

use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::BytesMut;
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite::Message;
use wkproto::jsonrpc::{self, Call};
use wkproto::{
    Connack, Connect, DecodeError, Frame, FrameKind, KeyPair, MIN_VERSION, Reason, V3_VERSION,
    is_valid_public_key, next_frame,
};

use super::json_rpc::{self, JsonRpc};
use super::session::Codec;
use super::transport::{CloseCode, Received, Transport};
use super::upstream::{ConnectError, Identity, Upstream};
use crate::auth::DeviceFlag;
use crate::domain::Uid;
use crate::state::{App, Registration};
use crate::telemetry::SocketConnect;
use crate::wukongim::Generation;

/// Bytes of a CONNECT, of its device id and of its token.
const MAX_CONNECT_BYTES: usize = 4 * 1024;
const MAX_DEVICE_ID_BYTES: usize = 255;
const MAX_TOKEN_BYTES: usize = 1024;

/// A connection that does not become a session.
pub(super) struct Refusal {
    pub(super) outcome: SocketConnect,
    /// What the client gets before the closing.
    pub(super) answer: Option<Message>,
    pub(super) code: CloseCode,
}

impl Refusal {
    /// A closing without an answer: what SDKs take for a passing failure.
    pub(super) fn bare(outcome: SocketConnect, code: CloseCode) -> Self {
        Self {
            outcome,
            answer: None,
            code,
        }
    }

    fn protocol(code: CloseCode) -> Self {
        Self::bare(SocketConnect::Protocol, code)
    }

    fn unavailable() -> Self {
        Self::bare(SocketConnect::Upstream, CloseCode::TryAgain)
    }
}

/// What a client said in its CONNECT.
struct Hello {
    /// Of the frame or the text.
    bytes: usize,
    protocol: Protocol,
    uid: Vec<u8>,
    device_flag: u8,
    token: String,
}

/// What the connection speaks from now on.
enum Protocol {
    Wkproto {
        version: u8,
        timestamp_ms: i64,
        key: String,
    },
    JsonRpc {
        id: Option<jsonrpc::Id>,
    },
}

impl Hello {
    /// The user and device, and how often its tokens were revoked, if everything about it is right.
    async fn verify(&self, app: &App) -> Result<Option<(Uid, DeviceFlag, u64)>, Refusal> {
        let uid = std::str::from_utf8(&self.uid).ok();
        let uid = uid.and_then(|uid| Uid::parse(uid, app.settings.limits.id_bytes).ok());
        let (Some(uid), Some(device)) = (uid, DeviceFlag::from_number(self.device_flag)) else {
            return Ok(None);
        };
        if let Protocol::Wkproto { key, .. } = &self.protocol
            && !is_valid_public_key(key)
        {
            return Ok(None);
        }
        let verified = app.im_tokens.verify(&uid, device, &self.token).await;
        match verified {
            Ok(count) => Ok(count.map(|count| (uid, device, count))),
            Err(_) => Err(Refusal::unavailable()),
        }
    }

    /// A refusal that is final for an SDK: a CONNACK with that reason, or an error of JSON-RPC with that code.
    fn refused(&self, outcome: SocketConnect) -> Refusal {
        let (reason, text) = match outcome {
            SocketConnect::Banned => (Reason::BAN, "the user is banned"),
            _ => (Reason::AUTH_FAIL, "authentication failed"),
        };
        let answer = match &self.protocol {
            Protocol::Wkproto { version, .. } => {
                let connack = Connack {
                    server_version: None,
                    time_diff: 0,
                    reason,
                    server_key: "",
                    salt: "",
                    node_id: 0,
                };
                let mut frame = Vec::new();
                let _ = connack.write(*version, &mut frame);
                Message::Binary(frame.into())
            }
            Protocol::JsonRpc { id } => {
                Message::text(jsonrpc::error(id.as_ref(), reason.0.into(), text))
            }
        };
        Refusal {
            outcome,
            answer: Some(answer),
            code: CloseCode::Policy,
        }
    }
}

/// Reads the client's CONNECT, checks who it is, and connects it to WuKongIM. Failures are charged to `address`.
pub(super) async fn open(
    app: &App,
    transport: &mut Transport,
    address: IpAddr,
) -> Result<Parts, Refusal> {
    let opened = async {
        let limit = app.settings.socket.connect_timeout;
        let hello = timeout(limit, first_call(transport)).await;
        let timed_out = |_| Refusal::bare(SocketConnect::Timeout, CloseCode::Policy);
        let (hello, began) = (hello.map_err(timed_out)??, Instant::now());
        let parts = authenticate(app, &hello).await?;
        let connack_seconds = &app.metrics.sockets.connack_seconds;
        connack_seconds.observe(began.elapsed().as_secs_f64());
        Ok(parts)
    };
    opened.await.map_err(|refusal: Refusal| {
        let is_clients_fault = matches!(
            refusal.outcome,
            SocketConnect::BadToken | SocketConnect::Protocol
        );
        if is_clients_fault && app.limits.charge_address(address).is_err() {
            return Refusal::bare(refusal.outcome, CloseCode::TryAgain);
        }
        refusal
    })
}

/// What a session is made of.
pub(super) struct Parts {
    pub(super) uid: Uid,
    pub(super) device: DeviceFlag,
    /// The size of its CONNECT.
    pub(super) connect_bytes: usize,
    /// How often the device's tokens had been revoked.
    pub(super) revocations: u64,
    pub(super) registration: Registration,
    pub(super) upstream: Upstream,
    pub(super) codec: Codec,
    /// The protocol version agreed with WuKongIM.
    pub(super) version: u8,
    pub(super) generation: Generation,
    /// What the client gets first.
    pub(super) answer: Message,
}

/// Checks who it is, and connects to WuKongIM.
async fn authenticate(app: &App, hello: &Hello) -> Result<Parts, Refusal> {
    let Some((uid, device, revocations)) = hello.verify(app).await? else {
        return Err(hello.refused(SocketConnect::BadToken));
    };
    let unavailable = |_| Refusal::unavailable();
    let banned = app.authorization.is_user_banned(&uid).await;
    if banned.map_err(unavailable)? {
        return Err(hello.refused(SocketConnect::Banned));
    }
    let generation = app.client.generation().await;
    let generation = generation.map_err(unavailable)?;
    let own_key = match &hello.protocol {
        Protocol::Wkproto { .. } => None,
        Protocol::JsonRpc { .. } => Some(KeyPair::generate().map_err(|_| Refusal::unavailable())?),
    };
    let (version, timestamp_ms, key) = match (&hello.protocol, &own_key) {
        (
            Protocol::Wkproto {
                version,
                timestamp_ms,
                key,
            },
            _,
        ) => (*version, *timestamp_ms, key.as_str()),
        (Protocol::JsonRpc { .. }, key) => (
            json_rpc::VERSION,
            unix_ms(),
            key.as_ref().map_or("", KeyPair::public_key),
        ),
    };
    let identity = Identity {
        uid: &uid,
        device,
        token: &hello.token,
        version,
        timestamp_ms,
        key,
    };
    let connected = Upstream::connect(app, generation, &identity).await;
    let (upstream, connack) = connected.map_err(|error| match error {
        ConnectError::Banned => hello.refused(SocketConnect::Banned),
        ConnectError::Unavailable => Refusal::unavailable(),
    })?;
    let registration = app.sockets.register(&uid, device);
    // A revocation since the first look has either found the registration, or is seen here.
    match app.im_tokens.is_current(&uid, device, revocations).await {
        Ok(true) => {}
        Ok(false) => return Err(hello.refused(SocketConnect::BadToken)),
        Err(_) => return Err(Refusal::unavailable()),
    }
    let version = connack
        .agreed_version(version)
        .ok_or_else(Refusal::unavailable)?;
    let (codec, answer) = match (&hello.protocol, own_key) {
        (Protocol::JsonRpc { id }, Some(own_key)) => {
            let agreed = JsonRpc::agree(&own_key, &connack, version, id.as_ref());
            let (json_rpc, answer) = agreed.ok_or_else(Refusal::unavailable)?;
            (Codec::JsonRpc(Box::new(json_rpc)), answer)
        }
        _ => (Codec::Wkproto, Message::Binary(connack.bytes)),
    };
    Ok(Parts {
        connect_bytes: hello.bytes,
        uid,
        device,
        revocations,
        registration,
        upstream,
        codec,
        version,
        generation,
        answer,
    })
}

/// Now, in Unix milliseconds: JSON-RPC's CONNECT has no time of the client.
fn unix_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    i64::try_from(now.unwrap_or_default().as_millis()).unwrap_or(i64::MAX)
}

/// Reads the first call of a client, which must be CONNECT, and after which nothing may come yet.
async fn first_call(transport: &mut Transport) -> Result<Hello, Refusal> {
    let mut buffer = BytesMut::new();
    loop {
        match transport.receive().await {
            Received::Bytes(bytes) => {
                buffer.extend_from_slice(&bytes);
                match next_frame(&buffer, MAX_CONNECT_BYTES) {
                    Ok(None) => {}
                    Ok(Some((frame, length))) if length == buffer.len() => return hello(frame),
                    Err(DecodeError::TooLarge(_)) => {
                        return Err(Refusal::protocol(CloseCode::TooLarge));
                    }
                    Ok(Some(_)) | Err(_) => return Err(Refusal::protocol(CloseCode::Protocol)),
                }
            }
            Received::Text(text) if buffer.is_empty() => return json_hello(&text),
            Received::Text(_) => return Err(Refusal::protocol(CloseCode::Unsupported)),
            // Nothing is to be told, and nothing was wrong.
            Received::Closed => {
                return Err(Refusal::bare(SocketConnect::Timeout, CloseCode::Policy));
            }
            Received::Broken(code) => return Err(Refusal::protocol(code)),
        }
    }
}

fn hello(frame: Frame<'_>) -> Result<Hello, Refusal> {
    if frame.kind != FrameKind::Connect {
        return Err(Refusal::protocol(CloseCode::Protocol));
    }
    let connect = Connect::parse(frame);
    let connect = connect.map_err(|_| Refusal::protocol(CloseCode::Protocol))?;
    if connect.version < MIN_VERSION {
        return Err(Refusal::protocol(CloseCode::Protocol));
    }
    check_sizes(connect.device_id, connect.token)?;
    Ok(Hello {
        bytes: frame.body.len(),
        protocol: Protocol::Wkproto {
            version: connect.version.min(V3_VERSION),
            timestamp_ms: connect.client_timestamp,
            key: connect.client_key.to_owned(),
        },
        uid: connect.uid.to_owned(),
        device_flag: connect.device_flag,
        token: connect.token.to_owned(),
    })
}

fn json_hello(text: &str) -> Result<Hello, Refusal> {
    if text.len() > MAX_CONNECT_BYTES {
        return Err(Refusal::protocol(CloseCode::TooLarge));
    }
    let request = jsonrpc::parse(text).map_err(|error| Refusal {
        answer: Some(Message::text(jsonrpc::error(
            error.id.as_ref(),
            error.kind.code(),
            &error.kind.to_string(),
        ))),
        ..Refusal::protocol(CloseCode::Protocol)
    })?;
    let Call::Connect(connect) = request.call else {
        return Err(Refusal::protocol(CloseCode::Protocol));
    };
    check_sizes(&connect.device_id, &connect.token)?;
    Ok(Hello {
        bytes: text.len(),
        protocol: Protocol::JsonRpc { id: request.id },
        uid: connect.uid.into_owned().into_bytes(),
        device_flag: connect.device_flag,
        token: connect.token.into_owned(),
    })
}

fn check_sizes(device_id: &str, token: &str) -> Result<(), Refusal> {
    if device_id.len() > MAX_DEVICE_ID_BYTES || token.len() > MAX_TOKEN_BYTES {
        return Err(Refusal::protocol(CloseCode::TooLarge));
    }
    Ok(())
}
