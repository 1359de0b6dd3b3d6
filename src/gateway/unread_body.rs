//! The part of a request's body that its handler did not read. On HTTP/1 the next request follows it, so it is drained, or the answer
//! closes the connection. Without that header a client would send its next request on a dead connection and lose it (nginx answers 502).

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::header::EXPECT;
use http::{Request, StatusCode};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use parking_lot::Mutex;

/// Bounds for draining a body to keep the connection.
const MAX_DRAIN_BYTES: u64 = 64 * 1024;
const DRAIN_TIMEOUT: Duration = Duration::from_millis(100);

/// After these the body is not drained: they must be cheap, or have waited for the body already.
const NEVER_READ: [StatusCode; 3] = [
    StatusCode::REQUEST_TIMEOUT,
    StatusCode::TOO_MANY_REQUESTS,
    StatusCode::SERVICE_UNAVAILABLE,
];

/// The state of a body.
enum State {
    /// The handler still has it.
    Held,
    Read,
    /// Dropped before its end. The flag is set once it was polled, which makes hyper send `100 Continue`.
    Unread(Incoming, bool),
}

/// The body of a request after its handler has answered.
pub(super) struct UnreadBody {
    state: Arc<Mutex<State>>,
    expects_continue: bool,
}

/// Wraps the request's body; the second value gives access to what the handler leaves unread.
pub(super) fn track(request: Request<Incoming>) -> (Request<Body>, Option<UnreadBody>) {
    if request.body().is_end_stream() {
        return (request.map(Body::new), None);
    }
    let state = Arc::new(Mutex::new(State::Held));
    let unread = UnreadBody {
        state: state.clone(),
        expects_continue: request.headers().contains_key(EXPECT),
    };
    let request = request.map(|body| {
        Body::new(TrackedRequestBody {
            body: Some(body),
            is_begun: false,
            state,
        })
    });
    (request, Some(unread))
}

impl UnreadBody {
    /// Drains the rest of the body and returns whether another request can follow. Call it when the answer, with this status, is ready.
    pub(super) async fn drain(self, status: StatusCode) -> bool {
        let state = std::mem::replace(&mut *self.state.lock(), State::Read);
        match state {
            State::Read => true,
            State::Held => false,
            State::Unread(body, is_begun) => {
                let must_not_read =
                    self.expects_continue && !is_begun || NEVER_READ.contains(&status);
                let is_too_long = body.size_hint().lower() > MAX_DRAIN_BYTES;
                if must_not_read || is_too_long {
                    return false;
                }
                let read = tokio::time::timeout(DRAIN_TIMEOUT, drain_to_end(body)).await;
                read.unwrap_or(false)
            }
        }
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
    body: Option<Incoming>,
    is_begun: bool,
    state: Arc<Mutex<State>>,
}

impl Drop for TrackedRequestBody {
    fn drop(&mut self) {
        let Some(body) = self.body.take() else { return };
        *self.state.lock() = if body.is_end_stream() {
            State::Read
        } else {
            State::Unread(body, self.is_begun)
        };
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
        match &mut self.body {
            Some(body) => Pin::new(body).poll_frame(context),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), Incoming::size_hint)
    }
}
