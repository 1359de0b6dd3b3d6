//! Properties: what is written is read again, in every version, however the bytes arrive.

use proptest::prelude::*;
use wkproto::{
    Cipher, Connack, Connect, DecodeError, Disconnect, Frame, FrameKind, KeyPair, PING, PONG,
    Reason, Recv, Recvack, Send, Sendack, Stream, has_stream, next_frame, setting,
};

use crate::recordings::recorded_frames;

const MAX_BODY: usize = 1 << 20;

fn only_frame(bytes: &[u8]) -> Frame<'_> {
    let (frame, length) = next_frame(bytes, MAX_BODY).unwrap().expect("a frame");
    assert_eq!(length, bytes.len());
    frame
}

fn versions() -> impl Strategy<Value = u8> {
    2_u8..=6
}

fn text() -> impl Strategy<Value = String> {
    "\\PC{0,40}"
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..300)
}

/// A seq that fits the version.
fn fitting(version: u8, seq: u64) -> u64 {
    if version >= 6 { seq } else { seq >> 32 }
}

/// The whole frame with more behind its last field.
fn with_trailing_bytes(frame: Frame<'_>, trailing: &[u8]) -> Vec<u8> {
    [frame.body, trailing].concat()
}

proptest! {
    #[test]
    fn connect_is_read_as_it_was_written(
        version: u8, device_flag: u8, device_id in text(), uid in bytes(), token in text(),
        client_timestamp: i64, client_key in text(), trailing in bytes(),
    ) {
        let connect = Connect {
            version, device_flag, device_id: &device_id, uid: &uid, token: &token,
            client_timestamp, client_key: &client_key,
        };
        let mut out = Vec::new();
        connect.write(&mut out).unwrap();
        let frame = only_frame(&out);
        prop_assert_eq!(Connect::parse(frame), Ok(connect));
        let longer = with_trailing_bytes(frame, &trailing);
        prop_assert_eq!(Connect::parse(Frame { body: &longer, ..frame }), Ok(connect));
    }

    #[test]
    fn connack_is_read_as_it_was_written(
        version in versions(), has_version: bool, time_diff: i64, reason: u8, server_key in text(),
        salt in text(), node: u64, trailing in bytes(),
    ) {
        let connack = Connack {
            server_version: has_version.then_some(version), time_diff, reason: Reason(reason),
            server_key: &server_key, salt: &salt, node_id: if version >= 4 { node } else { 0 },
        };
        let mut out = Vec::new();
        connack.write(version, &mut out).unwrap();
        let frame = only_frame(&out);
        prop_assert_eq!(Connack::parse(frame, version), Ok(connack));
        let longer = with_trailing_bytes(frame, &trailing);
        prop_assert_eq!(Connack::parse(Frame { body: &longer, ..frame }, version), Ok(connack));
    }

    #[test]
    fn send_is_read_as_it_was_written(
        version in versions(), flags in 0_u8..16, setting: u8, client_seq: u32,
        client_msg_no in text(), stream_no in text(), channel_id in bytes(), channel_type: u8,
        expire: u32, msg_key in text(), topic in text(), payload in bytes(),
    ) {
        let send = Send {
            setting, client_seq, client_msg_no: &client_msg_no,
            stream_no: if has_stream(version, setting) { &stream_no } else { "" },
            channel_id: &channel_id, channel_type,
            expire: if version >= 3 { expire } else { 0 },
            msg_key: &msg_key,
            topic: if setting & setting::TOPIC != 0 { &topic } else { "" },
            payload: &payload,
        };
        let mut out = Vec::new();
        send.write(version, flags, &mut out).unwrap();
        let frame = only_frame(&out);
        prop_assert_eq!(frame.flags, flags);
        prop_assert_eq!(Send::parse(frame, version), Ok(send));
    }

    #[test]
    fn sendack_is_read_as_it_was_written(
        version in versions(), flags in 0_u8..16, message_id: i64, client_seq: u32, seq: u64,
        reason: u8, client_msg_no in text(), is_v3: bool, trailing in bytes(),
    ) {
        let sendack = Sendack {
            message_id, client_seq, message_seq: fitting(version, seq), reason: Reason(reason),
            client_msg_no: is_v3.then_some(&*client_msg_no),
        };
        let mut out = Vec::new();
        sendack.write(version, flags, &mut out).unwrap();
        let frame = only_frame(&out);
        prop_assert_eq!(Sendack::parse(frame, version), Ok(sendack));
        if is_v3 {
            let longer = with_trailing_bytes(frame, &trailing);
            prop_assert_eq!(Sendack::parse(Frame { body: &longer, ..frame }, version), Ok(sendack));
        }
    }

    #[test]
    fn recv_is_read_as_it_was_written(
        version in versions(), flags in 0_u8..16, setting: u8, texts in prop::array::uniform4(text()),
        ids in prop::array::uniform2(bytes()), channel_type: u8, expire: u32, stream_flag: u8,
        stream_id: u64, message_id: i64, seq: u64, timestamp: u32, payload in bytes(),
    ) {
        let [msg_key, client_msg_no, stream_no, topic] = &texts;
        let [from_uid, channel_id] = &ids;
        let stream = Stream { flag: stream_flag, number: stream_no, id: stream_id };
        let recv = Recv {
            setting, msg_key, from_uid, channel_id, channel_type,
            expire: if version >= 3 { expire } else { 0 },
            client_msg_no,
            stream: if has_stream(version, setting) { stream } else { Stream::default() },
            message_id, message_seq: fitting(version, seq), timestamp,
            topic: if setting & setting::TOPIC != 0 { topic } else { "" },
            payload: &payload,
        };
        let mut out = Vec::new();
        recv.write(version, flags, &mut out).unwrap();
        let frame = only_frame(&out);
        prop_assert_eq!(frame.flags, flags);
        prop_assert_eq!(Recv::parse(frame, version), Ok(recv));
    }

    #[test]
    fn recvack_and_disconnect_are_read_as_they_were_written(
        version in versions(), flags in 0_u8..16, message_id: i64, seq: u64, reason: u8,
        text in text(), trailing in bytes(),
    ) {
        let recvack = Recvack { message_id, message_seq: fitting(version, seq) };
        let mut out = Vec::new();
        recvack.write(version, flags, &mut out).unwrap();
        let frame = only_frame(&out);
        prop_assert_eq!(Recvack::parse(frame, version), Ok(recvack));
        let longer = with_trailing_bytes(frame, &trailing);
        prop_assert_eq!(Recvack::parse(Frame { body: &longer, ..frame }, version), Ok(recvack));

        let disconnect = Disconnect { reason: Reason(reason), text: &text };
        let mut out = Vec::new();
        disconnect.write(&mut out).unwrap();
        let frame = only_frame(&out);
        prop_assert_eq!(Disconnect::parse(frame), Ok(disconnect));
        let longer = with_trailing_bytes(frame, &trailing);
        prop_assert_eq!(Disconnect::parse(Frame { body: &longer, ..frame }), Ok(disconnect));
    }

    #[test]
    fn any_split_of_the_bytes_gives_the_same_frames(
        payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..400), 0..6),
        chunks in prop::collection::vec(1_usize..50, 1..20),
    ) {
        let mut stream = Vec::new();
        let mut expected = Vec::new();
        for payload in &payloads {
            stream.extend(PING);
            expected.push((FrameKind::Ping, 0));
            let start = stream.len();
            message(payload).write(5, 2, &mut stream).unwrap();
            let (frame, _) = next_frame(&stream[start..], MAX_BODY).unwrap().unwrap();
            expected.push((FrameKind::Recv, frame.body.len()));
        }
        stream.extend(PONG);
        expected.push((FrameKind::Pong, 0));

        let mut sizes = chunks.iter().cycle();
        let (mut arrived, mut buffer, mut frames) = (0, Vec::new(), Vec::new());
        while arrived < stream.len() {
            let end = stream.len().min(arrived + sizes.next().unwrap());
            buffer.extend(&stream[arrived..end]);
            arrived = end;
            while let Some((frame, length)) = next_frame(&buffer, MAX_BODY).unwrap() {
                frames.push((frame.kind, frame.body.len()));
                buffer.drain(..length);
            }
        }
        prop_assert!(buffer.is_empty());
        prop_assert_eq!(frames, expected);
    }

    #[test]
    fn a_body_that_is_cut_anywhere_before_its_last_field_is_an_error(cut in 0_usize..60) {
        let mut out = Vec::new();
        message(b"").write(6, 0, &mut out).unwrap();
        let frame = only_frame(&out);
        let body = &frame.body[..frame.body.len() - 1 - cut % frame.body.len()];
        let parsed = Recv::parse(Frame { body, ..frame }, 6);
        prop_assert_eq!(parsed, Err(DecodeError::Truncated));
    }

    #[test]
    fn random_bytes_never_panic(bytes in bytes(), version: u8, limit in 0_usize..400) {
        if let Ok(Some((frame, length))) = next_frame(&bytes, limit) {
            prop_assert!(length <= bytes.len() && frame.body.len() <= limit);
            parse_as_anything(frame, version);
        }
        let _ = agreed().0.open(&bytes);
        for kind in 1..=9 {
            let head = [kind << 4, 0xFF, 0x02];
            let long = [&head[..], &bytes, &[0; 400]].concat();
            if let Ok(Some((frame, _))) = next_frame(&long, MAX_BODY) {
                parse_as_anything(frame, version);
            }
        }
    }

    #[test]
    fn a_mutated_recorded_frame_is_refused_or_written_as_it_is_read(
        which: prop::sample::Index, changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
        version in versions(),
    ) {
        let mut bytes = which.get(&recorded_frames()).clone();
        for (place, byte) in changes {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        if let Ok(Some((frame, _))) = next_frame(&bytes, MAX_BODY)
            && let Some(written) = written_again(frame, version)
        {
            let again = written_again(only_frame(&written), version);
            prop_assert_eq!(again, Some(written));
        }
    }

    #[test]
    fn what_is_sealed_is_opened_by_the_other_side(plain in bytes()) {
        let (client, server) = agreed();
        let sealed = client.seal(&plain);
        prop_assert_eq!(server.open(&sealed).unwrap(), plain);
    }
}

