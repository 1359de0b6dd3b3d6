//! The guarded socket: a whole gateway between real clients of the protocol and the built-in upstream's own sockets.

#![allow(clippy::unwrap_used, missing_docs, unreachable_pub, reason = "tests")]

mod attacks;
mod ends;
mod json_rpc;
mod opening;
mod rules;
#[path = "../support/mod.rs"]
mod support;
