//! The signals that mean "stop".

use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGTERM, SIGINT and SIGHUP, received from the creation of this value on: a signal between two waits is not lost.
pub(super) struct Signals(Option<Handlers>);

struct Handlers {
    terminate: Signal,
    interrupt: Signal,
    /// `None` where it was ignored at the start, which is how `nohup` lets a process outlive its terminal.
    hangup: Option<Signal>,
}

impl Signals {
    /// Installs the handlers. Call it before anything slow: process 1 of a container ignores signals without a handler.
    pub(super) fn listen() -> Self {
        let handlers = || {
            Ok::<_, std::io::Error>(Handlers {
                terminate: signal(SignalKind::terminate())?,
                interrupt: signal(SignalKind::interrupt())?,
                hangup: match hangup_is_ignored() {
                    Some(false) => Some(signal(SignalKind::hangup())?),
                    // Where it cannot be determined, the signal keeps its default action.
                    Some(true) | None => None,
                },
            })
        };
        match handlers() {
            Ok(handlers) => Self(Some(handlers)),
            Err(error) => {
                // Without handlers the signals end the process by themselves.
                tracing::error!(%error, "cannot listen for signals: no graceful drain");
                Self(None)
            }
        }
    }

    /// Waits for the next one.
    pub(super) async fn stop_requested(&mut self) {
        let Some(handlers) = &mut self.0 else {
            return std::future::pending().await;
        };
        let hangup = async {
            match &mut handlers.hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = handlers.terminate.recv() => {}
            _ = handlers.interrupt.recv() => {}
            _ = hangup => {}
        }
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