fn message(payload: &[u8]) -> Recv<'_> {
    Recv {
        setting: 0,
        msg_key: "794ad8fff09785a2cbf0d4f6e630969d",
        from_uid: b"alice",
        channel_id: b"alice",
        channel_type: 1,
        expire: 0,
        client_msg_no: "no-1",
        stream: Stream::default(),
        message_id: 2_126_957_180_417_380_352,
        message_seq: 5,
        timestamp: 1_795_941_083,
        topic: "",
        payload,
    }
}

/// The frame as its view writes it; `None` when it cannot be read.
fn written_again(frame: Frame<'_>, version: u8) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let flags = frame.flags;
    let written = match frame.kind {
        FrameKind::Connect => Connect::parse(frame).ok()?.write(&mut out),
        FrameKind::Connack => Connack::parse(frame, version)
            .ok()?
            .write(version, &mut out),
        FrameKind::Send => Send::parse(frame, version)
            .ok()?
            .write(version, flags, &mut out),
        FrameKind::Sendack => Sendack::parse(frame, version)
            .ok()?
            .write(version, flags, &mut out),
        FrameKind::Recv => Recv::parse(frame, version)
            .ok()?
            .write(version, flags, &mut out),
        FrameKind::Recvack => Recvack::parse(frame, version)
            .ok()?
            .write(version, flags, &mut out),
        FrameKind::Disconnect => Disconnect::parse(frame).ok()?.write(&mut out),
        _ => return None,
    };
    written.unwrap();
    Some(out)
}

fn parse_as_anything(frame: Frame<'_>, version: u8) {
    let _ = Connect::parse(frame);
    let _ = Connack::parse(frame, version);
    let _ = Send::parse(frame, version);
    let _ = Sendack::parse(frame, version);
    let _ = Recv::parse(frame, version);
    let _ = Recvack::parse(frame, version);
    let _ = Disconnect::parse(frame);
}

/// Both ends of one connection.
fn agreed() -> (Cipher, Cipher) {
    let client = KeyPair::generate().unwrap();
    let server = KeyPair::generate().unwrap();
    let salt = "z3DlSVzlr5jbKWbK";
    (
        client.agree(server.public_key(), salt).unwrap(),
        server.agree(client.public_key(), salt).unwrap(),
    )
}
