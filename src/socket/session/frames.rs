//! What a client of wkproto sends: bytes, split into frames, each of which is judged.

use bytes::{Buf as _, Bytes};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;
use wkproto::{
    DecodeError, Disconnect, Frame, FrameKind, Reason, Recvack, Send, Sendack, flags, next_frame,
};

use super::Session;
use crate::socket::end::End;
use crate::socket::rules::{SendFields, Verdict, judge};
use crate::socket::transport::CloseCode;
use crate::socket::upstream::OwnedFrame;
use crate::wukongim::Generation;

impl Session {
    pub(super) async fn on_bytes(&mut self, bytes: Bytes) -> Result<(), End> {
        self.traffic.received(bytes.len());
        let mut rest = bytes;
        if !self.inbound.is_empty() {
            self.inbound.extend_from_slice(&rest);
            rest = std::mem::take(&mut self.inbound).freeze();
        }
        let max_bytes = self.app.settings.socket_frame_bytes();
        loop {
            let (kind, length) = match next_frame(&rest, max_bytes) {
                Ok(Some((frame, length))) => (frame.kind, length),
                Ok(None) => break,
                Err(DecodeError::TooLarge(_)) => return Err(End::Protocol(CloseCode::TooLarge)),
                Err(_) => return Err(End::Protocol(CloseCode::Protocol)),
            };
            self.last_frame = Instant::now();
            self.traffic.frame_in(Some(kind));
            let frame = OwnedFrame {
                kind,
                bytes: rest.split_to(length),
            };
            self.on_frame(&frame).await?;
        }
        if rest.has_remaining() {
            self.inbound.extend_from_slice(&rest);
        }
        Ok(())
    }

    async fn on_frame(&mut self, owned: &OwnedFrame) -> Result<(), End> {
        const MALFORMED: End = End::Protocol(CloseCode::Protocol);
        let frame = owned.parts().ok_or(MALFORMED)?;
        match frame.kind {
            FrameKind::Send => {
                let send = Send::parse(frame, self.version).map_err(|_| MALFORMED)?;
                self.on_send(frame, &send, &owned.bytes).await
            }
            FrameKind::Recvack => {
                let ack = Recvack::parse(frame, self.version).map_err(|_| MALFORMED)?;
                if ack.message_id < 1 {
                    return Err(MALFORMED);
                }
                self.on_recvack(ack, frame.flags).await
            }
            FrameKind::Ping => self.on_ping().await,
            FrameKind::Disconnect => {
                Disconnect::parse(frame).map_err(|_| MALFORMED)?;
                self.pass_on(&owned.bytes).await?;
                Err(End::Client)
            }
            _ => Err(MALFORMED),
        }
    }

    async fn on_send(
        &mut self,
        frame: Frame<'_>,
        send: &Send<'_>,
        bytes: &Bytes,
    ) -> Result<(), End> {
        let fields = SendFields::of_frame(send, self.payload_limit);
        let reason = match judge(&self.app, self.generation, &self.uid, fields).await {
            Verdict::Pass if frame.flags & !flags::RED_DOT == 0 => {
                return self.send_on(bytes).await;
            }
            Verdict::Pass => {
                let mut masked = bytes.to_vec();
                masked[0] &= 0xF0 | flags::RED_DOT;
                return self.send_on(&masked).await;
            }
            Verdict::Refuse(reason) => reason,
            Verdict::Banned => Reason::BAN,
            Verdict::Unavailable => return Err(End::Upstream),
        };
        // As each generation answers itself: v2 with the flags of the SEND, v3 with its client_msg_no.
        let (flags, client_msg_no) = match self.generation {
            Generation::V2 => (frame.flags, None),
            Generation::V3 => (0, Some(send.client_msg_no)),
        };
        let ack = Sendack {
            message_id: 0,
            client_seq: send.client_seq,
            message_seq: 0,
            reason,
            client_msg_no,
        };
        let mut answer = Vec::new();
        let _ = ack.write(self.version, flags, &mut answer);
        self.refuse(reason, Some(Message::Binary(answer.into())))
            .await
    }
}
