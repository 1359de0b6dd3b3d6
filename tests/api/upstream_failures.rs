//! Answers to senders when WuKongIM is down, slow, broken or of another generation; none of its texts reaches the client.

use wukongim_gateway::config::Settings;

use crate::support::prelude::*;

/// A deadline short enough for a test to wait for it, and long enough for a busy machine to do something in it.
const SHORT: Duration = Duration::from_secs(1);

fn impatient(settings: &mut Settings) {
    settings.wukongim.confirm_timeout = SHORT;
}

/// A gateway that looks for lost messages only shortly, and the group `g` of alice and bob.
async fn start(dialect: Dialect) -> TestApp {
    start_with(dialect, impatient).await
}

async fn start_with(dialect: Dialect, change: impl FnOnce(&mut Settings) + 'static) -> TestApp {
    let app = TestApp::with(dialect, change).await;
    app.group("g", "alice", &["bob"]).await;
    app
}

/// For an upstream that is to hang, and then is not waited for long.
async fn start_for(fault: &Fault, dialect: Dialect) -> TestApp {
    let hangs = *fault == Fault::Hang;
    start_with(dialect, move |settings| {
        impatient(settings);
        if hangs {
            settings.wukongim.timeout = SHORT;
        }
    })
    .await
}

/// For messages that never turn up.
fn hopeless(settings: &mut Settings) {
    settings.wukongim.confirm_timeout = Duration::from_millis(30);
}

/// A text of the upstream that no client may ever see.
const MARKER: &str = "SECRET-10.1.2.3";

#[track_caller]
fn tells_nothing_of_the_upstream(app: &TestApp, answer: &Answer) {
    let address = app.upstream.url();
    let port = address.rsplit(':').next().unwrap();
    for inner in [
        MARKER,
        address.as_str(),
        port,
        "messagesync",
        "wukongim",
        "error sending",
    ] {
        assert!(!answer.text.contains(inner), "{inner}: {answer:#?}");
    }
}

#[tokio::test]
async fn a_stopped_upstream_is_503_and_comes_back_by_itself() {
    for dialect in [V2, V3] {
        let app = start(dialect).await;
        let alice = app.user("alice");
        alice.send_to_group("g", "one").await.ok();
        app.upstream.stop().await;
        for _ in 0..3 {
            let answer = alice.send_to_group("g", "lost").await;
            let answer = answer.fails(503, "upstream_unavailable");
            answer.has("retry-after", "1");
            tells_nothing_of_the_upstream(&app, &answer);
        }
        app.upstream.restart().await.unwrap();
        let body = numbered(2, "g", "again", "again");
        assert!(answers_again(&alice, &body).await, "{dialect:?}");
        let stored = app.state().messages(2, "g");
        assert_eq!(
            stored.len(),
            2,
            "what was refused is not sent later: {dialect:?}"
        );
    }
}

