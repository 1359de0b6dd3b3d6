//! The part of a request's body that its handler did not read. On HTTP/1 the next request follows it, so it is drained, or the answer
//! closes the connection. Without that header a client would send its next request on a dead connection and lose it (nginx answers 502).

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::header::EXPECT;
use http::{Request, StatusCode};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::sync::oneshot::{self, error::TryRecvError};

/// Bounds for draining a body to keep the connection.
const MAX_DRAIN_BYTES: u64 = 64 * 1024;
const DRAIN_TIMEOUT: Duration = Duration::from_millis(100);

/// After these the body is not drained: they must be cheap, or have waited for the body already.
const NEVER_READ: [StatusCode; 3] = [
    StatusCode::REQUEST_TIMEOUT,
    StatusCode::TOO_MANY_REQUESTS,
    StatusCode::SERVICE_UNAVAILABLE,
];

/// A body that was dropped before its end, and whether it was polled, which makes hyper send `100 Continue`.
type Rest = (Incoming, bool);

/// The body of a request after its handler has answered.
pub(super) struct UnreadBody {
    rest: oneshot::Receiver<Rest>,
    expects_continue: bool,
}

/// Wraps the request's body; the second value gives access to what the handler leaves unread.
pub(super) fn track(request: Request<Incoming>) -> (Request<Body>, Option<UnreadBody>) {
    if request.body().is_end_stream() {
        return (request.map(Body::new), None);
    }
    let (return_rest, rest) = oneshot::channel();
    let unread = UnreadBody {
        rest,
        expects_continue: request.headers().contains_key(EXPECT),
    };
    let request = request.map(|body| {
        Body::new(TrackedRequestBody {
            held: Some((body, return_rest)),
            is_begun: false,
        })
    });
    (request, Some(unread))
}

impl UnreadBody {
    /// Drains the rest of the body and returns whether another request can follow. Call it when the answer, with this status, is ready.
    pub(super) async fn drain(mut self, status: StatusCode) -> bool {
        let (body, is_begun) = match self.rest.try_recv() {
            Ok(rest) => rest,
            // The handler still has it.
            Err(TryRecvError::Empty) => return false,
            // It was read to its end.
            Err(TryRecvError::Closed) => return true,
        };
        let must_not_read = self.expects_continue && !is_begun || NEVER_READ.contains(&status);
        let is_too_long = body.size_hint().lower() > MAX_DRAIN_BYTES;
        if must_not_read || is_too_long {
            return false;
        }
        let read = tokio::time::timeout(DRAIN_TIMEOUT, drain_to_end(body)).await;
        read.unwrap_or(false)
    }
}

async fn drain_to_end(mut body: Incoming) -> bool {
    let mut left = MAX_DRAIN_BYTES;
    while !body.is_end_stream() {
        let bytes = match body.frame().await {
            None => break,
            Some(Ok(frame)) => frame.data_ref().map_or(0, Bytes::len) as u64,
            Some(Err(_)) => return false,
        };
        match left.checked_sub(bytes) {
            Some(less) => left = less,
            None => return false,
        }
    }
    true
}

/// A body that is returned to [`UnreadBody`] when it is dropped before its end.
struct TrackedRequestBody {
    /// `Some` until the drop.
    held: Option<(Incoming, oneshot::Sender<Rest>)>,
    is_begun: bool,
}

impl Drop for TrackedRequestBody {
    fn drop(&mut self) {
        if let Some((body, return_rest)) = self.held.take()
            && !body.is_end_stream()
        {
            // Without a receiver the connection is gone.
            let _ = return_rest.send((body, self.is_begun));
        }
    }
}

impl http_body::Body for TrackedRequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.is_begun = true;
        match &mut self.held {
            Some((body, _)) => Pin::new(body).poll_frame(context),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.held
            .as_ref()
            .is_none_or(|(body, _)| body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let held = self.held.as_ref();
        held.map_or_else(|| SizeHint::with_exact(0), |(body, _)| body.size_hint())
    }
}
