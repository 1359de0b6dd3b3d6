//! Every frame that was recorded on real servers: read, written again byte for byte, opened with the recorded keys.

use std::collections::HashMap;

use serde_json::Value;
use wkproto::{
    Cipher, Connack, Connect, Disconnect, Frame, FrameKind, KeyPair, PING, PONG, Reason, Recv,
    Recvack, Send, Sendack, is_valid_public_key, next_frame,
};

const RECORDINGS: &str = include_str!("../recordings/socket-frames.jsonl");

fn lines() -> impl Iterator<Item = Value> {
    RECORDINGS
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
}

/// The recorded frames as bytes.
pub(crate) fn recorded_frames() -> Vec<Vec<u8>> {
    let frames = lines().map(|line| from_hex(line["hex"].as_str().unwrap_or_default()));
    frames.filter(|bytes| !bytes.is_empty()).collect()
}

fn from_hex(text: &str) -> Vec<u8> {
    let digits: Vec<_> = text.chars().map(|c| c.to_digit(16).unwrap()).collect();
    digits
        .chunks(2)
        .map(|pair| u8::try_from(pair[0] * 16 + pair[1]).unwrap())
        .collect()
}

/// One recorded frame with what is known of its connection.
struct Recorded<'a> {
    line: &'a Value,
    frame: Frame<'a>,
    version: u8,
    cipher: Option<&'a Cipher>,
}

impl Recorded<'_> {
    fn text(&self, key: &str) -> &str {
        self.line[key].as_str().unwrap_or_else(|| panic!("{key}"))
    }

    fn cipher(&self) -> &Cipher {
        self.cipher.expect("a connection")
    }

    /// Reads the frame, checks what was recorded of it, and writes it again.
    fn write_again(&self) -> Vec<u8> {
        let Self { frame, version, .. } = *self;
        let fields = &self.line["fields"];
        let mut out = Vec::new();
        match frame.kind {
            FrameKind::Connect => {
                let connect = Connect::parse(frame).unwrap();
                assert_eq!(connect.uid, self.text("uid").as_bytes());
                assert_eq!(connect.token, self.text("token"));
                assert_eq!(connect.version, version);
                connect.write(&mut out).unwrap();
            }
            FrameKind::Connack => {
                let connack = Connack::parse(frame, version).unwrap();
                assert_eq!(connack.reason.0, fields["reason"]);
                assert_eq!(connack.server_key, fields["serverKey"]);
                assert_eq!(connack.salt, fields["salt"]);
                assert_eq!(connack.time_diff, fields["timeDiff"]);
                if let Some(node) = fields["nodeId"].as_u64() {
                    assert_eq!(connack.node_id, node);
                }
                let recorded = fields["serverVersion"].as_u64();
                assert_eq!(connack.server_version.map(u64::from), recorded);
                connack.write(version, &mut out).unwrap();
            }
            FrameKind::Send => {
                let send = Send::parse(frame, version).unwrap();
                assert_eq!(send.channel_id, self.text("channelId").as_bytes());
                assert_eq!(send.channel_type, self.line["channelType"]);
                assert_eq!(send.msg_key, self.cipher().send_msg_key(&send));
                let plain = self.text("plain").as_bytes();
                assert_eq!(self.cipher().open(send.payload).unwrap(), plain);
                assert_eq!(self.cipher().seal(plain), send.payload);
                send.write(version, frame.flags, &mut out).unwrap();
            }
            FrameKind::Sendack => {
                let sendack = Sendack::parse(frame, version).unwrap();
                let is_v3 = self.text("generation") == "v3";
                assert_eq!(sendack.client_msg_no.is_some(), is_v3);
                sendack.write(version, frame.flags, &mut out).unwrap();
            }
            FrameKind::Recv => {
                let recv = Recv::parse(frame, version).unwrap();
                assert_eq!(frame.flags, fields["flags"]);
                assert_eq!(recv.setting, fields["setting"]);
                assert_eq!(recv.from_uid, bytes(&fields["fromUid"]));
                assert_eq!(recv.channel_id, bytes(&fields["channelId"]));
                assert_eq!(recv.client_msg_no, fields["clientMsgNo"]);
                assert_eq!(recv.message_id, fields["messageId"]);
                assert_eq!(recv.message_seq, fields["messageSeq"]);
                assert_eq!(recv.timestamp, fields["timestamp"]);
                assert_eq!(recv.msg_key, self.cipher().recv_msg_key(&recv));
                let plain = self.cipher().open(recv.payload).unwrap();
                assert_eq!(plain, bytes(&fields["payload"]));
                recv.write(version, frame.flags, &mut out).unwrap();
            }
            FrameKind::Recvack => {
                let recvack = Recvack::parse(frame, version).unwrap();
                recvack.write(version, frame.flags, &mut out).unwrap();
            }
            FrameKind::Disconnect => {
                let disconnect = Disconnect::parse(frame).unwrap();
                assert_eq!(disconnect.reason, Reason::CONNECT_KICK);
                disconnect.write(&mut out).unwrap();
            }
            FrameKind::Ping => out.extend(PING),
            FrameKind::Pong => out.extend(PONG),
            kind => panic!("no {} was recorded", kind.as_str()),
        }
        out
    }
}

