//! `POST /token/revoke`: issued tokens are invalid from then on, here, in WuKongIM, and on every replica.

use wukongim_gateway::auth::{DeviceFlag, ImTokenError};
use wukongim_gateway::domain::Uid;
use wukongim_gateway::state::App;

use super::token_for;
use crate::support::prelude::*;
use crate::support::{audit, database};

async fn token(app: &TestApp, uid: &str, device: u8) -> String {
    let told = token_for(app, uid, device).await;
    told["token"].as_str().unwrap().to_owned()
}

fn upstream_token(app: &TestApp, uid: &str, device: u8) -> String {
    let token = app.state().token_of(uid, device);
    token.unwrap_or_default()
}

/// Another gateway on the same store and upstream.
fn replica(app: &TestApp) -> App {
    App::new(app.settings.clone(), app.store.clone()).unwrap()
}

fn alice() -> Uid {
    Uid::parse("alice", 128).unwrap()
}

#[tokio::test]
async fn all_devices_get_other_tokens_and_their_connections_end() {
    for app in TestApp::both().await {
        let mut before = Vec::new();
        for device in 0..=2 {
            before.push(token(&app, "alice", device).await);
            app.state().connect("alice", device);
        }
        let bobs = token(&app, "bob", 1).await;
        app.state().connect("bob", 1);
        let told = app.user("alice").post_nothing("/token/revoke").await.ok();
        assert_eq!(told, json!({"uid": "alice", "deviceFlags": [0, 1, 2]}));
        assert_eq!(app.state().connections(), 1, "bob's");
        for device in 0..=2 {
            let registered = upstream_token(&app, "alice", device);
            assert!(!registered.is_empty() && !before.contains(&registered));
            assert_eq!(token(&app, "alice", device).await, registered);
        }
        assert_eq!(token(&app, "bob", 1).await, bobs);
        // The same after a restart.
        let restarted = replica(&app);
        let again = restarted.im_tokens.issue(&alice(), DeviceFlag::Web).await;
        assert_eq!(again.unwrap().as_str(), token(&app, "alice", 1).await);
    }
}

#[tokio::test]
async fn one_device_is_revoked_and_the_others_stay() {
    for app in TestApp::both().await {
        let before = [token(&app, "alice", 0).await, token(&app, "alice", 1).await];
        for device in 0..=1 {
            app.state().connect("alice", device);
        }
        app.clear_calls();
        let body = json!({"deviceFlag": 0, "uid": "alice", "more": [1]});
        let told = app.user("alice").post("/token/revoke", &body).await.ok();
        assert_eq!(told, json!({"uid": "alice", "deviceFlags": [0]}));
        assert_eq!(app.state().connections(), 1);
        assert_eq!(upstream_token(&app, "alice", 1), before[1]);
        let new = upstream_token(&app, "alice", 0);
        assert_ne!(new, before[0]);
        // First refused, then cut off, then let in anew.
        let calls = app.calls_to("/user/").into_iter();
        let calls: Vec<_> = calls.map(|call| (call.path, call.body)).collect();
        let register = json!({"uid": "alice", "token": new, "device_flag": 0, "device_level": 0});
        let quit = json!({"uid": "alice", "device_flag": 0});
        let expected = [
            ("/user/token".to_owned(), register.clone()),
            ("/user/device_quit".to_owned(), quit),
            ("/user/token".to_owned(), register),
        ];
        assert_eq!(calls, expected);
        assert_eq!(token(&app, "alice", 1).await, before[1]);
    }
}

#[tokio::test]
async fn revoking_again_makes_yet_other_tokens() {
    let app = TestApp::start(V2).await;
    let mut seen = std::collections::HashSet::new();
    for _ in 0..4 {
        assert!(seen.insert(token(&app, "alice", 1).await));
        app.user("alice").post_nothing("/token/revoke").await.ok();
    }
}

