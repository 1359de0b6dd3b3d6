//! A call with what is scripted for it: recorded, delayed, failed before or after it is carried out.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::Frame;
use http_body_util::{Either, Full};
use hyper::Response;

use super::{
    super::{
        reply::{JSON, Reply},
        server::{Dropped, Received, Shared, process, respond},
    },
    Call,
    faults::Fault,
};

/// A whole body, or half of one.
pub(in super::super) type Body = Either<Full<Bytes>, Half>;

/// Answers one call, or does what is scripted for it.
pub(in super::super) async fn answer(
    shared: &Shared,
    received: &Received,
) -> Result<Response<Body>, Dropped> {
    let controls = &shared.controls;
    if controls.record_calls {
        controls.calls.lock().push(Call::of(received));
    }
    let whole = |reply| Ok(respond(reply).map(Either::Left));
    let method = received.parts.method.as_str();
    let scripted = controls
        .faults
        .take_for_call(method, received.target(), &received.body);
    tokio::time::sleep(scripted.delay).await;
    for name in &scripted.holds {
        controls.faults.hold(name).await;
    }
    match &scripted.instead {
        Some(Fault::Status(status, body)) => {
            return whole(Reply::raw(*status, JSON, body.clone().into_bytes()));
        }
        Some(Fault::Garbage) => return whole(Reply::raw(200, JSON, "<html>not json")),
        Some(Fault::Reset) => return Err(Dropped),
        Some(Fault::Hang) => std::future::pending().await,
        _ => {}
    }
    let reply = process(shared, received, scripted.storing)?;
    for name in &scripted.answer_holds {
        controls.faults.hold(name).await;
    }
    match scripted.after {
        Some(Fault::ResetAfter) => Err(Dropped),
        Some(Fault::HalfAnswer) => Ok(half(reply)),
        _ => whole(reply),
    }
}

/// The head of the whole answer, and half of its body.
fn half(mut reply: Reply) -> Response<Body> {
    let length = reply.body.len();
    let data = reply.body.split_to(length / 2);
    let mut response = respond(reply).map(|_| Either::Right(Half::Sending(data)));
    response
        .headers_mut()
        .insert("content-length", length.into());
    response
}

/// Half of a body, then a broken connection.
#[derive(Debug)]
pub(in super::super) enum Half {
    Sending(Bytes),
    Flushing,
    Sent,
}

impl http_body::Body for Half {
    type Data = Bytes;
    type Error = Dropped;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Dropped>>> {
        match std::mem::replace(&mut *self, Self::Sent) {
            Self::Sending(data) => {
                *self = Self::Flushing;
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            // hyper writes out what it has before it waits, so the client sees the first half.
            Self::Flushing => {
                context.waker().wake_by_ref();
                Poll::Pending
            }
            Self::Sent => Poll::Ready(Some(Err(Dropped))),
        }
    }
}
