//! The one harness of all test binaries: gateways in this process and as a process, callers, upstreams, databases, keys.

#![allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    missing_docs,
    clippy::unwrap_used,
    reason = "shared by several test binaries, each of which uses a part"
)]

pub mod actors;
pub mod answer;
pub mod app;
pub mod attacks;
pub mod audit;
pub mod backend;
pub mod database;
pub mod document;
pub mod issuer;
pub mod keys;
pub mod line;
pub mod marked;
pub mod messages;
pub mod prelude;
pub mod process;
pub mod real;
pub mod seeds;
pub mod served;
pub mod socket;

pub use app::TestApp;
pub use dev_upstream::Dialect::{V2, V3};
