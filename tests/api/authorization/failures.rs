//! What cannot be looked up is 503: nothing is guessed and nothing is sent.

use wukongim_gateway::config::Mode;

use crate::support::prelude::*;

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
const OF_ONESELF: &str = "/cluster/channels?channel_id=alice&channel_type=1";

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

/// Lets each look-up fail so, one after the other, and asserts that nobody sends or reads.
async fn all_unavailable(app: &TestApp, fault: &Fault) {
    let alice = app.user("alice");
    for path in OF_A_GROUP {
        app.faults().always(path, fault.clone());
        unavailable(app, alice.send_to_group("g", "x").await);
        unavailable(app, alice.sync(GROUP, "g", "").await);
        app.faults().clear();
    }
    for path in OF_A_PEER {
        app.faults().always(path, fault.clone());
        unavailable(app, alice.send_to_person("bob", "x").await);
        app.faults().clear();
    }
    app.faults().always(OF_ONESELF, fault.clone());
    unavailable(app, alice.sync(PERSON, "bob", "").await);
    app.faults().clear();
}

#[tokio::test]
async fn a_failed_lookup_refuses_sending_and_reading() {
    let app = app(V2, Duration::from_secs(5)).await;
    for fault in failures() {
        all_unavailable(&app, &fault).await;
    }
    // None of it is remembered.
    let alice = app.user("alice");
    alice.send_to_group("g", "x").await.ok();
    alice.sync(GROUP, "g", "").await.ok();
    alice.send_to_person("bob", "x").await.ok();
    alice.sync(PERSON, "bob", "").await.ok();
}

#[tokio::test]
async fn a_hanging_lookup_refuses_sending_and_reading() {
    let app = app(V2, Duration::from_millis(200)).await;
    all_unavailable(&app, &Fault::Hang).await;
}

#[tokio::test]
async fn in_mode_open_a_failed_lookup_permits_nothing() {
    let app = TestApp::with(V2, |settings| settings.authorization.mode = Mode::Open).await;
    seeds::group(&app, "g", &["alice"]);
    app.faults().always("/cluster/channels?", Fault::Garbage);
    unavailable(&app, app.user("alice").send_to_group("g", "x").await);
    app.faults().clear();
    app.user("alice").send_to_group("g", "x").await.ok();
}

#[tokio::test]
async fn without_an_upstream_requests_are_refused_and_it_recovers() {
    let app = TestApp::with_group(V2, &[]).await;
    let alice = app.user("alice");
    app.upstream.stop().await;
    unavailable(&app, alice.send_to_group("g", "x").await);
    unavailable(&app, alice.send_to_person("bob", "x").await);
    app.upstream.restart().await.unwrap();
    for _ in 0..100 {
        if alice.send_to_group("g", "x").await.status == 200 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("still unavailable");
}

#[tokio::test]
async fn a_failure_reaches_only_the_callers_that_waited_for_it() {
    for fault in [
        Fault::Status(500, "{}".into()),
        Fault::Garbage,
        Fault::Reset,
        Fault::HalfAnswer,
    ] {
        for path in OF_A_GROUP.into_iter().chain(OF_A_PEER) {
            let app = TestApp::start(V2).await;
            let alice = app.user("alice");
            seeds::group(&app, "g", &["alice", "bob"]);
            let send = async || match path {
                "/cluster/channels/bob/1/denylist" => alice.send_to_person("bob", "x").await,
                _ => alice.send_to_group("g", "x").await,
            };
            app.faults().always(path, fault.clone());
            unavailable(&app, send().await);
            app.faults().clear();
            send().await.ok();
        }
    }
}

#[tokio::test]
async fn refused_credentials_are_an_operators_matter() {
    let app = app(V2, Duration::from_secs(5)).await;
    for path in OF_A_GROUP {
        app.faults().always(path, Fault::Status(401, String::new()));
        failure(502, "upstream_error").is(app.user("alice").send_to_group("g", "x").await);
        app.faults().clear();
    }
    assert!(app.calls_to("/message/send").is_empty());
}

#[tokio::test]
async fn while_the_generation_is_unknown_nothing_is_decided() {
    for app in TestApp::both().await {
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
    for (manager, broken) in [
        (false, Fault::Status(500, "{}".into())),
        (false, Fault::Reset),
        (true, Fault::Status(500, "{}".into())),
    ] {
        let builder = TestApp::builder().upstream(V3).manager_port_if(manager);
        let builder = builder.config(|settings| settings.authorization.cache_ttl = Duration::ZERO);
        let app = builder.start().await;
        for id in ["g", "silent", "disbanded"] {
            seeds::group(&app, id, &["alice"]);
        }
        app.state().disband("disbanded");
        seeds::message(&app, GROUP, "g", "alice", b"x");
        let probe = if manager {
            Rule::new("/manager/channels/2/g", broken)
        } else {
            Rule::new("/message/send", broken).containing("____gateway")
        };
        app.faults().add(probe);
        let [alice, stranger] = app.users(["alice", "stranger"]);
        failure(503, "upstream_unavailable").is(stranger.sync(GROUP, "g", "").await);
        // A member needs no reason.
        alice.sync(GROUP, "g", "").await.ok();
        app.faults().clear();
        assert_eq!(seeds::page(alice.sync(GROUP, "silent", "").await).0, [0; 0]);
        failure(403, "not_a_member").in_each([
            stranger.sync(GROUP, "g", "").await,
            stranger.sync(GROUP, "silent", "").await,
        ]);
        failure(404, "channel_not_found").in_each([
            stranger.sync(GROUP, "none", "").await,
            alice.sync(GROUP, "none", "").await,
            alice.sync(GROUP, "disbanded", "").await,
        ]);
        assert!(app.stored_in("silent").is_empty());
    }
}
