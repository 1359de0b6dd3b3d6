//! What owning means, against the built-in upstream in every shape the gateway meets: v2, v3, v3 with its manager port.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod crashes;
mod create;
#[path = "../support/database.rs"]
mod database;
mod delete;
mod equal_keys;
mod large;
mod members;
mod replicas;
mod rights;
mod roles;
mod support;
