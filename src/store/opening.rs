//! A PostgreSQL that may not be up yet: tried for a while, and then in the background until it is there. Knows no statement.

use std::time::Duration;

use sqlx::any::AnyConnectOptions;
use sqlx::{AnyConnection, Connection as _};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::open::{broken, migrate, migration_error};
use super::{StoreError, cause};

/// Replicas that start at once wait for each other's migration (sqlx takes an advisory lock), longer perhaps than an operation may take.
const MIGRATION_TIMEOUT: Duration = Duration::from_secs(30);
/// From one attempt to the next, while the server is not reached.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// The same after an answer that only an operator can change, such as a refused password.
const REFUSED_PAUSE: Duration = Duration::from_secs(10);
/// While nothing changes, the log says so this often.
const LOG_INTERVAL: Duration = Duration::from_secs(30);

/// Whether a database can be used.
#[derive(Debug)]
pub(super) enum State {
    /// It is there, with its schema.
    Open,
    /// Not yet; why the last attempt failed.
    Failed(String),
}

/// Why an attempt failed.
struct Failure {
    error: StoreError,
    /// Whether it may pass without anybody's doing.
    transient: bool,
}

type Attempt = Result<(), Failure>;

/// Connects and migrates. Where the server is not reached within `timeout`, that goes on in the background until it is, or until
/// nobody holds the state any more.
///
/// # Errors
/// What the server answered to the first attempt. To a later one it may answer the same; the process serves by then, so the log says
/// so and the state stays [`State::Failed`].
pub(super) async fn begin(
    options: AnyConnectOptions,
    timeout: Duration,
) -> Result<watch::Receiver<State>, StoreError> {
    let mut first = tokio::spawn(attempt(options.clone(), timeout));
    let (failure, under_way) = match tokio::time::timeout(timeout, &mut first).await {
        Ok(Ok(Ok(()))) => return Ok(watch::channel(State::Open).1),
        Ok(Ok(Err(failure))) if !failure.transient => return Err(failure.error),
        Ok(Ok(Err(failure))) => (failure.error, None),
        Ok(Err(panicked)) => return Err(broken(panicked)),
        Err(_) => (broken("no answer in time"), Some(first)),
    };
    let cause = reason(&failure);
    tracing::warn!(
        error = cause,
        "store not reached yet: serving without it and trying again"
    );
    let (sender, state) = watch::channel(State::Failed(cause));
    tokio::spawn(keep_trying(under_way, options, timeout, sender));
    Ok(state)
}

/// On a connection of its own, without the statement timeout of the pool's.
async fn attempt(options: AnyConnectOptions, timeout: Duration) -> Attempt {
    let connecting = AnyConnection::connect_with(&options);
    let mut connection = match tokio::time::timeout(timeout, connecting).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => {
            return Err(Failure {
                transient: cause::is_transient(&error),
                error: broken(error),
            });
        }
        Err(_) => return Err(late()),
    };
    match tokio::time::timeout(MIGRATION_TIMEOUT, migrate(&mut connection)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            return Err(Failure {
                transient: cause::is_transient_migration(&error),
                error: migration_error(error),
            });
        }
        Err(_) => return Err(late()),
    }
    let _ = connection.close().await;
    Ok(())
}

fn late() -> Failure {
    Failure {
        error: broken("no answer in time"),
        transient: true,
    }
}

async fn keep_trying(
    mut under_way: Option<JoinHandle<Attempt>>,
    options: AnyConnectOptions,
    timeout: Duration,
    state: watch::Sender<State>,
) {
    let mut logged = Instant::now();
    let mut last_cause = match &*state.borrow() {
        State::Failed(cause) => cause.clone(),
        State::Open => return,
    };
    loop {
        let next = match under_way.take() {
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
                error: broken(panicked),
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

/// The error without the words that say which kind of error of the store it is.
fn reason(error: &StoreError) -> String {
    match error {
        StoreError::Open(cause) | StoreError::Unavailable(cause) => cause.to_string(),
        other => other.to_string(),
    }
}
