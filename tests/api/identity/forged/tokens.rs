//! The forged tokens: what each has of its own, and the token.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE, URL_SAFE_NO_PAD};
use jsonwebtoken::Algorithm as By;

use super::{b64, by_key, by_secret, claims, confused, der, header, raw, with_signature};
use crate::identity::{FAR, OTHER, signed_by, with_header};
use crate::support::keys::{ED_ONE, ED_TWO, P256_ONE, P256_TWO, P384_ONE, RSA_ONE, RSA_TWO};
use crate::support::prelude::*;
use crate::support::served::SECRET;

type Forged = Vec<(&'static str, String)>;

const RSA_FILE: Option<&str> = Some("rsa-one.pub");

/// A token whose header is this text.
fn headed(header: &str) -> String {
    raw(header, &claims().to_string())
}

fn lying(algorithm: &str) -> String {
    with_header(&json!({"alg": algorithm}), &claims())
}

pub fn unsigned() -> Forged {
    let cut = |token: String| with_signature(&token, "");
    vec![
        ("none, unsigned", cut(lying("none"))),
        ("none, signed", lying("none")),
        ("None, unsigned", cut(lying("None"))),
        ("NONE, signed", lying("NONE")),
        ("nOnE, one byte", with_signature(&lying("nOnE"), "AA")),
        ("no algorithm", headed("{}")),
        ("alg null", headed(r#"{"alg":null}"#)),
        ("alg a number", headed(r#"{"alg":256}"#)),
        ("alg empty", lying("")),
        ("alg in lower case", lying("hs256")),
        ("alg with a space", lying("HS256 ")),
        ("alg twice", headed(r#"{"alg":"HS256","alg":"HS256"}"#)),
        ("two algs", headed(r#"{"alg":["HS256","RS256"]}"#)),
        ("alg nobody knows", lying("HS1")),
        ("HS256 by nobody", cut(sign(&claims()))),
        ("RS256 by nobody", cut(RSA_ONE.sign(None, &claims()))),
    ]
}

/// HS256 by something that is no secret, and signatures by another algorithm than the header says.
pub fn confusions() -> Forged {
    let pem = RSA_ONE.public_pem();
    let body = pem.split_once('\n').unwrap().1;
    let jwk = |key: Value, member: &str| {
        let text = key[member].as_str().unwrap();
        URL_SAFE_NO_PAD.decode(text).unwrap()
    };
    let (ed, modulus) = (jwk(ED_ONE.jwk(None), "x"), jwk(RSA_TWO.jwk(None), "n"));
    let published = RSA_TWO.jwk(Some("rsa")).to_string();
    let oct = b"a-published-secret-is-no-secret!";
    let (path, sql) = ("../../../../dev/null", "x' UNION SELECT 'k'--");
    let hs = |by| signed_by(SECRET, by, &claims());
    let as_if = |key, by, alg: &str| by_key(key, by, &json!({"alg": alg}));
    let good = claims();
    vec![
        ("by a PEM file", confused(None, pem.as_bytes())),
        ("by a PEM", confused(RSA_FILE, body.as_bytes())),
        (
            "by a trimmed PEM",
            confused(None, body.trim_end().as_bytes()),
        ),
        ("by a DER", confused(RSA_FILE, &der(&pem))),
        ("by an Ed25519 key's bytes", confused(None, &ed)),
        ("by a modulus", confused(Some("rsa"), &modulus)),
        ("by a JWK", confused(Some("rsa"), published.as_bytes())),
        ("by a published secret", confused(Some("oct"), oct)),
        ("by nothing", confused(None, b"")),
        ("by a kid that is a path", confused(Some(path), b"")),
        ("by a kid with SQL in it", confused(Some(sql), b"k")),
        ("HS384 by the secret", hs(By::HS384)),
        ("HS512 by the secret", hs(By::HS512)),
        ("RS256 that is an HMAC", lying("RS256")),
        ("ES256 that is an HMAC", lying("ES256")),
        ("EdDSA that is an HMAC", lying("EdDSA")),
        ("PS256 that is RS256", as_if(RSA_ONE, By::RS256, "PS256")),
        ("RS256 that is PS256", as_if(RSA_ONE, By::PS256, "RS256")),
        ("RS512 that is RS256", as_if(RSA_ONE, By::RS256, "RS512")),
        ("ES256 that is ES384", as_if(P384_ONE, By::ES384, "ES256")),
        ("RS256 that is EdDSA", as_if(ED_ONE, By::EdDSA, "RS256")),
        ("HS256 that is RS256", as_if(RSA_ONE, By::RS256, "HS256")),
        ("ES256 naming an RSA key", P256_ONE.sign(RSA_FILE, &good)),
        (
            "an algorithm its JWK is not for",
            RSA_TWO.sign_by(By::RS384, Some("rsa"), &good),
        ),
        ("a key for encryption", ED_TWO.sign(Some("enc"), &good)),
    ]
}

/// Another signer's signature, or one by a key the token brings itself.
pub fn of_other_keys() -> Forged {
    let mine = |more: Value| by_key(P256_TWO, By::ES256, &header(P256_TWO, &more));
    let other_rsa = |claims| RSA_TWO.sign_by(By::RS256, RSA_FILE, claims);
    let (own, known) = (P256_TWO.jwk(None), P256_TWO.jwk(Some("p256-one.pub")));
    let certificate = STANDARD.encode(der(&P256_TWO.public_pem()));
    let address = "http://127.0.0.1:1/keys";
    let (good, late) = (claims(), json!({"sub": "a", "exp": 5}));
    let [es, ed, rs] = [P256_ONE, ED_ONE, RSA_ONE].map(|key| key.sign(None, &good));
    // 0x30…: the signature as ASN.1, which JWS does not have.
    let fixed = es.rsplit_once('.').unwrap().1;
    let fixed = URL_SAFE_NO_PAD.decode(fixed).unwrap();
    let (r, s) = fixed.split_at(32);
    let asn1 = [&[0x30, 0x44, 0x02, 0x20], r, &[0x02, 0x20], s].concat();
    let half = [r, &[0; 32]].concat();
    vec![
        ("another secret", signed_by(OTHER, By::HS256, &good)),
        // Not "expired": its time says nothing.
        ("another secret, late", signed_by(OTHER, By::HS256, &late)),
        ("another RSA key", other_rsa(&good)),
        ("another RSA key, late", other_rsa(&late)),
        ("another EC key", P256_TWO.sign(None, &good)),
        ("another Ed25519 key", ED_TWO.sign(None, &good)),
        ("an unpublished key", ED_TWO.sign(Some("nobody"), &good)),
        (
            "the key of another name",
            P384_ONE.sign(Some("ed25519-one.pub"), &good),
        ),
        ("its own key", mine(json!({"jwk": own}))),
        (
            "its own key, with a known name",
            mine(json!({"jwk": known, "kid": "p256-one.pub"})),
        ),
        ("its own address", mine(json!({"jku": address}))),
        ("its own certificate", mine(json!({"x5c": [certificate]}))),
        (
            "a certificate at its own address",
            mine(json!({"x5u": address, "x5t": "AA"})),
        ),
        ("ES256 of zeros", with_signature(&es, &b64([0; 64]))),
        ("ES256, half of it zeros", with_signature(&es, &b64(half))),
        ("ES256 in ASN.1", with_signature(&es, &b64(asn1))),
        ("EdDSA of zeros", with_signature(&ed, &b64([0; 64]))),
        ("RS256 of zeros", with_signature(&rs, &b64([0; 256]))),
        ("RS256 of ones", with_signature(&rs, &b64([0xff; 256]))),
    ]
}

/// Put together wrongly, though the signatures are good.
pub fn pieces() -> Forged {
    let good = sign(&claims());
    let parts: Vec<_> = good.split('.').collect();
    let (head, body, tail) = (parts[0], parts[1], parts[2]);
    let admin = b64(json!({"sub": "a", "exp": FAR, "roles": ["admin"]}).to_string());
    let other = b64(r#"{"alg":"HS256","kid":"x"}"#);
    let others = sign(&json!({"sub": "b", "exp": FAR}));
    let others = others.rsplit_once('.').unwrap().1;
    let form = json!({"payload": body, "protected": head, "signature": tail});
    let padded = [r#"{"alg":"HS256"}"#, &claims().to_string()].map(|part| URL_SAFE.encode(part));
    let standard = STANDARD.encode(URL_SAFE_NO_PAD.decode(tail).unwrap());
    vec![
        ("other claims", format!("{head}.{admin}.{tail}")),
        ("another header", format!("{other}.{body}.{tail}")),
        ("another signature", with_signature(&good, others)),
        ("a cut signature", good[..good.len() - 4].to_owned()),
        ("a less cut signature", good[..good.len() - 2].to_owned()),
        ("a longer signature", format!("{good}AAAA")),
        ("a signature and a letter", format!("{good}x")),
        ("one part", "garbage".to_owned()),
        ("two parts", format!("{head}.{body}")),
        ("three letters", "a.b.c".to_owned()),
        ("four parts", format!("{good}.{tail}")),
        ("as if encrypted", format!("{head}..{body}.{tail}.{tail}")),
        ("only dots", "..".to_owned()),
        ("nothing between the dots", format!("{head}..{tail}")),
        ("two tokens", format!("{good} {good}")),
        ("the JSON form", form.to_string().replace(' ', "")),
        ("padding", format!("{head}=.{body}.{tail}")),
        ("padded parts", resigned(&padded.join("."))),
        ("the other base64", with_signature(&good, &standard)),
    ]
}

fn resigned(message: &str) -> String {
    by_secret(SECRET.as_bytes(), message)
}

/// Headers and claims that are none, with good signatures.
pub fn contents() -> Forged {
    let plain = r#"{"alg":"HS256"}"#;
    let more = |more: &str| headed(&format!(r#"{{"alg":"HS256",{more}}}"#));
    let body = |body: &str| raw(plain, body);
    let deep = format!("{}{}", "[".repeat(500), "]".repeat(500));
    let deep = format!(r#"{{"sub":"a","exp":{FAR},"x":{deep}}}"#);
    let latin = [b"{\"sub\":\"", &[0xff][..], b"\",\"exp\":4000000000}"].concat();
    vec![
        ("a header that is no JSON", headed("alg: HS256")),
        ("a header that is a list", headed(r#"["HS256"]"#)),
        ("a header that is a text", headed(r#""HS256""#)),
        ("a header and more", headed(r#"{"alg":"HS256"}{}"#)),
        ("a kid that is a number", more(r#""kid":7"#)),
        ("a kid that is a list", more(r#""kid":["rsa"]"#)),
        ("two kids", more(r#""kid":"a","kid":"b""#)),
        ("crit", more(r#""crit":["exp"],"exp":1"#)),
        ("crit of nothing", more(r#""crit":[]"#)),
        ("crit that is null", more(r#""crit":null"#)),
        (
            "crit for bare claims",
            more(r#""b64":false,"crit":["b64"]"#),
        ),
        ("claims that are no JSON", body("sub=a")),
        ("claims that are a text", body(r#""a""#)),
        ("claims that are a list", body(&format!("[{}]", claims()))),
        ("claims that are null", body("null")),
        ("claims and more", body(&format!("{}{{}}", claims()))),
        ("claims of endless depth", body(&deep)),
        (
            "claims that are no UTF-8",
            resigned(&format!("{}.{}", b64(plain), b64(latin))),
        ),
        (
            "a time out of all numbers",
            body(r#"{"sub":"a","exp":1e999}"#),
        ),
        ("9,000 letters", "a".repeat(9_000)),
        ("8,200 dots", ".".repeat(8_200)),
    ]
}
