//! The signals that mean "stop".

use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGTERM and SIGINT, heard from the moment this is made: a signal between two waits is not lost.
pub(super) struct Signals(Option<(Signal, Signal)>);

impl Signals {
    /// Begins to listen. To be made before anybody can take the process for a running one.
    pub(super) fn listen() -> Self {
        let handlers = (
            signal(SignalKind::terminate()),
            signal(SignalKind::interrupt()),
        );
        let (Ok(terminate), Ok(interrupt)) = handlers else {
            // Without handlers the signals end the process by themselves.
            tracing::error!("cannot listen for signals: no graceful drain");
            return Self(None);
        };
        Self(Some((terminate, interrupt)))
    }

    /// Waits for the next one.
    pub(super) async fn told_to_stop(&mut self) {
        let Some((terminate, interrupt)) = &mut self.0 else {
            return std::future::pending().await;
        };
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    }
}
