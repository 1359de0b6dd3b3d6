//! Connects to a PostgreSQL that may not be up yet: waits for a while, then retries in the background.

use std::time::Duration;

use sqlx::any::AnyConnectOptions;
use sqlx::{AnyConnection, Connection as _};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio::time::error::Elapsed;

use super::open::{migrate, migration_error, open_error};
use super::{StoreError, cause};

/// Replicas that start together wait for each other's migration (sqlx takes an advisory lock), possibly longer than an operation may take.
const MIGRATION_TIMEOUT: Duration = Duration::from_secs(30);
/// Pause between attempts while the server cannot be reached.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// The same after an error that only an operator can fix, such as a refused password.
const REFUSED_PAUSE: Duration = Duration::from_secs(10);
/// How often an unchanged state is logged.
const LOG_INTERVAL: Duration = Duration::from_secs(30);

/// Whether a database can be used.
#[derive(Debug)]
pub(super) enum State {
    /// Connected and migrated.
    Open,
    /// Not connected yet; the reason of the last failure.
    Failed(String),
}

/// Why an attempt failed.
struct Failure {
    error: StoreError,
    /// Whether it may resolve without an operator.
    transient: bool,
}

type Attempt = Result<(), Failure>;

/// Connects and migrates. Where the server cannot be reached within `timeout`, it retries in the background until it succeeds or the
/// receiver is dropped.
///
/// # Errors
/// The server's error to the first attempt. Errors of later attempts are logged, and the state stays [`State::Failed`].
pub(super) async fn begin(
    options: AnyConnectOptions,
    timeout: Duration,
) -> Result<watch::Receiver<State>, StoreError> {
    let mut first = tokio::spawn(attempt(options.clone(), timeout));
    let (failure, pending) = match tokio::time::timeout(timeout, &mut first).await {
        Ok(Ok(Ok(()))) => return Ok(watch::channel(State::Open).1),
        Ok(Ok(Err(failure))) if !failure.transient => return Err(failure.error),
        Ok(Ok(Err(failure))) => (failure.error, None),
        Ok(Err(panicked)) => return Err(open_error(panicked)),
        Err(_) => (open_error("no answer in time"), Some(first)),
    };
    let cause = reason(&failure);
    tracing::warn!(
        error = cause,
        "store not reached yet: serving without it and trying again"
    );
    let (sender, state) = watch::channel(State::Failed(cause.clone()));
    tokio::spawn(keep_trying(pending, cause, options, timeout, sender));
    Ok(state)
}

/// Uses a separate connection without the pool's statement timeout.
async fn attempt(options: AnyConnectOptions, timeout: Duration) -> Attempt {
    let connecting = AnyConnection::connect_with(&options);
    let connected = tokio::time::timeout(timeout, connecting).await;
    let mut connection = connected.map_err(timed_out)?.map_err(|error| Failure {
        transient: cause::is_transient(&error),
        error: open_error(error),
    })?;
    let migrating = migrate(&mut connection);
    let migrated = tokio::time::timeout(MIGRATION_TIMEOUT, migrating).await;
    migrated.map_err(timed_out)?.map_err(|error| Failure {
        transient: cause::is_transient_migration(&error),
        error: migration_error(error),
    })?;
    let _ = connection.close().await;
    Ok(())
}

fn timed_out(_: Elapsed) -> Failure {
    Failure {
        error: open_error("no answer in time"),
        transient: true,
    }
}

async fn keep_trying(
    mut pending: Option<JoinHandle<Attempt>>,
    mut last_cause: String,
    options: AnyConnectOptions,
    timeout: Duration,
    state: watch::Sender<State>,
) {
    let mut logged = Instant::now();
    loop {
        let next = match pending.take() {
            Some(first) => first,
            None => tokio::spawn(attempt(options.clone(), timeout)),
        };
        let failure = match next.await {
            Ok(Ok(())) => {
                state.send_replace(State::Open);
                tracing::info!("store reached: serving with it from now on");
                return;
            }
            Ok(Err(failure)) => failure,
            Err(panicked) => Failure {
                error: open_error(panicked),
                transient: false,
            },
        };
        let cause = reason(&failure.error);
        if cause != last_cause || logged.elapsed() >= LOG_INTERVAL {
            logged = Instant::now();
            if failure.transient {
                tracing::warn!(error = cause, "store not reached yet");
            } else {
                tracing::error!(error = cause, "store refuses: serving without it");
            }
        }
        last_cause.clone_from(&cause);
        state.send_replace(State::Failed(cause));
        let pause = if failure.transient {
            RETRY_PAUSE
        } else {
            REFUSED_PAUSE
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = state.closed() => return,
        }
    }
}

/// The cause without the prefix of the store's error type.
fn reason(error: &StoreError) -> String {
    match error {
        StoreError::Open(cause) | StoreError::Unavailable(cause) => cause.to_string(),
        other => other.to_string(),
    }
}
