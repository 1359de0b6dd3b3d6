//! Headers of tokens that are correctly signed, and whole tokens that are not.
#![no_main]

use std::cell::LazyCell;

use http::StatusCode;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use wukongim_gateway::config::Generation;
use wukongim_gateway_fuzz::{CLAIMS, Gateway, get, runtime, sign};

thread_local! {
    static GATEWAY: LazyCell<Gateway> = const {
        LazyCell::new(|| Gateway::new(runtime(), "http://127.0.0.1:9", Generation::V2))
    };
}

/// Whether a token is accepted, on an authenticated path that makes no upstream call.
fn is_let_in(token: &[u8]) -> bool {
    let Ok(value) = http::HeaderValue::from_bytes(&[b"Bearer ", token].concat()) else {
        return false;
    };
    let Some(mut request) = get("/message/sync") else {
        return false;
    };
    request.headers_mut().insert("authorization", value);
    let answer = GATEWAY.with(|gateway| gateway.ask(request));
    // If accepted, the answer lists the missing fields.
    match answer.status {
        StatusCode::BAD_REQUEST => true,
        StatusCode::UNAUTHORIZED => false,
        other => panic!("{other} {}", answer.body),
    }
}

fuzz_target!(|data: &[u8]| {
    assert!(!is_let_in(data), "nobody signed it");
    if is_let_in(sign(data, CLAIMS.as_bytes()).as_bytes()) {
        let header: Value = serde_json::from_slice(data).expect("a header that is JSON");
        assert_eq!(header["alg"], "HS256");
    }
});