#[tokio::test]
async fn only_an_admin_revokes_another_users_tokens() {
    for app in TestApp::both().await {
        let before = token(&app, "alice", 1).await;
        let (lines, _listening) = audit::listen();
        app.clear_calls();
        let body = json!({"uid": "alice"});
        failure(403, "forbidden").is(app.user("bob").post("/token/revoke", &body).await);
        app.nothing_was_written();
        app.admin().post_nothing("/token/revoke").await.ok();
        assert_eq!(lines.take(), Vec::<Value>::new());
        assert_eq!(token(&app, "alice", 1).await, before);
        let told = app.admin().post("/token/revoke", &body).await.ok();
        assert_eq!(told["uid"], "alice");
        assert_ne!(token(&app, "alice", 1).await, before);
        let told = lines.take();
        let [line] = &told[..] else {
            panic!("{told:?}")
        };
        for (field, value) in [
            ("audit.actor", "root"),
            ("audit.acts_for", "alice"),
            ("audit.action", "token.revoke"),
            ("audit.outcome", "done"),
        ] {
            assert_eq!(line[field], value, "{line}");
        }
    }
}

#[tokio::test]
async fn another_replica_that_gave_out_the_old_token_never_registers_it_again() {
    for app in TestApp::both().await {
        let other = replica(&app);
        let issue = async || other.im_tokens.issue(&alice(), DeviceFlag::Web).await;
        let old = issue().await.unwrap();
        app.user("alice").post_nothing("/token/revoke").await.ok();
        app.state().connect("alice", 1);
        app.clear_calls();
        let new = issue().await.unwrap();
        assert_ne!(new, old);
        let calls = app.calls_to("/user/");
        let registered: Vec<_> = calls.iter().map(|call| &call.body["token"]).collect();
        assert_eq!(registered, [new.as_str()]);
        assert_eq!(app.state().connections(), 1, "it is a good one");
        assert_eq!(token(&app, "alice", 1).await, new.as_str());
    }
}

#[tokio::test]
async fn a_store_that_is_down_brings_no_revoked_token_back_on_any_replica() {
    for kind in database::kinds() {
        for dialect in [V2, V3] {
            let builder = TestApp::builder().upstream(dialect).database(kind).await;
            let app = builder.start().await;
            let other = replica(&app);
            let issue = async || other.im_tokens.issue(&alice(), DeviceFlag::Web).await;
            let old = issue().await.unwrap();
            app.user("alice").post_nothing("/token/revoke").await.ok();
            let new = upstream_token(&app, "alice", 1);
            assert_ne!(new, old.as_str());
            app.database().hide_tables().await;
            assert!(matches!(issue().await, Err(ImTokenError::Store(_))));
            assert_eq!(upstream_token(&app, "alice", 1), new, "{kind:?}");
            app.database().show_tables().await;
            assert_eq!(issue().await.unwrap().as_str(), new);
        }
    }
}

#[tokio::test]
async fn a_token_that_is_revoked_while_it_is_registered_is_not_given_out() {
    for app in TestApp::both().await {
        let old = token(&app, "alice", 1).await;
        app.add_fault(Rule::exact("/user/token", Fault::Hold("registering".into())).times(1));
        let other = replica(&app);
        let giving = tokio::spawn(async move {
            let issued = other.im_tokens.issue(&alice(), DeviceFlag::Web).await;
            issued.unwrap()
        });
        app.faults().wait_held("registering", 1).await;
        app.user("alice").post_nothing("/token/revoke").await.ok();
        let new = upstream_token(&app, "alice", 1);
        app.faults().release("registering");
        assert_eq!(giving.await.unwrap().as_str(), new);
        assert_ne!(new, old);
        assert_eq!(upstream_token(&app, "alice", 1), new);
    }
}

#[tokio::test]
async fn of_concurrent_revocations_the_last_token_stays_registered() {
    for app in TestApp::both().await {
        let replicas = [replica(&app), replica(&app)];
        let calls = (0..8).map(|n| {
            let replica = replicas[n % 2].clone();
            async move {
                let tokens = &replica.im_tokens;
                if n < 4 {
                    tokens.revoke(&alice(), &[DeviceFlag::Web]).await.unwrap();
                } else {
                    tokens.issue(&alice(), DeviceFlag::Web).await.unwrap();
                }
            }
        });
        futures_util::future::join_all(calls).await;
        let registered = upstream_token(&app, "alice", 1);
        assert_eq!(registered, token(&app, "alice", 1).await);
    }
}

