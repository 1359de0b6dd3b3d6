//! The gateway in front of WuKongIM.

pub mod channels;
pub mod config;
pub mod domain;
pub mod embedded;
pub mod store;
pub mod telemetry;
pub mod wukongim;
