//! Single flight with a time to live: one fetch serves all concurrent callers, and its answer is reused for a while. Knows nothing of what
//! is fetched.

use std::future::Future;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};
use parking_lot::Mutex;
use tokio::task::unconstrained;

use super::Error;
use crate::context::inherit_identity;

type Outcome<T> = Result<T, Error>;

/// The latest answer, or the fetch in progress.
pub(super) struct SingleFlight<T: Clone> {
    latest: Mutex<Option<Flight<T>>>,
}

struct Flight<T: Clone> {
    began: Instant,
    outcome: Shared<BoxFuture<'static, Outcome<T>>>,
}

impl<T: Clone + Send + Sync + 'static> SingleFlight<T> {
    /// Without an answer.
    pub(super) fn new() -> Self {
        Self {
            latest: Mutex::new(None),
        }
    }

    /// The latest answer while `is_fresh` accepts it (by the answer and the time since its fetch began), else that of the fetch in
    /// progress, else that of `fetch`; [`Error::Lost`] where that panicked.
    ///
    /// The fetch runs in its own task, with the request id of the caller that started it, so a caller that disconnects does not cancel it
    /// for the others. It must end by itself.
    pub(super) async fn get<F>(
        &self,
        is_fresh: impl Fn(&Outcome<T>, Duration) -> bool,
        fetch: impl FnOnce() -> F,
    ) -> Outcome<T>
    where
        F: Future<Output = Outcome<T>> + Send + 'static,
    {
        let outcome = {
            let mut latest = self.latest.lock();
            match &*latest {
                Some(flight)
                    if flight
                        .ended()
                        .is_none_or(|(outcome, age)| is_fresh(&outcome, age)) =>
                {
                    flight.outcome.clone()
                }
                _ => {
                    let task = tokio::spawn(inherit_identity(fetch()));
                    let outcome = async { unconstrained(task).await.unwrap_or(Err(Error::Lost)) };
                    let outcome = outcome.boxed().shared();
                    *latest = Some(Flight {
                        began: Instant::now(),
                        outcome: outcome.clone(),
                    });
                    outcome
                }
            }
        };
        outcome.await
    }

    /// Discards the latest answer where `is_bad` says so, by the answer and the time since its fetch began.
    pub(super) fn forget_if(&self, is_bad: impl Fn(&Outcome<T>, Duration) -> bool) {
        let mut latest = self.latest.lock();
        let ended = latest.as_ref().and_then(Flight::ended);
        if ended.is_some_and(|(outcome, age)| is_bad(&outcome, age)) {
            *latest = None;
        }
    }
}

impl<T: Clone> Flight<T> {
    /// The answer, and the time since its fetch began; `None` while that is in progress.
    fn ended(&self) -> Option<(Outcome<T>, Duration)> {
        let outcome = self.outcome.clone().now_or_never()?;
        Some((outcome, self.began.elapsed()))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn a_fetch_continues_when_its_first_caller_is_gone() {
        let (shared, go, flight) = (
            Arc::new(SingleFlight::new()),
            Arc::new(Notify::new()),
            Arc::new(AtomicUsize::new(0)),
        );
        let get = || {
            let (shared, go, flight) = (shared.clone(), go.clone(), flight.clone());
            tokio::spawn(async move {
                let fetch = || async move {
                    flight.fetch_add(1, Ordering::SeqCst);
                    go.notified().await;
                    Ok(7)
                };
                shared.get(|_, _| true, fetch).await
            })
        };
        let first = get();
        while flight.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        first.abort();
        assert!(first.await.is_err());
        let second = get();
        go.notify_one();
        assert_eq!(second.await.unwrap(), Ok(7));
        assert_eq!(get().await.unwrap(), Ok(7));
        assert_eq!(flight.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn stale_and_failed_answers_are_fetched_again() {
        let shared = SingleFlight::new();
        assert_eq!(shared.get(|_, _| true, || async { Ok(1) }).await, Ok(1));
        assert_eq!(shared.get(|_, _| true, || async { Ok(2) }).await, Ok(1));
        assert_eq!(shared.get(|_, _| false, || async { Ok(3) }).await, Ok(3));
        shared.forget_if(|outcome, _| *outcome == Ok(2));
        assert_eq!(shared.get(|_, _| true, || async { Ok(4) }).await, Ok(3));
        shared.forget_if(|outcome, _| *outcome == Ok(3));
        let broken = shared.get(|_, _| true, || async { panic!("on purpose") });
        assert_eq!(broken.await, Err(Error::Lost));
        let get = shared.get(|outcome, _| outcome.is_ok(), || async { Ok(5) });
        assert_eq!(get.await, Ok(5));
    }
}
