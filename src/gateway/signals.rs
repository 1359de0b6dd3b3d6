//! The signals that mean "stop".

use std::future::poll_fn;
use std::io;
use std::task::Poll;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGTERM, SIGINT and SIGHUP, received from the creation of this value on: a signal between two waits is not lost.
pub(super) struct Signals(Vec<Signal>);

impl Signals {
    /// Installs the handlers. Call it before anything slow: process 1 of a container ignores signals without a handler.
    pub(super) fn listen() -> Self {
        let mut kinds = vec![SignalKind::terminate(), SignalKind::interrupt()];
        // Ignored is how `nohup` lets a process outlive its terminal. Where that cannot be determined, the signal keeps its default action.
        if hangup_is_ignored() == Some(false) {
            kinds.push(SignalKind::hangup());
        }
        let handlers: io::Result<_> = kinds.into_iter().map(signal).collect();
        Self(handlers.unwrap_or_else(|error| {
            // Without handlers the signals end the process by themselves.
            tracing::error!(%error, "cannot listen for signals: no graceful drain");
            Vec::new()
        }))
    }

    /// Waits for the next one.
    pub(super) async fn stop_requested(&mut self) {
        poll_fn(|context| {
            let mut signals = self.0.iter_mut();
            if signals.any(|signal| signal.poll_recv(context).is_ready()) {
                return Poll::Ready(());
            }
            Poll::Pending
        })
        .await;
    }
}

/// Whether the process was started with SIGHUP ignored; `None` where the system does not provide this (Linux does).
fn hangup_is_ignored() -> Option<bool> {
    is_ignored(&std::fs::read_to_string("/proc/self/status").ok()?)
}

/// Reads the mask of ignored signals; SIGHUP, number 1, is its lowest bit.
fn is_ignored(status: &str) -> Option<bool> {
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))?;
    let mask = u64::from_str_radix(mask.trim(), 16).ok()?;
    Some(mask & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mask_of_ignored_signals_is_read() {
        let status = |mask: &str| {
            format!(
                "Name:\tx\nSigBlk:\t0000000000000001\nSigIgn:\t{mask}\nSigCgt:\t0000000000000001\n"
            )
        };
        assert_eq!(is_ignored(&status("0000000000001000")), Some(false));
        assert_eq!(is_ignored(&status("0000000000001001")), Some(true));
        assert_eq!(is_ignored(&status("no mask")), None);
        assert_eq!(is_ignored("Name:\tx\n"), None);
    }
}
