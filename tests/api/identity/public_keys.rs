//! Public keys from files, and what a token must say besides being signed.

use jsonwebtoken::Algorithm as By;
use wukongim_gateway::config::Algorithm;

use super::{FAR, ask_as, from_now, refused};
use crate::operations::Ops;
use crate::support::keys::{ED_ONE, KINDS, P256_ONE, RSA_ONE, RSA_TWO, TestKey};
use crate::support::prelude::*;

fn claims() -> Value {
    json!({"sub": "a", "exp": FAR})
}

fn with_files(keys: &[TestKey]) -> crate::support::app::Builder {
    let files: Vec<_> = keys.iter().map(|key| key.public_file()).collect();
    TestApp::builder().config(|settings| settings.auth.jwt_public_keys = files)
}

#[tokio::test]
async fn every_algorithm_lets_its_user_in_beside_the_secret() {
    for dialect in [V2, V3] {
        let app = with_files(&KINDS).upstream(dialect).start().await;
        let of_key = |key: TestKey| {
            let algorithms = key.algorithms.iter();
            algorithms.map(move |algorithm| key.sign_by(*algorithm, None, &claims()))
        };
        let tokens = KINDS.into_iter().flat_map(of_key);
        for token in tokens.chain([sign(&claims())]) {
            // Checked, and then remembered.
            for _ in 0..2 {
                let told = ask_as(&app, &token).await.ok();
                assert_eq!(told["uid"], "a", "{token}");
            }
        }
        let ops = Ops::of(&app).await;
        for outcome in ["hit", "miss"] {
            let name =
                format!("gateway_cache_lookups_total{{cache=\"tokens\",outcome=\"{outcome}\"}}");
            assert_eq!(ops.metric(&name).await, Some(10.0), "{outcome}");
        }
    }
}

#[tokio::test]
async fn several_keys_of_a_kind_are_good_together() {
    let app = with_files(&[RSA_TWO, P256_ONE, RSA_ONE]).start().await;
    for key in [RSA_ONE, RSA_TWO, P256_ONE] {
        for kid in [None, Some("unknown"), Some(&*format!("{}.pub", key.name))] {
            ask_as(&app, &key.sign(kid, &claims())).await.ok();
        }
    }
    let misnamed = RSA_ONE.sign(Some("rsa-two.pub"), &claims());
    refused(ask_as(&app, &misnamed).await, "token_invalid");
}

#[tokio::test]
async fn without_a_secret_only_public_keys_count() {
    let app = with_files(&[ED_ONE])
        .config(|settings| {
            settings.auth.jwt_secret = None;
            settings.im_token.secret = Some("an-im-token-secret-of-its-own-here".into());
        })
        .start()
        .await;
    ask_as(&app, &ED_ONE.sign(None, &claims())).await.ok();
    refused(ask_as(&app, &sign(&claims())).await, "token_invalid");
}

#[tokio::test]
async fn only_configured_algorithms_are_taken() {
    let app = with_files(&[RSA_ONE])
        .config(|settings| settings.auth.algorithms = vec![Algorithm::RS256])
        .start()
        .await;
    ask_as(&app, &RSA_ONE.sign(None, &claims())).await.ok();
    for token in [
        RSA_ONE.sign_by(By::RS384, None, &claims()),
        RSA_ONE.sign_by(By::PS256, None, &claims()),
        sign(&claims()),
    ] {
        refused(ask_as(&app, &token).await, "token_invalid");
    }
}

#[tokio::test]
async fn required_claims_apply_to_every_kind_of_token() {
    let app = with_files(&[ED_ONE])
        .config(|settings| {
            settings.auth.issuer = Some("id".into());
            settings.auth.audience = Some("im".into());
            settings.auth.required_claims = vec!["roles".into(), "scope".into()];
        })
        .start()
        .await;
    let good = json!({
        "sub": "a", "exp": FAR, "nbf": 0, "iss": "id", "aud": ["web", "im"], "roles": [], "scope": "im openid"
    });
    let with = |member: &str, value: Value| {
        let mut claims = good.clone();
        claims[member] = value;
        claims
    };
    let signers = [sign, |claims: &Value| ED_ONE.sign(None, claims)];
    for signed in signers {
        ask_as(&app, &signed(&good)).await.ok();
        let audience = with("aud", "im".into());
        ask_as(&app, &signed(&audience)).await.ok();
        app.clear_calls();
        for (bad, code) in [
            (with("iss", "other".into()), "token_invalid"),
            (with("aud", json!(["web"])), "token_invalid"),
            (with("nbf", from_now(3600).into()), "token_invalid"),
            (with("roles", Value::Null), "token_invalid"),
            (with("roles", "user".into()), "token_invalid"),
            (with("scope", "".into()), "token_invalid"),
            (with("scope", 7.into()), "token_invalid"),
            (with("exp", from_now(-3600).into()), "token_expired"),
        ] {
            println!("{bad}");
            refused(ask_as(&app, &signed(&bad)).await, code);
        }
        assert_eq!(app.upstream.calls().len(), 0);
    }
}

#[tokio::test]
async fn openchats_refresh_tokens_are_refused_where_roles_are_required() {
    let app = TestApp::with(V2, |settings| {
        settings.auth.required_claims = vec!["roles".into()];
    })
    .await;
    let access = json!({"userId": "42", "roles": ["user"], "exp": FAR});
    ask_as(&app, &sign(&access)).await.ok();
    let refresh = json!({"userId": "42", "exp": FAR});
    refused(ask_as(&app, &sign(&refresh)).await, "token_invalid");
}

#[tokio::test]
async fn a_remembered_token_ends_at_its_time() {
    let app = with_files(&[ED_ONE])
        .config(|settings| settings.auth.leeway = std::time::Duration::ZERO)
        .start()
        .await;
    let end = from_now(2);
    let token = ED_ONE.sign(None, &json!({"sub": "a", "exp": end}));
    ask_as(&app, &token).await.ok();
    let over = u64::try_from(end).unwrap();
    while std::time::UNIX_EPOCH.elapsed().unwrap().as_secs() < over {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    refused(ask_as(&app, &token).await, "token_expired");
}
