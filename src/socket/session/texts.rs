//! What a client of JSON-RPC sends: texts, each of which is a call.

use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;
use wkproto::jsonrpc::{self, Call};
use wkproto::{Disconnect, FrameKind, Reason, Recvack};

use super::{Codec, Session};
use crate::socket::end::End;
use crate::socket::json_rpc;
use crate::socket::rules::{SendFields, Verdict, judge};
use crate::socket::transport::CloseCode;

impl Session {
    pub(super) async fn on_text(&mut self, text: &str) -> Result<(), End> {
        self.traffic.received(text.len());
        self.last_frame = Instant::now();
        let request = match jsonrpc::parse(text) {
            Ok(request) => request,
            Err(error) => {
                self.traffic.frame_in(None);
                self.deliver_error(error.id.as_ref(), error.kind).await?;
                return if error.kind.closes() {
                    Err(End::Protocol(CloseCode::Protocol))
                } else {
                    Ok(())
                };
            }
        };
        let id = request.id;
        match request.call {
            Call::Connect(_) => Err(End::Protocol(CloseCode::Protocol)),
            Call::Send(send) => {
                self.traffic.frame_in(Some(FrameKind::Send));
                self.on_json_send(id, send).await
            }
            Call::Recvack(ack) => {
                self.traffic.frame_in(Some(FrameKind::Recvack));
                let flags = ack.header.flags();
                let ack = Recvack {
                    message_id: ack.message_id,
                    message_seq: ack.message_seq,
                };
                if ack.message_id < 1 {
                    let kind = jsonrpc::ErrorKind::InvalidParams;
                    return self.deliver_error(id.as_ref(), kind).await;
                }
                self.on_recvack(ack, flags).await
            }
            Call::Ping => {
                self.traffic.frame_in(Some(FrameKind::Ping));
                if let Codec::JsonRpc(json_rpc) = &mut self.codec
                    && json_rpc.add_ping(id)
                {
                    return self.on_ping().await;
                }
                Ok(())
            }
            Call::Disconnect(_) => {
                self.traffic.frame_in(Some(FrameKind::Disconnect));
                let mut frame = Vec::new();
                let reason = Reason(0);
                let _ = Disconnect { reason, text: "" }.write(&mut frame);
                self.pass_on(&frame).await?;
                Err(End::Client)
            }
        }
    }

    async fn on_json_send(
        &mut self,
        id: Option<jsonrpc::Id>,
        send: jsonrpc::Send<'_>,
    ) -> Result<(), End> {
        let fields = SendFields::of_request(&send, self.payload_limit);
        let verdict = judge(&self.app, self.generation, &self.uid, fields).await;
        let reason = match verdict {
            Verdict::Pass => {
                let Codec::JsonRpc(json_rpc) = &mut self.codec else {
                    return Ok(());
                };
                match json_rpc.send_frame(id.clone(), &send) {
                    Some(frame) => return self.send_on(&frame).await,
                    None => Reason::RATE_LIMIT,
                }
            }
            Verdict::Refuse(reason) => reason,
            Verdict::Banned => Reason::BAN,
            Verdict::Unavailable => return Err(End::Upstream),
        };
        self.refuse(reason, json_rpc::refused(id.as_ref(), reason))
            .await
    }

    async fn deliver_error(
        &mut self,
        id: Option<&jsonrpc::Id>,
        kind: jsonrpc::ErrorKind,
    ) -> Result<(), End> {
        let text = jsonrpc::error(id, kind.code(), &kind.to_string());
        self.deliver(vec![Message::text(text)]).await
    }
}
