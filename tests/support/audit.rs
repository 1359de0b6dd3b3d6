//! The audit's lines.

use std::io::Write;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::Value;
use tracing_subscriber::layer::SubscriberExt as _;
use wukongim_gateway::telemetry::JsonLine;

/// What was written since the last look.
#[derive(Clone, Default)]
pub struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    pub fn take(&self) -> Vec<Value> {
        let text = std::mem::take(&mut *self.0.lock());
        let text = String::from_utf8(text).expect("text");
        let lines = text.lines().map(serde_json::from_str);
        lines.collect::<Result<_, _>>().expect("json")
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// As [`listen`], for all that is logged as an error instead.
pub fn listen_to_errors() -> (Lines, tracing::subscriber::DefaultGuard) {
    listen_to(tracing_subscriber::filter::Targets::new().with_default(tracing::Level::ERROR))
}

/// Listens on this thread, which is where a test's gateway runs, until the guard is dropped.
pub fn listen() -> (Lines, tracing::subscriber::DefaultGuard) {
    listen_to(tracing_subscriber::filter::Targets::new().with_target("audit", tracing::Level::INFO))
}

fn listen_to(
    only: tracing_subscriber::filter::Targets,
) -> (Lines, tracing::subscriber::DefaultGuard) {
    let lines = Lines::default();
    let writer = lines.clone();
    let layer = tracing_subscriber::fmt::layer()
        .event_format(JsonLine)
        .with_writer(move || writer.clone());
    let subscriber = tracing_subscriber::registry().with(only).with(layer);
    (lines, tracing::subscriber::set_default(subscriber))
}
