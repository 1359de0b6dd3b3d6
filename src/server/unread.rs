//! What an answer leaves unread of its request's body. On HTTP/1 the next request lies behind it, so it is read, or the client is told
//! that the connection ends: whoever is not told sends on it, and loses that (nginx makes a 502 of it).

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

/// How much of it is read to keep a connection, and for how long.
const MAX_BYTES: u64 = 64 * 1024;
const MAX_TIME: Duration = Duration::from_millis(100);

/// Whether the rest of a body is worth reading after these: they are to cost little, or waited for the body already.
const NEVER_READ: [StatusCode; 3] = [
    StatusCode::REQUEST_TIMEOUT,
    StatusCode::TOO_MANY_REQUESTS,
    StatusCode::SERVICE_UNAVAILABLE,
];

/// What has become of a body.
enum State {
    /// Somebody still has it.
    Held,
    Read,
    /// Dropped before its end; whether any of it was asked for, which is what makes hyper say `100 Continue`.
    Unread(Incoming, bool),
}

/// A request's body, seen from where the answer leaves.
pub(super) struct Rest {
    state: Arc<Mutex<State>>,
    expects_continue: bool,
}

/// The request as handlers get it, and what is left of its body afterwards.
pub(super) fn watch(request: Request<Incoming>) -> (Request<Body>, Option<Rest>) {
    if request.body().is_end_stream() {
        return (request.map(Body::new), None);
    }
    let state = Arc::new(Mutex::new(State::Held));
    let rest = Rest {
        state: state.clone(),
        expects_continue: request.headers().contains_key(EXPECT),
    };
    let request = request.map(|body| {
        Body::new(WatchedBody {
            body: Some(body),
            is_begun: false,
            state,
        })
    });
    (request, Some(rest))
}

impl Rest {
    /// Reads what little is left; answers whether another request can follow. To be asked when the answer, with this status, is there.
    pub(super) async fn read_rest(self, status: StatusCode) -> bool {
        let state = std::mem::replace(&mut *self.state.lock(), State::Read);
        match state {
            State::Read => true,
            State::Held => false,
            State::Unread(body, is_begun) => {
                let must_not = self.expects_continue && !is_begun || NEVER_READ.contains(&status);
                let is_too_long = body.size_hint().lower() > MAX_BYTES;
                if must_not || is_too_long {
                    return false;
                }
                let read = tokio::time::timeout(MAX_TIME, reads_to_end(body)).await;
                read.unwrap_or(false)
            }
        }
    }
}

async fn reads_to_end(mut body: Incoming) -> bool {
    let mut left = MAX_BYTES;
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

/// A body that is given back when it is dropped before its end.
struct WatchedBody {
    /// There until it is dropped.
    body: Option<Incoming>,
    is_begun: bool,
    state: Arc<Mutex<State>>,
}

impl Drop for WatchedBody {
    fn drop(&mut self) {
        let Some(body) = self.body.take() else { return };
        *self.state.lock() = if body.is_end_stream() {
            State::Read
        } else {
            State::Unread(body, self.is_begun)
        };
    }
}

impl http_body::Body for WatchedBody {
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
