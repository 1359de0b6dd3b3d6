//! Frames: their heads, and how a byte stream is split into them. It knows nothing of what bodies mean.

/// The kind of a frame: the upper half of its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FrameKind {
    /// Client to server, first of all.
    Connect = 1,
    /// The answer to [`Self::Connect`].
    Connack = 2,
    /// A message from a client.
    Send = 3,
    /// The answer to [`Self::Send`].
    Sendack = 4,
    /// A message to a client.
    Recv = 5,
    /// The acknowledgement of [`Self::Recv`].
    Recvack = 6,
    /// One byte, client to server.
    Ping = 7,
    /// One byte, the answer to [`Self::Ping`].
    Pong = 8,
    /// The end of the connection, with a reason.
    Disconnect = 9,
    /// A subscription, which v2 ignores and v3 closes on.
    Sub = 10,
    /// The answer to [`Self::Sub`].
    Suback = 11,
    /// An event to a client; version 5 and later only, older SDKs fail on it.
    Event = 12,
}

impl FrameKind {
    fn of(head: u8) -> Option<Self> {
        Some(match head >> 4 {
            1 => Self::Connect,
            2 => Self::Connack,
            3 => Self::Send,
            4 => Self::Sendack,
            5 => Self::Recv,
            6 => Self::Recvack,
            7 => Self::Ping,
            8 => Self::Pong,
            9 => Self::Disconnect,
            10 => Self::Sub,
            11 => Self::Suback,
            12 => Self::Event,
            _ => return None,
        })
    }

    /// Its name as the protocol writes it, lowercase: a metric's label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Connack => "connack",
            Self::Send => "send",
            Self::Sendack => "sendack",
            Self::Recv => "recv",
            Self::Recvack => "recvack",
            Self::Ping => "ping",
            Self::Pong => "pong",
            Self::Disconnect => "disconnect",
            Self::Sub => "sub",
            Self::Suback => "suback",
            Self::Event => "event",
        }
    }
}

/// The flags of a frame: the lower half of its first byte.
pub mod flags {
    /// SEND, RECV: the message is not stored.
    pub const NO_PERSIST: u8 = 1;
    /// SEND, RECV: the message counts as unread.
    pub const RED_DOT: u8 = 2;
    /// SEND, RECV: a command, delivered to one device once.
    pub const SYNC_ONCE: u8 = 4;
    /// SEND: sent again.
    pub const DUP: u8 = 8;
    /// CONNACK: the server's version is in the body.
    pub const HAS_SERVER_VERSION: u8 = 1;
}

/// A whole PING.
pub const PING: [u8; 1] = [0x70];

/// A whole PONG.
pub const PONG: [u8; 1] = [0x80];

/// The longest string in bytes: upstream's decoders take no longer one.
pub const MAX_STRING: usize = 32_767;

/// A length has at most this many bytes, of 7 bits each.
const MAX_LENGTH_BYTES: usize = 4;

/// A frame as it lies in a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// What it is.
    pub kind: FrameKind,
    /// The lower half of the first byte; see [`flags`].
    pub flags: u8,
    /// What follows the head; empty for PING and PONG.
    pub body: &'a [u8],
}

/// What is wrong with bytes from a peer. The connection cannot go on after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// There is no frame of this kind.
    #[error("unknown frame type {0}")]
    UnknownKind(u8),
    /// The frame is of another kind than the one asked for.
    #[error("unexpected {} frame", .0.as_str())]
    WrongKind(FrameKind),
    /// The length does not end after 4 bytes.
    #[error("frame length of more than 4 bytes")]
    Length,
    /// The length exceeds the caller's limit.
    #[error("frame of {0} bytes")]
    TooLarge(usize),
    /// The body ends inside a field.
    #[error("frame ends inside a field")]
    Truncated,
    /// A string exceeds [`MAX_STRING`].
    #[error("string of {0} bytes")]
    StringTooLong(usize),
    /// A string that is no id is not UTF-8.
    #[error("invalid utf-8")]
    Utf8,
}

/// What cannot be written in the asked version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// A string exceeds [`MAX_STRING`].
    #[error("string of {0} bytes")]
    StringTooLong(usize),
    /// The message seq exceeds 32 bits before version 6.
    #[error("message seq {0} in 32 bits")]
    MessageSeq(u64),
    /// The body exceeds what 4 bytes of length can say.
    #[error("body of {0} bytes")]
    TooLarge(usize),
}

/// The first frame in `buffer` and how many bytes it takes there; `None` when more bytes are needed.
///
/// Errors come as soon as they can be seen: an unknown kind from the first byte, a length over `max_body` before the body arrives.
pub fn next_frame(
    buffer: &[u8],
    max_body: usize,
) -> Result<Option<(Frame<'_>, usize)>, DecodeError> {
    let Some((&head, rest)) = buffer.split_first() else {
        return Ok(None);
    };
    let kind = FrameKind::of(head).ok_or(DecodeError::UnknownKind(head >> 4))?;
    let flags = head & 0x0F;
    if matches!(kind, FrameKind::Ping | FrameKind::Pong) {
        let body = &[];
        return Ok(Some((Frame { kind, flags, body }, 1)));
    }
    let mut length = 0_usize;
    for (index, &byte) in rest.iter().take(MAX_LENGTH_BYTES).enumerate() {
        length |= usize::from(byte & 0x7F) << (7 * index);
        // Further bytes only add to it.
        if length > max_body {
            return Err(DecodeError::TooLarge(length));
        }
        if byte & 0x80 == 0 {
            let start = 2 + index;
            let end = start + length;
            let body = buffer.get(start..end);
            return Ok(body.map(|body| (Frame { kind, flags, body }, end)));
        }
    }
    if rest.len() >= MAX_LENGTH_BYTES {
        return Err(DecodeError::Length);
    }
    Ok(None)
}

/// Appends a frame whose body `write_body` appends; leaves `out` as it was on an error.
pub(crate) fn write_frame(
    kind: FrameKind,
    flags: u8,
    out: &mut Vec<u8>,
    write_body: impl FnOnce(&mut Vec<u8>) -> Result<(), EncodeError>,
) -> Result<(), EncodeError> {
    let start = out.len();
    out.push((kind as u8) << 4 | (flags & 0x0F));
    // The length's own size is known only after the body, which is then moved down.
    let reserved = start + 1 + MAX_LENGTH_BYTES;
    out.resize(reserved, 0);
    let written = write_body(out).and_then(|()| {
        let length = out.len() - reserved;
        (length < 1 << 28)
            .then_some(length)
            .ok_or(EncodeError::TooLarge(length))
    });
    let length = match written {
        Ok(length) => length,
        Err(error) => {
            out.truncate(start);
            return Err(error);
        }
    };
    let mut position = start + 1;
    let mut left = length;
    loop {
        #[expect(clippy::cast_possible_truncation, reason = "masked to 7 bits")]
        let byte = (left & 0x7F) as u8;
        left >>= 7;
        out[position] = byte | if left > 0 { 0x80 } else { 0 };
        position += 1;
        if left == 0 {
            break;
        }
    }
    out.copy_within(reserved.., position);
    out.truncate(position + length);
    Ok(())
}
