//! The whole API through a real listener, on the built-in upstream in both dialects.

#![allow(clippy::unwrap_used, missing_docs, unreachable_pub, reason = "tests")]

mod authorization;
mod bulkheads;
mod callback;
mod channels;
mod chat_page;
mod confirmation;
mod connection_config;
mod conversations;
mod cors;
mod docs_page;
mod envelope;
mod hostile_input;
mod idempotency;
mod identity;
mod im_token;
mod kept_connections;
mod limits;
mod listener;
mod log_owner;
mod manager_port;
mod messages_batch;
mod messages_send;
mod metrics;
mod nodes;
mod openapi;
mod operations;
mod payload_limit;
mod queries;
mod shedding;
mod socket_ports;
#[path = "../support/mod.rs"]
mod support;
mod sync;
mod sync_foreign;
mod system;
mod traces;
mod upstream_failures;
mod withdrawn;
