//! The query of `/message/sync`.
#![no_main]

use std::cell::LazyCell;

use libfuzzer_sys::fuzz_target;
use wukongim_gateway::config::Generation;
use wukongim_gateway_fuzz::{Gateway, get, runtime};

thread_local! {
    // There is no upstream: valid requests are 503.
    static GATEWAY: LazyCell<Gateway> = const {
        LazyCell::new(|| Gateway::new(runtime(), "http://127.0.0.1:9", Generation::V2))
    };
}

fuzz_target!(|data: &str| {
    if let Some(request) = get(&format!("/message/sync?{data}")) {
        let answer = GATEWAY.with(|gateway| gateway.ask(request));
        assert!(
            matches!(answer.status.as_u16(), 400 | 503),
            "{} {}",
            answer.status,
            answer.body
        );
    }
});
