//! The requests to the backend, and their signature.

use std::time::SystemTime;

use aws_lc_rs::hmac;
use wukongim_gateway::config::HttpUrl;

use super::{asking, do_everything, start_with};
use crate::support::backend::{Question, SECRET};
use crate::support::messages::with;
use crate::support::prelude::*;

#[tokio::test]
async fn each_callback_request_has_user_action_channel_and_targets() {
    for dialect in [V2, V3] {
        let (backend, app) = asking(dialect).await;
        for (name, answer) in do_everything(&app).await {
            assert_eq!(answer.status, 200, "{name}: {answer:#?}");
        }
        let question = |action: &str, id: &str, channel_type: u8| json!({"uid": "alice", "action": action, "channelId": id, "channelType": channel_type});
        let of_owned = |action: &str, targets: &[&str]| {
            with(question(action, "owned", 2), &json!({"targets": targets}))
        };
        assert_eq!(
            backend.bodies(),
            [
                question("message.send", "g", 2),
                question("message.send", "bob", 1),
                question("message.sync", "g", 2),
                question("message.sync", "bob", 1),
                question("channel.create", "new", 2),
                of_owned("subscriber.add", &["carol", "dave"]),
                of_owned("subscriber.remove", &["alice"]),
                question("channel.info", "owned", 2),
                of_owned("manager.add", &["dave"]),
                of_owned("manager.remove", &["dave"]),
                of_owned("owner.transfer", &["carol"]),
                json!({"uid": "bob", "actor": "root", "action": "message.send", "channelId": "g", "channelType": 2}),
                question("channel.delete", "owned", 2),
            ]
        );
    }
}

/// Checks a signature as docs/CALLBACK.md says; the time in it.
#[track_caller]
fn signed_at(question: &Question) -> u64 {
    let header = question.headers["x-signature"].to_str().unwrap();
    let (seconds, hex) = header
        .strip_prefix("t=")
        .and_then(|rest| rest.split_once(",v1="))
        .unwrap_or_else(|| panic!("{header}"));
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    let signed = [seconds.as_bytes(), b".", &question.raw].concat();
    let bytes: Vec<u8> = (0..hex.len() / 2)
        .map(|n| u8::from_str_radix(&hex[2 * n..2 * n + 2], 16).unwrap())
        .collect();
    hmac::verify(&key, &signed, &bytes).unwrap();
    assert_eq!(hex, hex.to_lowercase());
    seconds.parse().unwrap()
}

#[tokio::test]
async fn a_question_is_signed_over_its_time_and_its_very_bytes() {
    let (backend, app) = asking(V2).await;
    let now = || {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        now.unwrap().as_secs()
    };
    let before = now();
    let body = message(2, "g", "x").to_string();
    let sent = app.user("爱丽丝").posting("/message/send", body);
    let sent = sent.header("x-request-id", "asked-for-this");
    assert_eq!(sent.send().await.unwrap().status(), 200);
    let [question] = &backend.asked()[..] else {
        panic!("one question");
    };
    assert!((before..=now()).contains(&signed_at(question)));
    assert_eq!(question.target, "POST /im/callback");
    assert_eq!(question.headers["content-type"], "application/json");
    assert_eq!(question.headers["x-request-id"], "asked-for-this");
    assert!(!question.headers.contains_key("authorization"));
    assert_eq!(question.body["uid"], "爱丽丝");
}

#[tokio::test]
async fn user_and_password_of_the_address_and_its_query_are_sent() {
    let backend = Backend::start().await;
    let url = backend.url.replace("http://", "http://gateway:hunter2@") + "?tenant=1";
    let url: HttpUrl = url.parse().unwrap();
    let app = start_with(V2, &backend, |settings| {
        settings.authorization.callback_url = Some(url);
    });
    let app = app.await;
    app.user("alice").send_to_group("g", "x").await.ok();
    let [question] = &backend.asked()[..] else {
        panic!("one question");
    };
    assert_eq!(question.target, "POST /im/callback?tenant=1");
    // gateway:hunter2
    let expected = "Basic Z2F0ZXdheTpodW50ZXIy";
    assert_eq!(question.headers["authorization"], expected);
}

#[tokio::test]
async fn a_person_channel_needs_no_creating_and_no_asking() {
    let (backend, app) = asking(V2).await;
    let body = json!({"channelId": "bob", "channelType": 1});
    app.user("alice").post("/channel/create", &body).await.ok();
    assert_eq!(backend.count(), 0);
}
