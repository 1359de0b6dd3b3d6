//! Forged tokens for every known attack on JWTs: each is refused with its code, by a gateway that has every kind of key, and none of them
//! makes it ask the issuer or WuKongIM for anything.

mod tokens;

use std::collections::HashSet;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::Algorithm as By;

use super::{FAR, ask, ask_as, refused};
use crate::support::issuer::Issuer;
use crate::support::keys::{ED_ONE, ED_TWO, P256_ONE, P384_ONE, RSA_ONE, RSA_TWO, TestKey};
use crate::support::prelude::*;
use crate::support::served::SECRET;

fn claims() -> Value {
    json!({"sub": "a", "exp": FAR})
}

fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A token of these very texts, signed with the right secret.
fn raw(header: &str, claims: &str) -> String {
    let message = format!("{}.{}", b64(header), b64(claims));
    by_secret(SECRET.as_bytes(), &message)
}

fn by_secret(secret: &[u8], message: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    format!("{message}.{}", b64(hmac::sign(&key, message.as_bytes())))
}

/// A token with this header that `key` signs by `algorithm`, whatever the header says.
fn by_key(key: TestKey, algorithm: By, header: &Value) -> String {
    let message = format!("{}.{}", b64(header.to_string()), b64(claims().to_string()));
    let signature = key.signature(algorithm, &message);
    format!("{message}.{signature}")
}

/// HS256 with something public as its secret: what confuses those who let the token choose the algorithm.
fn confused(kid: Option<&str>, secret: &[u8]) -> String {
    let mut header = json!({"alg": "HS256"});
    if let Some(kid) = kid {
        header["kid"] = json!(kid);
    }
    let message = format!("{}.{}", b64(header.to_string()), b64(claims().to_string()));
    by_secret(secret, &message)
}

/// Everything after the last dot replaced.
fn with_signature(token: &str, signature: &str) -> String {
    let (message, _) = token.rsplit_once('.').unwrap();
    format!("{message}.{signature}")
}

fn der(pem: &str) -> Vec<u8> {
    let lines = pem.lines().skip_while(|line| !line.starts_with("-----"));
    let body: String = lines.filter(|line| !line.starts_with("-----")).collect();
    STANDARD.decode(body).unwrap()
}

/// The header of a good token of `key`, with more members.
fn header(key: TestKey, more: &Value) -> Value {
    let name = json!(key.algorithms[0]);
    let mut header = json!({"alg": name, "typ": "JWT"});
    let members = header.as_object_mut().unwrap();
    members.extend(more.as_object().unwrap().clone());
    header
}

#[tokio::test]
async fn no_forged_token_is_accepted() {
    let oct = json!({"kty": "oct", "kid": "oct", "k": b64("a-published-secret-is-no-secret!")});
    let mut rsa = RSA_TWO.jwk(Some("rsa"));
    rsa["alg"] = "RS256".into();
    let mut enc = ED_TWO.jwk(Some("enc"));
    enc["use"] = "enc".into();
    let issuer = Issuer::start(&[rsa, oct, enc, P384_ONE.jwk(Some("ec"))]).await;
    let url = issuer.url();
    let files = [RSA_ONE, P256_ONE, ED_ONE].map(TestKey::public_file);
    let app = TestApp::with(V2, move |settings| {
        settings.auth.jwks_url = Some(url);
        settings.auth.jwt_public_keys = files.to_vec();
    })
    .await;
    let with_kid = header(P256_ONE, &json!({"kid": "p256-one.pub"}));
    // Every key works, so what follows is refused for its own fault.
    for good in [
        sign(&claims()),
        RSA_ONE.sign(None, &claims()),
        P256_ONE.sign(Some("p256-one.pub"), &claims()),
        ED_ONE.sign(None, &claims()),
        RSA_TWO.sign(Some("rsa"), &claims()),
        P384_ONE.sign(Some("ec"), &claims()),
        raw("{\"alg\":\"HS256\",\"kid\":\"x\"}", &claims().to_string()),
        by_key(P256_ONE, By::ES256, &with_kid),
    ] {
        assert_eq!(ask_as(&app, &good).await.ok()["uid"], "a");
    }
    // And one whose only key is the secret.
    let plain = TestApp::start(V2).await;
    ask_as(&plain, &sign(&claims())).await.ok();
    app.clear_calls();
    plain.clear_calls();
    let forged = [
        tokens::unsigned(),
        tokens::confusions(),
        tokens::of_other_keys(),
        tokens::pieces(),
        tokens::contents(),
    ]
    .concat();
    let kinds: HashSet<_> = forged.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds.len(), forged.len());
    assert!(kinds.len() >= 90, "{}", kinds.len());
    for (kind, token) in &forged {
        println!("{kind}");
        refused(ask_as(&app, token).await, "token_invalid");
        refused(ask_as(&plain, token).await, "token_invalid");
    }
    // Good ones, but late or not there at all.
    for key in [RSA_ONE, P256_ONE, ED_ONE] {
        let expired = key.sign(None, &json!({"sub": "a", "exp": 5}));
        refused(ask_as(&app, &expired).await, "token_expired");
    }
    let expired = sign(&json!({"sub": "a", "exp": 5}));
    refused(ask_as(&app, &expired).await, "token_expired");
    refused(ask(&app, &[]).await, "token_missing");
    assert_eq!(app.upstream.calls().len() + plain.upstream.calls().len(), 0);
    assert_eq!(issuer.asked(), 1);
}
