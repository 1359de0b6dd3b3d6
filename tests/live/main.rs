//! The flows of the API tests against a real WuKongIM, through a gateway in this process.
//!
//! `WUKONGIM_V2_URL` and `WUKONGIM_V3_URL` name the servers (a cluster's nodes separated by commas). Every test is ignored unless it is
//! asked for, as `tests/live/run` does. `WUKONGIM_V2_MANAGER_TOKEN` is v2's `managerToken`;
//! `WUKONGIM_V3_MANAGER_URL`, `…_USERNAME` and `…_PASSWORD` are v3's manager port, with which v3's tests run a second time.
//! `WUKONGIM_V2_TCP` and `WUKONGIM_V3_TCP` say where their sockets are, if not where `/route` says.
//! The servers keep what the tests write: every id is new in each run.

#![allow(clippy::unwrap_used, missing_docs, unreachable_pub, reason = "tests")]

mod access;
mod channels;
mod connection;
mod equal_keys;
mod failover;
mod history;
mod hostile_input;
mod idempotency;
mod messages;
mod sockets;
#[path = "../support/mod.rs"]
mod support;
