//! Fields of the wrong type, out of range, or given twice.

use serde_json::json;

use super::{CLIENT_MSG_NOS, PAYLOADS, names, refused, untouched, with};
use crate::support::{TestApp, V2};

#[tokio::test]
async fn a_channel_type_is_the_number_1_or_2() {
    let app = TestApp::start(V2).await;
    for value in [
        "\"1\"",
        "\"2\"",
        "1.0",
        "2.0",
        "1.5",
        "1e0",
        "1E0",
        "10e-1",
        "-1",
        "-0",
        "0",
        "3",
        "99",
        "256",
        "257",
        "4294967297",
        "9223372036854775808",
        "18446744073709551617",
        "1e400",
        "true",
        "[1]",
        "{}",
        "null",
    ] {
        let text = format!(r#"{{"channelId":"bob","channelType":{value},"payload":"YQ=="}}"#);
        let answer = app.user("alice").post_text("/message/send", text).await;
        assert_eq!(answer.status, 400, "{value}: {answer:#?}");
        names(answer, &["channelType"]);
    }
    for path in [
        "/channel/delete",
        "/channel/subscriber/add",
        "/channel/subscriber/remove",
    ] {
        let body = json!({"channelId": "bob", "channelType": 1, "subscribers": ["carol"]});
        names(app.admin().post(path, &body).await, &["channelType"]);
    }
    untouched(&app);
}

#[tokio::test]
async fn a_device_flag_is_the_number_0_1_or_2() {
    let app = TestApp::start(V2).await;
    let alice = app.user("alice");
    for value in [
        "\"1\"",
        "1.0",
        "1e0",
        "-1",
        "3",
        "256",
        "99999999999999999999",
        "true",
        "[]",
    ] {
        let text = format!(r#"{{"deviceFlag":{value}}}"#);
        let answer = alice.post_text("/token", text).await;
        assert_eq!(answer.status, 400, "{value}: {answer:#?}");
        names(answer, &["deviceFlag"]);
    }
    untouched(&app);
}

#[tokio::test]
async fn texts_are_json_texts() {
    let app = TestApp::start(V2).await;
    let alice = app.user("alice");
    for value in [
        "1",
        "true",
        "[]",
        "{}",
        r#"["bob"]"#,
        r#""\ud800""#,
        r#""\ud800x""#,
        r#""\udc00\ud800""#,
    ] {
        for name in ["channelId", "payload", "clientMsgNo", "fromUid"] {
            let text = with("").replace(&format!("\"{name}\":"), "\"other\":");
            let text = text.replacen('{', &format!(r#"{{"{name}":{value},"#), 1);
            let answer = alice.post_text("/message/send", text.clone()).await;
            assert_eq!(answer.status, 400, "{text}: {answer:#?}");
            names(answer, &[name]);
        }
    }
    for name in ["channelId", "clientMsgNo", "fromUid"] {
        let text = with("").replace(&format!("\"{name}\":"), "\"other\":");
        let text = text.replacen('{', &format!(r#"{{"{name}":"a\u0000b","#), 1);
        names(alice.post_text("/message/send", text).await, &[name]);
    }
    untouched(&app);
}

#[tokio::test]
async fn a_payload_is_padded_standard_base64_of_something() {
    let app = TestApp::start(V2).await;
    for value in [
        "string",
        "",
        "YQ",
        "YQ=",
        "YQ===",
        "YR==",
        "YWJj=",
        "-_-_",
        "YQ==YQ==",
        "YQ==\n",
        " YQ==",
        "Y Q==",
        "YQ\u{ff1d}=",
        "=",
        "====",
        "你好",
        "data:text/plain;base64,YQ==",
        "{\"type\":1}",
    ] {
        for field in &PAYLOADS {
            field.refuses(&app, &json!(value)).await;
        }
    }
    untouched(&app);
    // `\/` is a legal way to write `/` in JSON, and `\u003d` one for `=`.
    let text = r#"{"channelId":"bob","channelType":1,"payload":"\/\/\/\/YQ\u003d="}"#;
    app.user("alice")
        .post_text("/message/send", text)
        .await
        .ok();
    let read = app.user("bob").sync(1, "alice", "").await.ok();
    assert_eq!(read[0]["payload"], "////YQ==");
}

#[tokio::test]
async fn a_known_field_given_twice_is_named_however_it_is_spelt() {
    let body = |more: &str| with(more);
    let rows: [(String, &[&str]); 8] = [
        (body(r#""channelId":"bob","#), &["channelId"]),
        (body(r#""channel\u0049d":"carol","#), &["channelId"]),
        (body(r#""channelType":2,"#), &["channelType"]),
        (body(r#""payload":null,"#), &["payload"]),
        (
            body(r#""clientMsgNo":"a","clientMsgNo":"a","#),
            &["clientMsgNo"],
        ),
        (
            body(r#""clientMsgNo":null,"client\u004dsgNo":null,"#),
            &["clientMsgNo"],
        ),
        (body(r#""fromUid":"root","fromUid":"bob","#), &["fromUid"]),
        (
            body(r#""channelId":"bob","channelType":1,"payload":"YQ==","#),
            &["channelId", "channelType", "payload"],
        ),
    ];
    for (text, fields) in &rows {
        refused("/message/send", &[(text, fields)]).await;
        let batch = format!("[{text}]");
        let in_batch: Vec<String> = fields.iter().map(|field| format!("[0].{field}")).collect();
        let in_batch: Vec<&str> = in_batch.iter().map(String::as_str).collect();
        refused("/message/sendbatch", &[(&batch, &in_batch)]).await;
    }
    refused(
        "/channel/subscriber/add",
        &[(
            r#"{"channelId":"g","channelType":2,"subscribers":["a"],"subscribers":["b"]}"#,
            &["subscribers"],
        )],
    )
    .await;
}

#[tokio::test]
async fn subscribers_are_an_array_of_uids() {
    let body = |list: &str| format!(r#"{{"channelId":"g","channelType":2,"subscribers":{list}}}"#);
    for path in ["/channel/subscriber/add", "/channel/subscriber/remove"] {
        for (list, fields) in [
            ("[]", &["subscribers"][..]),
            ("null", &["subscribers"]),
            ("\"bob\"", &["subscribers"]),
            (r#"{"0":"bob"}"#, &["subscribers"]),
            (
                r#"[1,"bob",null,["carol"],"a b"]"#,
                &[
                    "subscribers[0]",
                    "subscribers[2]",
                    "subscribers[3]",
                    "subscribers[4]",
                ],
            ),
            (r#"["bob",""]"#, &["subscribers[1]"]),
        ] {
            refused(path, &[(&body(list), fields)]).await;
        }
    }
}

#[tokio::test]
async fn a_refusal_repeats_nothing_of_what_was_sent() {
    let app = TestApp::start(V2).await;
    for field in &CLIENT_MSG_NOS {
        let secret = "tell-nobody\n";
        let answer = app
            .user("alice")
            .post(field.path, &(field.body)(json!(secret)))
            .await;
        assert!(!answer.text.contains("tell-nobody"), "{answer:#?}");
        names(answer, &[field.name]);
    }
}
