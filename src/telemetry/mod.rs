//! Observability: the log, the metrics registry, and the traces of requests.

mod json_line;
mod log;
mod log_writer;
mod metrics;
#[cfg_attr(not(feature = "otel"), path = "no_spans.rs")]
mod spans;

pub use json_line::JsonLine;
pub use log::init;
pub use log_writer::{ACCESS_LOG, LogGuard};
pub use metrics::{
    ConnectionMeters, GaugeSnapshot, HttpLabels, LabelValue, Metrics, NodeMeters, SocketConnect,
    SocketDirection, SocketEnd, SocketFrame, SocketProtocol, StoreMeters,
};
pub use spans::{CallSpan, RequestSpan, Spans};
