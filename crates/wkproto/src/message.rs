//! The frames of messages: SEND, SENDACK, RECV, RECVACK. Payloads stay as they are; sealing and msgKeys are in `keys`.

use std::fmt;

use super::{
    Reason,
    body::{Reader, put, put_message_seq},
    frame::{DecodeError, EncodeError, Frame, FrameKind, write_frame},
};

/// The bits of a message's setting.
pub mod setting {
    /// The sender wants a read receipt.
    pub const RECEIPT: u8 = 0x80;
    /// Sealed end to end with Signal.
    pub const SIGNAL: u8 = 0x20;
    /// The payload is not sealed; v3 honours it, v2 answers with reason 9.
    pub const NO_ENCRYPT: u8 = 0x10;
    /// The message has a topic.
    pub const TOPIC: u8 = 0x08;
    /// The message is part of a stream.
    pub const STREAM: u8 = 0x02;
}

/// Whether a message with this setting has stream fields in this version.
pub fn has_stream(version: u8, setting: u8) -> bool {
    (2..5).contains(&version) && setting & setting::STREAM != 0
}

fn has_topic(setting: u8) -> bool {
    setting & setting::TOPIC != 0
}

/// SEND. Written again from what was parsed, it is the same frame; flags, setting, expire and topic may be changed before, since no msgKey
/// covers them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Send<'a> {
    /// See [`setting`].
    pub setting: u8,
    /// The client's own number, echoed by SENDACK.
    pub client_seq: u32,
    /// The client's own id of the message.
    pub client_msg_no: &'a str,
    /// Empty unless [`has_stream`].
    pub stream_no: &'a str,
    /// The peer's uid or the group's id; not checked to be UTF-8.
    pub channel_id: &'a [u8],
    /// 1 person, 2 group, and others.
    pub channel_type: u8,
    /// Seconds until the message expires, 0 for never; 0 below version 3, where there is no such field.
    pub expire: u32,
    /// The checksum over number, channel and payload.
    pub msg_key: &'a str,
    /// Empty unless [`setting::TOPIC`].
    pub topic: &'a str,
    /// Sealed, in base64.
    pub payload: &'a [u8],
}

impl<'a> Send<'a> {
    /// Reads a SEND of this version.
    pub fn parse(frame: Frame<'a>, version: u8) -> Result<Self, DecodeError> {
        let mut body = Reader::new(frame, FrameKind::Send)?;
        let setting = body.u8()?;
        Ok(Self {
            setting,
            client_seq: body.u32()?,
            client_msg_no: body.str()?,
            stream_no: if has_stream(version, setting) {
                body.str()?
            } else {
                ""
            },
            channel_id: body.bytes()?,
            channel_type: body.u8()?,
            expire: if version >= 3 { body.u32()? } else { 0 },
            msg_key: body.str()?,
            topic: if has_topic(setting) { body.str()? } else { "" },
            payload: body.rest(),
        })
    }

    /// Appends the whole frame.
    pub fn write(&self, version: u8, flags: u8, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        write_frame(FrameKind::Send, flags, out, |out| {
            out.push(self.setting);
            out.extend(self.client_seq.to_be_bytes());
            put(out, self.client_msg_no)?;
            if has_stream(version, self.setting) {
                put(out, self.stream_no)?;
            }
            put(out, self.channel_id)?;
            out.push(self.channel_type);
            if version >= 3 {
                out.extend(self.expire.to_be_bytes());
            }
            put(out, self.msg_key)?;
            if has_topic(self.setting) {
                put(out, self.topic)?;
            }
            out.extend(self.payload);
            Ok(())
        })
    }
}

/// Without the payload.
impl fmt::Debug for Send<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Send")
            .field("setting", &self.setting)
            .field("client_seq", &self.client_seq)
            .field("client_msg_no", &self.client_msg_no)
            .field("channel_id", &self.channel_id.escape_ascii().to_string())
            .field("channel_type", &self.channel_type)
            .finish_non_exhaustive()
    }
}

/// SENDACK. v2 echoes SEND's flags, v3 sends none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sendack<'a> {
    /// Upstream's id of the message; 0 in v3's refusals.
    pub message_id: i64,
    /// That of the SEND.
    pub client_seq: u32,
    /// The message's place in its channel; 0 when it was not stored.
    pub message_seq: u64,
    /// [`Reason::SUCCESS`], or why not.
    pub reason: Reason,
    /// v3 ends the frame with the SEND's, v2 has none.
    pub client_msg_no: Option<&'a str>,
}

impl<'a> Sendack<'a> {
    /// Reads a SENDACK of this version.
    pub fn parse(frame: Frame<'a>, version: u8) -> Result<Self, DecodeError> {
        let mut body = Reader::new(frame, FrameKind::Sendack)?;
        Ok(Self {
            message_id: body.i64()?,
            client_seq: body.u32()?,
            message_seq: body.message_seq(version)?,
            reason: Reason(body.u8()?),
            client_msg_no: (!body.is_empty()).then(|| body.str()).transpose()?,
        })
    }

