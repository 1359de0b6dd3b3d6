//! What is refused, and how early.

use wkproto::{
    Connect, DecodeError, EncodeError, Frame, FrameKind, MAX_STRING, Recvack, Send, Sendack,
    next_frame,
};

const MAX_BODY: usize = 4096;

#[test]
fn an_unknown_type_is_refused_at_its_first_byte() {
    for (head, kind) in [(0x00, 0), (0x0F, 0), (0xD0, 13), (0xE1, 14), (0xFF, 15)] {
        let refused = Err(DecodeError::UnknownKind(kind));
        assert_eq!(next_frame(&[head], MAX_BODY), refused);
    }
}

#[test]
fn a_length_of_more_than_four_bytes_is_refused_before_the_fifth() {
    let bytes = [0x30, 0x80, 0x80, 0x80, 0x80];
    assert_eq!(next_frame(&bytes, MAX_BODY), Err(DecodeError::Length));
    assert_eq!(next_frame(&bytes[..4], MAX_BODY), Ok(None));
}

#[test]
fn a_body_over_the_limit_is_refused_before_it_arrives() {
    // 4097 = 0x20 << 7 | 1: seen at the second byte of the length, whatever follows.
    for head in [&[0x30, 0x81, 0x20][..], &[0x30, 0x81, 0xA0]] {
        let refused = Err(DecodeError::TooLarge(4097));
        assert_eq!(next_frame(head, MAX_BODY), refused);
    }
    assert_eq!(next_frame(&[0x30, 0x80, 0x20], MAX_BODY), Ok(None));
    let most = [0x30, 0xFF, 0xFF, 0xFF, 0x7F];
    assert_eq!(next_frame(&most, (1 << 28) - 1), Ok(None));
}

#[test]
fn no_bytes_are_no_frame() {
    assert_eq!(next_frame(&[], MAX_BODY), Ok(None));
    assert_eq!(next_frame(&[0x30], MAX_BODY), Ok(None));
    let empty = Frame {
        kind: FrameKind::Send,
        flags: 0,
        body: &[],
    };
    assert_eq!(next_frame(&[0x30, 0x00], 0), Ok(Some((empty, 2))));
}

#[test]
fn ping_and_pong_are_one_byte_whatever_follows() {
    let bytes = [0x70, 0x80, 0xFF];
    let (ping, length) = next_frame(&bytes, 0).unwrap().unwrap();
    assert_eq!((ping.kind, length), (FrameKind::Ping, 1));
    let (pong, length) = next_frame(&bytes[1..], 0).unwrap().unwrap();
    assert_eq!((pong.kind, length), (FrameKind::Pong, 1));
}

fn connect<'a>(uid: &'a [u8], token: &'a str) -> Connect<'a> {
    Connect {
        version: 5,
        device_flag: 1,
        device_id: "d",
        uid,
        token,
        client_timestamp: 0,
        client_key: "",
    }
}

#[test]
fn a_string_has_at_most_32767_bytes() {
    let longest = "x".repeat(MAX_STRING);
    let mut out = Vec::new();
    connect(b"alice", &longest).write(&mut out).unwrap();
    let (frame, _) = next_frame(&out, 1 << 20).unwrap().unwrap();
    assert_eq!(Connect::parse(frame).unwrap().token, longest);

    let longer = "x".repeat(MAX_STRING + 1);
    let mut rest = b"before".to_vec();
    let refused = connect(b"alice", &longer).write(&mut rest);
    assert_eq!(refused, Err(EncodeError::StringTooLong(32_768)));
    assert_eq!(rest, b"before", "nothing of it is written");

    let mut body = vec![5, 1, 0x80, 0x00];
    body.resize(40_000, b'x');
    let frame = Frame {
        kind: FrameKind::Connect,
        flags: 0,
        body: &body,
    };
    let refused = Err(DecodeError::StringTooLong(32_768));
    assert_eq!(Connect::parse(frame), refused);
}

#[test]
fn invalid_utf8_is_an_error_outside_of_ids() {
    let mut out = Vec::new();
    connect(b"\xFF\xFE", "token").write(&mut out).unwrap();
    let (frame, _) = next_frame(&out, MAX_BODY).unwrap().unwrap();
    assert_eq!(Connect::parse(frame).unwrap().uid, b"\xFF\xFE");

    let at = out.windows(5).position(|part| part == b"token").unwrap();
    out[at] = 0xFF;
    let (frame, _) = next_frame(&out, MAX_BODY).unwrap().unwrap();
    assert_eq!(Connect::parse(frame), Err(DecodeError::Utf8));
}

#[test]
fn a_frame_is_read_as_its_own_kind_only() {
    let (frame, _) = next_frame(&[0x60, 0x00], MAX_BODY).unwrap().unwrap();
    let refused = DecodeError::WrongKind(FrameKind::Recvack);
    assert_eq!(Send::parse(frame, 5), Err(refused));
    assert_eq!(Recvack::parse(frame, 5), Err(DecodeError::Truncated));
}

#[test]
fn a_message_seq_has_64_bits_since_version_6() {
    let recvack = Recvack {
        message_id: 1,
        message_seq: 1 << 32,
    };
    let mut out = Vec::new();
    let refused = Err(EncodeError::MessageSeq(1 << 32));
    assert_eq!(recvack.write(5, 0, &mut out), refused);
    recvack.write(6, 0, &mut out).unwrap();
    assert_eq!(out.len(), 2 + 16);
}

#[test]
fn a_sendack_that_ends_inside_its_client_msg_no_is_an_error() {
    let mut body = vec![0; 17];
    body.extend([0, 5, b'n', b'o']);
    let frame = Frame {
        kind: FrameKind::Sendack,
        flags: 0,
        body: &body,
    };
    assert_eq!(Sendack::parse(frame, 5), Err(DecodeError::Truncated));
}

#[test]
fn tokens_and_payloads_are_not_printed() {
    let printed = format!("{:?}", connect(b"alice", "secret-token"));
    assert!(printed.contains("alice") && !printed.contains("secret"));
    let request = r#"{"method":"connect","params":{"uid":"alice","token":"secret-token"}}"#;
    let printed = format!("{:?}", wkproto::jsonrpc::parse(request).unwrap());
    assert!(printed.contains("alice") && !printed.contains("secret"));
}
