//! Who may read and send, on the embedded upstream in both dialects: the rules, what was not asked upstream, and the races.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod members;
mod open;
mod races;
mod support;
mod tombstones;
mod v3;
