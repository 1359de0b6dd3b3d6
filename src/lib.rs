//! wukongim-gateway: the HTTP gateway in front of WuKongIM.

pub mod cli;
pub mod config;
pub mod server;
