//! An answer that many want at once: asked for by one, told to all, believed for a while. Knows nothing of what it is about.

use std::future::Future;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::watch;

use super::{Error, begun_by_this_request};

type Outcome<T> = Result<T, Error>;

/// See the module.
pub(super) struct Shared<T> {
    latest: Mutex<Option<Asked<T>>>,
}

#[derive(Clone)]
struct Asked<T> {
    began: Instant,
    outcome: watch::Receiver<Option<Outcome<T>>>,
}

impl<T: Clone + Send + Sync + 'static> Shared<T> {
    /// Nothing is known yet.
    pub(super) fn new() -> Self {
        Self {
            latest: Mutex::new(None),
        }
    }

    /// The latest answer while `holds` says so (of the answer and the time since it was asked for), or that of whoever asks just
    /// now, or that of `ask`.
    ///
    /// The asking runs in a task of its own, in the name of the one who began it: callers who go away take no answer from
    /// the others. It must end by itself.
    pub(super) async fn get<F>(
        &self,
        holds: impl Fn(&Outcome<T>, Duration) -> bool,
        ask: impl FnOnce() -> F,
    ) -> Outcome<T>
    where
        F: Future<Output = Outcome<T>> + Send + 'static,
    {
        let mut outcome = {
            let mut latest = self.latest.lock();
            match &*latest {
                Some(asked) if asked.is_of_use(holds) => asked.outcome.clone(),
                _ => {
                    let (sender, outcome) = watch::channel(None);
                    *latest = Some(Asked {
                        began: Instant::now(),
                        outcome: outcome.clone(),
                    });
                    let answer = ask();
                    let work = async move {
                        sender.send_replace(Some(answer.await));
                    };
                    tokio::spawn(begun_by_this_request(work));
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

    /// Forgets the latest answer where it is one that `is_bad`, of the answer and the time since it was asked for.
    pub(super) fn forget_if(&self, is_bad: impl Fn(&Outcome<T>, Duration) -> bool) {
        let mut latest = self.latest.lock();
        let bad = latest.as_ref().is_some_and(|asked| {
            let outcome = asked.outcome.borrow();
            outcome
                .as_ref()
                .is_some_and(|outcome| is_bad(outcome, asked.began.elapsed()))
        });
        if bad {
            *latest = None;
        }
    }
}

impl<T> Asked<T> {
    fn is_of_use(&self, holds: impl Fn(&Outcome<T>, Duration) -> bool) -> bool {
        match &*self.outcome.borrow() {
            Some(outcome) => holds(outcome, self.began.elapsed()),
            // Being asked, unless nobody is left to answer.
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
    async fn an_asking_goes_on_when_the_first_caller_is_gone() {
        let (shared, go, asked) = (
            Arc::new(Shared::new()),
            Arc::new(Notify::new()),
            Arc::new(AtomicUsize::new(0)),
        );
        let get = || {
            let (shared, go, asked) = (shared.clone(), go.clone(), asked.clone());
            tokio::spawn(async move {
                let ask = || async move {
                    asked.fetch_add(1, Ordering::SeqCst);
                    go.notified().await;
                    Ok(7)
                };
                shared.get(|_, _| true, ask).await
            })
        };
        let first = get();
        while asked.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        first.abort();
        assert!(first.await.is_err());
        let second = get();
        go.notify_one();
        assert_eq!(second.await.unwrap(), Ok(7));
        assert_eq!(get().await.unwrap(), Ok(7));
        assert_eq!(asked.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn what_holds_no_longer_is_asked_for_again_and_so_is_what_broke() {
        let shared = Shared::new();
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
