//! What operators see: the log, the metrics registry, and the traces that requests belong to.

mod json_line;
mod later;
mod log;
mod metrics;
#[cfg_attr(not(feature = "otel"), path = "no_spans.rs")]
mod spans;
mod trace;

pub use json_line::JsonLine;
pub use log::init;
pub use metrics::{ConnectionMeters, HttpLabels, Measured, Metrics, NodeMeters, StoreMeters};
pub use spans::{CallSpan, RequestSpan, Spans};
pub use trace::Trace;
