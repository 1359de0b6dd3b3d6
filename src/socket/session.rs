//! A connected socket: one task that reads both sides in turn and awaits each write, which is the backpressure. Each frame of the client is
//! judged before the next is read.

mod frames;
mod texts;

use std::pin::Pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_tungstenite::tungstenite::Message;
use wkproto::{Disconnect, FrameKind, Reason, Recvack, jsonrpc};

use super::end::End;
use super::handshake::Parts;
use super::json_rpc::JsonRpc;
use super::traffic::Traffic;
use super::transport::{CloseCode, Received, Transport};
use super::upstream::{Closed, OwnedFrame, Upstream};
use crate::auth::DeviceFlag;
use crate::domain::Uid;
use crate::state::{App, Registration};
use crate::telemetry::SocketProtocol;
use crate::wukongim::Generation;

/// From this protocol version on clients know EVENT; SDK 1.0.4 (version 2) breaks the connection on one (source).
const FIRST_VERSION_WITH_EVENT: u8 = 5;

/// A socket of whose SENDs none is answered for so many `wukongim.timeout` ends, for its client to come back on a new one: in a v2 cluster
/// that loses a node, sockets on the others may stay whose SENDs get no answer any more (seen).
const UNANSWERED_TIMEOUTS: u32 = 2;

/// The form of what the client gets and sends.
pub(super) enum Codec {
    /// WuKongIM's own frames.
    Wkproto,
    /// Texts, translated.
    JsonRpc(Box<JsonRpc>),
}

/// A connected socket.
pub(super) struct Session {
    app: App,
    transport: Transport,
    upstream: Upstream,
    codec: Codec,
    pub(super) uid: Uid,
    pub(super) device: DeviceFlag,
    revocations: u64,
    registration: Registration,
    version: u8,
    generation: Generation,
    answer: Option<Message>,
    payload_limit: usize,
    /// The beginning of a frame whose rest has not come yet.
    inbound: BytesMut,
    last_frame: Instant,
    next_ping: Instant,
    timer: Pin<Box<Sleep>>,
    unanswered: Unanswered,
    pub(super) traffic: Traffic,
}

/// The SENDs that WuKongIM has and has not answered.
struct Unanswered {
    sends: u32,
    /// The last answer, or the first SEND after all were answered.
    since: Instant,
}

impl Unanswered {
    fn new(now: Instant) -> Self {
        Self {
            sends: 0,
            since: now,
        }
    }

    fn answered(&mut self) {
        self.sends = self.sends.saturating_sub(1);
        self.since = Instant::now();
    }
}

/// What happened next.
enum Event {
    Signal(End),
    Client(Received),
    Upstream(Result<(), Closed>),
    Timer,
}

impl Session {
    pub(super) fn new(app: &App, mut transport: Transport, parts: Parts) -> Self {
        transport.lift_quota();
        let mut traffic = Traffic::new(app.metrics.clone());
        traffic.frame_in(Some(FrameKind::Connect));
        traffic.received(parts.connect_bytes);
        traffic.frame_out(FrameKind::Connack);
        let now = Instant::now();
        Self {
            app: app.clone(),
            transport,
            upstream: parts.upstream,
            codec: parts.codec,
            uid: parts.uid,
            device: parts.device,
            revocations: parts.revocations,
            registration: parts.registration,
            version: parts.version,
            generation: parts.generation,
            answer: Some(parts.answer),
            payload_limit: app.settings.limits.payload,
            inbound: BytesMut::new(),
            last_frame: now,
            next_ping: now + app.settings.socket.ping_interval,
            timer: Box::pin(sleep_until(now)),
            unanswered: Unanswered::new(now),
            traffic,
        }
    }

    /// What it speaks, for metrics and log.
    pub(super) fn protocol(&self) -> SocketProtocol {
        match (&self.codec, self.transport.is_websocket()) {
            (Codec::JsonRpc(_), _) => SocketProtocol::JsonrpcWs,
            (Codec::Wkproto, true) => SocketProtocol::WkprotoWs,
            (Codec::Wkproto, false) => SocketProtocol::WkprotoTcp,
        }
    }

    /// Runs until either side ends, or the gateway ends it.
    pub(super) async fn run(&mut self) -> End {
        match self.serve().await {
            Ok(never) => match never {},
            Err(end) => end,
        }
    }

