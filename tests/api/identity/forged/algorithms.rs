//! Tokens that lie about how they are signed: not at all, or with something that is no secret.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm as By;
use serde_json::json;

use super::{by_key, claims, confused, der, raw, with_signature};
use crate::identity::{signed_by, with_header};
use crate::support::actors::sign;
use crate::support::keys::{ED_ONE, ED_TWO, P256_ONE, P384_ONE, RSA_ONE, RSA_TWO, TestKey};
use crate::support::served::SECRET;

pub fn unsigned() -> Vec<(&'static str, String)> {
    let none = |alg: &str| with_header(&json!({"alg": alg}), &claims());
    vec![
        (
            "none without a signature",
            with_signature(&none("none"), ""),
        ),
        ("none with a good signature", none("none")),
        ("None", with_signature(&none("None"), "")),
        ("NONE", none("NONE")),
        (
            "nOnE with a signature of one byte",
            with_signature(&none("nOnE"), "AA"),
        ),
        ("no algorithm", raw("{}", &claims().to_string())),
        (
            "an algorithm that is null",
            raw("{\"alg\":null}", &claims().to_string()),
        ),
        (
            "an algorithm that is a number",
            raw("{\"alg\":256}", &claims().to_string()),
        ),
        ("an algorithm that is empty", none("")),
        ("an algorithm in lower case", none("hs256")),
        ("an algorithm with a space", none("HS256 ")),
        (
            "an algorithm given twice",
            raw(
                "{\"alg\":\"HS256\",\"alg\":\"HS256\"}",
                &claims().to_string(),
            ),
        ),
        (
            "two algorithms",
            raw("{\"alg\":[\"HS256\",\"RS256\"]}", &claims().to_string()),
        ),
        ("an algorithm nobody knows", none("HS1")),
        ("HS256 by nobody", with_signature(&sign(&claims()), "")),
        (
            "RS256 by nobody",
            with_signature(&RSA_ONE.sign(None, &claims()), ""),
        ),
    ]
}

pub fn confusions() -> Vec<(&'static str, String)> {
    let pem = RSA_ONE.public_pem();
    let body = pem.split_once('\n').unwrap().1;
    let jwk = |key: TestKey, member: &str| {
        let text = key.jwk(None)[member].as_str().unwrap().to_owned();
        URL_SAFE_NO_PAD.decode(text).unwrap()
    };
    let ed = jwk(ED_ONE, "x");
    let published = RSA_TWO.jwk(Some("rsa")).to_string();
    let hs = |by| signed_by(SECRET, by, &claims());
    vec![
        (
            "HS256 by the file of a public key",
            confused(None, pem.as_bytes()),
        ),
        (
            "HS256 by the PEM of a public key",
            confused(Some("rsa-one.pub"), body.as_bytes()),
        ),
        (
            "HS256 by the trimmed PEM",
            confused(None, body.trim_end().as_bytes()),
        ),
        (
            "HS256 by the DER of a public key",
            confused(Some("rsa-one.pub"), &der(&pem)),
        ),
        ("HS256 by an Ed25519 key's bytes", confused(None, &ed)),
        (
            "HS256 by a modulus",
            confused(Some("rsa"), &jwk(RSA_TWO, "n")),
        ),
        (
            "HS256 by a published JWK",
            confused(Some("rsa"), published.as_bytes()),
        ),
        (
            "HS256 by a published symmetric key",
            confused(Some("oct"), b"a-published-secret-is-no-secret!"),
        ),
        ("HS256 by nothing", confused(None, b"")),
        (
            "HS256 by a key that is no file",
            confused(Some("../../../../dev/null"), b""),
        ),
        (
            "HS256 by a kid with SQL in it",
            confused(Some("x' UNION SELECT 'k'--"), b"k"),
        ),
        ("HS384 by the secret", hs(By::HS384)),
        ("HS512 by the secret", hs(By::HS512)),
        (
            "RS256 that is an HMAC",
            with_header(&json!({"alg": "RS256"}), &claims()),
        ),
        (
            "ES256 that is an HMAC",
            with_header(&json!({"alg": "ES256"}), &claims()),
        ),
        (
            "EdDSA that is an HMAC",
            with_header(&json!({"alg": "EdDSA"}), &claims()),
        ),
        (
            "PS256 that is RS256",
            by_key(RSA_ONE, By::RS256, &json!({"alg": "PS256"})),
        ),
        (
            "RS256 that is PS256",
            by_key(RSA_ONE, By::PS256, &json!({"alg": "RS256"})),
        ),
        (
            "RS512 that is RS256",
            by_key(RSA_ONE, By::RS256, &json!({"alg": "RS512"})),
        ),
        (
            "ES256 that is ES384",
            by_key(P384_ONE, By::ES384, &json!({"alg": "ES256"})),
        ),
        (
            "RS256 that is EdDSA",
            by_key(ED_ONE, By::EdDSA, &json!({"alg": "RS256"})),
        ),
        (
            "HS256 that is RS256",
            by_key(RSA_ONE, By::RS256, &json!({"alg": "HS256"})),
        ),
        (
            "ES256 naming an RSA key",
            P256_ONE.sign(Some("rsa-one.pub"), &claims()),
        ),
        (
            "an algorithm its JWK is not for",
            RSA_TWO.sign_by(By::RS384, Some("rsa"), &claims()),
        ),
        (
            "by a published key for encryption",
            ED_TWO.sign(Some("enc"), &claims()),
        ),
    ]
}
