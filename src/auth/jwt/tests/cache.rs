//! The cache of verified tokens: what is taken from it, and when.

use super::*;
use crate::auth::claims::ValidClaims;

/// Whether the token is let in without a costly check at this time.
fn is_remembered(verifier: &Verifier, token: &str, now_s: f64) -> bool {
    matches!(verifier.precheck_at(token, now_s), Ok(Precheck::Known(_)))
}

#[tokio::test]
async fn a_valid_signature_is_checked_once_and_never_used_after_its_expiry() {
    let verifier = with_files(&[RSA_ONE]);
    let token = RSA_ONE.sign(None, &claims());
    let (now_s, exp_s) = (now_s(), 4_000_000_000.0);
    assert!(!is_remembered(&verifier, &token, now_s));
    assert_told!(verifier, token, GOOD);
    assert!(is_remembered(&verifier, &token, now_s));
    assert!(is_remembered(&verifier, &token, exp_s - 0.001));
    // Within the leeway it may still be good, but not from memory.
    assert!(!is_remembered(&verifier, &token, exp_s));
    // Not a letter may differ.
    let (head, signature) = token.rsplit_once('.').unwrap();
    for other in [
        format!("{head}.{}", RSA_TWO.signature(By::RS256, head)),
        format!("{head}.{signature}A"),
        format!("{token}."),
    ] {
        assert!(!is_remembered(&verifier, &other, now_s));
        assert!(verify(&verifier, &other).await.is_err());
    }
}

#[tokio::test]
async fn refused_tokens_are_not_cached() {
    let verifier = with_files(&[RSA_ONE]);
    for token in [
        hs256(OLD, &claims()),
        hs256(SECRET, &json!({"sub": "a", "exp": 5})),
        hs256(SECRET, &json!({"sub": "a@b", "exp": FAR})),
        RSA_TWO.sign(None, &claims()),
        RSA_ONE.sign(None, &json!({"sub": "a", "exp": 5})),
        RSA_ONE.sign(None, &json!({"sub": "a@b", "exp": FAR})),
    ] {
        assert!(verify(&verifier, &token).await.is_err());
    }
    assert_eq!(verifier.cached_tokens(), 0);
}

#[test]
fn a_token_signed_with_a_secret_is_remembered_until_it_expires() {
    let verifier = verifier(|_| {});
    let exp = |exp_s: u64| hs256(SECRET, &json!({"sub": "a", "exp": exp_s}));
    let (token, late) = (exp(2_000), exp(1_000));
    let told = |token: &str, now_s| match verifier.precheck_at(token, now_s) {
        Ok(Precheck::Known(caller)) => Ok(caller.uid.to_string()),
        Ok(Precheck::Unverified(_)) => panic!("a secret is checked at once"),
        Err(error) => Err(error),
    };
    // From the cache and not from it, the leeway of 30 s included.
    for now_s in [1_000.0, 1_999.9, 2_000.0, 2_029.9] {
        assert_eq!(told(&token, now_s), Ok("a".to_owned()));
        assert_eq!(verifier.cached_tokens(), 1);
    }
    assert_eq!(told(&token, 2_030.0), Err(TokenError::Expired));
    assert_eq!(told(&late, 1_030.0), Err(TokenError::Expired));
    let (head, signature) = token.rsplit_once('.').unwrap();
    for other in [
        format!("{head}.{}", &signature[1..]),
        format!("{head}.{signature}A"),
        format!("{head}."),
        format!("{token}."),
    ] {
        assert!(told(&other, 1_000.0).is_err(), "{other}");
    }
    let text = verifier.metrics.render();
    let counted = "gateway_cache_lookups_total{cache=\"tokens\",outcome=\"hit\"} 1\n";
    assert!(text.contains(counted), "{text}");
}

#[tokio::test(start_paused = true)]
async fn cached_tokens_are_void_after_a_change_of_keys() {
    let issuer = Issuer::new(&[RSA_ONE.jwk(Some("a"))]);
    let verifier = with_issuer(&issuer);
    let token = RSA_ONE.sign(Some("a"), &claims());
    assert_told!(verifier, token, GOOD);
    pass(Duration::from_mins(20)).await;
    assert!(is_remembered(&verifier, &token, now_s()), "the same keys");
    issuer.publishes(&[RSA_ONE.jwk(Some("a")), ED_ONE.jwk(Some("b"))]);
    pass(Duration::from_mins(5)).await;
    assert!(!is_remembered(&verifier, &token, now_s()));
    assert_told!(verifier, token, GOOD);
    issuer.publishes(&[ED_ONE.jwk(Some("b"))]);
    pass(Duration::from_mins(5)).await;
    assert_told!(verifier, token, BAD);
}

#[tokio::test]
async fn the_cache_is_bounded() {
    let verifier = with_files(&[ED_ONE]);
    let valid_claims = ValidClaims {
        caller: verify(&verifier, &ED_ONE.sign(None, &claims()))
            .await
            .unwrap(),
        exp_s: 4_000_000_000.0,
    };
    for number in 0..100_000 {
        let fingerprint = fingerprint(&number.to_string());
        verifier
            .verified
            .insert(fingerprint, 0, valid_claims.clone());
    }
    assert!(
        verifier.verified.len() <= 33_000,
        "{}",
        verifier.verified.len()
    );
    assert!(
        verifier.verified.len() > 20_000,
        "{}",
        verifier.verified.len()
    );
}
