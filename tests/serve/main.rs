//! The binary as people run it: it starts, serves, says what it does, and ends.

#![allow(clippy::unwrap_used, missing_docs, unreachable_pub, reason = "tests")]

mod audit;
mod cores;
#[cfg(target_os = "linux")]
mod disk;
mod documents;
mod embedded;
mod endings;
mod logs;
mod many_connections;
mod privacy;
mod sockets;
mod starting;
#[path = "../support/mod.rs"]
mod support;
