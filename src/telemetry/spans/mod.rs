//! Spans: one for a request, one for each call to WuKongIM that is made for it. They say what the metrics say, of one request: never
//! a uid, a payload, a token or an address.

mod export;

use std::sync::Arc;
use std::time::Duration;

use http::header::{HeaderMap, HeaderValue};
use opentelemetry::trace::{
    Span as _, SpanBuilder, SpanContext, SpanId, SpanKind, Status, TraceContextExt as _,
    TraceFlags, TraceId, TraceState, Tracer as _, TracerProvider as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracer, SdkTracerProvider, Span, SpanLimits,
};

use self::export::Exporter;
use super::trace::{TRACEPARENT, Trace};
use crate::config;

/// Spans that wait to be sent; what is more is lost.
const QUEUE: usize = 4096;
/// Spans sent at once.
const BATCH: usize = 512;
/// How long they are gathered.
const GATHER: Duration = Duration::from_secs(2);
/// How long the process waits at its end for the last ones to be sent.
const LAST: Duration = Duration::from_secs(2);

/// A request whose client hung up.
const HUNG_UP: i64 = 499;

/// Begins spans, where `telemetry.otlp_endpoint` says where they go.
pub struct Spans(Option<Open>);

struct Open {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
    sample_ratio: f64,
}

/// A request's span, as its calls see it.
#[derive(Debug)]
pub(super) struct Own {
    tracer: SdkTracer,
    context: SpanContext,
}

impl Spans {
    /// To be called on the runtime that shall send them. All that the SDK would look up in the environment is set.
    pub fn new(settings: &config::Telemetry) -> Result<Self, reqwest::Error> {
        let Some(endpoint) = &settings.otlp_endpoint else {
            return Ok(Self(None));
        };
        let batches = BatchConfigBuilder::default()
            .with_max_queue_size(QUEUE)
            .with_max_export_batch_size(BATCH)
            .with_scheduled_delay(GATHER)
            .build();
        let processor = BatchSpanProcessor::builder(Exporter::new(endpoint.as_url())?)
            .with_batch_config(batches)
            .build();
        let sampler = Sampler::TraceIdRatioBased(settings.sample_ratio);
        let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
        let resource = Resource::builder_empty()
            .with_service_name(env!("CARGO_PKG_NAME"))
            .with_attribute(version)
            .build();
        let provider = SdkTracerProvider::builder()
            .with_span_processor(processor)
            .with_sampler(Sampler::ParentBased(Box::new(sampler)))
            .with_span_limits(SpanLimits::default())
            .with_resource(resource)
            .build();
        let tracer = provider.tracer(env!("CARGO_PKG_NAME"));
        Ok(Self(Some(Open {
            provider,
            tracer,
            sample_ratio: settings.sample_ratio,
        })))
    }

    /// A request's span, in the trace that it came with or in a new one; and what its calls carry on. A request whose trace is not
    /// picked has no span, and its calls say so. Whoever may be believed (`is_trusted`) picks by the flag that comes with the trace. For
    /// all others the ratio picks, by a number of its own: they choose the id of their trace, too.
    pub fn begin(
        &self,
        headers: &HeaderMap,
        is_trusted: impl FnOnce() -> bool,
        method: &'static str,
        route: &'static str,
        request_id: &HeaderValue,
    ) -> (Option<Arc<Trace>>, RequestSpan) {
        let given = Trace::of(headers);
        let Some(Open {
            tracer,
            sample_ratio,
            ..
        }) = &self.0
        else {
            return (given, RequestSpan(None));
        };
        let caller = given.as_deref().and_then(context_of);
        let caller = caller.map(|caller| {
            if is_trusted() {
                return caller;
            }
            let is_picked = fastrand::f64() < *sample_ratio;
            let flags = TraceFlags::default().with_sampled(is_picked);
            let (trace, span) = (caller.trace_id(), caller.span_id());
            SpanContext::new(trace, span, flags, true, TraceState::NONE)
        });
        let parent = caller.map_or_else(Context::new, |caller| {
            Context::new().with_remote_span_context(caller)
        });
        let builder = SpanBuilder::from_name(route).with_kind(SpanKind::Server);
        let mut span = tracer.build_with_context(builder, &parent);
        let Some(header) = header_of(span.span_context()) else {
            // The process is ending.
            return (given, RequestSpan(None));
        };
        let is_sent = span.is_recording();
        let own = is_sent.then(|| Own {
            tracer: tracer.clone(),
            context: span.span_context().clone(),
        });
        let state = given.and_then(|given| given.state.clone());
        let trace = Trace {
            parent: header,
            state,
            own,
        };
        if is_sent {
            span.update_name(format!("{method} {route}"));
            span.set_attribute(KeyValue::new("http.request.method", method));
            span.set_attribute(KeyValue::new("http.route", route));
            let id = request_id.to_str().unwrap_or_default().to_owned();
            span.set_attribute(KeyValue::new("request.id", id));
        }
        (
            Some(Arc::new(trace)),
            RequestSpan(is_sent.then(|| Box::new(span))),
        )
    }

