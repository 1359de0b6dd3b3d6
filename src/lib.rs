//! wukongim-gateway: the HTTP gateway in front of WuKongIM.
//!
//! A request walks through `gateway` (listener, frame) → `http` (who, and what is asked) → `routes` (what) → `authorization` (is it allowed)
//! → `messages`, `history`, `conversations` or `channels` (what it means) → `wukongim` and `store`. Dependencies point that way only; see docs/ARCHITECTURE.md.

pub mod auth;
pub mod authorization;
pub mod channels;
pub mod cli;
pub mod config;
pub mod context;
mod conversations;
pub mod domain;
pub mod gateway;
mod history;
pub mod http;
pub mod http_client;
mod json;
pub mod limits;
mod messages;
mod per_worker;
pub mod routes;
mod socket;
pub mod state;
pub mod store;
pub mod telemetry;
pub mod wukongim;
