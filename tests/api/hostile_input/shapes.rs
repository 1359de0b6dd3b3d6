//! JSON that is broken, incomplete or of the wrong shape, and what is passed over in it.

use serde_json::json;

use super::{message, names, refused, untouched, with};
use crate::support::{TestApp, V2, V3};

const MESSAGE: [&str; 3] = ["channelId", "channelType", "payload"];

#[tokio::test]
async fn what_is_no_json_object_is_refused_as_a_whole() {
    for path in [
        "/message/send",
        "/channel/create",
        "/channel/delete",
        "/channel/subscriber/add",
        "/channel/subscriber/remove",
        "/token",
    ] {
        refused(
            path,
            &[
                ("{", &["body"]),
                (" ", &["body"]),
                ("nonsense", &["body"]),
                ("true", &["body"]),
                ("17", &["body"]),
                ("\"text\"", &["body"]),
                ("[]", &["body"]),
                (r#"[{"channelId":"bob"}]"#, &["body"]),
                ("{} {}", &["body"]),
                ("{}]", &["body"]),
                ("{'channelId':'bob'}", &["body"]),
                (r#"{"channelId":"bob",}"#, &["body"]),
                (r"{channelId:1}", &["body"]),
                (r#"{"a":01}"#, &["body"]),
                (r#"{"a":+1}"#, &["body"]),
                (r#"{"a":NaN}"#, &["body"]),
                (r#"{"a":0x1}"#, &["body"]),
                ("{\"a\":\"\0\"}", &["body"]),
                (r#"{"\ud800":1}"#, &["body"]),
            ],
        )
        .await;
    }
}

#[tokio::test]
async fn what_is_no_array_of_objects_is_no_batch() {
    refused(
        "/message/sendbatch",
        &[
            ("{}", &["body"]),
            ("", &["body"]),
            ("null", &["body"]),
            ("[", &["body"]),
            ("[]", &["body"]),
            ("[1]", &["[0]"]),
            ("[null]", &["[0]"]),
            ("[[]]", &["[0]"]),
            (
                r#"["x",{},17]"#,
                &[
                    "[0]",
                    "[1].channelId",
                    "[1].channelType",
                    "[1].payload",
                    "[2]",
                ],
            ),
        ],
    )
    .await;
}

#[tokio::test]
async fn missing_fields_are_all_named() {
    refused(
        "/message/send",
        &[
            ("", &MESSAGE),
            ("{}", &MESSAGE),
            (
                r#"{"channelId":null,"channelType":null,"payload":null}"#,
                &MESSAGE,
            ),
            (
                r#"{"ChannelId":"bob","channel_type":1,"PAYLOAD":"YQ=="}"#,
                &MESSAGE,
            ),
        ],
    )
    .await;
    refused("/channel/create", &[("", &["channelType"])]).await;
    refused("/channel/delete", &[("", &["channelId", "channelType"])]).await;
    for path in ["/channel/subscriber/add", "/channel/subscriber/remove"] {
        refused(
            path,
            &[("{}", &["channelId", "channelType", "subscribers"])],
        )
        .await;
    }
}

#[tokio::test]
async fn all_bad_fields_are_reported_at_once_with_their_paths() {
    let app = TestApp::start(V2).await;
    let alice = app.user("alice");
    let bad = json!({"channelId": "a b", "channelType": 9, "payload": "?", "clientMsgNo": "", "fromUid": 7});
    let fields = [
        "channelId",
        "channelType",
        "payload",
        "clientMsgNo",
        "fromUid",
    ];
    names(alice.post("/message/send", &bad).await, &fields);
    let batch = json!([
        message("clientMsgNo", json!("n")),
        bad,
        5,
        message("payload", json!("string"))
    ]);
    let answer = alice.post("/message/sendbatch", &batch).await;
    names(
        answer,
        &[
            "[1].channelId",
            "[1].channelType",
            "[1].payload",
            "[1].clientMsgNo",
            "[1].fromUid",
            "[2]",
            "[3].payload",
        ],
    );
    let bad = json!({"channelId": "..", "channelType": "2", "name": 1, "avatar": "x"});
    names(
        alice.post("/channel/create", &bad).await,
        &["channelId", "channelType", "name", "avatar"],
    );
    untouched(&app);
}

#[tokio::test]
async fn unknown_fields_are_passed_over_however_deep_and_never_sent_on() {
    let deep = |levels: usize| format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
    let objects = |levels: usize| format!("{}1{}", "{\"a\":".repeat(levels), "}".repeat(levels));
    let unknown = [
        r#""device_id":"____device","from_uid":"root","header":{"no_persist":1},"expire":1,"#
            .to_owned(),
        r#""other":1,"other":2,"#.to_owned(),
        r#""lone":"\ud800","nul":"\u0000","#.to_owned(),
        format!(r#""deep":{},"#, deep(200)),
        format!(r#""deep":{},"#, objects(200)),
        format!(r#""deep":{},"#, deep(100_000)),
    ];
    for dialect in [V2, V3] {
        let app = TestApp::start(dialect).await;
        for more in &unknown {
            app.clear_calls();
            app.user("alice")
                .post_text("/message/send", with(more))
                .await
                .ok();
            let batch = format!("[{}]", with(more));
            app.user("alice")
                .post_text("/message/sendbatch", batch)
                .await
                .ok();
            let sent = app.calls_to("/message/send");
            assert_eq!(sent.len(), 2);
            for call in sent {
                let mut keys: Vec<_> = call.body.as_object().expect("an object").keys().collect();
                keys.sort();
                let mut known = vec![
                    "channel_id",
                    "channel_type",
                    "client_msg_no",
                    "from_uid",
                    "payload",
                ];
                // v3's API knows no red dot.
                if dialect == V2 {
                    known.push("header");
                    assert_eq!(call.body["header"], json!({"red_dot": 1}));
                }
                // The gateway's own: a v2 in v3's place refuses the body for it, and a v3 in v2's for the other one.
                let mark = if dialect == V3 {
                    "tag_key"
                } else {
                    "device_id"
                };
                assert_eq!(call.body[mark], 0);
                known.push(mark);
                known.sort_unstable();
                assert_eq!(keys, known);
                assert_eq!(call.body["from_uid"], "alice");
            }
        }
    }
}

#[tokio::test]
async fn a_known_field_that_nests_deeply_is_refused_without_harm() {
    let app = TestApp::start(V2).await;
    for levels in [200, 100_000] {
        let value = format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
        let text = format!(r#"{{"channelId":{value},"channelType":1,"payload":"YQ=="}}"#);
        names(
            app.user("alice").post_text("/message/send", text).await,
            &["channelId"],
        );
        let text = format!(r#"{{"channelId":"g","channelType":2,"subscribers":{value}}}"#);
        let answer = app
            .user("alice")
            .post_text("/channel/subscriber/add", text)
            .await;
        names(answer, &["subscribers[0]"]);
    }
    untouched(&app);
}

#[tokio::test]
async fn null_is_the_same_as_leaving_an_optional_field_out() {
    for dialect in [V2, V3] {
        let app = TestApp::start(dialect).await;
        let alice = app.user("alice");
        let text = with(r#""clientMsgNo":null,"fromUid":null,"#);
        let sent = alice.post_text("/message/send", text).await.ok();
        assert!(
            sent["clientMsgNo"]
                .as_str()
                .is_some_and(|number| !number.is_empty())
        );
        let body = json!({"channelId": "g", "channelType": 2, "name": null, "avatar": null});
        let made = alice.post("/channel/create", &body).await.ok();
        assert_eq!(made, json!({"channelId": "g", "channelType": 2}));
        let token = alice
            .post("/token", &json!({"deviceFlag": null}))
            .await
            .ok();
        assert_eq!(token["deviceFlag"], 1);
    }
}
