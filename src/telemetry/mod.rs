//! What operators see: the log, the metrics registry, and the traces that requests belong to.

mod json_line;
mod later;
mod log;
mod metrics;
mod trace;

pub use json_line::JsonLine;
pub use log::init;
pub use metrics::{ConnectionMeters, HttpLabels, Measured, Metrics, NodeMeters, StoreMeters};
pub use trace::Trace;
