//! What operators see: the log and the metrics registry.

mod json_line;
mod later;
mod log;
mod metrics;

pub use json_line::JsonLine;
pub use log::init;
pub use metrics::{HttpLabels, Metrics, NodeMeters};
