//! Work that continues in a task of its own when it is dropped, by a client that disconnects or by a timeout. Knows nothing of the work.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::runtime::Handle;

use crate::context::inherit_context;

/// Runs in the awaiting task, and is spawned only when it is dropped unfinished. Nearly all requests are awaited to their end, and a task
/// for each would cost two more scheduler passes and a copy of the future. The request's bytes stay reserved until the work is done.
pub(super) struct DetachOnDrop<F: Future<Output: Send> + Send + 'static>(Option<Pin<Box<F>>>);

impl<F: Future<Output: Send> + Send + 'static> DetachOnDrop<F> {
    #[inline]
    pub(super) fn new(work: F) -> Self {
        Self(Some(Box::pin(work)))
    }
}

impl<F: Future<Output: Send> + Send + 'static> Future for DetachOnDrop<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        // Taken out of `self` while it is polled, so that work that panicked is not run again.
        let Some(mut work) = self.0.take() else {
            return Poll::Pending;
        };
        let polled = work.as_mut().poll(context);
        if polled.is_pending() {
            self.0 = Some(work);
        }
        polled
    }
}

impl<F: Future<Output: Send> + Send + 'static> Drop for DetachOnDrop<F> {
    fn drop(&mut self) {
        // Without a runtime the process is shutting down.
        if let (Some(work), Ok(runtime)) = (self.0.take(), Handle::try_current()) {
            // The drop happens within the request's task, so its context is still set.
            let work = inherit_context(work);
            runtime.spawn(async move {
                work.await;
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::oneshot;
    use tokio::task::yield_now;

    use super::*;

    #[tokio::test]
    async fn awaited_work_answers_and_dropped_work_still_completes() {
        assert_eq!(DetachOnDrop::new(async { 7 }).await, 7);
        let (go, may_go) = oneshot::channel::<()>();
        let (done, is_done) = oneshot::channel();
        let work = DetachOnDrop::new(async move {
            may_go.await.unwrap();
            done.send(()).unwrap();
        });
        let waited = tokio::time::timeout(Duration::from_millis(1), work).await;
        assert!(waited.is_err());
        go.send(()).unwrap();
        is_done.await.unwrap();
    }

    #[tokio::test]
    async fn work_dropped_before_its_first_poll_is_started() {
        let (done, is_done) = oneshot::channel();
        drop(DetachOnDrop::new(async move { done.send(()).unwrap() }));
        is_done.await.unwrap();
    }

    #[tokio::test]
    async fn work_that_panicked_is_not_run_again() {
        let (alive, is_gone) = oneshot::channel::<()>();
        let mut work = Box::pin(DetachOnDrop::new(async move {
            let _alive = alive;
            yield_now().await;
            panic!("expected by the test");
        }));
        let panicked =
            futures_util::FutureExt::catch_unwind(std::panic::AssertUnwindSafe(&mut work));
        assert!(panicked.await.is_err());
        drop(work);
        assert!(is_gone.await.is_err());
    }
}
