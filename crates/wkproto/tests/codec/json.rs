//! JSON-RPC: what is read, what is refused and how, and the recorded texts of v2.

use proptest::prelude::*;
use serde_json::{Value, json};
use wkproto::{
    Reason,
    jsonrpc::{
        self, Call, ConnectResult, Disconnect, ErrorKind, Header, Id, Recv, Recvack, SendResult,
    },
};

const RECORDINGS: &str = include_str!("../recordings/socket-frames.jsonl");

/// The recorded JSON-RPC texts in this direction, in their order.
fn recorded(direction: &str) -> Vec<String> {
    let lines = RECORDINGS
        .lines()
        .map(|line| -> Value { serde_json::from_str(line).unwrap() });
    lines
        .filter(|line| line["type"] == "json-rpc" && line["dir"] == direction)
        .map(|line| line["text"].as_str().unwrap().to_owned())
        .collect()
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "ids are optional where it is used"
)]
fn id(text: &str) -> Option<Id> {
    Some(Id::Text(text.to_owned()))
}

fn refusal(text: &str) -> (ErrorKind, Option<Id>) {
    let error = jsonrpc::parse(text).expect_err(text);
    (error.kind, error.id)
}

#[test]
fn the_recorded_requests_are_read() {
    let requests = recorded("c2s");
    let calls: Vec<_> = requests.iter().map(|text| jsonrpc::parse(text)).collect();
    let [connect, _, send, recvack, ping, nonsense] = &calls[..] else {
        panic!("{} requests", calls.len());
    };
    let connect = connect.as_ref().unwrap();
    assert_eq!(connect.id, id("c1"));
    let Call::Connect(connect) = &connect.call else {
        panic!("{connect:?}");
    };
    assert_eq!((&*connect.uid, &*connect.token), ("fb", "tok-fb"));
    assert_eq!((&*connect.device_id, connect.device_flag), ("d", 1));

    let Call::Send(send) = &send.as_ref().unwrap().call else {
        panic!("{send:?}");
    };
    assert_eq!((&*send.channel_id, send.channel_type), ("fb", 1));
    assert_eq!(send.client_msg_no, "r-1");
    assert_eq!(send.payload, br#"{"type":1,"content":"hi"}"#);
    assert_eq!(send.header.flags(), wkproto::flags::RED_DOT);

    let recvack = recvack.as_ref().unwrap();
    let expected = Recvack {
        header: Header::from_flags(wkproto::flags::RED_DOT),
        message_id: 2_126_957_264_538_341_376,
        message_seq: 9,
    };
    assert_eq!(recvack.id, None);
    assert_eq!(recvack.call, Call::Recvack(expected));
    assert_eq!(ping.as_ref().unwrap().call, Call::Ping);
    let error = nonsense.as_ref().unwrap_err();
    assert_eq!(
        (error.kind, &error.id),
        (ErrorKind::UnknownMethod, &id("x1"))
    );
}

#[test]
fn the_answers_are_those_of_v2() {
    let texts = recorded("s2c");
    let connected = ConnectResult {
        server_version: 5,
        time_diff: 1_795_941_102_874,
        node_id: 1001,
    };
    let connected = jsonrpc::connect_result(id("c1").as_ref(), &connected);
    assert_eq!(connected, texts[0]);

    let red_dot = Header::from_flags(wkproto::flags::RED_DOT);
    let sent = SendResult {
        header: red_dot,
        message_id: 2_126_957_264_538_341_376,
        message_seq: 9,
        reason: Reason::SUCCESS,
    };
    let sent = jsonrpc::send_result(id("s1").as_ref(), &sent);
    assert_eq!(sent, texts[2]);

    let message = Recv {
        header: red_dot,
        message_id: 2_126_957_264_538_341_376,
        message_seq: 9,
        client_msg_no: "r-1",
        timestamp: 1_795_941_103,
        channel_id: "fa",
        channel_type: 1,
        topic: "",
        from_uid: "fa",
        payload: br#"{"type":1,"content":"hi"}"#,
    };
    assert_eq!(jsonrpc::recv(&message), texts[3]);
    assert_eq!(jsonrpc::pong(id("p1").as_ref()), texts[4]);
}

#[test]
fn errors_and_ends_have_the_shape_of_json_rpc() {
    let text = jsonrpc::error(None, ErrorKind::Parse.code(), "no JSON");
    let expected = r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"no JSON"}}"#;
    assert_eq!(text, expected);
    let text = jsonrpc::disconnect(Reason::CONNECT_KICK, "");
    let expected = r#"{"jsonrpc":"2.0","method":"disconnect","params":{"reasonCode":12}}"#;
    assert_eq!(text, expected);
}

