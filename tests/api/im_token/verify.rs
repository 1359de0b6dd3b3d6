//! A connect token is good for exactly its uid and device until it is revoked, on every replica.

use wukongim_gateway::auth::{DeviceFlag, ImTokens};
use wukongim_gateway::domain::Uid;

use super::token_for;
use crate::support::{TestApp, V2, V3, database};

fn uid(text: &str) -> Uid {
    Uid::parse(text, 128).unwrap()
}

async fn token(app: &TestApp, user: &str, device: DeviceFlag) -> String {
    let told = token_for(app, user, device.number()).await;
    told["token"].as_str().unwrap().to_owned()
}

async fn verify(tokens: &ImTokens, user: &str, device: DeviceFlag, token: &str) -> Option<u64> {
    tokens.verify(&uid(user), device, token).await.unwrap()
}

#[tokio::test]
async fn only_the_token_of_this_uid_and_device_passes() {
    let app = TestApp::start(V3).await;
    let tokens = &app.app.im_tokens;
    let good = token(&app, "alice", DeviceFlag::Web).await;
    assert_eq!(
        verify(tokens, "alice", DeviceFlag::Web, &good).await,
        Some(0)
    );
    let foreign = [
        ("bob", DeviceFlag::Web),
        ("alice", DeviceFlag::App),
        ("alice", DeviceFlag::Pc),
    ];
    for (user, device) in foreign {
        assert_eq!(verify(tokens, user, device, &good).await, None);
    }
    let longer = format!("{good}A");
    for bad in ["", "A", &good[1..], &longer, &good.to_lowercase()] {
        assert_eq!(verify(tokens, "alice", DeviceFlag::Web, bad).await, None);
    }
}

#[tokio::test]
async fn a_revoked_token_fails_at_once_on_every_replica() {
    for dialect in [V2, V3] {
        let app = TestApp::start(dialect).await;
        let replica = app.beside(|_| {}).await;
        let (here, there) = (&app.app.im_tokens, &replica.app.im_tokens);
        let (alice, web) = (uid("alice"), DeviceFlag::Web);
        let old = token(&app, "alice", web).await;
        assert_eq!(verify(there, "alice", web, &old).await, Some(0));
        assert!(there.is_current(&alice, web, 0).await.unwrap());

        here.revoke(&alice, &[web]).await.unwrap();
        for tokens in [here, there] {
            assert_eq!(verify(tokens, "alice", web, &old).await, None);
            assert!(!tokens.is_current(&alice, web, 0).await.unwrap());
            let untouched = tokens.is_current(&alice, DeviceFlag::App, 0);
            assert!(untouched.await.unwrap(), "another device");
        }
        let new = token(&app, "alice", web).await;
        assert_eq!(verify(there, "alice", web, &new).await, Some(1));
        assert!(there.is_current(&alice, web, 1).await.unwrap());
    }
}

#[tokio::test]
async fn a_store_that_cannot_be_asked_is_no_answer() {
    let builder = TestApp::builder().database(database::Kind::Sqlite).await;
    let app = builder.start().await;
    let tokens = &app.app.im_tokens;
    let good = token(&app, "alice", DeviceFlag::Web).await;
    app.database().hide_tables().await;
    let (alice, web) = (uid("alice"), DeviceFlag::Web);
    assert!(tokens.verify(&alice, web, &good).await.is_err());
    assert!(tokens.is_current(&alice, web, 0).await.is_err());
}

#[tokio::test]
async fn a_v2_that_lost_its_data_is_told_the_token_again() {
    let app = TestApp::start(V2).await;
    let (alice, web) = (uid("alice"), DeviceFlag::Web);
    let good = token(&app, "alice", web).await;
    let lost = TestApp::builder().store(app.store.clone()).start().await;
    assert_eq!(lost.state().token_of("alice", web.number()), None);
    let again = lost.app.im_tokens.register_again(&alice, web).await;
    again.unwrap();
    let registered = lost.state().token_of("alice", web.number());
    assert_eq!(registered, Some(good));
}