#[tokio::test]
async fn what_failed_upstream_is_finished_by_repeating_it() {
    for dialect in [V2, V3] {
        for path in ["/user/token", "/user/device_quit"] {
            for fault in [
                Fault::Status(500, "boom".into()),
                Fault::Reset,
                Fault::ResetAfter,
            ] {
                let app = TestApp::start(dialect).await;
                let old = token(&app, "alice", 1).await;
                app.state().connect("alice", 1);
                app.faults().always(path, fault.clone());
                let body = json!({"deviceFlag": 1});
                let failed = app.user("alice").post("/token/revoke", &body).await;
                assert!(failed.status >= 500, "{path} {fault:?}: {failed:#?}");
                assert_eq!(failed.body["message"], "服务内部错误");
                app.faults().clear();
                app.user("alice").post("/token/revoke", &body).await.ok();
                assert_eq!(app.state().connections(), 0);
                assert_ne!(token(&app, "alice", 1).await, old);
            }
        }
    }
}

#[tokio::test]
async fn a_revocation_whose_client_hung_up_is_finished() {
    let app = TestApp::start(V2).await;
    let old = token(&app, "alice", 1).await;
    app.add_fault(Rule::exact("/user/device_quit", Fault::Hold("quit".into())).times(1));
    let body = json!({"deviceFlag": 1}).to_string();
    let request = app.user("alice").posting("/token/revoke", body);
    tokio::select! {
        answer = request.send() => panic!("{answer:?}"),
        () = app.faults().wait_held("quit", 1) => {}
    }
    // The gateway sees that the client is gone.
    tokio::time::sleep(Duration::from_millis(100)).await;
    app.faults().release("quit");
    until(|| {
        let token = upstream_token(&app, "alice", 1);
        !token.is_empty() && token != old && app.calls_to("/user/token").len() == 3
    })
    .await;
}

#[tokio::test]
async fn a_banned_users_tokens_can_be_revoked() {
    let app = TestApp::start(V2).await;
    token(&app, "alice", 1).await;
    app.state().connect("alice", 1);
    app.state().ban_user("alice", true);
    let body = json!({"uid": "alice"});
    app.admin().post("/token/revoke", &body).await.ok();
    assert_eq!(app.state().connections(), 0);
    assert_eq!(upstream_token(&app, "alice", 1), "");
}

#[tokio::test]
async fn every_node_of_v3_ends_its_own_connections() {
    let second = DevUpstream::start(Options::new(V3)).await.unwrap();
    let url = second.url();
    let app = TestApp::with(V3, move |settings| {
        settings.wukongim.api_urls.push(url.parse().unwrap());
    });
    let app = app.await;
    token(&app, "alice", 1).await;
    app.user("alice").post_nothing("/token/revoke").await.ok();
    for upstream in [&app.upstream, &second] {
        assert_eq!(upstream.calls_to("/user/device_quit").len(), 3);
    }
    second.stop().await;
    app.user("alice").post_nothing("/token/revoke").await.ok();
}

#[tokio::test]
async fn bad_fields_are_named_and_nothing_is_revoked() {
    let app = TestApp::start(V2).await;
    let before = token(&app, "alice", 1).await;
    for (body, fields) in [
        (json!({"deviceFlag": 3}), vec!["deviceFlag"]),
        (json!({"uid": ""}), vec!["uid"]),
        (json!({"uid": "a@b"}), vec!["uid"]),
        (json!([]), vec!["body"]),
        (
            json!({"deviceFlag": "1", "uid": 7}),
            vec!["deviceFlag", "uid"],
        ),
    ] {
        println!("{body}");
        let answer = app.user("alice").post("/token/revoke", &body).await;
        answer.names(&fields);
    }
    assert_eq!(token(&app, "alice", 1).await, before);
}
