//! A call with what is scripted for it: recorded, delayed, failed before or after it is carried out.

use std::{
    error::Error as _,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::Frame;
use http_body_util::{Either, Full};
use hyper::Response;
use tokio::{io::AsyncWriteExt as _, net::TcpStream};

use super::{
    super::{
        reply::{JSON, Reply},
        server::{Dropped, Received, Shared, process, respond},
    },
    Call,
    faults::Fault,
};

/// A whole body, or half of one.
pub(in super::super) type Body = Either<Full<Bytes>, HalfBody>;

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
    if !scripted.delay.is_zero() {
        tokio::time::sleep(scripted.delay).await;
    }
    for name in &scripted.holds {
        controls.faults.hold(name).await;
    }
    match &scripted.instead {
        Some(Fault::Status(status, body)) => {
            return whole(Reply::raw(*status, JSON, body.clone().into_bytes()));
        }
        Some(Fault::Garbage) => return whole(Reply::raw(200, JSON, "<html>not json")),
        Some(Fault::Reset) => return Err(Dropped::Reset),
        Some(Fault::Raw(bytes)) => return Err(Dropped::Raw(bytes.clone())),
        Some(Fault::Hang) => std::future::pending().await,
        _ => {}
    }
    let reply = process(shared, received, scripted.storing)?;
    for name in &scripted.answer_holds {
        controls.faults.hold(name).await;
    }
    match scripted.after {
        Some(Fault::ResetAfter) => Err(Dropped::Reset),
        Some(Fault::HalfAnswer) => Ok(half(reply, Half::Flushing)),
        Some(Fault::StalledAnswer) => Ok(half(reply, Half::Stalled)),
        _ => whole(reply),
    }
}

/// The head of the whole answer, and half of its body.
fn half(mut reply: Reply, then: Half) -> Response<Body> {
    let length = reply.body.len();
    let data = reply.body.split_to(length / 2);
    let half = Either::Right(HalfBody {
        data: Some(data),
        then,
    });
    let mut response = respond(reply).map(|_| half);
    response
        .headers_mut()
        .insert("content-length", length.into());
    response
}

/// What follows half of a body.
#[derive(Debug, Clone, Copy)]
enum Half {
    /// Nothing, ever.
    Stalled,
    /// The end of the connection, once hyper has written out what it has, so that the client sees the first half.
    Flushing,
    Flushed,
}

/// Half of a body.
#[derive(Debug)]
pub(in super::super) struct HalfBody {
    data: Option<Bytes>,
    then: Half,
}

impl http_body::Body for HalfBody {
    type Data = Bytes;
    type Error = Dropped;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Dropped>>> {
        if let Some(data) = self.data.take() {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        match self.then {
            Half::Stalled => Poll::Pending,
            Half::Flushing => {
                self.then = Half::Flushed;
                context.waker().wake_by_ref();
                Poll::Pending
            }
            Half::Flushed => Poll::Ready(Some(Err(Dropped::Closed))),
        }
    }
}

/// Ends a connection on which a call was dropped, as that wants it.
pub(in super::super) async fn end(mut stream: TcpStream, error: &hyper::Error) {
    let dropped = error.source().and_then(|source| source.downcast_ref());
    // Either fails where the client is gone.
    match dropped {
        Some(Dropped::Reset) => drop(stream.set_zero_linger()),
        Some(Dropped::Raw(bytes)) => drop(stream.write_all(bytes).await),
        _ => {}
    }
}
