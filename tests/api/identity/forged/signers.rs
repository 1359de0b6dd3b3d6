//! Tokens with another signer's signature, or with their own key.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::Algorithm as By;
use serde_json::{Value, json};

use super::{b64, by_key, claims, der, header, with_signature};
use crate::identity::{OTHER, signed_by};
use crate::support::keys::{ED_ONE, ED_TWO, P256_ONE, P256_TWO, P384_ONE, RSA_ONE, RSA_TWO};

pub fn of_other_keys() -> Vec<(&'static str, String)> {
    let mine = |more: Value| by_key(P256_TWO, By::ES256, &header(P256_TWO, &more));
    let certificate = STANDARD.encode(der(&P256_TWO.public_pem()));
    let good = P256_ONE.sign(None, &claims());
    // 0x30…: the signature as ASN.1, which JWS does not have.
    let fixed = URL_SAFE_NO_PAD
        .decode(good.rsplit_once('.').unwrap().1)
        .unwrap();
    let asn1 = [
        &[0x30, 0x44, 0x02, 0x20],
        &fixed[..32],
        &[0x02, 0x20],
        &fixed[32..],
    ]
    .concat();
    let half = [&fixed[..32], &[0; 32]].concat();
    let expired = json!({"sub": "a", "exp": 5});
    vec![
        ("another secret", signed_by(OTHER, By::HS256, &claims())),
        (
            "another secret, expired",
            signed_by(OTHER, By::HS256, &expired),
        ),
        (
            "another RSA key",
            RSA_TWO.sign_by(By::RS256, Some("rsa-one.pub"), &claims()),
        ),
        (
            "another RSA key, expired",
            RSA_TWO.sign_by(By::RS256, Some("rsa-one.pub"), &expired),
        ),
        ("another EC key", P256_TWO.sign(None, &claims())),
        ("another Ed25519 key", ED_TWO.sign(None, &claims())),
        (
            "a key that nobody published",
            ED_TWO.sign(Some("nobody"), &claims()),
        ),
        (
            "the key of another name",
            P384_ONE.sign(Some("ed25519-one.pub"), &claims()),
        ),
        (
            "a key in its own header",
            mine(json!({"jwk": P256_TWO.jwk(None)})),
        ),
        (
            "a key in its own header, with a known name",
            mine(json!({"jwk": P256_TWO.jwk(Some("p256-one.pub")), "kid": "p256-one.pub"})),
        ),
        (
            "a key at an address of its own",
            mine(json!({"jku": "http://127.0.0.1:1/keys"})),
        ),
        (
            "a certificate in its own header",
            mine(json!({"x5c": [certificate]})),
        ),
        (
            "a certificate at an address of its own",
            mine(json!({"x5u": "http://127.0.0.1:1/cert", "x5t": "AA"})),
        ),
        (
            "an ES256 signature of zeros",
            with_signature(&good, &b64([0; 64])),
        ),
        (
            "an ES256 signature whose half is zero",
            with_signature(&good, &b64(half)),
        ),
        (
            "an ES256 signature in ASN.1",
            with_signature(&good, &b64(asn1)),
        ),
        (
            "an EdDSA signature of zeros",
            with_signature(&ED_ONE.sign(None, &claims()), &b64([0; 64])),
        ),
        (
            "an RS256 signature of zeros",
            with_signature(&RSA_ONE.sign(None, &claims()), &b64([0; 256])),
        ),
        (
            "an RS256 signature of ones",
            with_signature(&RSA_ONE.sign(None, &claims()), &b64([0xff; 256])),
        ),
    ]
}
