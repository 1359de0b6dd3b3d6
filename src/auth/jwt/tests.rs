//! Which key accepts which token. The router's side is tested in `tests/api/identity`.

use std::time::Duration;

use jsonwebtoken::Algorithm as By;
use serde_json::{Value, json};

use super::*;
use crate::auth::jwks::MIN_REFRESH_GAP;
use crate::auth::jwks::tests::{Issuer, pass};
use crate::auth::test_keys::{
    ED_ONE, ED_TWO, KINDS, P256_ONE, P256_TWO, RSA_ONE, RSA_TWO, TestKey, path,
};

const SECRET: &str = "a-secret-of-thirty-two-bytes-or-more";
const OLD: &str = "another-secret-of-thirty-two-bytes!!";
const FAR: u64 = 4_000_000_000;
const BLINK: Duration = Duration::from_millis(1);
const TIMEOUT_BOUND: Duration = Duration::from_mins(1);

fn settings(change: impl FnOnce(&mut config::Auth)) -> config::Auth {
    let mut settings = config::Settings::for_tests().auth;
    settings.jwt_secret = Some(SECRET.to_owned().into());
    change(&mut settings);
    settings
}

fn verifier(change: impl FnOnce(&mut config::Auth)) -> Verifier {
    Verifier::new(&settings(change), 128, Arc::default()).unwrap()
}

fn with_files(files: &[TestKey]) -> Verifier {
    verifier(|auth| auth.jwt_public_keys = files.iter().map(|key| key.public_file()).collect())
}

fn with_issuer(issuer: &Issuer) -> Verifier {
    let jwks = Jwks::start(
        issuer.clone(),
        Duration::from_mins(5),
        Vec::new(),
        Arc::default(),
    );
    Verifier::with_jwks(&settings(|_| {}), 128, Some(jwks), Arc::default()).unwrap()
}

fn hs256(secret: &str, claims: &Value) -> String {
    let key = jsonwebtoken::EncodingKey::from_secret(secret.as_bytes());
    jsonwebtoken::encode(&jsonwebtoken::Header::default(), claims, &key).unwrap()
}

fn claims() -> Value {
    json!({"sub": "a", "exp": FAR})
}

async fn verify(verifier: &Verifier, token: &str) -> Result<Caller, TokenError> {
    match verifier.precheck(token)? {
        Precheck::Known(caller) => Ok(caller),
        Precheck::Unverified(token) => verifier.finish(token, Instant::now() + TIMEOUT_BOUND).await,
    }
}

async fn result(verifier: &Verifier, token: &str) -> Result<String, TokenError> {
    let caller = verify(verifier, token).await?;
    Ok(caller.uid.to_string())
}

const GOOD: Result<&str, TokenError> = Ok("a");
const BAD: Result<&str, TokenError> = Err(TokenError::Invalid("signature"));
const CONFUSED: Result<&str, TokenError> = Err(TokenError::Invalid("algorithm"));
const NO_KEYS: Result<&str, TokenError> = Err(TokenError::KeysUnavailable);

macro_rules! assert_told {
    ($verifier:expr, $token:expr, $expected:expr $(, $($more:tt)+)?) => {{
        let result = result(&$verifier, &$token).await;
        assert_eq!(result.as_deref().map_err(|error| *error), $expected $(, $($more)+)?);
    }};
}

// After the macro, which it uses.
mod cache;