fn bytes(value: &Value) -> &[u8] {
    value.as_str().expect("a text").as_bytes()
}

/// What tells one recorded connection from another.
fn connection(line: &Value) -> [String; 4] {
    ["generation", "transport", "version", "who"].map(|key| line[key].to_string())
}

#[test]
fn every_recorded_frame_is_read_and_written_again_byte_for_byte() {
    let mut ciphers = HashMap::new();
    let mut frames = 0;
    for line in lines() {
        let bytes = from_hex(line["hex"].as_str().unwrap_or_default());
        if bytes.is_empty() {
            continue;
        }
        let (frame, length) = next_frame(&bytes, bytes.len()).unwrap().expect("a frame");
        assert_eq!(length, bytes.len(), "{line}");
        assert_eq!(frame.kind.as_str().to_uppercase(), line["type"], "{line}");
        if let Some(private) = line["clientPrivate"].as_str() {
            let pair = KeyPair::from_private_key(&from_hex(private)).unwrap();
            let fields = &line["fields"];
            let key = fields["serverKey"].as_str().unwrap();
            let cipher = pair.agree(key, fields["salt"].as_str().unwrap()).unwrap();
            ciphers.insert(connection(&line), cipher);
        }
        let recorded = Recorded {
            line: &line,
            frame,
            version: u8::try_from(line["version"].as_u64().unwrap()).unwrap(),
            cipher: ciphers.get(&connection(&line)),
        };
        assert_eq!(recorded.write_again(), bytes, "{line}");
        frames += 1;
    }
    assert_eq!(frames, 124);
}

#[test]
fn the_recorded_client_keys_are_those_of_the_recorded_private_keys() {
    let mut sent = HashMap::new();
    for line in lines() {
        let bytes = from_hex(line["hex"].as_str().unwrap_or_default());
        if line["type"] == "CONNECT" {
            let (frame, _) = next_frame(&bytes, bytes.len()).unwrap().unwrap();
            let key = Connect::parse(frame).unwrap().client_key.to_owned();
            sent.insert(connection(&line), key);
        } else if let Some(private) = line["clientPrivate"].as_str() {
            let pair = KeyPair::from_private_key(&from_hex(private)).unwrap();
            assert_eq!(sent[&connection(&line)], pair.public_key());
            assert!(is_valid_public_key(pair.public_key()));
        }
    }
}

#[test]
fn a_recorded_send_may_get_other_flags_expire_and_topic_under_the_same_msg_key() {
    let line = lines()
        .find(|line| line["type"] == "SEND" && line["version"] == 5)
        .unwrap();
    let bytes = from_hex(line["hex"].as_str().unwrap());
    let (frame, _) = next_frame(&bytes, bytes.len()).unwrap().unwrap();
    let send = Send::parse(frame, 5).unwrap();
    let changed = Send {
        setting: wkproto::setting::TOPIC,
        expire: 9,
        topic: "news",
        ..send
    };
    let mut out = Vec::new();
    changed.write(5, 0, &mut out).unwrap();
    let (frame, _) = next_frame(&out, out.len()).unwrap().unwrap();
    let again = Send::parse(frame, 5).unwrap();
    assert_eq!((frame.flags, again), (0, changed));
    assert_eq!((again.payload, again.msg_key), (send.payload, send.msg_key));
}

#[test]
fn the_refused_connack_of_v3_has_a_node_but_no_version() {
    let bytes = from_hex("2015000000000000000015000000000000000000000000");
    let (frame, _) = next_frame(&bytes, 100).unwrap().unwrap();
    let connack = Connack::parse(frame, 5).unwrap();
    assert_eq!(connack.reason, Reason::CLIENT_KEY_EMPTY);
    assert_eq!(connack.server_version, None);
}
