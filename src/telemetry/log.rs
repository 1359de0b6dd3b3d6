//! The log: one line an event, text on a terminal and JSON elsewhere, on standard error.

use std::io::{IsTerminal as _, stderr};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::{Log, LogFormat};

/// Starts logging. A second call changes nothing.
pub fn init(settings: &Log) {
    // Only this crate's own events: what libraries log may hold addresses and headers.
    let own = Targets::new()
        .with_target("wukongim_gateway", settings.level)
        // What admins do is always told.
        .with_target("audit", LevelFilter::INFO)
        .with_default(LevelFilter::OFF);
    let as_text = match settings.format {
        LogFormat::Auto => stderr().is_terminal(),
        LogFormat::Text => true,
        LogFormat::Json => false,
    };
    let registry = tracing_subscriber::registry().with(own);
    let result = if as_text {
        let layer = tracing_subscriber::fmt::layer()
            .with_writer(stderr)
            .with_target(false);
        registry
            .with(layer.with_ansi(stderr().is_terminal()))
            .try_init()
    } else {
        let layer = tracing_subscriber::fmt::layer()
            .json()
            .flatten_event(true)
            .with_target(false);
        registry
            .with(
                layer
                    .with_current_span(false)
                    .with_span_list(false)
                    .with_writer(stderr),
            )
            .try_init()
    };
    // Tests start many gateways in one process: the first one's log serves all.
    drop(result);
}
