//! wukongim-gateway
