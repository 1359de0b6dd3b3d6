//! A registration that was given up may reach WuKongIM after the token was revoked.

use wukongim_gateway::auth::DeviceFlag;
use wukongim_gateway::domain::Uid;
use wukongim_gateway::state::App;

use crate::support::prelude::*;

const TIMEOUT: Duration = Duration::from_millis(300);

fn registered(app: &TestApp) -> String {
    let token = app.state().token_of("alice", 1);
    token.unwrap_or_default()
}

/// The last registration that came.
fn last_registration(app: &TestApp) -> Value {
    app.calls_to("/user/token").pop().expect("a call").body
}

/// Carries out a registration, as WuKongIM does with one that was given up.
async fn arrives(app: &TestApp, registration: &Value) {
    let url = format!("{}/user/token", app.upstream.url());
    let request = app.http.post(url).body(registration.to_string());
    assert_eq!(request.send().await.expect("an answer").status(), 200);
}

#[tokio::test]
async fn a_late_registration_does_not_restore_a_revoked_token() {
    for dialect in [V2, V3] {
        for revoked_before_the_answer in [true, false] {
            println!("{dialect:?} {revoked_before_the_answer}");
            let app = TestApp::with(dialect, |settings| settings.wukongim.timeout = TIMEOUT).await;
            let replica = App::new(app.settings.clone(), app.store.clone()).unwrap();
            let alice = Uid::parse("alice", 128).unwrap();
            let user = app.user("alice");
            let old = user.post_nothing("/token").await.ok();
            app.add_fault(Rule::exact("/user/token", Fault::Hang).times(1));
            let revoke = async {
                let devices = [DeviceFlag::Web];
                replica.im_tokens.revoke(&alice, &devices).await.unwrap();
            };
            let issue = async {
                failure(504, "upstream_timeout").is(user.post_nothing("/token").await);
            };
            if revoked_before_the_answer {
                let later = async {
                    // The rule is used up, so only the issued one hangs.
                    until(|| app.faults().remaining() == 0).await;
                    revoke.await;
                };
                tokio::join!(issue, later);
            } else {
                issue.await;
                revoke.await;
            }
            let new = registered(&app);
            assert_ne!(new, old["token"]);
            app.state().connect("alice", 1);
            let mut late = last_registration(&app);
            late["token"] = old["token"].clone();
            arrives(&app, &late).await;
            assert_eq!(registered(&app), old["token"], "it is good again");
            until(|| registered(&app) == new && app.state().connections() == 0).await;
        }
    }
}

#[tokio::test]
async fn an_unanswered_registration_is_kept_without_a_revocation() {
    let app = TestApp::with(V2, |settings| settings.wukongim.timeout = TIMEOUT).await;
    app.add_fault(Rule::exact("/user/token", Fault::Hang).times(1));
    let user = app.user("alice");
    failure(504, "upstream_timeout").is(user.post_nothing("/token").await);
    app.state().connect("alice", 1);
    tokio::time::sleep(2 * TIMEOUT).await;
    assert_eq!(app.calls_to("/user/").len(), 1);
    assert_eq!(app.state().connections(), 1);
}

#[tokio::test]
async fn issuing_and_revoking_for_one_device_are_serialised() {
    let app = TestApp::start(V2).await;
    let alice = app.user("alice");
    alice.post_nothing("/token").await.ok();
    app.add_fault(Rule::exact("/user/token", Fault::Hold("token".into())).times(1));
    app.clear_calls();
    let web = json!({"deviceFlag": 1});
    let issuing = async { alice.post("/token", &web).await.ok() };
    let revoking = async {
        app.faults().wait_held("token", 1).await;
        // Other devices and users are not held up.
        app.user("bob").post("/token", &web).await.ok();
        alice.post("/token", &json!({"deviceFlag": 0})).await.ok();
        let release = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            assert!(app.calls_to("/user/device_quit").is_empty(), "it waits");
            app.faults().release("token");
        };
        let revoke = async { alice.post("/token/revoke", &web).await.ok() };
        tokio::join!(release, revoke);
    };
    let (issued, ()) = tokio::join!(issuing, revoking);
    assert_ne!(registered(&app), issued["token"]);
}