    async fn serve(&mut self) -> Result<std::convert::Infallible, End> {
        if let Some(answer) = self.answer.take() {
            self.deliver(vec![answer]).await?;
        }
        self.payload_limit = self.app.payload_limit().await;
        // What came with the CONNACK.
        self.on_upstream().await?;
        self.set_timer();
        loop {
            let event = tokio::select! {
                signal = &mut self.registration.end => Event::Signal(signal.map_or(End::Drain, End::from)),
                received = self.transport.receive() => Event::Client(received),
                read = self.upstream.read() => Event::Upstream(read),
                () = self.timer.as_mut() => Event::Timer,
            };
            match event {
                Event::Signal(end) => return Err(end),
                Event::Client(received) => self.on_client(received).await?,
                Event::Upstream(Ok(())) => self.on_upstream().await?,
                Event::Upstream(Err(Closed)) => return Err(self.end_of_upstream().await),
                Event::Timer => self.on_timer().await?,
            }
        }
    }

    /// Tells the client why its socket ends, and closes it.
    pub(super) async fn close(mut self, end: End) {
        if let Some(reason) = end.disconnect_reason() {
            let message = match &self.codec {
                Codec::JsonRpc(_) => Message::text(jsonrpc::disconnect(reason, "")),
                Codec::Wkproto => {
                    let mut frame = Vec::new();
                    let _ = Disconnect { reason, text: "" }.write(&mut frame);
                    Message::Binary(frame.into())
                }
            };
            // Not the whole write time-out: this end is due at once.
            let limit = Duration::from_secs(1).min(self.app.settings.socket.write_timeout);
            let _ = self.transport.send([message], limit).await;
        }
        // A client that is gone needs none.
        if end != End::Client {
            self.transport.close(end.close_code()).await;
        }
    }

    fn set_timer(&mut self) {
        let idle = self.last_frame + self.app.settings.socket.idle_timeout;
        let next = idle.min(self.next_ping);
        let unanswered = self.unanswered_until().unwrap_or(next);
        self.timer.as_mut().reset(next.min(unanswered));
    }

    /// When WuKongIM must have answered the SENDs that it has; `None` without any.
    fn unanswered_until(&self) -> Option<Instant> {
        let limit = UNANSWERED_TIMEOUTS * self.app.settings.wukongim.timeout;
        (self.unanswered.sends > 0).then(|| self.unanswered.since + limit)
    }

    /// A SEND goes to WuKongIM, which must answer it.
    async fn send_on(&mut self, frame: &[u8]) -> Result<(), End> {
        if self.unanswered.sends == 0 {
            self.unanswered.since = Instant::now();
        }
        self.unanswered.sends += 1;
        // The timer is moved only where it is later, so at most once in that time.
        if let Some(until) = self.unanswered_until()
            && until < self.timer.deadline()
        {
            self.timer.as_mut().reset(until);
        }
        self.pass_on(frame).await
    }

    async fn on_timer(&mut self) -> Result<(), End> {
        let (now, settings) = (Instant::now(), &self.app.settings.socket);
        if now >= self.last_frame + settings.idle_timeout {
            return Err(End::Idle);
        }
        if self.unanswered_until().is_some_and(|until| now >= until) {
            tracing::debug!(user.id = %self.uid, "wukongim answers no send of a socket");
            return Err(End::Upstream);
        }
        if now >= self.next_ping {
            self.next_ping = now + settings.ping_interval;
            if self.transport.is_websocket() {
                self.deliver(vec![Message::Ping(Bytes::new())]).await?;
            }
        }
        self.set_timer();
        Ok(())
    }

    /// Writes to the client, unless the socket must end meanwhile.
    async fn deliver(&mut self, messages: Vec<Message>) -> Result<(), End> {
        let bytes: usize = messages.iter().map(Message::len).sum();
        // What waits for a client that does not read counts in `server.max_buffered`.
        let held = self.app.byte_budget.new_reservation();
        held.try_reserve(bytes + self.upstream.buffered())
            .map_err(|_| End::Upstream)?;
        let limit = self.app.settings.socket.write_timeout;
        tokio::select! {
            sent = self.transport.send(messages, limit) => sent?,
            signal = &mut self.registration.end => return Err(signal.map_or(End::Drain, End::from)),
        }
        self.traffic.sent(bytes);
        Ok(())
    }

