//! `POST /token`: always the same token, registered each time, without ending a connection.

mod equal_keys;
mod late;
mod revoke;
mod verify;

use wukongim_gateway::config::DeviceLevels;

use crate::support::prelude::*;

/// A user's token for a device, as it was told.
async fn token_for(app: &TestApp, uid: &str, device: u8) -> Value {
    let body = json!({"deviceFlag": device});
    app.user(uid).post("/token", &body).await.ok()
}

#[tokio::test]
async fn a_token_is_the_same_on_every_replica_and_after_a_restart() {
    let mut tokens = std::collections::HashSet::new();
    for dialect in [V2, V3, V2] {
        let app = TestApp::start(dialect).await;
        let first = app.user("alice").post_nothing("/token").await.ok();
        let again = app.user("alice").post_nothing("/token").await.ok();
        assert_eq!(first, again);
        assert_eq!(first["uid"], "alice");
        assert_eq!(first["deviceFlag"], 1);
        tokens.insert(first["token"].as_str().unwrap().to_owned());
    }
    assert_eq!(tokens.len(), 1, "{tokens:?}");
    let token = tokens.into_iter().next().unwrap();
    assert_eq!(token.len(), 43);
    assert!(
        token
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')),
        "{token}"
    );
}

#[tokio::test]
async fn a_token_is_another_one_for_another_uid_device_or_secret() {
    let app = TestApp::start(V2).await;
    let mut tokens = std::collections::HashSet::new();
    for uid in ["alice", "bob", "alice1", "张三"] {
        for flag in 0..=2 {
            let told = token_for(&app, uid, flag).await;
            assert_eq!(told["deviceFlag"], flag);
            let token = told["token"].as_str().unwrap().to_owned();
            assert_eq!(app.state().token_of(uid, flag), Some(token.clone()));
            assert!(tokens.insert(token), "{uid} {flag}");
        }
    }
    let own = || Some("a-secret-of-its-own-for-im-tokens".to_owned().into());
    let own_secret = TestApp::with(V2, move |settings| settings.im_token.secret = own()).await;
    let told = own_secret.user("alice").post_nothing("/token").await.ok();
    assert!(tokens.insert(told["token"].as_str().unwrap().to_owned()));
    // With a secret of its own the JWT's does not matter: rotating that one changes no IM token.
    let rotated = TestApp::with(V2, move |settings| {
        settings.im_token.secret = own();
        settings.auth.jwt_previous_secrets = settings.auth.jwt_secret.clone().into_iter().collect();
        settings.auth.jwt_secret = Some("a-new-jwt-secret-that-is-long-enough".to_owned().into());
    })
    .await;
    let same = rotated.user("alice").post_nothing("/token").await.ok();
    assert_eq!(same["token"], told["token"]);
}

#[tokio::test]
async fn each_call_registers_the_token_as_a_slave() {
    for app in TestApp::both().await {
        let alice = app.user("alice");
        for (body, flag) in [
            (None, 1),
            (Some(json!({})), 1),
            (Some(json!({"deviceFlag": null})), 1),
            (Some(json!({"deviceFlag": 0, "unknown": [1, {}]})), 0),
            (Some(json!({"deviceFlag": 1})), 1),
            (Some(json!({"deviceFlag": 2})), 2),
        ] {
            app.clear_calls();
            let told = match &body {
                None => alice.post_nothing("/token").await.ok(),
                Some(body) => alice.post("/token", body).await.ok(),
            };
            let calls = app.calls_to("/user/token");
            let [call] = &calls[..] else {
                panic!("{calls:?}")
            };
            let expected = json!({"uid": "alice", "token": told["token"], "device_flag": flag, "device_level": 0});
            assert_eq!(call.body, expected);
        }
    }
}

#[tokio::test]
async fn a_device_that_is_configured_so_is_a_master() {
    for dialect in [V2, V3] {
        let app = TestApp::with(dialect, |settings| {
            let levels = "app=master,web=slave".parse::<DeviceLevels>();
            settings.im_token.level = levels.unwrap();
        })
        .await;
        for (flag, level) in [(0, 1), (1, 0), (2, 0)] {
            app.clear_calls();
            token_for(&app, "alice", flag).await;
            assert_eq!(app.calls_to("/user/token")[0].body["device_level"], level);
        }
    }
}

#[tokio::test]
async fn asking_twice_ends_no_connection() {
    for app in TestApp::both().await {
        for flag in 0..=2 {
            app.state().connect("alice", flag);
        }
        for _ in 0..2 {
            for flag in 0..=2 {
                token_for(&app, "alice", flag).await;
            }
        }
        assert_eq!(app.state().connections(), 3);
    }
    // And the look at it can see one end: a master's does.
    let app = TestApp::with(V2, |settings| {
        settings.im_token.level = "master".parse().unwrap();
    })
    .await;
    app.state().connect("alice", 1);
    app.user("alice").post_nothing("/token").await.ok();
    assert_eq!(app.state().connections(), 0);
}

#[tokio::test]
async fn a_user_banned_upstream_is_forbidden() {
    let app = TestApp::start(V2).await;
    app.state().ban_user("alice", true);
    failure(403, "forbidden").is(app.user("alice").post_nothing("/token").await);
    assert_eq!(app.state().token_of("alice", 1), None);
    app.user("bob").post_nothing("/token").await.ok();
    app.state().ban_user("alice", false);
    app.user("alice").post_nothing("/token").await.ok();
}