    /// Sends what waits to be sent, and no more from then on.
    pub async fn end(&self) {
        let Some(Open { provider, .. }) = &self.0 else {
            return;
        };
        let provider = provider.clone();
        // It waits for the sending, which this very thread may do.
        let last = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(LAST));
        if !matches!(last.await, Ok(Ok(()))) {
            tracing::warn!("the last spans could not be sent");
        }
    }
}

/// A request's span, until it is answered or its client is gone.
pub struct RequestSpan(Option<Box<Span>>);

impl RequestSpan {
    /// It is answered, or failed with this code.
    pub fn end(mut self, status: u16, code: Option<&'static str>) {
        self.finish(status.into(), code);
    }

    fn finish(&mut self, status: i64, code: Option<&'static str>) {
        let Some(mut span) = self.0.take() else {
            return;
        };
        span.set_attribute(KeyValue::new("http.response.status_code", status));
        if let Some(code) = code {
            span.set_attribute(KeyValue::new("error.type", code));
        }
        if status >= 500 {
            span.set_status(Status::error(code.unwrap_or_default()));
        }
        span.end();
    }
}

impl Drop for RequestSpan {
    fn drop(&mut self) {
        self.finish(HUNG_UP, Some("client_closed_request"));
    }
}

/// A call's span; none where its request has none. In a box, since every call's future makes room for it.
#[derive(Default)]
pub struct CallSpan(Option<Box<Span>>);

impl CallSpan {
    /// What WuKongIM does belongs to this call.
    pub fn put_into(&self, headers: &mut HeaderMap) {
        let context = self.0.as_ref().map(|span| span.span_context());
        if let Some(header) = context.and_then(header_of) {
            headers.insert(TRACEPARENT, header);
        }
    }

    /// It is over, with the outcome that the metrics have.
    pub fn end(&mut self, outcome: &'static str) {
        let Some(mut span) = self.0.take() else {
            return;
        };
        span.set_attribute(KeyValue::new("wukongim.outcome", outcome));
        if !matches!(outcome, "ok" | "refused" | "cancelled") {
            span.set_status(Status::error(outcome));
        }
        span.end();
    }
}

impl Trace {
    /// A call begins that is made for the request.
    pub fn begin_call(&self, call: &'static str, node: &str) -> CallSpan {
        let Some(Own { tracer, context }) = &self.own else {
            return CallSpan(None);
        };
        let parent = Context::new().with_remote_span_context(context.clone());
        let builder = SpanBuilder::from_name(call).with_kind(SpanKind::Client);
        let mut span = tracer.build_with_context(builder, &parent);
        span.set_attribute(KeyValue::new("wukongim.call", call));
        span.set_attribute(KeyValue::new("wukongim.node", node.to_owned()));
        CallSpan(Some(Box::new(span)))
    }
}

/// The span that a `traceparent` names.
fn context_of(trace: &Trace) -> Option<SpanContext> {
    // Checked when it came: every part is where it belongs.
    let text = trace.parent.to_str().ok()?;
    let flags = u8::from_str_radix(text.get(53..55)?, 16).ok()?;
    Some(SpanContext::new(
        TraceId::from_hex(text.get(3..35)?).ok()?,
        SpanId::from_hex(text.get(36..52)?).ok()?,
        TraceFlags::new(flags) & TraceFlags::SAMPLED,
        true,
        TraceState::NONE,
    ))
}

/// The `traceparent` that names this span.
fn header_of(context: &SpanContext) -> Option<HeaderValue> {
    let text = format!(
        "00-{}-{}-{:02x}",
        context.trace_id(),
        context.span_id(),
        context.trace_flags()
    );
    context
        .is_valid()
        .then(|| HeaderValue::try_from(text))?
        .ok()
}