#[tokio::test]
async fn every_algorithm_is_accepted_with_its_own_key_and_with_no_other() {
    for key in KINDS {
        for algorithm in key.algorithms {
            let token = key.sign_by(*algorithm, None, &claims());
            for other in KINDS {
                let expected = if other.name == key.name { GOOD } else { BAD };
                assert_told!(
                    with_files(&[other]),
                    token,
                    expected,
                    "{algorithm:?} {other:?}"
                );
            }
        }
    }
    for (key, other) in [(RSA_ONE, RSA_TWO), (P256_ONE, P256_TWO), (ED_ONE, ED_TWO)] {
        let token = other.sign(None, &claims());
        assert_told!(with_files(&[key]), token, BAD, "{key:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn every_kind_of_published_key_checks_its_algorithms() {
    for key in KINDS {
        let verifier = with_issuer(&Issuer::new(&[key.jwk(Some("k"))]));
        for algorithm in key.algorithms {
            let token = key.sign_by(*algorithm, Some("k"), &claims());
            assert_told!(verifier, token, GOOD, "{algorithm:?}");
        }
    }
}

#[tokio::test]
async fn a_file_is_chosen_by_its_name_and_else_all_are_tried() {
    let verifier = with_files(&[P256_ONE, RSA_TWO, RSA_ONE]);
    for kid in [Some("rsa-one.pub"), Some("2026-11"), None] {
        assert_told!(verifier, RSA_ONE.sign(kid, &claims()), GOOD, "{kid:?}");
    }
    let misnamed = RSA_ONE.sign(Some("rsa-two.pub"), &claims());
    assert_told!(verifier, misnamed, BAD);
    let of_another_kind = RSA_ONE.sign(Some("p256-one.pub"), &claims());
    assert_told!(verifier, of_another_kind, CONFUSED);
}

#[tokio::test]
async fn secrets_old_and_new_and_public_keys_are_good_side_by_side() {
    let verifier = verifier(|auth| {
        auth.jwt_previous_secrets = vec![OLD.to_owned().into()];
        auth.jwt_public_keys = vec![ED_ONE.public_file()];
    });
    for token in [
        hs256(SECRET, &claims()),
        hs256(OLD, &claims()),
        ED_ONE.sign(None, &claims()),
    ] {
        assert_told!(verifier, token, GOOD);
    }
    assert_told!(verifier, hs256("some-other-secret", &claims()), BAD);
}

#[tokio::test]
async fn only_the_listed_algorithms_are_taken() {
    let verifier = verifier(|auth| {
        auth.jwt_public_keys = vec![RSA_ONE.public_file(), ED_ONE.public_file()];
        auth.algorithms = vec![Algorithm::PS256, Algorithm::EdDSA];
    });
    assert_told!(verifier, RSA_ONE.sign_by(By::PS256, None, &claims()), GOOD);
    assert_told!(verifier, ED_ONE.sign(None, &claims()), GOOD);
    assert_told!(
        verifier,
        RSA_ONE.sign_by(By::RS256, None, &claims()),
        CONFUSED
    );
    assert_told!(verifier, hs256(SECRET, &claims()), CONFUSED);
}

#[tokio::test(start_paused = true)]
async fn the_algorithm_of_a_published_key_binds_it() {
    let mut jwk = RSA_ONE.jwk(Some("k"));
    jwk["alg"] = "RS512".into();
    let verifier = with_issuer(&Issuer::new(&[jwk]));
    assert_told!(
        verifier,
        RSA_ONE.sign_by(By::RS512, Some("k"), &claims()),
        GOOD
    );
    assert_told!(
        verifier,
        RSA_ONE.sign_by(By::RS256, Some("k"), &claims()),
        CONFUSED
    );
}

#[tokio::test(start_paused = true)]
async fn published_keys_for_something_else_are_passed_over() {
    let with = |member: &str, value: Value| {
        let mut jwk = ED_ONE.jwk(Some("k"));
        jwk[member] = value;
        jwk
    };
    let junk = [
        json!(7),
        json!({}),
        json!({"kty": "oct", "kid": "k", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA"}),
        json!({"kty": "RSA", "kid": "k", "n": "AQAB", "e": "AQAB"}),
        json!({"kty": "EC", "kid": "k", "crv": "P-256", "x": "AA", "y": "AA"}),
        json!({"kty": "EC", "kid": "k", "crv": "secp256k1"}),
        with("use", "enc".into()),
        with("key_ops", json!(["sign"])),
        with("alg", "ES256".into()),
        with("alg", "ECDH-ES".into()),
        with("crv", "Ed448".into()),
        with("x", "AAAA".into()),
        with("x", 7.into()),
    ];
    let token = ED_ONE.sign(Some("k"), &claims());
    for jwk in &junk {
        let verifier = with_issuer(&Issuer::new(std::slice::from_ref(jwk)));
        assert_told!(verifier, token, NO_KEYS, "{jwk}");
    }
    let mut all = junk.to_vec();
    all.push(with("use", "sig".into()));
    assert_told!(with_issuer(&Issuer::new(&all)), token, GOOD);
}

#[test]
fn a_file_that_is_no_good_public_key_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let file = dir.path().join(name);
        std::fs::write(&file, text).unwrap();
        file.to_str().unwrap().to_owned()
    };
    let private = std::fs::read_to_string(path("rsa-one.pem")).unwrap();
    let (one, two) = (ED_ONE.public_pem(), RSA_ONE.public_pem());
    let certificate = one.replace("PUBLIC KEY", "CERTIFICATE");
    let torn = one.replace("MCowBQYDK2Vw", "MCowBQYDK2Vv");
    for (file, said) in [
        (path("missing.pem"), "cannot be read"),
        (write("empty.pem", ""), "must be a PEM file"),
        (write("text.pem", "hunter2"), "must be a PEM file"),
        (write("private.pem", &private), "must be a PEM file"),
        (write("certificate.pem", &certificate), "must be a PEM file"),
        (
            write("two.pem", &format!("{one}{two}")),
            "must be a PEM file",
        ),
        (write("torn.pem", &torn), "must be an RSA, P-256"),
        (path("refused-p521.pub.pem"), "must be an RSA, P-256"),
        (path("refused-secp256k1.pub.pem"), "must be an RSA, P-256"),
        (path("refused-x25519.pub.pem"), "must be an RSA, P-256"),
        (path("refused-rsa-1024.pub.pem"), "2048 to 8192 bits"),
    ] {
        let refused = VerifyingKey::from_file(Path::new(&file), &[]).err();
        let result = refused.map(|error| error.to_string()).unwrap_or_default();
        assert!(
            result.starts_with(said) || result.contains(said),
            "{file}: {result}"
        );
    }
    let pkcs1 = path("rsa-one.pkcs1.pub.pem");
    assert!(VerifyingKey::from_file(Path::new(&pkcs1), &[]).is_ok());
}

#[tokio::test(start_paused = true)]
async fn an_unknown_kid_waits_for_one_fetch_and_is_then_invalid() {
    let issuer = Issuer::new(&[RSA_ONE.jwk(Some("old"))]);
    let verifier = with_issuer(&issuer);
    let (old, new) = (
        RSA_ONE.sign(Some("old"), &claims()),
        ED_ONE.sign(Some("new"), &claims()),
    );
    assert_told!(verifier, old, GOOD);
    // Just fetched: the key is not published.
    assert_told!(verifier, new, BAD);
    assert_eq!(issuer.fetches(), 1);
    issuer.publishes(&[RSA_ONE.jwk(Some("old")), ED_ONE.jwk(Some("new"))]);
    pass(MIN_REFRESH_GAP).await;
    assert_told!(verifier, new, GOOD);
    assert_told!(verifier, old, GOOD);
    assert_eq!(issuer.fetches(), 2);
    // Neither a known name with a wrong signature nor a confused one makes it fetch.
    pass(MIN_REFRESH_GAP).await;
    assert_told!(verifier, RSA_TWO.sign(Some("old"), &claims()), BAD);
    assert_told!(verifier, ED_ONE.sign(Some("old"), &claims()), CONFUSED);
    assert_told!(verifier, hs256("some-other-secret", &claims()), BAD);
    assert_eq!(issuer.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn without_keys_no_token_is_called_invalid() {
    let issuer = Issuer::new(&[]);
    issuer.is_down();
    let verifier = with_issuer(&issuer);
    assert!(verifier.lacks_keys());
    for kid in [Some("k"), None] {
        assert_told!(verifier, RSA_ONE.sign(kid, &claims()), NO_KEYS);
    }
    // What no issuer could mend.
    assert_told!(verifier, hs256(SECRET, &claims()), GOOD);
    assert_told!(verifier, hs256(OLD, &claims()), BAD);
    issuer.publishes(&[RSA_ONE.jwk(Some("k"))]);
    pass(MIN_REFRESH_GAP + BLINK).await;
    assert!(!verifier.lacks_keys());
    assert_told!(verifier, RSA_ONE.sign(Some("k"), &claims()), GOOD);
}

/// Whether a failed check is charged to no address.
fn is_check_unbilled(verifier: &Verifier, token: &str) -> bool {
    match verifier.precheck(token) {
        Ok(Precheck::Unverified(token)) => verifier.is_check_unbilled(&token),
        _ => panic!("no new asymmetric token"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_check_is_unbilled_if_the_token_is_expired_or_the_keys_are_unavailable() {
    let issuer = Issuer::new(&[RSA_ONE.jwk(Some("named")), ED_ONE.jwk(None)]);
    let verifier = with_issuer(&issuer);
    let late = json!({"sub": "a", "exp": 5});
    let of =
        |key: TestKey, kid: Option<&str>| is_check_unbilled(&verifier, &key.sign(kid, &claims()));
    pass(BLINK).await;
    for kid in [Some("named"), Some("new"), None] {
        assert!(
            !of(RSA_TWO, kid),
            "{kid:?}: the sender's address is charged"
        );
        assert!(is_check_unbilled(&verifier, &RSA_ONE.sign(kid, &late)));
    }
    issuer.is_down();
    pass(Duration::from_mins(10)).await;
    assert!(!of(RSA_TWO, Some("named")));
    assert!(of(RSA_TWO, None) && of(ED_TWO, None) && of(ED_TWO, Some("new")));
    // Nothing is checked where no key can have signed it.
    assert!(!of(RSA_TWO, Some("new")) && !of(P256_ONE, None));
}

#[tokio::test(start_paused = true)]
async fn an_issuer_that_is_down_for_an_hour_logs_no_user_out() {
    let issuer = Issuer::new(&[RSA_ONE.jwk(Some("known"))]);
    let verifier = with_issuer(&issuer);
    pass(BLINK).await;
    issuer.is_down();
    for minute in 0..60 {
        pass(Duration::from_mins(1)).await;
        let claims = json!({"sub": "a", "exp": FAR, "jti": minute});
        assert_told!(verifier, RSA_ONE.sign(Some("known"), &claims), GOOD);
        if minute > 5 {
            assert_told!(verifier, ED_ONE.sign(Some("unknown"), &claims), NO_KEYS);
        }
    }
    assert!(!verifier.lacks_keys());
}

#[tokio::test(start_paused = true)]
async fn a_rotation_without_key_ids_works_as_well() {
    let issuer = Issuer::new(&[RSA_ONE.jwk(None)]);
    let verifier = with_issuer(&issuer);
    pass(MIN_REFRESH_GAP).await;
    for kid in [Some("k"), None] {
        assert_told!(verifier, RSA_ONE.sign(kid, &claims()), GOOD, "{kid:?}");
    }
    issuer.publishes(&[RSA_TWO.jwk(None)]);
    assert_told!(verifier, RSA_TWO.sign(None, &claims()), GOOD);
}

#[tokio::test]
async fn a_header_is_judged_as_before_the_library_reads_it() {
    let verifier = with_files(&[ED_ONE]);
    let claims = URL_SAFE_NO_PAD.encode(claims().to_string());
    let told = async |header: &[u8]| {
        let header = URL_SAFE_NO_PAD.encode(header);
        let message = format!("{header}.{claims}");
        let key = jsonwebtoken::EncodingKey::from_secret(SECRET.as_bytes());
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, By::HS256).unwrap();
        result(&verifier, &format!("{message}.{signature}")).await
    };
    let good = br#"{"alg":"HS256","x":{"y":["z",1.5]},"kid":null,"x5c":[],"jku":"http://h"}"#;
    assert_eq!(told(good).await.as_deref(), Ok("a"));
    for (header, what) in [
        (&br#"{"alg":"ES512"}"#[..], "algorithm"),
        (br#"{"alg":"HS512"}"#, "algorithm"),
        (br#"{"alg":"none"}"#, "algorithm"),
        (br#"{"alg":"HS256","crit":null}"#, "crit"),
        (br#"{"alg":"HS256","crit":["exp"]}"#, "crit"),
        (br#"{"alg":"HS256","alg":"HS256"}"#, "malformed"),
        (br#"{"alg":"HS256","kid":7}"#, "malformed"),
        (b"{\"alg\":\"HS256\",\"x\":\"\xcaWT\"}", "malformed"),
        (br#"{"alg":"HS256","x":"\ud800"}"#, "malformed"),
        (br#"{"alg":"HS256","x":1e400}"#, "malformed"),
    ] {
        let shown = String::from_utf8_lossy(header);
        assert_eq!(
            told(header).await,
            Err(TokenError::Invalid(what)),
            "{shown}"
        );
    }
}

#[tokio::test]
async fn claims_are_judged_alike_for_secrets_and_public_keys() {
    let verifier = with_files(&[ED_ONE]);
    let deep = format!(
        r#"{{"sub":"a","exp":{FAR},"x":{}{}}}"#,
        "[".repeat(200),
        "]".repeat(200)
    );
    for (claims, told) in [
        (
            r#"{"exp":4000000000,"s\u0075b":"a","x":[{"y":null}]}"#,
            Ok("a"),
        ),
        (
            r#"{"sub":"a","exp":4000000000.5,"x":"\ud800"}"#,
            Err("malformed"),
        ),
        (r#"{"sub":"a","exp":1e400}"#, Err("malformed")),
        (r#"{"sub":"a","exp":4000000000}x"#, Err("malformed")),
        (r#"["sub"]"#, Err("malformed")),
        (deep.as_str(), Err("malformed")),
        (r#"{"sub":"a","exp":"4000000000"}"#, Err("exp")),
        (
            r#"{"sub":"a","exp":4000000000000}"#,
            Err("exp in milliseconds"),
        ),
        (r#"{"sub":"a","exp":4000000000,"nbf":"0"}"#, Err("nbf")),
    ] {
        for (by, key) in [(By::HS256, None), (By::EdDSA, Some(ED_ONE))] {
            let header = json!({"alg": by}).to_string();
            let message = format!(
                "{}.{}",
                URL_SAFE_NO_PAD.encode(header),
                URL_SAFE_NO_PAD.encode(claims)
            );
            let signature = match key {
                Some(key) => key.signature(by, &message),
                None => {
                    let key = jsonwebtoken::EncodingKey::from_secret(SECRET.as_bytes());
                    jsonwebtoken::crypto::sign(message.as_bytes(), &key, by).unwrap()
                }
            };
            let token = format!("{message}.{signature}");
            assert_told!(
                verifier,
                token,
                told.map_err(TokenError::Invalid),
                "{claims}"
            );
        }
    }
}

#[tokio::test]
async fn a_long_token_is_refused_unread() {
    let verifier = with_files(&[ED_ONE]);
    let padded = |bytes: usize| {
        let claims = json!({"sub": "a", "exp": FAR, "pad": "x".repeat(bytes)});
        hs256(SECRET, &claims)
    };
    assert_told!(verifier, padded(12_100), GOOD);
    let long = padded(12_300);
    assert!(long.len() > 16_384, "{}", long.len());
    assert_told!(verifier, long, Err(TokenError::TooLong));
    assert_told!(verifier, "a".repeat(16_385), Err(TokenError::TooLong));
}
