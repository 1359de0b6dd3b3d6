//! The codec against recorded frames of real servers, and its properties.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod bounds;
mod generated;
mod json;
mod keys;
mod recordings;
