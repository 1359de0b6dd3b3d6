//! Spans: one per request, and one for each of its calls to WuKongIM. They have the same data as the metrics, and never a uid, a payload, a
//! token or an address.

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
use crate::config;
use crate::context::{OwnSpan, TRACEPARENT, Trace};

/// Maximum queued spans; further ones are dropped.
const MAX_QUEUED_SPANS: usize = 4096;
/// Maximum spans per export.
const MAX_BATCH: usize = 512;
/// How long spans are collected before an export.
const BATCH_DELAY: Duration = Duration::from_secs(2);
/// How long the process waits at shutdown for the last export.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);

/// The status of a request whose client disconnected.
const CLIENT_CLOSED_STATUS: i64 = 499;

/// Starts spans, if `telemetry.otlp_endpoint` is set.
pub struct Spans(Option<Active>);

struct Active {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
    sample_ratio: f64,
}

impl Spans {
    /// Call it on the runtime that exports the spans. Sets every option that the SDK would otherwise read from the environment.
    pub fn new(settings: &config::Telemetry) -> Result<Self, reqwest::Error> {
        let Some(endpoint) = &settings.otlp_endpoint else {
            return Ok(Self(None));
        };
        let batches = BatchConfigBuilder::default()
            .with_max_queue_size(MAX_QUEUED_SPANS)
            .with_max_export_batch_size(MAX_BATCH)
            .with_scheduled_delay(BATCH_DELAY)
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
        Ok(Self(Some(Active {
            provider,
            tracer,
            sample_ratio: settings.sample_ratio,
        })))
    }

    /// Starts a request's span, in the trace of its headers or in a new one, and returns the context for its calls. A request that is not
    /// sampled has no span, and its calls propagate that. A trusted caller's trace (`is_trusted`) is sampled by its flag. All others are
    /// sampled by the ratio with a random number, since they choose their own trace ids.
    pub fn begin(
        &self,
        headers: &HeaderMap,
        is_trusted: impl FnOnce() -> bool,
        method: &'static str,
        route: &'static str,
        request_id: &HeaderValue,
    ) -> (Option<Arc<Trace>>, RequestSpan) {
        let given = Trace::of(headers);
        let Some(Active {
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
            // The process is shutting down.
            return (given, RequestSpan(None));
        };
        let is_sent = span.is_recording();
        let own = is_sent.then(|| OwnSpan {
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

    /// Exports the queued spans and stops.
    pub async fn end(&self) {
        let Some(Active { provider, .. }) = &self.0 else {
            return;
        };
        let provider = provider.clone();
        // Blocking: the shutdown waits for an export that may run on this thread.
        let last =
            tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(SHUTDOWN_TIMEOUT));
        if !matches!(last.await, Ok(Ok(()))) {
            tracing::warn!("the last spans could not be sent");
        }
    }
}

/// A request's span, until the answer or the client's disconnect.
pub struct RequestSpan(Option<Box<Span>>);

impl RequestSpan {
    /// Ends it with this status and error code.
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
        self.finish(CLIENT_CLOSED_STATUS, Some("client_closed_request"));
    }
}

/// A call's span; none where its request has none. Boxed, to keep every call's future small.
#[derive(Default)]
pub struct CallSpan(Option<Box<Span>>);

impl CallSpan {
    /// Adds this span as the parent to a call's headers.
    pub fn put_into(&self, headers: &mut HeaderMap) {
        let context = self.0.as_ref().map(|span| span.span_context());
        if let Some(header) = context.and_then(header_of) {
            headers.insert(TRACEPARENT, header);
        }
    }

    /// Ends it with the outcome used in the metrics.
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
    /// Starts the span of a call for the request.
    pub fn begin_call(&self, call: &'static str, node: &str) -> CallSpan {
        let Some(OwnSpan { tracer, context }) = &self.own else {
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
    // The format was checked when the request arrived.
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
