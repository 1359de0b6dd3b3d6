//! The request on whose behalf code runs: its id, trace, deadline and reserved bytes, kept per task. A leaf: knows no other module.

mod byte_budget;
mod trace;

use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use http::HeaderValue;

pub use byte_budget::{ByteBudget, Full, Reservation, UnwrittenBytes};
#[cfg(feature = "otel")]
pub(crate) use trace::OwnSpan;
#[cfg(feature = "otel")]
pub(crate) use trace::TRACEPARENT;
pub use trace::Trace;

tokio::task_local! {
    static REQUEST: RequestContext;
}

/// The client request on whose behalf a task works.
#[derive(Debug, Clone)]
pub struct RequestContext {
    /// Sent to WuKongIM and the application's backend as `x-request-id`.
    pub id: HeaderValue,
    /// The trace that its calls belong to.
    pub trace: Option<Arc<Trace>>,
    /// Counts its body and the upstream answers; `None` in a task shared by several requests.
    pub reservation: Option<Arc<Reservation>>,
    /// When the request must be answered: no call is retried after it.
    pub deadline: Option<Instant>,
}

impl RequestContext {
    /// Runs `work` in this context.
    pub async fn scope<F: Future>(self, work: F) -> F::Output {
        REQUEST.scope(self, work).await
    }
}

/// Runs `work` so that every call it makes carries `id` as `x-request-id`.
pub async fn with_request_id<F: Future>(id: HeaderValue, work: F) -> F::Output {
    let context = RequestContext {
        id,
        trace: None,
        reservation: None,
        deadline: None,
    };
    context.scope(work).await
}

/// Runs `work` with the current request's whole context, for a task that may outlive the request: same id, trace and deadline, and the
/// request's bytes stay reserved until `work` is done.
pub fn inherit_context<F: Future>(work: F) -> impl Future<Output = F::Output> {
    within(current(Clone::clone), work)
}

/// Runs `work` with only the id and trace of the current request, for a task whose result several requests share: the bytes are not
/// reserved for that request, and its deadline does not apply.
pub fn inherit_identity<F: Future>(work: F) -> impl Future<Output = F::Output> {
    let context = current(|request| RequestContext {
        reservation: None,
        deadline: None,
        ..request.clone()
    });
    within(context, work)
}

async fn within<F: Future>(context: Option<RequestContext>, work: F) -> F::Output {
    match context {
        Some(context) => context.scope(work).await,
        None => work.await,
    }
}

/// Reads the current request's context; `None` outside of a request.
pub fn current<T>(read: impl FnOnce(&RequestContext) -> T) -> Option<T> {
    REQUEST.try_with(read).ok()
}

/// The deadline of the current request, if there is one.
pub fn current_deadline() -> Option<Instant> {
    current(|request| request.deadline)?
}

/// The current request's id.
pub fn current_request_id() -> Option<HeaderValue> {
    current(|request| request.id.clone())
}

/// Where the bytes of the current request are counted.
pub fn current_reservation() -> Option<Arc<Reservation>> {
    current(|request| request.reservation.clone())?
}
