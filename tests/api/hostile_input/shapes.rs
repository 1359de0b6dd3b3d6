//! JSON that is broken, incomplete or of the wrong shape, fields of the wrong type or given twice, and what is ignored in a body.

use super::table;
use super::{CLIENT_MSG_NOS, fields, names, untouched, with};
use crate::envelope::endpoints::all;
use crate::support::prelude::*;

/// A row of tests/tables/refused_bodies.jsonl, from which the seeds of fuzz/ are made, too.
#[derive(serde::Deserialize)]
struct Row {
    /// A path, `all` that take a body, or those of them that take an `objects`.
    to: String,
    body: String,
    /// The fields that the refusal names.
    fields: Vec<String>,
}

#[tokio::test]
async fn every_body_of_the_table_is_refused_with_all_its_bad_fields() {
    let mut posts = all();
    posts.retain(|endpoint| endpoint.method == "POST");
    for app in TestApp::both().await {
        let (admin, alice) = (app.admin(), app.user("alice"));
        for row in table::<Row>("refused_bodies") {
            let paths = posts.iter().map(|endpoint| endpoint.path);
            let matches = |path: &&str| match row.to.as_str() {
                "all" => true,
                "objects" => *path != "/message/sendbatch",
                one => one == *path,
            };
            let paths: Vec<_> = paths.filter(matches).collect();
            assert!(!paths.is_empty(), "{}", row.to);
            for path in paths {
                for actor in [&admin, &alice] {
                    let answer = actor.post_text(path, row.body.as_str()).await;
                    assert_eq!(answer.status, 400, "{path} {}: {answer:#?}", row.body);
                    names(answer, &row.fields);
                }
            }
        }
        untouched(&app);
    }
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
    for app in TestApp::both().await {
        let alice = app.user("alice");
        for more in &unknown {
            app.clear_calls();
            alice.post_text("/message/send", with(more)).await.ok();
            let batch = format!("[{}]", with(more));
            alice.post_text("/message/sendbatch", batch).await.ok();
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
                if app.dialect == V2 {
                    known.push("header");
                    assert_eq!(call.body["header"], json!({"red_dot": 1}));
                }
                // The gateway's own: a v2 in v3's place refuses the body for it, and a v3 in v2's for the other one.
                let mark = if app.dialect == V3 {
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
    let alice = app.user("alice");
    for levels in [200, 100_000] {
        let value = format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
        let text = format!(r#"{{"channelId":{value},"channelType":1,"payload":"YQ=="}}"#);
        names(alice.post_text("/message/send", text).await, &["channelId"]);
        let text = format!(r#"{{"channelId":"g","channelType":2,"subscribers":{value}}}"#);
        let answer = alice.post_text("/channel/subscriber/add", text).await;
        names(answer, &["subscribers[0]"]);
    }
    untouched(&app);
}

#[tokio::test]
async fn null_is_the_same_as_leaving_an_optional_field_out() {
    for app in TestApp::both().await {
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
        let token = alice.post("/token", &json!({"deviceFlag": null})).await;
        let token = token.ok();
        assert_eq!(token["deviceFlag"], 1);
    }
}

#[tokio::test]
async fn an_escaped_payload_is_the_text_it_stands_for() {
    let app = TestApp::start(V2).await;
    let alice = app.user("alice");
    // `\/` is a legal way to write `/` in JSON, and `\u003d` one for `=`.
    let text = r#"{"channelId":"bob","channelType":1,"payload":"\/\/\/\/YQ\u003d="}"#;
    alice.post_text("/message/send", text).await.ok();
    let read = app.user("bob").sync(1, "alice", "").await.ok();
    assert_eq!(read[0]["payload"], "////YQ==");
}

#[tokio::test]
async fn a_refusal_repeats_nothing_of_what_was_sent() {
    let app = TestApp::start(V2).await;
    let alice = app.user("alice");
    for field in fields(CLIENT_MSG_NOS) {
        let body = field.body.replace('?', &json!("tell-nobody\n").to_string());
        let answer = alice.post_text(field.path, body).await;
        assert!(!answer.text.contains("tell-nobody"), "{answer:#?}");
        names(answer, &[field.name]);
    }
}
