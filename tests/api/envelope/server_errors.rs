//! What the 5xx answers of each endpoint say.

use super::endpoints::{Endpoint, all};
use crate::support::prelude::*;

/// The answer in English.
async fn in_english(app: &TestApp, endpoint: &Endpoint) -> Answer {
    let request = endpoint.request(&app.user("alice"));
    let request = request.header("accept-language", "en");
    Answer::to(request).await
}

/// A gateway without sockets, all of whose endpoints ask WuKongIM: `/config` too.
async fn without_sockets(dialect: Dialect) -> TestApp {
    TestApp::with(dialect, |settings| settings.socket.enabled = false).await
}

#[tokio::test]
async fn while_wukongim_is_down_each_endpoint_is_503_with_its_own_text() {
    for dialect in [V2, V3] {
        let app = without_sockets(dialect).await;
        app.upstream.stop().await;
        for endpoint in all() {
            let answer = endpoint.call(&app.user("alice")).await;
            let answer = answer.fails(503, "upstream_unavailable");
            answer.says(endpoint.failure.0);
            answer.has("retry-after", "1");
            let has_data = matches!(endpoint.path, "/health" | "/message/sendbatch");
            assert_eq!(
                answer.body.get("data").is_some(),
                has_data,
                "{}: {answer:#?}",
                endpoint.path
            );
            let answer = in_english(&app, &endpoint).await;
            answer
                .fails(503, "upstream_unavailable")
                .says(endpoint.failure.1);
        }
    }
}

#[tokio::test]
async fn nonsense_from_wukongim_is_a_5xx_with_the_endpoints_own_text() {
    for dialect in [V2, V3] {
        for fault in [Fault::Status(500, "boom".into()), Fault::Garbage] {
            let app = without_sockets(dialect).await;
            app.anon().get("/health").await.ok();
            app.faults().always("/", fault);
            for endpoint in all() {
                // Health answers from its last probe.
                if endpoint.is_public() {
                    continue;
                }
                let answer = endpoint.call(&app.user("alice")).await;
                assert!(
                    (500..600).contains(&answer.status),
                    "{}: {answer:#?}",
                    endpoint.path
                );
                answer.says(endpoint.failure.0);
                assert!(answer.body["code"].is_string(), "{answer:#?}");
            }
        }
    }
}

#[tokio::test]
async fn refused_credentials_are_502() {
    let app = TestApp::builder()
        .options(|options| options.manager_token = Some("the-right-one".into()))
        .config(|settings| {
            settings.wukongim.manager_token = Some("the-wrong-one".to_owned().into());
            settings.socket.enabled = false;
        })
        .start()
        .await;
    for endpoint in all() {
        let answer = endpoint.call(&app.user("alice")).await;
        let (status, code) = if endpoint.is_public() {
            (503, "upstream_unavailable")
        } else {
            (502, "upstream_error")
        };
        let answer = answer.fails(status, code);
        answer.says(endpoint.failure.0);
        assert!(!answer.text.contains("the-"), "{answer:#?}");
    }
    app.nothing_was_written();
    let right = TestApp::builder()
        .options(|options| options.manager_token = Some("the-right-one".into()))
        .config(|settings| {
            settings.wukongim.manager_token = Some("the-right-one".to_owned().into());
        })
        .start()
        .await;
    right.user("alice").post_nothing("/token").await.ok();
}
