//! What cannot be looked up is 503: nothing is guessed and nothing is sent.

use std::time::Duration;

use dev_upstream::{Dialect, Fault, GROUP, PERSON, Rule};

use crate::support::answer::Answer;
use crate::support::seeds;
use crate::support::{TestApp, V2, V3};

/// Every look-up of v2 on which a decision in the group `g`, or with the person `bob`, can hang.
const OF_A_GROUP: [&str; 5] = [
    "/cluster/channels?channel_id=g&channel_type=2",
    "/cluster/channels/g/2/subscribers",
    "/cluster/channels/g/2/denylist",
    "/cluster/channels/g/2/allowlist",
    "/cluster/channels?channel_id=alice&channel_type=1",
];
const OF_A_PEER: [&str; 2] = [
    "/cluster/channels/bob/1/denylist",
    "/cluster/channels?channel_id=alice&channel_type=1",
];
const OF_ONESELF: [&str; 1] = ["/cluster/channels?channel_id=alice&channel_type=1"];

fn failures() -> [Fault; 6] {
    [
        Fault::Status(500, r#"{"msg":"boom","status":500}"#.into()),
        Fault::Status(400, r#"{"msg":"慢","status":400}"#.into()),
        Fault::Status(503, String::new()),
        Fault::Garbage,
        Fault::Reset,
        Fault::HalfAnswer,
    ]
}

/// A gateway that asks anew each time, so that every fault is met, in front of the group `g` with alice and bob.
async fn app(dialect: Dialect, timeout: Duration) -> TestApp {
    let app = TestApp::with(dialect, move |settings| {
        settings.authorization.cache_ttl = Duration::ZERO;
        settings.wukongim.timeout = timeout;
    })
    .await;
    seeds::group(&app, "g", &["alice", "bob"]);
    app
}

/// Asserts the 503, and that neither a message nor a page was asked for.
#[track_caller]
fn unavailable(app: &TestApp, answer: Answer) {
    let answer = answer.fails(503, "upstream_unavailable");
    assert_eq!(answer.header("retry-after"), "1");
    assert!(app.calls_to("/message/send").is_empty());
    assert!(app.calls_to("/channel/messagesync").is_empty());
}

#[tokio::test]
async fn a_failed_lookup_refuses_sending_and_reading() {
    let app = app(V2, Duration::from_secs(5)).await;
    let alice = app.user("alice");
    for fault in failures() {
        for path in OF_A_GROUP {
            app.faults().always(path, fault.clone());
            unavailable(&app, alice.send_to_group("g", "x").await);
            unavailable(&app, alice.sync(GROUP, "g", "").await);
            app.faults().clear();
        }
        for path in OF_A_PEER {
            app.faults().always(path, fault.clone());
            unavailable(&app, alice.send_to_person("bob", "x").await);
            app.faults().clear();
        }
        for path in OF_ONESELF {
            app.faults().always(path, fault.clone());
            unavailable(&app, alice.sync(PERSON, "bob", "").await);
            app.faults().clear();
        }
    }
    // None of it is remembered.
    alice.send_to_group("g", "x").await.ok();
    alice.sync(GROUP, "g", "").await.ok();
    alice.send_to_person("bob", "x").await.ok();
    alice.sync(PERSON, "bob", "").await.ok();
}

#[tokio::test]
async fn a_hanging_lookup_refuses_sending_and_reading() {
    let app = app(V2, Duration::from_millis(200)).await;
    let alice = app.user("alice");
    for path in OF_A_GROUP {
        app.faults().always(path, Fault::Hang);
        unavailable(&app, alice.send_to_group("g", "x").await);
        unavailable(&app, alice.sync(GROUP, "g", "").await);
        app.faults().clear();
    }
    for path in OF_A_PEER {
        app.faults().always(path, Fault::Hang);
        unavailable(&app, alice.send_to_person("bob", "x").await);
        app.faults().clear();
    }
    app.faults().always(OF_ONESELF[0], Fault::Hang);
    unavailable(&app, alice.sync(PERSON, "bob", "").await);
}

#[tokio::test]
async fn a_failure_reaches_only_the_callers_that_waited_for_it() {
    let app = TestApp::start(V2).await;
    seeds::group(&app, "g", &["alice", "bob"]);
    let faults = app.faults();
    faults.once(OF_A_GROUP[1], Fault::Status(500, "{}".into()));
    app.user("alice")
        .send_to_group("g", "x")
        .await
        .fails(503, "upstream_unavailable");
    assert_eq!(faults.remaining(), 0);
    app.user("alice").send_to_group("g", "x").await.ok();
}

#[tokio::test]
async fn refused_credentials_are_an_operators_matter() {
    let app = app(V2, Duration::from_secs(5)).await;
    for path in OF_A_GROUP {
        app.faults().always(path, Fault::Status(401, String::new()));
        let answer = app.user("alice").send_to_group("g", "x").await;
        answer.fails(502, "upstream_error");
        app.faults().clear();
    }
    assert!(app.calls_to("/message/send").is_empty());
}

#[tokio::test]
async fn while_the_generation_is_unknown_nothing_is_decided() {
    for dialect in [V2, V3] {
        let app = TestApp::start(dialect).await;
        seeds::group(&app, "g", &["alice"]);
        app.faults().always("/health", Fault::Reset);
        let alice = app.user("alice");
        unavailable(&app, alice.send_to_group("g", "x").await);
        unavailable(&app, alice.sync(GROUP, "g", "").await);
        unavailable(&app, alice.send_to_person("bob", "x").await);
        unavailable(&app, alice.sync(PERSON, "bob", "").await);
        app.upstream.stop().await;
        unavailable(&app, alice.send_to_group("g", "x").await);
    }
}

#[tokio::test]
async fn on_v3_the_reason_of_a_refusal_that_cannot_be_found_out_is_503() {
    for manager in [false, true] {
        let builder = TestApp::builder().upstream(V3).config(|settings| {
            settings.authorization.cache_ttl = Duration::ZERO;
        });
        let builder = if manager {
            builder.manager_port()
        } else {
            builder
        };
        let app = builder.start().await;
        seeds::group(&app, "g", &["alice"]);
        seeds::message(&app, GROUP, "g", "alice", b"x");
        let broken = Fault::Status(500, "{}".into());
        let probe = if manager {
            Rule::new("/manager/channels/2/g", broken)
        } else {
            Rule::new("/message/send", broken).containing("____gateway")
        };
        app.faults().add(probe);
        let stranger = app.user("stranger");
        let answer = stranger.sync(GROUP, "g", "").await;
        answer.fails(503, "upstream_unavailable");
        // A member needs no reason.
        app.user("alice").sync(GROUP, "g", "").await.ok();
        app.faults().clear();
        stranger
            .sync(GROUP, "g", "")
            .await
            .fails(403, "not_a_member");
        stranger
            .sync(GROUP, "none", "")
            .await
            .fails(404, "channel_not_found");
    }
}