    /// Passes on everything that WuKongIM has sent so far.
    async fn on_upstream(&mut self) -> Result<(), End> {
        let mut messages = Vec::new();
        let mut kicked = None;
        loop {
            let frame = match self.upstream.next() {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(Closed) => return Err(End::Upstream),
            };
            let kind = frame.kind;
            if kind == FrameKind::Sendack {
                self.unanswered.answered();
            }
            if kind == FrameKind::Disconnect {
                let disconnect = frame.parts().map(Disconnect::parse);
                let Some(Ok(disconnect)) = disconnect else {
                    return Err(End::Upstream);
                };
                kicked = Some(disconnect.reason);
                break;
            }
            if let Some(message) = self.translate(frame) {
                self.traffic.frame_out(kind);
                messages.push(message);
            }
        }
        if !messages.is_empty() {
            self.deliver(messages).await?;
        }
        match kicked {
            None => Ok(()),
            Some(reason) => Err(match self.end_of_upstream().await {
                End::Upstream => End::Kicked(reason),
                revoked => revoked,
            }),
        }
    }

    fn translate(&mut self, frame: OwnedFrame) -> Option<Message> {
        match &mut self.codec {
            Codec::JsonRpc(json_rpc) => json_rpc.translate(&frame),
            Codec::Wkproto => {
                let is_known =
                    frame.kind != FrameKind::Event || self.version >= FIRST_VERSION_WITH_EVENT;
                is_known.then_some(Message::Binary(frame.bytes))
            }
        }
    }

    /// WuKongIM's side is closed: by a revocation on another replica, if the store tells so.
    async fn end_of_upstream(&mut self) -> End {
        let tokens = &self.app.im_tokens;
        let current = tokens.is_current(&self.uid, self.device, self.revocations);
        match current.await {
            Ok(false) => End::Revoked,
            Ok(true) | Err(_) => End::Upstream,
        }
    }

    async fn pass_on(&mut self, frame: &[u8]) -> Result<(), End> {
        let limit = self.app.settings.socket.write_timeout;
        match self.upstream.write_within(frame, limit).await {
            Ok(()) => Ok(()),
            Err(Closed) => Err(self.end_of_upstream().await),
        }
    }

    async fn on_client(&mut self, received: Received) -> Result<(), End> {
        match (received, &self.codec) {
            (Received::Bytes(bytes), Codec::Wkproto) => self.on_bytes(bytes).await,
            (Received::Text(text), Codec::JsonRpc(_)) => self.on_text(&text).await,
            (Received::Bytes(_) | Received::Text(_), _) => {
                Err(End::Protocol(CloseCode::Unsupported))
            }
            (Received::Closed, _) => Err(End::Client),
            (Received::Broken(code), _) => Err(End::Protocol(code)),
        }
    }

    /// Answers a SEND that breaks a rule; ends the socket where the user is banned.
    async fn refuse(&mut self, reason: Reason, answer: Option<Message>) -> Result<(), End> {
        self.app.metrics.sockets.refused(reason.0);
        if let Some(answer) = answer {
            self.traffic.frame_out(FrameKind::Sendack);
            self.deliver(vec![answer]).await?;
        }
        if reason == Reason::BAN {
            return Err(End::Banned);
        }
        Ok(())
    }

    /// Passes an acknowledgement on. One of a message without a seq is dropped: SDKs acknowledge also what is not stored, such as a command
    /// of the backend (seen on v2), and WuKongIM has nothing to remember of it.
    async fn on_recvack(&mut self, ack: Recvack, flags: u8) -> Result<(), End> {
        if ack.message_seq == 0 {
            return Ok(());
        }
        let mut frame = Vec::with_capacity(32);
        let _ = ack.write(self.version, flags, &mut frame);
        self.pass_on(&frame).await
    }

    async fn on_ping(&mut self) -> Result<(), End> {
        // A ban that cannot be looked up is left to the next PING.
        if let Ok(true) = self.app.authorization.is_user_banned(&self.uid).await {
            return Err(End::Banned);
        }
        self.pass_on(&wkproto::PING).await
    }
}
