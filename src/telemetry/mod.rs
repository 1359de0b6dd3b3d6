//! What operators see: the log, the metrics registry, and the traces that requests belong to.

mod later;
mod log;
mod metrics;
mod trace;

pub use log::init;
pub use metrics::{ConnectionMeters, HttpLabels, Measured, Metrics, NodeMeters, StoreMeters};
pub use trace::Trace;
