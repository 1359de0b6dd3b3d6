//! Tokens that are put together wrongly, though their signatures are good.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE, URL_SAFE_NO_PAD};
use serde_json::json;

use super::{b64, by_secret, claims, raw, with_signature};
use crate::identity::FAR;
use crate::support::actors::sign;
use crate::support::served::SECRET;

pub fn pieces() -> Vec<(&'static str, String)> {
    let good = sign(&claims());
    let parts: Vec<_> = good.split('.').collect();
    let (head, body, tail) = (parts[0], parts[1], parts[2]);
    let admin = b64(json!({"sub": "a", "exp": FAR, "roles": ["admin"]}).to_string());
    let plain = "{\"alg\":\"HS256\"}";
    let resigned = |message: &str| by_secret(SECRET.as_bytes(), message);
    let other_header = b64("{\"alg\":\"HS256\",\"kid\":\"x\"}");
    vec![
        ("other claims", format!("{head}.{admin}.{tail}")),
        ("another header", format!("{other_header}.{body}.{tail}")),
        (
            "the signature of another token",
            with_signature(
                &good,
                sign(&json!({"sub": "b", "exp": FAR}))
                    .rsplit_once('.')
                    .unwrap()
                    .1,
            ),
        ),
        ("a signature cut short", good[..good.len() - 4].to_owned()),
        ("a signature and more", format!("{good}AAAA")),
        ("two parts", format!("{head}.{body}")),
        ("four parts", format!("{good}.{tail}")),
        (
            "five parts, as if encrypted",
            format!("{head}..{body}.{tail}.{tail}"),
        ),
        ("only dots", "..".to_owned()),
        ("nothing between the dots", format!("{head}..{tail}")),
        ("two tokens", format!("{good} {good}")),
        (
            "the JSON form",
            json!({"payload": body, "protected": head, "signature": tail})
                .to_string()
                .replace(' ', ""),
        ),
        ("padding", format!("{}.{tail}", parts[..2].join("=."))),
        (
            "padded parts",
            resigned(&format!(
                "{}.{}",
                URL_SAFE.encode(plain),
                URL_SAFE.encode(claims().to_string())
            )),
        ),
        (
            "a signature in the other base64",
            with_signature(
                &good,
                &STANDARD.encode(URL_SAFE_NO_PAD.decode(tail).unwrap()),
            ),
        ),
    ]
}

pub fn contents() -> Vec<(&'static str, String)> {
    let plain = "{\"alg\":\"HS256\"}";
    let header_of = |more: &str| {
        raw(
            &format!("{{\"alg\":\"HS256\",{more}}}"),
            &claims().to_string(),
        )
    };
    let resigned = |message: &str| by_secret(SECRET.as_bytes(), message);
    let nested = format!(
        "{{\"sub\":\"a\",\"exp\":{FAR},\"x\":{}{}}}",
        "[".repeat(500),
        "]".repeat(500)
    );
    vec![
        (
            "a header that is no JSON",
            raw("alg: HS256", &claims().to_string()),
        ),
        (
            "a header that is a list",
            raw("[\"HS256\"]", &claims().to_string()),
        ),
        (
            "a header and more",
            raw("{\"alg\":\"HS256\"}{}", &claims().to_string()),
        ),
        ("a kid that is a number", header_of("\"kid\":7")),
        ("a kid that is a list", header_of("\"kid\":[\"rsa\"]")),
        ("two kids", header_of("\"kid\":\"a\",\"kid\":\"b\"")),
        ("crit", header_of("\"crit\":[\"exp\"],\"exp\":1")),
        ("crit of nothing", header_of("\"crit\":[]")),
        ("crit that is null", header_of("\"crit\":null")),
        (
            "crit for bare claims",
            header_of("\"b64\":false,\"crit\":[\"b64\"]"),
        ),
        ("claims that are no JSON", raw(plain, "sub=a")),
        (
            "claims that are a list",
            raw(plain, &format!("[{}]", claims())),
        ),
        ("claims that are null", raw(plain, "null")),
        ("claims and more", raw(plain, &format!("{}{{}}", claims()))),
        ("claims of endless depth", raw(plain, &nested)),
        (
            "claims that are no UTF-8",
            resigned(&format!(
                "{}.{}",
                b64(plain),
                b64([
                    b"{\"sub\":\"".as_slice(),
                    &[0xff],
                    b"\",\"exp\":4000000000}"
                ]
                .concat())
            )),
        ),
        (
            "a time out of all numbers",
            raw(plain, "{\"sub\":\"a\",\"exp\":1e999}"),
        ),
        ("9,000 letters", "a".repeat(9_000)),
        ("8,200 dots", ".".repeat(8_200)),
    ]
}
