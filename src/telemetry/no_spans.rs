//! Replaces `spans` without the feature `otel`: there are no spans, and a request's trace context is propagated unchanged.

use std::sync::Arc;

use http::header::{HeaderMap, HeaderValue};

use crate::config;
use crate::context::Trace;

/// Starts no spans.
pub struct Spans;

impl Spans {
    /// Ignores the settings.
    pub fn new(_: &config::Telemetry) -> Result<Self, reqwest::Error> {
        Ok(Self)
    }

    /// The trace context of the request's headers.
    pub fn begin(
        &self,
        headers: &HeaderMap,
        _is_trusted: impl FnOnce() -> bool,
        _method: &'static str,
        _route: &'static str,
        _request_id: &HeaderValue,
    ) -> (Option<Arc<Trace>>, RequestSpan) {
        (Trace::of(headers), RequestSpan)
    }

    /// Does nothing.
    #[expect(clippy::unused_async, reason = "with the feature it waits")]
    pub async fn end(&self) {}
}

/// A request's.
pub struct RequestSpan;

impl RequestSpan {
    /// It is answered.
    pub fn end(self, _status: u16, _code: Option<&'static str>) {}
}

/// A call's.
#[derive(Default)]
pub struct CallSpan;

impl CallSpan {
    /// Does nothing: the headers have the request's context already.
    pub fn put_into(&self, _: &mut HeaderMap) {}

    /// It is over.
    pub fn end(&mut self, _outcome: &'static str) {}
}

impl Trace {
    /// A call begins that is made for the request.
    pub fn begin_call(&self, _call: &'static str, _node: &str) -> CallSpan {
        CallSpan
    }
}
