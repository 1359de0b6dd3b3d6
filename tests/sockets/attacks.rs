//! The attacks that succeed on WuKongIM's own sockets, against the gateway's.

use crate::support::attacks::{Cast, all, mutated_frames};
use crate::support::prelude::*;
use crate::support::socket::{Client, Hello};

async fn cast(app: &TestApp) -> Cast {
    let cast = Cast {
        alice: "alice".to_owned(),
        bob: "bob".to_owned(),
        mallory: "mallory".to_owned(),
        group: "group".to_owned(),
    };
    cast.enter(app).await
}

#[tokio::test]
async fn what_succeeds_on_wukongims_own_sockets_does_not_on_the_gateways() {
    for (dialect, token_auth) in [(V2, false), (V2, true), (V3, false)] {
        println!("{dialect:?}, token auth: {token_auth}");
        let builder = TestApp::builder().upstream(dialect);
        let app = builder
            .options(|options| options.token_auth = token_auth)
            .start()
            .await;
        let cast = cast(&app).await;
        all(&app, &cast, dialect == V2).await;
        assert!(!app.upstream.killed());
    }
}

#[tokio::test]
#[ignore = "takes minutes"]
async fn a_hundred_thousand_mutated_frames_end_at_worst_in_closed_connections() {
    for app in TestApp::both().await {
        let cast = cast(&app).await;
        mutated_frames(&app, &cast, 100_000).await;
        assert!(!app.upstream.killed());
    }
}

#[tokio::test]
async fn a_removed_member_gets_nothing_more_and_sends_nothing_more() {
    for app in TestApp::both().await {
        app.group("group", "alice", &["bob"]).await;
        let mut alice = Client::connected(&app, "alice").await;
        let mut bob = Client::connected(&app, "bob").await;
        app.user("alice").remove("group", &["bob"]).await.ok();
        assert_eq!(alice.send(2, "group", "without bob").await.reason, 1);
        assert_eq!(bob.send(2, "group", "let me").await.reason, 3);
        assert!(bob.is_alive().await, "and nothing came before the answer");
    }
}

#[tokio::test]
async fn somebody_who_denylisted_a_device_is_not_reached_by_a_name_of_devices() {
    let app = TestApp::start(V2).await;
    app.state().deny(PERSON, "alice", "mallory");
    let hello = Hello {
        device_id: "____device".to_owned(),
        ..Hello::of(&app, "mallory").await
    };
    let mut mallory = Client::open(&app).await;
    mallory.connect(&hello).await;
    assert_eq!(mallory.send(1, "alice", "hello").await.reason, 4);
}
