//! What goes over the sockets of the benchmarks, made once: frames of wkproto, and the same in messages of WebSocket. Payloads are not sealed,
//! since a gateway does not open them. Knows no connection.

use wkproto::{Connack, Connect, Reason, Recv, Send, Sendack};

/// v2's latest; v3 takes it too.
const VERSION: u8 = 5;
/// The group in which a SEND's clientSeq says how many messages WuKongIM is to deliver.
const STREAM_GROUP: &[u8] = b"bench-group000";
/// There are messages in it already: v2 is asked whose log it is only until there is one.
const GROUP: &[u8] = b"history";
/// RECVs that are written at once.
pub const BLOCK: u32 = 250;
/// In the place of a number that is put in later.
const MARK: u32 = 0xDEAD_BEEF;
/// 32 bytes in base64, as keys are.
const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
/// As long as a sealed chat message of 80 bytes.
const PAYLOAD: [u8; 128] = [b'A'; 128];
const MSG_KEY: &str = "0123456789abcdef0123456789abcdef";

/// With the key of RFC 6455's own example, whose hash is known.
const REQUEST: &str = "GET /api/v1/im/ws HTTP/1.1\r\nHost: bench\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
pub const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// Around a frame of wkproto.
#[derive(Debug, Clone, Copy)]
pub enum Framing {
    Tcp,
    /// WuKongIM's side of a WebSocket.
    WebSocket,
    /// The client's: masked, with a mask of zeros, which nginx passes on and a gateway applies as any other.
    Masked,
}

/// A message in which a number is put in.
#[derive(Clone)]
pub struct Numbered {
    bytes: Vec<u8>,
    at: usize,
}

impl Numbered {
    fn new(bytes: Vec<u8>) -> Self {
        let at = memchr::memmem::find(&bytes, &MARK.to_be_bytes()).unwrap_or(0);
        Self { bytes, at }
    }

    /// The message with this number.
    pub fn with(&mut self, number: u32) -> &[u8] {
        self.bytes[self.at..self.at + 4].copy_from_slice(&number.to_be_bytes());
        &self.bytes
    }
}

/// What a client says before CONNECT.
pub fn upgrade() -> &'static [u8] {
    REQUEST.as_bytes()
}

/// Puts a frame of wkproto into this framing.
fn framed(framing: Framing, frame: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(frame.len() + 8);
    if !matches!(framing, Framing::Tcp) {
        let mask = if matches!(framing, Framing::Masked) {
            0x80
        } else {
            0
        };
        // A final frame with binary data.
        bytes.push(0x82);
        if let Ok(length @ ..0x7E) = u8::try_from(frame.len()) {
            bytes.push(mask | length);
        } else {
            bytes.push(mask | 0x7E);
            bytes.extend(u16::try_from(frame.len()).unwrap_or(u16::MAX).to_be_bytes());
        }
        if mask != 0 {
            bytes.extend([0; 4]);
        }
    }
    bytes.extend(frame);
    bytes
}

/// Where the first frame of wkproto in `bytes` begins and ends, if all of it is there.
pub fn first(framing: Framing, bytes: &[u8]) -> Option<(usize, usize)> {
    if matches!(framing, Framing::Tcp) {
        let (_, length) = wkproto::next_frame(bytes, 64 * 1024).ok()??;
        return Some((0, length));
    }
    let mask = usize::from(bytes.get(1)? & 0x80 != 0) * 4;
    let (begins, length) = match bytes[1] & 0x7F {
        126 => (4, u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?])),
        length => (2, length.into()),
    };
    let begins = begins + mask;
    let end = begins + usize::from(length);
    (bytes.len() >= end).then_some((begins, end))
}

/// A client's CONNECT.
pub fn connect(uid: &str, token: &str) -> Vec<u8> {
    let mut frame = Vec::new();
    let connect = Connect {
        version: VERSION,
        device_flag: 1,
        device_id: "bench",
        uid: uid.as_bytes(),
        token,
        client_timestamp: 1_795_465_275_000,
        client_key: KEY,
    };
    // Nothing in it is too long: so with all that follow.
    let _ = connect.write(&mut frame);
    framed(Framing::Masked, &frame)
}

/// WuKongIM's answer to it.
pub fn connack(framing: Framing) -> Vec<u8> {
    let mut frame = Vec::new();
    let connack = Connack {
        server_version: Some(VERSION),
        time_diff: 0,
        reason: Reason::SUCCESS,
        server_key: KEY,
        salt: "0123456789abcdef",
        node_id: 1,
    };
    let _ = connack.write(VERSION, &mut frame);
    framed(framing, &frame)
}

/// A client's SEND of this clientSeq; of a stream, of as many RECVs.
pub fn send(is_stream: bool) -> Numbered {
    let mut frame = Vec::new();
    let send = Send {
        setting: 0,
        client_seq: MARK,
        client_msg_no: "0123456789abcdef0123456789abcdef3",
        stream_no: "",
        channel_id: if is_stream { STREAM_GROUP } else { GROUP },
        channel_type: 2,
        expire: 0,
        msg_key: MSG_KEY,
        topic: "",
        payload: &PAYLOAD,
    };
    let _ = send.write(VERSION, wkproto::flags::RED_DOT, &mut frame);
    Numbered::new(framed(Framing::Masked, &frame))
}

/// WuKongIM's answer to the SEND of this clientSeq.
pub fn sendack(framing: Framing) -> Numbered {
    let mut frame = Vec::new();
    let ack = Sendack {
        message_id: 2_124_961_498_668_208_128,
        client_seq: MARK,
        message_seq: 1,
        reason: Reason::SUCCESS,
        client_msg_no: None,
    };
    let _ = ack.write(VERSION, wkproto::flags::RED_DOT, &mut frame);
    Numbered::new(framed(framing, &frame))
}

/// As many RECVs as are written at once.
pub fn block(framing: Framing) -> Vec<u8> {
    let mut frame = Vec::new();
    let recv = Recv {
        setting: 0,
        msg_key: MSG_KEY,
        from_uid: b"u001",
        channel_id: STREAM_GROUP,
        channel_type: 2,
        expire: 0,
        client_msg_no: "0123456789abcdef0123456789abcdef3",
        stream: wkproto::Stream::default(),
        message_id: 2_124_961_498_668_208_128,
        message_seq: 1,
        timestamp: 1_795_465_275,
        topic: "",
        payload: &PAYLOAD,
    };
    let _ = recv.write(VERSION, wkproto::flags::RED_DOT, &mut frame);
    framed(framing, &frame).repeat(BLOCK as usize)
}

/// What a client asks for.
pub enum Asked {
    Connack,
    /// An acknowledgement of this clientSeq.
    Sendack(u32),
    /// The same, and as many RECVs.
    Stream(u32),
    Pong,
}

/// What this frame of a client asks for; `None` for nothing, or what is no frame.
pub fn asked(frame: &[u8]) -> Option<Asked> {
    let (frame, _) = wkproto::next_frame(frame, 64 * 1024).ok()??;
    match frame.kind {
        wkproto::FrameKind::Connect => Some(Asked::Connack),
        wkproto::FrameKind::Ping => Some(Asked::Pong),
        wkproto::FrameKind::Send => {
            let send = Send::parse(frame, VERSION).ok()?;
            Some(if send.channel_id == STREAM_GROUP {
                Asked::Stream(send.client_seq)
            } else {
                Asked::Sendack(send.client_seq)
            })
        }
        _ => None,
    }
}