    /// Appends the whole frame.
    pub fn write(&self, version: u8, flags: u8, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        write_frame(FrameKind::Sendack, flags, out, |out| {
            out.extend(self.message_id.to_be_bytes());
            out.extend(self.client_seq.to_be_bytes());
            put_message_seq(out, version, self.message_seq)?;
            out.push(self.reason.0);
            self.client_msg_no.map_or(Ok(()), |number| put(out, number))
        })
    }
}

/// The stream fields of a RECV.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stream<'a> {
    /// 0 start, 1 within, 2 end.
    pub flag: u8,
    /// The stream's id.
    pub number: &'a str,
    /// The part's id.
    pub id: u64,
}

/// RECV.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Recv<'a> {
    /// See [`setting`].
    pub setting: u8,
    /// The checksum over ids, numbers, time and payload.
    pub msg_key: &'a str,
    /// The sender; empty for the system.
    pub from_uid: &'a [u8],
    /// For a person channel the sender, or the peer where the reader is the sender.
    pub channel_id: &'a [u8],
    /// 1 person, 2 group, and others.
    pub channel_type: u8,
    /// Seconds, 0 for never; 0 below version 3, where there is no such field.
    pub expire: u32,
    /// The sender's own id of the message.
    pub client_msg_no: &'a str,
    /// Empty unless [`has_stream`].
    pub stream: Stream<'a>,
    /// Upstream's id of the message.
    pub message_id: i64,
    /// The message's place in its channel; 0 when it was not stored.
    pub message_seq: u64,
    /// Unix time in seconds.
    pub timestamp: u32,
    /// Empty unless [`setting::TOPIC`].
    pub topic: &'a str,
    /// Sealed for this connection, in base64; plain when [`setting::NO_ENCRYPT`].
    pub payload: &'a [u8],
}

impl<'a> Recv<'a> {
    /// Reads a RECV of this version.
    pub fn parse(frame: Frame<'a>, version: u8) -> Result<Self, DecodeError> {
        let mut body = Reader::new(frame, FrameKind::Recv)?;
        let setting = body.u8()?;
        Ok(Self {
            setting,
            msg_key: body.str()?,
            from_uid: body.bytes()?,
            channel_id: body.bytes()?,
            channel_type: body.u8()?,
            expire: if version >= 3 { body.u32()? } else { 0 },
            client_msg_no: body.str()?,
            stream: if has_stream(version, setting) {
                Stream {
                    flag: body.u8()?,
                    number: body.str()?,
                    id: body.u64()?,
                }
            } else {
                Stream::default()
            },
            message_id: body.i64()?,
            message_seq: body.message_seq(version)?,
            timestamp: body.u32()?,
            topic: if has_topic(setting) { body.str()? } else { "" },
            payload: body.rest(),
        })
    }

    /// Appends the whole frame.
    pub fn write(&self, version: u8, flags: u8, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        write_frame(FrameKind::Recv, flags, out, |out| {
            out.push(self.setting);
            put(out, self.msg_key)?;
            put(out, self.from_uid)?;
            put(out, self.channel_id)?;
            out.push(self.channel_type);
            if version >= 3 {
                out.extend(self.expire.to_be_bytes());
            }
            put(out, self.client_msg_no)?;
            if has_stream(version, self.setting) {
                out.push(self.stream.flag);
                put(out, self.stream.number)?;
                out.extend(self.stream.id.to_be_bytes());
            }
            out.extend(self.message_id.to_be_bytes());
            put_message_seq(out, version, self.message_seq)?;
            out.extend(self.timestamp.to_be_bytes());
            if has_topic(self.setting) {
                put(out, self.topic)?;
            }
            out.extend(self.payload);
            Ok(())
        })
    }
}

/// Without the payload.
impl fmt::Debug for Recv<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Recv")
            .field("setting", &self.setting)
            .field("from_uid", &self.from_uid.escape_ascii().to_string())
            .field("channel_id", &self.channel_id.escape_ascii().to_string())
            .field("channel_type", &self.channel_type)
            .field("message_id", &self.message_id)
            .field("message_seq", &self.message_seq)
            .finish_non_exhaustive()
    }
}

/// RECVACK, with the flags of the RECV.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recvack {
    /// That of the RECV.
    pub message_id: i64,
    /// That of the RECV.
    pub message_seq: u64,
}

impl Recvack {
    /// Reads a RECVACK of this version.
    pub fn parse(frame: Frame<'_>, version: u8) -> Result<Self, DecodeError> {
        let mut body = Reader::new(frame, FrameKind::Recvack)?;
        Ok(Self {
            message_id: body.i64()?,
            message_seq: body.message_seq(version)?,
        })
    }

    /// Appends the whole frame.
    pub fn write(&self, version: u8, flags: u8, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        write_frame(FrameKind::Recvack, flags, out, |out| {
            out.extend(self.message_id.to_be_bytes());
            put_message_seq(out, version, self.message_seq)
        })
    }
}
