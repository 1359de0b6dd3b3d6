//! Each address has a bucket for what fails; good users never notice it.

use crate::support::issuer::Issuer;
use crate::support::keys::{ED_ONE, ED_TWO, RSA_ONE};
use crate::support::prelude::*;

/// A gateway that forgives an address `per_second` failures, behind these proxies.
async fn limited(per_second: u32, proxies: &'static [&'static str]) -> TestApp {
    TestApp::with(V2, move |settings| {
        settings.limits.anonymous_per_second = per_second;
        settings.public.ws_url = Some("ws://im".into());
        settings.public.tcp_addr = Some("im:5100".into());
        settings.server.trusted_proxies =
            proxies.iter().map(|range| range.parse().unwrap()).collect();
    })
    .await
}

/// A request with these headers as well.
async fn with(actor: &Actor<'_>, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = actor.request("GET", path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    Answer::to(request).await
}

const FORGED: (&str, &str) = ("authorization", "Bearer a.b.c");

#[tokio::test]
async fn failures_of_an_address_are_401_and_404_until_it_has_nothing_left() {
    let app = limited(3, &[]).await;
    let anon = app.anon();
    anon.get("/config").await.fails(401, "token_missing");
    failure(401, "token_invalid").is(with(&anon, "/config", &[FORGED]).await);
    anon.get("/nothing").await.fails(404, "not_found");
    for refused in [
        anon.get("/config").await,
        with(&anon, "/config", &[FORGED]).await,
        anon.get("/nothing").await,
        with(&anon, "/nothing", &[FORGED]).await,
    ] {
        let refused = refused.fails(429, "rate_limited");
        refused.has("retry-after", "1");
        refused.has("www-authenticate", "");
    }
    // What costs nobody anything is answered as ever.
    anon.get("/health").await.ok();
    failure(405, "method_not_allowed").is(anon.post_nothing("/config").await);
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
    let limited = app.metric(r#"gateway_limited_total{limit="address"}"#);
    assert_eq!(limited, Some(380.0));
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
async fn address_headers_of_untrusted_peers_are_ignored() {
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
async fn behind_a_trusted_proxy_each_client_has_its_own_limit() {
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
    failure(429, "rate_limited").is(with(&anon, "/config", &forwarded).await);
}

#[tokio::test]
async fn unknown_paths_of_a_user_are_charged_to_the_user() {
    let app = TestApp::with(V2, |settings| settings.limits.burst = 2).await;
    let bob = app.user("bob");
    let alice = app.user("alice");
    alice.get("/nothing").await.fails(404, "not_found");
    alice.get("/nothing").await.fails(404, "not_found");
    alice.get("/nothing").await.fails(429, "rate_limited");
    bob.get("/nothing").await.fails(404, "not_found");
}

/// A request with this token.
async fn with_token(app: &TestApp, path: &str, token: &str) -> Answer {
    let authorization = format!("Bearer {token}");
    with(&app.anon(), path, &[("authorization", &authorization)]).await
}

/// A good token by a public key, another one for each number.
fn signed(number: usize) -> String {
    let claims = json!({"sub": "carol", "exp": 4_000_000_000_u64, "jti": number});
    ED_ONE.sign(None, &claims)
}

#[tokio::test]
async fn an_address_with_nothing_left_has_new_asymmetric_signatures_checked_500_times_a_second() {
    let app = TestApp::with(V2, |settings| {
        settings.limits.anonymous_per_second = 1;
        settings.auth.jwt_public_keys = vec![ED_ONE.public_file()];
    })
    .await;
    app.anon().get("/config").await.fails(401, "token_missing");
    app.anon().get("/config").await.fails(429, "rate_limited");
    // The first of the 500: a good user at a bad address.
    with_token(&app, "/system/info", &signed(0)).await.ok();
    let good = signed(1);
    let (message, _) = good.rsplit_once('.').unwrap();
    let forged = format!("{message}.{}", signed(2).rsplit_once('.').unwrap().1);
    for turn in 1..500 {
        let path = if turn % 2 == 0 { "/config" } else { "/nothing" };
        failure(429, "rate_limited").is(with_token(&app, path, &forged).await);
    }
    let refusals = |limit: &str| {
        let metrics = app.app.metrics.render();
        let name = format!("gateway_limited_total{{limit=\"{limit}\"}} ");
        let line = metrics.lines().find_map(|line| line.strip_prefix(&name));
        line.map_or(0, |count| count.parse::<u32>().unwrap())
    };
    assert_eq!((refusals("address"), refusals("signature")), (500, 0));

    // Now nothing tells a good signature from a bad one.
    for path in ["/system/info", "/nothing"] {
        let answer = with_token(&app, path, &good).await;
        answer.fails(429, "rate_limited").has("retry-after", "1");
    }
    assert_eq!((refusals("address"), refusals("signature")), (500, 2));
    // What was verified before and what is signed with the secret is served as ever.
    with_token(&app, "/system/info", &signed(0)).await.ok();
    app.user("alice").get("/system/info").await.ok();

    app.time.pass(Duration::from_millis(2));
    with_token(&app, "/system/info", &good).await.ok();
    failure(429, "rate_limited").is(with_token(&app, "/system/info", &signed(3)).await);
}

#[tokio::test]
async fn a_token_that_cannot_be_checked_for_want_of_keys_costs_the_address_nothing() {
    let issuer = Issuer::start(&[]).await;
    issuer.is_down();
    let url = issuer.url();
    let app = TestApp::with(V2, |settings| {
        settings.limits.anonymous_per_second = 1;
        settings.auth.jwks_url = Some(url);
    })
    .await;
    let claims = json!({"sub": "carol", "exp": 4_000_000_000_u64});
    let token = RSA_ONE.sign(Some("one"), &claims);
    for _ in 0..3 {
        failure(503, "keys_unavailable").is(with_token(&app, "/config", &token).await);
        failure(404, "not_found").is(with_token(&app, "/nothing", &token).await);
    }
    app.anon().get("/config").await.fails(401, "token_missing");
    app.anon().get("/config").await.fails(429, "rate_limited");
    failure(503, "keys_unavailable").is(with_token(&app, "/config", &token).await);
}

#[tokio::test]
async fn checks_that_no_address_pays_for_are_made_500_times_a_second() {
    let issuer = Issuer::start(&[]).await;
    issuer.is_down();
    let url = issuer.url();
    let app = TestApp::with(V2, |settings| {
        settings.limits.anonymous_per_second = 1;
        settings.auth.jwks_url = Some(url);
        settings.auth.jwt_public_keys = vec![ED_ONE.public_file()];
    })
    .await;
    let claims = json!({"sub": "carol", "exp": 4_000_000_000_u64});
    // The issuer may have that key by now.
    let strange = ED_TWO.sign(None, &claims);
    let late = ED_ONE.sign(None, &json!({"sub": "carol", "exp": 5}));
    for _ in 0..200 {
        failure(401, "token_expired").is(with_token(&app, "/config", &late).await);
    }
    let mut checked = 200;
    loop {
        let answer = with_token(&app, "/config", &strange).await;
        if answer.status == 429 {
            break;
        }
        answer.fails(503, "keys_unavailable");
        checked += 1;
        // Those that meet a fetch wait for it, and are few.
        assert!(checked < 550, "checked without bound");
    }
    assert!(checked >= 500, "{checked}");
    for token in [&strange, &late] {
        for path in ["/config", "/nothing"] {
            let answer = with_token(&app, path, token).await;
            answer.fails(429, "rate_limited").has("retry-after", "1");
        }
    }
    // The address was not charged, and what it pays for is checked: this token names its key.
    with_token(
        &app,
        "/system/info",
        &ED_ONE.sign(Some("ed25519-one.pub"), &claims),
    )
    .await
    .ok();
    app.anon().get("/config").await.fails(401, "token_missing");
    app.time.pass(Duration::from_millis(2));
    failure(401, "token_expired").is(with_token(&app, "/config", &late).await);
}
