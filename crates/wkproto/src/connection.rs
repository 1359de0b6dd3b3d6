//! The frames that open and end a connection: CONNECT, CONNACK, DISCONNECT.

use std::fmt;

use super::{
    Reason,
    body::{Reader, put},
    frame::{DecodeError, EncodeError, Frame, FrameKind, flags, write_frame},
};

/// CONNECT. What follows the client key is ignored, as upstream does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Connect<'a> {
    /// The client's protocol version.
    pub version: u8,
    /// 0 app, 1 web, 2 PC, or any other that a token was made for.
    pub device_flag: u8,
    /// The client's own name for its device.
    pub device_id: &'a str,
    /// The user; not checked to be UTF-8.
    pub uid: &'a [u8],
    /// The connect token.
    pub token: &'a str,
    /// The client's clock, Unix time in milliseconds.
    pub client_timestamp: i64,
    /// The client's public key in base64; see [`is_valid_public_key`](super::is_valid_public_key).
    pub client_key: &'a str,
}

impl<'a> Connect<'a> {
    /// Reads a CONNECT, which is the same in every version.
    pub fn parse(frame: Frame<'a>) -> Result<Self, DecodeError> {
        let mut body = Reader::new(frame, FrameKind::Connect)?;
        Ok(Self {
            version: body.u8()?,
            device_flag: body.u8()?,
            device_id: body.str()?,
            uid: body.bytes()?,
            token: body.str()?,
            client_timestamp: body.i64()?,
            client_key: body.str()?,
        })
    }

    /// Appends the whole frame.
    pub fn write(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        write_frame(FrameKind::Connect, 0, out, |out| {
            out.extend([self.version, self.device_flag]);
            put(out, self.device_id)?;
            put(out, self.uid)?;
            put(out, self.token)?;
            out.extend(self.client_timestamp.to_be_bytes());
            put(out, self.client_key)
        })
    }
}

/// Without the token.
impl fmt::Debug for Connect<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Connect")
            .field("version", &self.version)
            .field("device_flag", &self.device_flag)
            .field("uid", &self.uid.escape_ascii().to_string())
            .finish_non_exhaustive()
    }
}

/// CONNACK.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connack<'a> {
    /// The agreed version, the lower one of both sides. Missing below version 4, and in v3's refusals.
    pub server_version: Option<u8>,
    /// The server's clock minus the client's, in milliseconds.
    pub time_diff: i64,
    /// [`Reason::SUCCESS`], or why not.
    pub reason: Reason,
    /// The server's public key in base64; empty in a refusal.
    pub server_key: &'a str,
    /// The initialisation vector, 16 characters; empty in a refusal.
    pub salt: &'a str,
    /// The node; since version 4.
    pub node_id: u64,
}

impl<'a> Connack<'a> {
    /// Reads a CONNACK, which answers a CONNECT of `version`.
    pub fn parse(frame: Frame<'a>, version: u8) -> Result<Self, DecodeError> {
        let mut body = Reader::new(frame, FrameKind::Connack)?;
        let has_version = frame.flags & flags::HAS_SERVER_VERSION != 0;
        let server_version = has_version.then(|| body.u8()).transpose()?;
        Ok(Self {
            server_version,
            time_diff: body.i64()?,
            reason: Reason(body.u8()?),
            server_key: body.str()?,
            salt: body.str()?,
            node_id: if version >= 4 { body.u64()? } else { 0 },
        })
    }

    /// Appends the whole frame. `server_version` must be missing below version 4.
    pub fn write(&self, version: u8, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let flags = self.server_version.map_or(0, |_| flags::HAS_SERVER_VERSION);
        write_frame(FrameKind::Connack, flags, out, |out| {
            out.extend(self.server_version);
            out.extend(self.time_diff.to_be_bytes());
            out.push(self.reason.0);
            put(out, self.server_key)?;
            put(out, self.salt)?;
            if version >= 4 {
                out.extend(self.node_id.to_be_bytes());
            }
            Ok(())
        })
    }
}

/// DISCONNECT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disconnect<'a> {
    /// Why.
    pub reason: Reason,
    /// Why, in words; often empty.
    pub text: &'a str,
}

impl<'a> Disconnect<'a> {
    /// Reads a DISCONNECT, which is the same in every version.
    pub fn parse(frame: Frame<'a>) -> Result<Self, DecodeError> {
        let mut body = Reader::new(frame, FrameKind::Disconnect)?;
        Ok(Self {
            reason: Reason(body.u8()?),
            text: body.str()?,
        })
    }

    /// Appends the whole frame.
    pub fn write(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        write_frame(FrameKind::Disconnect, 0, out, |out| {
            out.push(self.reason.0);
            put(out, self.text)
        })
    }
}
