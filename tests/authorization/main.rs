//! Permissions to read and send, on the built-in upstream in both dialects: rules, avoided upstream calls, and races.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod members;
mod open;
mod races;
mod support;
mod tombstones;
mod v3;
