//! Single flight with a time to live: one fetch serves all concurrent callers, and its answer is reused for a while. Knows nothing of what
//! is fetched.

use std::future::Future;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::watch;

use super::Error;
use crate::context::inherit_identity;

type Outcome<T> = Result<T, Error>;

/// The latest answer, or the fetch in progress.
pub(super) struct SingleFlight<T> {
    latest: Mutex<Option<Flight<T>>>,
}

#[derive(Clone)]
struct Flight<T> {
    began: Instant,
    outcome: watch::Receiver<Option<Outcome<T>>>,
}

impl<T: Clone + Send + Sync + 'static> SingleFlight<T> {
    /// Without an answer.
    pub(super) fn new() -> Self {
        Self {
            latest: Mutex::new(None),
        }
    }

    /// The latest answer while `is_fresh` accepts it (by the answer and the time since its fetch began), else that of the fetch in
    /// progress, else that of `fetch`.
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
        let mut outcome = {
            let mut latest = self.latest.lock();
            match &*latest {
                Some(flight) if flight.is_usable(is_fresh) => flight.outcome.clone(),
                _ => {
                    let (sender, outcome) = watch::channel(None);
                    *latest = Some(Flight {
                        began: Instant::now(),
                        outcome: outcome.clone(),
                    });
                    let answer = fetch();
                    let work = async move {
                        sender.send_replace(Some(answer.await));
                    };
                    tokio::spawn(inherit_identity(work));
                    outcome
                }
            }
        };
        match outcome.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone().unwrap_or(Err(Error::Lost)),
            // The task panicked, or the process ends.
            Err(_) => Err(Error::Lost),
        }
    }

    /// Discards the latest answer where `is_bad` says so, by the answer and the time since its fetch began.
    pub(super) fn forget_if(&self, is_bad: impl Fn(&Outcome<T>, Duration) -> bool) {
        let mut latest = self.latest.lock();
        let bad = latest.as_ref().is_some_and(|flight| {
            let outcome = flight.outcome.borrow();
            outcome
                .as_ref()
                .is_some_and(|outcome| is_bad(outcome, flight.began.elapsed()))
        });
        if bad {
            *latest = None;
        }
    }
}

impl<T> Flight<T> {
    fn is_usable(&self, is_fresh: impl Fn(&Outcome<T>, Duration) -> bool) -> bool {
        match &*self.outcome.borrow() {
            Some(outcome) => is_fresh(outcome, self.began.elapsed()),
            // In progress, unless its task is gone.
            None => self.outcome.has_changed().is_ok(),
        }
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
        assert_eq!(shared.get(|_, _| true, || async { Ok(5) }).await, Ok(5));
    }
}
