//! Each address has a bucket for what fails; good users never notice it.

use std::time::Duration;

use serde_json::json;

use crate::support::actors::Actor;
use crate::support::answer::Answer;
use crate::support::{TestApp, V2};

/// A gateway that forgives an address `per_second` failures, behind these proxies.
async fn limited(per_second: u32, proxies: &'static [&'static str]) -> TestApp {
    TestApp::builder()
        .config(move |settings| {
            settings.limits.anonymous_per_second = per_second;
            settings.public.ws_url = Some("ws://im".into());
            settings.public.tcp_addr = Some("im:5100".into());
            settings.server.trusted_proxies =
                proxies.iter().map(|range| range.parse().unwrap()).collect();
        })
        .start()
        .await
}

/// A request with these headers as well.
async fn with(actor: &Actor<'_>, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = actor.request("GET", path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    Answer::of(request.send().await.unwrap()).await
}

const FORGED: (&str, &str) = ("authorization", "Bearer a.b.c");

#[tokio::test]
async fn failures_of_an_address_are_401_and_404_until_it_has_nothing_left() {
    let app = limited(3, &[]).await;
    let anon = app.anon();
    anon.get("/config").await.fails(401, "token_missing");
    with(&anon, "/config", &[FORGED])
        .await
        .fails(401, "token_invalid");
    anon.get("/nothing").await.fails(404, "not_found");
    for refused in [
        anon.get("/config").await,
        with(&anon, "/config", &[FORGED]).await,
        anon.get("/nothing").await,
        with(&anon, "/nothing", &[FORGED]).await,
    ] {
        let refused = refused.fails(429, "rate_limited");
        assert_eq!(refused.header("retry-after"), "1");
        assert_eq!(refused.header("www-authenticate"), "");
    }
    // What costs nobody anything is answered as ever.
    anon.get("/health").await.ok();
    anon.post_nothing("/config")
        .await
        .fails(405, "method_not_allowed");
    app.time.pass(Duration::from_millis(334));
    anon.get("/config").await.fails(401, "token_missing");
    anon.get("/config").await.fails(429, "rate_limited");
}

#[tokio::test]
async fn a_flood_of_bad_tokens_takes_nothing_from_a_good_user_of_that_address() {
    let app = limited(20, &[]).await;
    let alice = app.user("alice");
    let mallory = Actor::with_claims(&app, &json!({"sub": "a@b", "exp": 4_000_000_000_u64}));
    let mut refused = 0;
    for turn in 0..100 {
        for answer in [
            app.anon().get("/config").await,
            with(&app.anon(), "/config", &[FORGED]).await,
            mallory.get("/config").await,
            app.anon().get("/wp-login.php").await,
        ] {
            assert!(matches!(answer.status, 401 | 404 | 429), "{answer:#?}");
            refused += usize::from(answer.status == 429);
        }
        alice.get("/config").await.ok();
        if turn % 10 == 0 {
            alice.send_to_person("bob", "hi").await.ok();
        }
    }
    assert_eq!(refused, 400 - 20);
    let metrics = app.app.metrics().render();
    assert!(
        metrics.contains("gateway_limited_total{limit=\"address\"} 380\n"),
        "{metrics}"
    );
}

#[tokio::test]
async fn a_token_that_is_only_late_and_a_users_wrong_path_cost_the_address_nothing() {
    let app = limited(1, &[]).await;
    let late = Actor::with_claims(&app, &json!({"sub": "alice", "exp": 1_000_000}));
    let alice = app.user("alice");
    for _ in 0..5 {
        late.get("/config").await.fails(401, "token_expired");
        late.get("/nothing").await.fails(404, "not_found");
        alice.get("/nothing").await.fails(404, "not_found");
    }
    app.anon().get("/config").await.fails(401, "token_missing");
    app.anon().get("/config").await.fails(429, "rate_limited");
    // And with nothing left they are still told what they are.
    late.get("/config").await.fails(401, "token_expired");
    alice.get("/nothing").await.fails(404, "not_found");
}

#[tokio::test]
async fn what_a_stranger_says_of_his_address_counts_for_nothing() {
    let app = limited(1, &[]).await;
    for n in 0..3 {
        let own = format!("203.0.113.{n}");
        let forwarded = format!("for={own}");
        let headers = [("x-forwarded-for", &*own), ("forwarded", &forwarded)];
        let answer = with(&app.anon(), "/config", &headers).await;
        assert_eq!(answer.status, if n == 0 { 401 } else { 429 }, "{answer:#?}");
    }
}

#[tokio::test]
async fn behind_a_trusted_proxy_each_client_has_his_own() {
    let app = limited(1, &["127.0.0.0/8", "10.0.0.0/8"]).await;
    let anon = app.anon();
    let ask = async |chain: &str| {
        with(&anon, "/config", &[("x-forwarded-for", chain)])
            .await
            .status
    };
    assert_eq!(ask("203.0.113.1").await, 401);
    assert_eq!(ask("203.0.113.1").await, 429);
    assert_eq!(ask("203.0.113.2").await, 401);
    // What stands left of it is the client's own invention, and what stands right of it is another proxy.
    assert_eq!(ask("203.0.113.9, 203.0.113.1").await, 429);
    assert_eq!(ask("203.0.113.1, 10.0.0.7").await, 429);
    // A /64 is one customer.
    assert_eq!(ask("2001:db8:1:1::1").await, 401);
    assert_eq!(ask("2001:db8:1:1:9::2").await, 429);
    assert_eq!(ask("2001:db8:1:2::1").await, 401);
    let forwarded = [("forwarded", "for=\"[2001:db8:1:2::7]:443\";proto=https")];
    with(&anon, "/config", &forwarded)
        .await
        .fails(429, "rate_limited");
}

#[tokio::test]
async fn a_user_pays_for_his_wrong_paths_himself() {
    let app = TestApp::builder()
        .upstream(V2)
        .config(|settings| settings.limits.burst = 2)
        .start()
        .await;
    let alice = app.user("alice");
    alice.get("/nothing").await.fails(404, "not_found");
    alice.get("/nothing").await.fails(404, "not_found");
    alice.get("/nothing").await.fails(429, "rate_limited");
    app.user("bob")
        .get("/nothing")
        .await
        .fails(404, "not_found");
}