/// Sends this until it works; true when it did.
async fn answers_again(sender: &Actor<'_>, body: &Value) -> bool {
    for _ in 0..200 {
        let answer = sender.send(body).await;
        if answer.status == 200 {
            return true;
        }
        assert!([502, 503, 504].contains(&answer.status), "{answer:#?}");
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    false
}

#[tokio::test]
async fn a_gateway_that_started_before_its_upstream_serves_when_it_comes() {
    for dialect in [V2, V3] {
        let app = TestApp::with(dialect, impatient).await;
        app.upstream.stop().await;
        let alice = app.user("alice");
        failure(503, "upstream_unavailable").is(alice.send_to_person("bob", "hi").await);
        app.upstream.restart().await.unwrap();
        assert!(
            answers_again(&alice, &numbered(1, "bob", "hi", "n")).await,
            "{dialect:?}"
        );
        assert_eq!(app.state().messages_between("alice", "bob").len(), 1);
    }
}

#[tokio::test]
async fn another_generation_in_the_midst_of_traffic_is_recognised() {
    // The connections stay; only the answers are another's.
    for (dialect, answer) in [
        (V2, r#"{"message_id":7,"message_seq":1,"reason":1}"#),
        (
            V3,
            r#"{"status":200,"data":{"message_id":7,"client_msg_no":"n"}}"#,
        ),
    ] {
        let app = start(dialect).await;
        let alice = app.user("alice");
        alice.send_to_group("g", "one").await.ok();
        app.clear_calls();
        app.once("/message/send", Fault::Status(200, answer.into()));
        let answer = alice.send(&numbered(2, "g", "hi", "n")).await;
        assert_ne!(answer.status, 200, "never a made-up seq: {answer:#?}");
        alice.send(&numbered(2, "g", "hi", "n")).await.ok();
        let probes = app.calls_to("/health");
        assert!(
            !probes.is_empty(),
            "{dialect:?}: the generation was not asked for again"
        );
    }
}

#[tokio::test]
async fn v3_is_called_again_after_retry_required() {
    let app = start(V3).await;
    let retry = Fault::Status(503, r#"{"error":"retry required"}"#.into());
    let alice = app.user("alice");
    app.faults().once("/message/send", retry.clone());
    assert_eq!(alice.send_to_group("g", "hi").await.ok()["messageSeq"], 1);
    assert_eq!(app.sends().len(), 2);
    app.clear_calls();
    app.faults().always("/message/send", retry);
    let answer = alice.send_to_group("g", "hi").await;
    answer
        .fails(503, "upstream_unavailable")
        .has("retry-after", "1");
    assert_eq!(app.sends().len(), 2, "not for ever");
}

#[tokio::test]
async fn v3_in_maintenance_is_503() {
    let app = start(V3).await;
    let body = format!(r#"{{"error":"maintenance","message":"{MARKER}"}}"#);
    app.always("/message/send", Fault::Status(503, body));
    let answer = app.user("alice").send_to_group("g", "hi").await;
    let answer = answer.fails(503, "upstream_unavailable");
    answer.has("retry-after", "1");
    tells_nothing_of_the_upstream(&app, &answer);
}

#[tokio::test]
async fn a_lost_answer_of_v3_is_retried_once() {
    for fault in [Fault::Reset, Fault::ResetAfter, Fault::HalfAnswer] {
        let app = start(V3).await;
        app.faults().once("/message/send", fault.clone());
        let sent = app.user("alice").send_to_group("g", "hi").await.ok();
        assert_eq!(sent["messageSeq"], 1, "{fault:?}");
        let sends = app.sends();
        assert_eq!(sends.len(), 2);
        assert_eq!(sends[0].body, sends[1].body, "with the same number");
        assert_eq!(app.stored_in("g").len(), 1, "{fault:?}");
    }
}

#[tokio::test]
async fn a_hanging_upstream_is_504_with_the_client_msg_no() {
    for dialect in [V2, V3] {
        let app = start_for(&Fault::Hang, dialect).await;
        let alice = app.user("alice");
        app.faults().once("/message/send", Fault::Hang);
        let body = message(2, "g", "hi");
        let answer = alice.send(&body).await.fails(504, "message_unconfirmed");
        let number = answer.body["clientMsgNo"].as_str().unwrap().to_owned();
        tells_nothing_of_the_upstream(&app, &answer);
        alice.send(&numbered(2, "g", "hi", &number)).await.ok();
        assert_eq!(app.stored_in("g").len(), 1, "{dialect:?}");
    }
}

#[tokio::test]
async fn a_request_ends_with_its_deadline_though_the_upstream_hangs() {
    for dialect in [V2, V3] {
        let app = TestApp::with(dialect, |settings| {
            settings.server.request_timeout = Duration::from_millis(300);
        })
        .await;
        app.faults().always("/message/send", Fault::Hang);
        let answer = app.user("alice").send_to_person("bob", "hi").await;
        let answer = answer.fails(504, "message_unconfirmed");
        answer.says("发送消息失败");
        assert!(answer.body["clientMsgNo"].is_string(), "{dialect:?}");
    }
}

#[tokio::test]
async fn an_unavailable_permission_is_503_and_nothing_is_sent() {
    for fault in [
        Fault::Reset,
        Fault::Hang,
        Fault::Garbage,
        Fault::HalfAnswer,
        Fault::Status(500, MARKER.into()),
        Fault::Status(400, MARKER.into()),
    ] {
        let app = start_for(&fault, V2).await;
        app.faults().always("/cluster/channels", fault.clone());
        for body in [message(2, "g", "hi"), message(1, "bob", "hi")] {
            let answer = app.user("alice").send(&body).await;
            let answer = answer.fails(503, "upstream_unavailable");
            tells_nothing_of_the_upstream(&app, &answer);
        }
        assert!(app.sends().is_empty(), "{fault:?}");
    }
}

#[tokio::test]
async fn nonsense_and_unexpected_errors_are_502() {
    for dialect in [V2, V3] {
        for (status, body) in [
            (500, MARKER.to_owned()),
            (500, format!(r#"{{"error":"{MARKER}"}}"#)),
            (418, MARKER.to_owned()),
            (400, format!(r#"{{"msg":"{MARKER}","status":400}}"#)),
            (401, String::new()),
            (302, MARKER.to_owned()),
            (200, MARKER.to_owned()),
            (200, "{}".to_owned()),
            (200, format!(r#"{{"status":{MARKER:?}}}"#)),
            (200, r#"{"status":200}"#.to_owned()),
            (200, r#"{"status":200,"data":{"message_id":0}}"#.to_owned()),
            (
                200,
                r#"{"message_id":0,"message_seq":0,"reason":1}"#.to_owned(),
            ),
        ] {
            let app = start_with(dialect, hopeless).await;
            app.always("/message/send", Fault::Status(status, body.clone()));
            let answer = app.user("alice").send_to_group("g", "hi").await;
            let answer = answer.fails(502, "upstream_error");
            answer.says("发送消息失败");
            tells_nothing_of_the_upstream(&app, &answer);
        }
    }
}

#[tokio::test]
async fn every_5xx_says_the_endpoints_text_in_the_clients_language() {
    for (fault, status) in [
        (Fault::Status(500, MARKER.into()), 502),
        (Fault::Status(503, r#"{"error":"maintenance"}"#.into()), 503),
        (Fault::Hang, 504),
    ] {
        for (language, text) in [
            ("zh-CN", "发送消息失败"),
            ("en", "failed to send the message"),
        ] {
            let app = start_for(&fault, V3).await;
            app.faults().always("/message/send", fault.clone());
            let alice = app.user("alice");
            let request = alice
                .request("POST", "/message/send")
                .header("content-type", "application/json")
                .header("accept-language", language)
                .body(message(2, "g", "hi").to_string());
            let answer = Answer::to(request).await;
            assert_eq!(
                (answer.status, &answer.body["message"]),
                (status, &text.into())
            );
            assert_eq!(answer.body["success"], false);
        }
    }
}

#[tokio::test]
async fn refusals_of_v3_are_mapped_by_their_reason() {
    for (reason, status, code) in [
        (3, 403, "not_a_member"),
        (4, 403, "blocked"),
        (5, 404, "channel_not_found"),
        (11, 403, "forbidden"),
        (13, 403, "forbidden"),
        (19, 403, "channel_banned"),
        (24, 404, "channel_not_found"),
        (25, 403, "send_banned"),
        (15, 502, "upstream_error"),
        (99, 502, "upstream_error"),
    ] {
        let app = start(V3).await;
        let alice = app.user("alice");
        let body = format!(r#"{{"message_id":0,"message_seq":0,"reason":{reason}}}"#);
        app.add_fault(Rule::new("/message/send", Fault::Status(200, body)).times(1));
        let answer = alice.send(&numbered(2, "g", "hi", "n")).await;
        answer.fails(status, code);
        // A refusal leaves nothing behind: the number is free.
        alice.send(&numbered(2, "g", "other", "n")).await.ok();
    }
}

#[tokio::test]
async fn refusals_of_v3_as_texts_are_mapped_alike() {
    for (status, words, code) in [
        (404, "channel not found", "channel_not_found"),
        (400, "channel disbanded", "channel_not_found"),
    ] {
        let app = start(V3).await;
        let body = format!(r#"{{"error":"{words}"}}"#);
        app.once("/message/send", Fault::Status(status, body));
        let answer = app.user("alice").send(&numbered(2, "g", "hi", "n")).await;
        answer.fails(404, code);
    }
}

#[tokio::test]
async fn refused_credentials_are_502_and_nothing_is_sent() {
    let builder = TestApp::builder()
        .options(|options| options.manager_token = Some("right".into()))
        .config(|settings| settings.wukongim.manager_token = Some("wrong".to_owned().into()));
    let app = builder.start().await;
    failure(502, "upstream_error").is(app.user("alice").send_to_person("bob", "hi").await);
    assert!(app.sends().is_empty());
    until(|| !app.upstream.calls().is_empty()).await;
}
