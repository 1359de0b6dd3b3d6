//! What operators see: the log and the metrics registry.

mod later;
mod log;
mod metrics;

pub use log::init;
pub use metrics::{HttpLabels, Metrics, NodeMeters};
