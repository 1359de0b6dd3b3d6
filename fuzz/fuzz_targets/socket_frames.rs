//! Bytes from a peer of a socket: frames of every version, and JSON-RPC. The first byte picks the version.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wkproto::{
    Connack, Connect, Disconnect, Frame, FrameKind, Recv, Recvack, Send, Sendack, jsonrpc,
    next_frame,
};

const MAX_BODY: usize = 96 * 1024;

fuzz_target!(|data: &[u8]| {
    let Some((pick, data)) = data.split_first() else {
        return;
    };
    let version = 2 + pick % 5;
    let mut rest = data;
    while let Ok(Some((frame, length))) = next_frame(rest, MAX_BODY) {
        assert!(frame.body.len() <= MAX_BODY && length <= rest.len());
        read_and_write(frame, version);
        rest = &rest[length..];
    }
    if let Ok(text) = std::str::from_utf8(data) {
        read_json(text);
    }
});

/// What can be read can be written, and is then read the same.
fn read_and_write(frame: Frame<'_>, version: u8) {
    let flags = frame.flags;
    let mut out = Vec::new();
    macro_rules! again {
        ($parse:expr, $write:expr) => {
            if let Ok(view) = $parse(frame) {
                let written = $write(&view, &mut out);
                assert_eq!(written, Ok(()));
                assert_eq!($parse(only(&out)), Ok(view));
            }
        };
    }
    match frame.kind {
        FrameKind::Connect => again!(Connect::parse, |view: &Connect<'_>, out| view.write(out)),
        FrameKind::Connack => again!(
            |frame| Connack::parse(frame, version),
            |view: &Connack<'_>, out| view.write(version, out)
        ),
        FrameKind::Send => again!(
            |frame| Send::parse(frame, version),
            |view: &Send<'_>, out| view.write(version, flags, out)
        ),
        FrameKind::Sendack => again!(
            |frame| Sendack::parse(frame, version),
            |view: &Sendack<'_>, out| view.write(version, flags, out)
        ),
        FrameKind::Recv => again!(
            |frame| Recv::parse(frame, version),
            |view: &Recv<'_>, out| view.write(version, flags, out)
        ),
        FrameKind::Recvack => again!(
            |frame| Recvack::parse(frame, version),
            |view: &Recvack, out| view.write(version, flags, out)
        ),
        FrameKind::Disconnect => again!(Disconnect::parse, |view: &Disconnect<'_>, out| view
            .write(out)),
        _ => {}
    }
}

fn only(bytes: &[u8]) -> Frame<'_> {
    match next_frame(bytes, usize::MAX) {
        Ok(Some((frame, length))) if length == bytes.len() => frame,
        other => panic!("{other:?}"),
    }
}

/// A request that is read strictly is one that serde_json reads as well, with the same method.
fn read_json(text: &str) {
    let Ok(request) = jsonrpc::parse(text) else {
        return;
    };
    let value: serde_json::Value = match serde_json::from_str(text) {
        Ok(value) => value,
        Err(error) => panic!("{error}"),
    };
    let method = match request.call {
        jsonrpc::Call::Connect(_) => "connect",
        jsonrpc::Call::Send(_) => "send",
        jsonrpc::Call::Recvack(_) => "recvack",
        jsonrpc::Call::Ping => "ping",
        jsonrpc::Call::Disconnect(_) => "disconnect",
    };
    assert_eq!(value["method"], method);
}
