//! The log: one line per event on standard error, as text on a terminal and as JSON elsewhere.

use std::io::{IsTerminal as _, stderr};
use std::panic::PanicHookInfo;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use super::json_line::JsonLine;
use super::log_writer::{LogGuard, LogWriter};
use crate::config::{Log, LogFormat};

/// Starts logging, including panics, until the guard is dropped. A second call has no effect.
#[must_use]
pub fn init(settings: &Log) -> LogGuard {
    // Only this crate's events, and the audit log at every level: events of libraries may contain addresses and headers.
    let own = Targets::new()
        .with_target("wukongim_gateway", settings.level)
        .with_target("audit", LevelFilter::INFO)
        .with_default(LevelFilter::OFF);
    let (writer, guard) = LogWriter::stderr();
    let layer = tracing_subscriber::fmt::layer().with_writer(writer);
    let is_terminal = stderr().is_terminal();
    let is_text = match settings.format {
        LogFormat::Auto => is_terminal,
        LogFormat::Text => true,
        LogFormat::Json => false,
    };
    let registry = tracing_subscriber::registry().with(own);
    let result = if is_text {
        let layer = layer.with_target(false).with_ansi(is_terminal);
        registry.with(layer).try_init()
    } else {
        registry.with(layer.event_format(JsonLine)).try_init()
    };
    // Tests may start several gateways in one process, which share the log of the first one.
    if result.is_ok() {
        std::panic::set_hook(Box::new(panicked));
    }
    guard
}

/// Logs the location of a panic but not its message, which may contain user data: slicing a string inside a character quotes the string.
fn panicked(info: &PanicHookInfo<'_>) {
    let place = info.location().map(tracing::field::display);
    tracing::error!(panic.place = place, "panicked");
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn of_a_panic_only_the_place_is_written() {
        let written = Written::default();
        let writer = written.clone();
        let layer = tracing_subscriber::fmt::layer()
            .event_format(JsonLine)
            .with_writer(move || writer.clone());
        let _log = tracing::subscriber::set_default(tracing_subscriber::registry().with(layer));
        let here = std::thread::current().id();
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            // Other tests of this process may fail meanwhile.
            if std::thread::current().id() == here {
                panicked(info);
            } else {
                before(info);
            }
        }));
        let text = "marked-群".to_owned();
        let cut = std::panic::catch_unwind(|| text[..8].len());
        drop(std::panic::take_hook());
        assert!(cut.is_err());
        let line = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        assert!(line.contains("src/telemetry/log.rs:"), "{line}");
        assert!(!line.contains("marked"), "{line}");
    }
}
