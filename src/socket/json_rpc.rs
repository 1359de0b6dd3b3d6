//! A JSON-RPC client's session: the gateway speaks wkproto to WuKongIM in its stead, with a key of its own, so nothing that a client wrote is
//! passed on as text. Knows no rules.

use std::collections::{HashMap, VecDeque};

use tokio_tungstenite::tungstenite::Message;
use wkproto::jsonrpc::{self, ConnectResult, Header, Id, SendResult};
use wkproto::{
    Cipher, Connack, FrameKind, KeyPair, Reason, Recv, Send, Sendack, V2_VERSION, flags, setting,
};

use super::upstream::OwnedFrame;

/// The version offered to WuKongIM: the highest of both generations. A lower one would have fields of streams.
pub(super) const VERSION: u8 = V2_VERSION;
/// How many calls may wait for WuKongIM's answer.
const MAX_PENDING: usize = 1024;

/// What the translation of a session remembers.
pub(super) struct JsonRpc {
    cipher: Cipher,
    /// The version agreed with WuKongIM.
    version: u8,
    last_seq: u32,
    /// The ids of unanswered sends by their number in wkproto; none for a notification.
    sends: HashMap<u32, Option<Id>>,
    /// The ids of unanswered pings, in order.
    pings: VecDeque<Option<Id>>,
}

impl JsonRpc {
    /// The session after this CONNACK, and the client's answer; `None` for a key that is none.
    pub(super) fn agree(
        own_key: &KeyPair,
        connack: &OwnedFrame,
        version: u8,
        id: Option<&Id>,
    ) -> Option<(Self, Message)> {
        let connack = Connack::parse(connack.parts()?, VERSION).ok()?;
        let cipher = own_key.agree(connack.server_key, connack.salt).ok()?;
        let result = ConnectResult {
            server_version: version,
            time_diff: connack.time_diff,
            node_id: connack.node_id,
        };
        let session = Self {
            cipher,
            version,
            last_seq: 0,
            sends: HashMap::new(),
            pings: VecDeque::new(),
        };
        Some((session, Message::text(jsonrpc::connect_result(id, &result))))
    }

    /// The frame of a send, whose answer will be [`Self::translate`]d; `None` while too many wait.
    pub(super) fn send_frame(
        &mut self,
        id: Option<Id>,
        send: &jsonrpc::Send<'_>,
    ) -> Option<Vec<u8>> {
        if self.sends.len() >= MAX_PENDING {
            return None;
        }
        self.last_seq = self.last_seq.wrapping_add(1);
        let payload = self.cipher.seal(&send.payload);
        let mut sealed = Send {
            setting: if send.topic.is_empty() {
                0
            } else {
                setting::TOPIC
            },
            client_seq: self.last_seq,
            client_msg_no: &send.client_msg_no,
            stream_no: "",
            channel_id: send.channel_id.as_bytes(),
            channel_type: send.channel_type,
            expire: 0,
            msg_key: "",
            topic: &send.topic,
            payload: &payload,
        };
        let msg_key = self.cipher.send_msg_key(&sealed);
        sealed.msg_key = &msg_key;
        let mut frame = Vec::with_capacity(payload.len() + 512);
        let header = send.header.flags() & flags::RED_DOT;
        sealed.write(self.version, header, &mut frame).ok()?;
        self.sends.insert(self.last_seq, id);
        Some(frame)
    }

    /// Remembers a ping; false while too many wait.
    pub(super) fn add_ping(&mut self, id: Option<Id>) -> bool {
        let has_room = self.pings.len() < MAX_PENDING;
        if has_room {
            self.pings.push_back(id);
        }
        has_room
    }

    /// What the client gets of a frame of WuKongIM's; `None` for nothing.
    pub(super) fn translate(&mut self, frame: &OwnedFrame) -> Option<Message> {
        let kind = frame.kind;
        let frame = frame.parts()?;
        let text = match kind {
            FrameKind::Sendack => {
                let ack = Sendack::parse(frame, self.version).ok()?;
                let id = self.sends.remove(&ack.client_seq)??;
                let result = SendResult {
                    header: Header::from_flags(frame.flags),
                    message_id: ack.message_id,
                    message_seq: ack.message_seq,
                    reason: ack.reason,
                };
                jsonrpc::send_result(Some(&id), &result)
            }
            FrameKind::Recv => {
                self.translate_recv(&Recv::parse(frame, self.version).ok()?, frame.flags)?
            }
            FrameKind::Pong => {
                let id = self.pings.pop_front()??;
                jsonrpc::pong(Some(&id))
            }
            _ => return None,
        };
        Some(Message::text(text))
    }

    fn translate_recv(&self, recv: &Recv<'_>, flags: u8) -> Option<String> {
        let opened;
        let payload = if recv.setting & setting::NO_ENCRYPT == 0 {
            opened = self.cipher.open(recv.payload).ok()?;
            &opened
        } else {
            recv.payload
        };
        Some(jsonrpc::recv(&jsonrpc::Recv {
            header: Header::from_flags(flags),
            message_id: recv.message_id,
            message_seq: recv.message_seq,
            client_msg_no: recv.client_msg_no,
            timestamp: recv.timestamp,
            channel_id: &String::from_utf8_lossy(recv.channel_id),
            channel_type: recv.channel_type,
            topic: recv.topic,
            from_uid: &String::from_utf8_lossy(recv.from_uid),
            payload,
        }))
    }
}

/// The result of a send that the gateway refuses itself; `None` for a notification.
pub(super) fn refused(id: Option<&Id>, reason: Reason) -> Option<Message> {
    let result = SendResult {
        header: Header::default(),
        message_id: 0,
        message_seq: 0,
        reason,
    };
    Some(Message::text(jsonrpc::send_result(Some(id?), &result)))
}
