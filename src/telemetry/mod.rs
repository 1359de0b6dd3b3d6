//! What operators see: the log's format and the metrics registry.

mod metrics;

pub use metrics::{HttpLabels, Metrics};