#[test]
fn an_answer_repeats_the_id_as_it_came() {
    for text in [r#""7""#, "7", "-1", "1.5"] {
        let request = format!(r#"{{"method":"ping","id":{text}}}"#);
        let request = jsonrpc::parse(&request).unwrap();
        let answer = jsonrpc::pong(request.id.as_ref());
        assert_eq!(answer, format!(r#"{{"jsonrpc":"2.0","id":{text}}}"#));
    }
}

#[test]
fn what_is_no_json_is_a_parse_error() {
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let hidden = format!(r#"{{"method":"ping","x":{deep}}}"#);
    let two = r#"{"method":"ping"}{"method":"ping"}"#;
    for text in ["", "{", "ping", "{'method':1}", two, &deep, &hidden] {
        assert_eq!(refusal(text), (ErrorKind::Parse, None));
    }
}

#[test]
fn what_is_no_request_is_an_invalid_request() {
    for text in [
        "[]",
        "1",
        "null",
        r#""ping""#,
        r#"[{"method":"ping"}]"#,
        "{}",
        r#"{"id":"1","result":{}}"#,
        r#"{"method":1}"#,
        r#"{"method":"ping","id":{}}"#,
        r#"{"method":"ping","id":[1]}"#,
        r#"{"METHOD":"ping"}"#,
    ] {
        assert_eq!(refusal(text), (ErrorKind::InvalidRequest, None), "{text}");
    }
    let old = r#"{"jsonrpc":"1.0","method":"ping","id":"1"}"#;
    assert_eq!(refusal(old), (ErrorKind::InvalidRequest, id("1")));
}

#[test]
fn a_key_given_twice_is_an_invalid_request_at_any_depth() {
    for text in [
        r#"{"method":"ping","method":"ping"}"#,
        r#"{"method":"ping","x":1,"x":1}"#,
        r#"{"method":"ping","m\u0065thod":"connect"}"#,
        r#"{"method":"send","params":{"channelId":"a","channelId":"b","channelType":1,"payload":""}}"#,
        r#"{"method":"ping","x":[{"y":{"z":1,"z":2}}]}"#,
    ] {
        assert_eq!(refusal(text), (ErrorKind::InvalidRequest, None), "{text}");
    }
}

#[test]
fn unknown_methods_and_bad_parameters_leave_the_connection_open() {
    for (text, kind) in [
        (
            r#"{"method":"subscribe","id":"1"}"#,
            ErrorKind::UnknownMethod,
        ),
        (r#"{"method":"Ping","id":"1"}"#, ErrorKind::UnknownMethod),
        (r#"{"method":"recv","id":"1"}"#, ErrorKind::UnknownMethod),
        (r#"{"method":"connect","id":"1"}"#, ErrorKind::InvalidParams),
        (
            r#"{"method":"connect","id":"1","params":null}"#,
            ErrorKind::InvalidParams,
        ),
    ] {
        assert_eq!(refusal(text), (kind, id("1")), "{text}");
        assert!(!kind.closes());
    }
    assert!(ErrorKind::Parse.closes() && ErrorKind::InvalidRequest.closes());
}

/// A request with these parameters.
fn request(method: &str, params: &Value) -> String {
    json!({"method": method, "id": "1", "params": params}).to_string()
}

#[test]
fn parameters_of_another_type_or_range_are_refused() {
    let payload = "aGk=";
    for (method, params) in [
        ("connect", json!({"uid": "a"})),
        ("connect", json!({"token": "t"})),
        ("connect", json!({"uid": 1, "token": "t"})),
        ("connect", json!({"UID": "a", "token": "t"})),
        (
            "connect",
            json!({"uid": "a", "token": "t", "deviceFlag": 256}),
        ),
        (
            "connect",
            json!({"uid": "a", "token": "t", "deviceFlag": "1"}),
        ),
        ("connect", json!({"uid": "a", "token": "t", "deviceId": 1})),
        ("connect", json!(["a", "t", "d", 1])),
        ("send", json!({"channelType": 1, "payload": payload})),
        ("send", json!({"channelId": "b", "payload": payload})),
        ("send", json!({"channelId": "b", "channelType": 1})),
        (
            "send",
            json!({"channelId": "b", "channelType": -1, "payload": payload}),
        ),
        (
            "send",
            json!({"channelId": "b", "channelType": 1, "payload": "aGk"}),
        ),
        (
            "send",
            json!({"channelId": "b", "channelType": 1, "payload": {"type": 1}}),
        ),
        (
            "send",
            json!({"channelId": "b", "channelType": 1, "payload": payload, "header": 1}),
        ),
        ("recvack", json!({"messageId": "1"})),
        ("recvack", json!({"messageId": "1x", "messageSeq": 1})),
        (
            "recvack",
            json!({"messageId": "9223372036854775808", "messageSeq": 1}),
        ),
        ("recvack", json!({"messageId": 1.5, "messageSeq": 1})),
        ("recvack", json!({"messageId": "1", "messageSeq": -1})),
        ("disconnect", json!([])),
        ("disconnect", json!({"reasonCode": 256})),
    ] {
        let text = request(method, &params);
        assert_eq!(
            refusal(&text),
            (ErrorKind::InvalidParams, id("1")),
            "{text}"
        );
    }
}

#[test]
fn what_may_be_missing_has_its_default_also_for_null() {
    for extra in [
        json!({}),
        json!({"deviceId": null, "deviceFlag": null, "clientMsgNo": null, "header": null, "topic": null, "expire": 5, "Setting": 1}),
    ] {
        let mut connect = extra.clone();
        connect["uid"] = "a".into();
        connect["token"] = "t".into();
        let text = request("connect", &connect);
        let Ok(Call::Connect(connect)) = jsonrpc::parse(&text).map(|request| request.call) else {
            panic!("{text}");
        };
        assert_eq!((&*connect.device_id, connect.device_flag), ("", 1));

        let mut send = extra.clone();
        send["channelId"] = "b".into();
        send["channelType"] = 2.into();
        send["payload"] = "".into();
        let text = request("send", &send);
        let Ok(Call::Send(send)) = jsonrpc::parse(&text).map(|request| request.call) else {
            panic!("{text}");
        };
        assert_eq!((&*send.client_msg_no, &*send.topic), ("", ""));
        assert!(send.header.is_empty() && send.payload.is_empty());
    }
    let bare = jsonrpc::parse(r#"{"method":"disconnect"}"#).unwrap();
    assert_eq!(bare.call, Call::Disconnect(Disconnect::default()));
}

#[test]
fn message_ids_are_read_as_numbers_too_and_keep_63_bits() {
    for message_id in [json!(i64::MAX), json!(i64::MAX.to_string())] {
        let text = request(
            "recvack",
            &json!({"messageId": message_id, "messageSeq": 3}),
        );
        let Call::Recvack(recvack) = jsonrpc::parse(&text).unwrap().call else {
            panic!("{text}");
        };
        assert_eq!((recvack.message_id, recvack.message_seq), (i64::MAX, 3));
    }
}

#[test]
fn a_header_is_its_flags() {
    for bits in 0..16 {
        assert_eq!(Header::from_flags(bits).flags(), bits);
    }
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "\\PC{0,200}") {
        let _ = jsonrpc::parse(&text);
        let _ = jsonrpc::parse(&format!(r#"{{"method":"send","id":"1","params":{text}}}"#));
    }

    #[test]
    fn any_send_is_read_as_it_was_written(
        channel_id: String, client_msg_no: String, topic: String, channel_type: u8,
        payload: Vec<u8>,
    ) {
        use base64::{Engine as _, prelude::BASE64_STANDARD};
        let text = request("send", &json!({
            "channelId": channel_id, "clientMsgNo": client_msg_no, "topic": topic,
            "channelType": channel_type, "payload": BASE64_STANDARD.encode(&payload),
        }));
        let Call::Send(send) = jsonrpc::parse(&text).unwrap().call else {
            return Err(TestCaseError::fail("no send"));
        };
        prop_assert_eq!(&*send.channel_id, channel_id);
        prop_assert_eq!(&*send.client_msg_no, client_msg_no);
        prop_assert_eq!(&*send.topic, topic);
        prop_assert_eq!((send.channel_type, send.payload), (channel_type, payload));
    }
}
