//! Bodies of every endpoint that takes one.
#![no_main]

use std::cell::LazyCell;

use libfuzzer_sys::fuzz_target;
use wukongim_gateway::config::Generation;
use wukongim_gateway_fuzz::{Gateway, post, runtime};

const PATHS: [&str; 13] = [
    "/message/send",
    "/message/sendbatch",
    "/channel/create",
    "/channel/delete",
    "/channel/subscriber/add",
    "/channel/subscriber/remove",
    "/token",
    "/token/revoke",
    "/channel/manager/add",
    "/channel/manager/remove",
    "/channel/owner",
    "/conversation/read",
    "/conversation/delete",
];

thread_local! {
    static GATEWAY: LazyCell<Gateway> = const {
        LazyCell::new(|| Gateway::new(runtime(), "http://127.0.0.1:9", Generation::V2))
    };
}

fuzz_target!(|data: &[u8]| {
    let Some((pick, body)) = data.split_first() else {
        return;
    };
    let path = PATHS[usize::from(*pick) % PATHS.len()];
    let answer = GATEWAY.with(|gateway| gateway.ask(post(path, body.to_vec())));
    let details = answer.body["details"].as_array().map_or(0, Vec::len);
    assert_eq!(answer.status == 400, details > 0, "{path} {}", answer.body);
});
