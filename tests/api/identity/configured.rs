//! What the configuration changes about tokens: leeway, claims, issuer and audience, former secrets.

use jsonwebtoken::Algorithm;

use super::{FAR, OTHER, ask_as, from_now, refused, signed_by};
use crate::support::messages::with;
use crate::support::prelude::*;

#[tokio::test]
async fn clocks_may_differ_by_the_leeway() {
    let app = TestApp::with(V2, |settings| {
        settings.auth.leeway = std::time::Duration::from_mins(5);
    })
    .await;
    let ask = async |times: Value| {
        let claims = with(json!({"sub": "a"}), &times);
        ask_as(&app, &sign(&claims)).await
    };
    ask(json!({"exp": from_now(-200)})).await.ok();
    ask(json!({"exp": FAR, "nbf": from_now(200)})).await.ok();
    let late = ask(json!({"exp": from_now(-400)})).await;
    refused(late, "token_expired");
    let early = ask(json!({"exp": FAR, "nbf": from_now(600)})).await;
    refused(early, "token_invalid");
}

#[tokio::test]
async fn openchats_own_tokens_work_as_they_are() {
    for app in TestApp::both().await {
        let claims =
            json!({"userId": "42", "username": "alice", "roles": ["user"], "iat": 1, "exp": FAR});
        let told = ask_as(&app, &sign(&claims)).await.ok();
        assert_eq!(told["uid"], "42");
    }
    let app = TestApp::with(V2, |settings| {
        settings.auth.uid_claims = vec!["userId".into(), "sub".into()];
    })
    .await;
    let token = sign(&json!({"userId": "mine", "sub": "other", "exp": FAR}));
    assert_eq!(ask_as(&app, &token).await.ok()["uid"], "mine");
    let token = sign(&json!({"sub": "other", "exp": FAR}));
    assert_eq!(ask_as(&app, &token).await.ok()["uid"], "other");
}

#[tokio::test]
async fn issuer_and_audience_are_required_where_configured() {
    let app = TestApp::with(V2, |settings| {
        settings.auth.issuer = Some("openchat".into());
        settings.auth.audience = Some("im".into());
    })
    .await;
    let ask = async |extra: Value| {
        let claims = with(json!({"sub": "a", "exp": FAR}), &extra);
        ask_as(&app, &sign(&claims)).await
    };
    ask(json!({"iss": "openchat", "aud": "im"})).await.ok();
    let one_of = json!({"iss": "openchat", "aud": ["x", "im"]});
    ask(one_of).await.ok();
    app.clear_calls();
    for extra in [
        json!({}),
        json!({"iss": "openchat"}),
        json!({"aud": "im"}),
        json!({"iss": "OpenChat", "aud": "im"}),
        json!({"iss": ["openchat"], "aud": "im"}),
        json!({"iss": "openchat", "aud": "imx"}),
        json!({"iss": "openchat", "aud": []}),
        json!({"iss": "openchat", "aud": {"im": 1}}),
        // Expired as well: refreshing would not help.
        json!({"iss": "other", "aud": "im", "exp": 5}),
    ] {
        println!("{extra}");
        refused(ask(extra).await, "token_invalid");
    }
    let late = ask(json!({"iss": "openchat", "aud": "im", "exp": 5})).await;
    refused(late, "token_expired");
    assert_eq!(app.upstream.calls().len(), 0);
}

#[tokio::test]
async fn former_secrets_are_good_for_as_long_as_they_are_configured() {
    let by_other = signed_by(OTHER, Algorithm::HS256, &json!({"sub": "a", "exp": FAR}));
    let app = TestApp::start(V2).await;
    refused(ask_as(&app, &by_other).await, "token_invalid");
    let app = TestApp::with(V2, |settings| {
        let older = "yet-another-secret-that-nobody-uses-now";
        settings.auth.jwt_previous_secrets = vec![older.to_owned().into(), OTHER.to_owned().into()];
    })
    .await;
    ask_as(&app, &by_other).await.ok();
    let by_this = sign(&json!({"sub": "a", "exp": FAR}));
    ask_as(&app, &by_this).await.ok();
    let expired = signed_by(OTHER, Algorithm::HS256, &json!({"sub": "a", "exp": 5}));
    refused(ask_as(&app, &expired).await, "token_expired");
    let hs512 = signed_by(OTHER, Algorithm::HS512, &json!({"sub": "a", "exp": FAR}));
    refused(ask_as(&app, &hs512).await, "token_invalid");
}
