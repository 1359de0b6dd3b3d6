//! An answer's body on its way out: what it holds is held, and counted as unwritten, until its last byte is written.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::Bytes;
use http::Response;
use http_body::{Body as _, Frame, SizeHint};

use super::activity::{Activity, Followed};
use crate::memory::Share;

/// The pieces in which it is handed to hyper. HTTP/2 takes a whole piece as soon as the client has room for one byte, and only a piece
/// that was written says that the client reads.
const PIECE: usize = 64 * 1024;

/// A body that is followed where it holds much, or where its client may leave it unread beside others (HTTP/2).
pub(super) struct Answer {
    body: Body,
    /// Taken from the body and not handed on yet.
    rest: Bytes,
    pending: Option<Pending>,
}

/// What is not written yet of an answer.
struct Pending {
    /// Bytes that were counted and are in no piece yet.
    bytes: usize,
    shared: Arc<Shared>,
}

struct Shared {
    followed: Followed,
    _held: Option<Arc<Share>>,
}

/// One piece; dropped when it is written.
struct Piece {
    data: Bytes,
    shared: Arc<Shared>,
}

impl Answer {
    /// The answer of a connection that does this.
    pub(super) fn new(
        mut response: Response<Body>,
        activity: &Arc<Activity>,
        is_http2: bool,
    ) -> Response<Self> {
        let held = response.extensions_mut().remove::<Arc<Share>>();
        response.map(|body| {
            let bytes = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
            let is_followed = bytes > 0 && (held.is_some() || is_http2);
            let pending = is_followed.then(|| {
                let shared = Shared {
                    followed: activity.follow(bytes),
                    _held: held,
                };
                Pending {
                    bytes,
                    shared: Arc::new(shared),
                }
            });
            Self {
                body,
                rest: Bytes::new(),
                pending,
            }
        })
    }

    /// The next piece of what was taken from the body.
    fn next_piece(&mut self) -> Bytes {
        let piece = self.rest.split_to(self.rest.len().min(PIECE));
        let Some(pending) = &mut self.pending else {
            return piece;
        };
        pending.bytes = pending.bytes.saturating_sub(piece.len());
        Bytes::from_owner(Piece {
            data: piece,
            shared: pending.shared.clone(),
        })
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.shared.followed.never_written(self.bytes);
    }
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.shared.followed.written(self.data.len());
    }
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.rest.is_empty() {
            let frame = match Pin::new(&mut self.body).poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) if self.pending.is_some() => frame,
                other => return other,
            };
            match frame.into_data() {
                Ok(data) => self.rest = data,
                Err(frame) => return Poll::Ready(Some(Ok(frame))),
            }
        }
        Poll::Ready(Some(Ok(Frame::data(self.next_piece()))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.rest.len() as u64;
        let mut hint = self.body.size_hint();
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + rest);
        }
        hint.set_lower(hint.lower() + rest);
        hint
    }
}
