//! The binary as people run it: it starts, serves, says what it does, and ends.

#![allow(clippy::unwrap_used, missing_docs, unreachable_pub, reason = "tests")]

mod audit;
mod cores;
mod crowd;
#[path = "../support/database.rs"]
mod database;
#[cfg(target_os = "linux")]
mod disk;
mod embedded;
mod endings;
mod fixture;
mod gateway;
#[path = "../keys/mod.rs"]
mod keys;
mod logs;
mod privacy;
mod starting;
