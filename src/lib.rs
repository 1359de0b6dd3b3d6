//! wukongim-gateway

pub mod embedded;
