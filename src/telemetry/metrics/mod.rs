//! The metrics registry behind `/metrics`. Labels are bounded: never a uid, an id or a raw path. docs/METRICS.md has a row for each metric.

mod exposition;
mod families;
mod gauges;
mod meters;
mod nodes;
mod process;
mod sockets;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use families::{Label, Seconds, SmallFamily, register};
use gauges::Gauges;
use meters::{ExternalMetrics, IdempotencyMeters, MessageMeters};
use nodes::Nodes;
use sockets::SocketMeters;

pub use gauges::GaugeSnapshot;
pub use meters::{ConnectionMeters, StoreMeters};
pub use nodes::NodeMeters;
pub use sockets::{
    LabelValue, SocketConnect, SocketDirection, SocketEnd, SocketFrame, SocketProtocol,
};

/// Labels of an answered request.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct HttpLabels {
    /// The method, one of the nine standard ones or `other`.
    pub method: &'static str,
    /// The route as in the router, or `unknown`.
    pub route: &'static str,
    /// The HTTP status.
    pub status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct UpstreamLabels {
    node: Arc<str>,
    call: &'static str,
    outcome: &'static str,
}

/// The values of the label `limit`.
const LIMITS: [&str; 11] = [
    "user",
    "user_in_flight",
    "user_buffered",
    "address",
    "signature",
    "in_flight",
    "buffered",
    "unwritten",
    "connections",
    "address_connections",
    "channel",
];

/// All metrics of the gateway.
pub struct Metrics {
    requests: SmallFamily<HttpLabels, Counter>,
    durations: SmallFamily<[Label; 2], Seconds>,
    errors: SmallFamily<[Label; 2], Counter>,
    upstream: SmallFamily<UpstreamLabels, Counter>,
    upstream_durations: SmallFamily<[Label; 1], Seconds>,
    nodes: Nodes,
    retries: Family<[Label; 1], Counter>,
    retries_refused: Family<[Label; 1], Counter>,
    /// `gateway_message_confirm_seconds`: from WuKongIM's answer until the message was confirmed.
    pub confirm_seconds: Seconds,
    /// `gateway_message_confirm_looks_total`: pages read to confirm messages.
    pub confirm_polls: Counter,
    lookups: SmallFamily<[Label; 2], Counter>,
    limits: Family<[Label; 1], Counter>,
    /// `gateway_foreign_messages_dropped_total`: messages of another channel in an upstream page (equal hashes on v2).
    pub foreign_messages: Counter,
    /// Messages by outcome.
    pub messages: MessageMeters,
    /// Idempotency lookups by outcome.
    pub idempotency: IdempotencyMeters,
    /// The API's connections.
    pub connections: ConnectionMeters,
    /// Clients' sockets.
    pub sockets: SocketMeters,
    /// Calls to the application's backend and the issuer of keys.
    pub external: ExternalMetrics,
    /// Gauges that are set when metrics are scraped.
    pub gauges: Gauges,
    registry: Registry,
}

impl Metrics {
    /// A registry with all metrics; those of the store are not connected to one.
    pub fn new() -> Self {
        Self::with_store(&StoreMeters::default())
    }

    /// A registry with all metrics, including those of this store.
    pub fn with_store(store: &StoreMeters) -> Self {
        let mut registry = Registry::with_prefix("gateway");
        let all = &mut registry;
        store.register(all);
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        all.register("build", "this build", build);
        let metrics = Self {
            requests: register(all, "http_requests", "requests answered"),
            durations: register(all, "http_request_duration_seconds", "from head to answer"),
            errors: register(all, "http_errors", "requests that failed"),
            upstream: register(all, "upstream_requests", "calls made to WuKongIM"),
            upstream_durations: register(all, "upstream_request_duration_seconds", "time of one"),
            nodes: Nodes::registered(all),
            retries: register(all, "upstream_retries", "calls that were retried"),
            retries_refused: register(all, "upstream_retries_refused", "retries over the budget"),
            confirm_seconds: register(all, "message_confirm_seconds", "time to confirm"),
            confirm_polls: register(all, "message_confirm_looks", "pages read to confirm"),
            lookups: register(all, "cache_lookups", "lookups in caches"),
            limits: register(all, "limited", "refusals by a limit"),
            foreign_messages: register(all, "foreign_messages_dropped", "of another channel"),
            messages: MessageMeters::registered(all),
            idempotency: IdempotencyMeters::registered(all),
            connections: ConnectionMeters::registered(all),
            sockets: SocketMeters::registered(all),
            external: ExternalMetrics::registered(all),
            gauges: Gauges::registered(all),
            registry,
        };
        for limit in LIMITS {
            // Starts at 0, otherwise `increase()` would miss the first refusal.
            drop(metrics.refusals(limit));
        }
        metrics
    }

    /// Counts one answered request that took `duration_s` seconds.
    pub fn request_answered(&self, labels: &HttpLabels, duration_s: f64) {
        let route = [("method", labels.method), ("route", labels.route)];
        self.durations
            .with(&route, |durations| durations.observe(duration_s));
        self.requests.with(labels, |count| _ = count.inc());
    }

    /// Counts one request that failed with this error code.
    pub fn request_failed(&self, route: &'static str, code: &'static str) {
        let labels = [("route", route), ("code", code)];
        self.errors.with(&labels, |count| _ = count.inc());
    }

    /// Counts one finished upstream call of the node called `node` that took `duration_s` seconds.
    pub fn upstream_called(
        &self,
        node: &Arc<str>,
        call: &'static str,
        outcome: &'static str,
        duration_s: f64,
    ) {
        let labels = UpstreamLabels {
            node: node.clone(),
            call,
            outcome,
        };
        self.upstream.with(&labels, |count| _ = count.inc());
        self.upstream_durations
            .with(&[("call", call)], |durations| {
                durations.observe(duration_s);
            });
    }

    /// The metrics of the node named `node`.
    pub fn node(&self, node: &Arc<str>) -> NodeMeters {
        self.nodes.of(node)
    }

    /// Counts one retry of an upstream call, or one that the retry budget `refused`.
    pub fn upstream_retried(&self, call: &'static str, refused: bool) {
        let family = if refused {
            &self.retries_refused
        } else {
            &self.retries
        };
        family.get_or_create(&[("call", call)]).inc();
    }

    /// Counts one lookup in `cache`.
    pub fn cache_looked_up(&self, cache: &'static str, hit: bool) {
        self.cache_lookups(cache, hit, 1);
    }

    /// Counts lookups in `cache` with the same outcome.
    pub fn cache_lookups(&self, cache: &'static str, hit: bool, lookups: u64) {
        let outcome = if hit { "hit" } else { "miss" };
        let labels = [("cache", cache), ("outcome", outcome)];
        self.lookups
            .with(&labels, |count| _ = count.inc_by(lookups));
    }

    /// The counter of refusals by `limit`, for modules that count them themselves.
    pub fn refusals(&self, limit: &'static str) -> Counter {
        self.limits.get_or_create(&[("limit", limit)]).clone()
    }

    /// Counts one refusal by `limit`.
    pub fn limited(&self, limit: &'static str) {
        self.limits.get_or_create(&[("limit", limit)]).inc();
    }

    /// [`Metrics::render`] in Prometheus's text format 0.0.4.
    pub fn render_prometheus(&self) -> String {
        exposition::prometheus_text(&self.render())
    }

    /// All metrics as OpenMetrics text.
    pub fn render(&self) -> String {
        let mut out = String::new();
        // Writing into a String cannot fail.
        let _ = text::encode(&mut out, &self.registry);
        out
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}
