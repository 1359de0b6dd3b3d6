//! A request's work that goes on when nobody waits for it any longer. Knows nothing of what is done.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::runtime::Handle;

use crate::wukongim::in_this_request;

/// Runs where it is waited for, and in a task of its own only from the moment that nobody waits any longer: nearly all requests are
/// waited for to their end, and for them a task would be two more turns of the runtime, and the whole work copied into it. What the
/// request holds stays counted until the work is done.
pub(super) struct Onward<F: Future<Output: Send> + Send + 'static>(Option<Pin<Box<F>>>);

impl<F: Future<Output: Send> + Send + 'static> Onward<F> {
    #[inline]
    pub(super) fn new(work: F) -> Self {
        Self(Some(Box::pin(work)))
    }
}

impl<F: Future<Output: Send> + Send + 'static> Future for Onward<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        // Outside of `self` meanwhile: what panicked is not to be run again.
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

impl<F: Future<Output: Send> + Send + 'static> Drop for Onward<F> {
    fn drop(&mut self) {
        // Without a runtime the process is ending.
        if let (Some(work), Ok(runtime)) = (self.0.take(), Handle::try_current()) {
            // The request's own marks are still around whatever is dropped within it.
            let work = in_this_request(work);
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
    async fn what_is_waited_for_is_answered_and_what_is_left_ends_all_the_same() {
        assert_eq!(Onward::new(async { 7 }).await, 7);
        let (go, may_go) = oneshot::channel::<()>();
        let (done, is_done) = oneshot::channel();
        let work = Onward::new(async move {
            may_go.await.unwrap();
            done.send(()).unwrap();
        });
        let waited = tokio::time::timeout(Duration::from_millis(1), work).await;
        assert!(waited.is_err());
        go.send(()).unwrap();
        is_done.await.unwrap();
    }

    #[tokio::test]
    async fn what_was_never_begun_is_begun_when_it_is_left() {
        let (done, is_done) = oneshot::channel();
        drop(Onward::new(async move { done.send(()).unwrap() }));
        is_done.await.unwrap();
    }

    #[tokio::test]
    async fn what_panicked_is_not_run_again() {
        let (alive, is_gone) = oneshot::channel::<()>();
        let mut work = Box::pin(Onward::new(async move {
            let _alive = alive;
            yield_now().await;
            panic!("as it must");
        }));
        let panicked =
            futures_util::FutureExt::catch_unwind(std::panic::AssertUnwindSafe(&mut work));
        assert!(panicked.await.is_err());
        drop(work);
        assert!(is_gone.await.is_err());
    }
}
