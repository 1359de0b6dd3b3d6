//! An answer's body that keeps its memory reservation, and counts as unwritten, until its last byte is written.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::Bytes;
use http::Response;
use http_body::{Body as _, Frame, SizeHint};

use super::connection_state::{ConnectionState, TrackedAnswer};
use crate::context::Reservation;

/// The body is passed to hyper in pieces of this size. HTTP/2 takes a whole piece as soon as the flow-control window has one byte, and only
/// a written piece shows that the client reads.
const MAX_PIECE: usize = 64 * 1024;

/// Tracks the body where it has a reservation, or where a client may leave it unread next to other streams (HTTP/2).
pub(super) struct TrackedBody {
    body: Body,
    /// Taken from the body and not passed to hyper yet.
    unsent: Bytes,
    pending: Option<Pending>,
}

/// The unwritten part of an answer.
struct Pending {
    /// Counted bytes that are not in a piece yet.
    bytes: usize,
    answer: Arc<TrackedAnswer>,
}

/// One piece; dropped when it is written.
struct Piece {
    data: Bytes,
    answer: Arc<TrackedAnswer>,
}

impl TrackedBody {
    /// Wraps the response of a connection with this state.
    pub(super) fn new(
        mut response: Response<Body>,
        state: &Arc<ConnectionState>,
        is_http2: bool,
    ) -> Response<Self> {
        let reservation = response.extensions_mut().remove::<Arc<Reservation>>();
        response.map(|body| {
            let bytes = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
            let is_tracked = bytes > 0 && (reservation.is_some() || is_http2);
            let pending = is_tracked.then(|| Pending {
                bytes,
                answer: state.track(bytes, reservation),
            });
            Self {
                body,
                unsent: Bytes::new(),
                pending,
            }
        })
    }

    /// Splits the next piece off `unsent`.
    fn next_piece(&mut self) -> Bytes {
        let piece = self.unsent.split_to(self.unsent.len().min(MAX_PIECE));
        let Some(pending) = &mut self.pending else {
            return piece;
        };
        pending.bytes = pending.bytes.saturating_sub(piece.len());
        Bytes::from_owner(Piece {
            data: piece,
            answer: pending.answer.clone(),
        })
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.answer.discard(self.bytes);
    }
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.answer.on_written(self.data.len());
    }
}

impl http_body::Body for TrackedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.unsent.is_empty() {
            let frame = match Pin::new(&mut self.body).poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) if self.pending.is_some() => frame,
                other => return other,
            };
            match frame.into_data() {
                Ok(data) => self.unsent = data,
                Err(frame) => return Poll::Ready(Some(Ok(frame))),
            }
        }
        Poll::Ready(Some(Ok(Frame::data(self.next_piece()))))
    }

    fn is_end_stream(&self) -> bool {
        self.unsent.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let unsent = self.unsent.len() as u64;
        let mut hint = self.body.size_hint();
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + unsent);
        }
        hint.set_lower(hint.lower() + unsent);
        hint
    }
}
