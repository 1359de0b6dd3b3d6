//! wukongim-gateway: the HTTP gateway in front of WuKongIM.

pub mod config;
