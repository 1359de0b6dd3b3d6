//! The metrics registry behind `/metrics`. Labels are bounded: never a uid, an id or a raw path. docs/METRICS.md has a row for each metric.

mod exposition;
mod gauges;
mod meters;
mod metric_cache;
mod nodes;
mod process;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Metric, Registry, Unit};

use gauges::Gauges;
use meters::{ExternalMetrics, IdempotencyMeters, MessageMeters};
use metric_cache::MetricCache;
use nodes::Nodes;

pub use gauges::GaugeSnapshot;
pub use meters::{ConnectionMeters, StoreMeters};
pub use nodes::NodeMeters;

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
struct RouteLabels {
    method: &'static str,
    route: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ErrorLabels {
    route: &'static str,
    code: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct UpstreamLabels {
    node: Arc<str>,
    call: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    call: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LimitLabels {
    limit: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CacheLabels {
    cache: &'static str,
    outcome: &'static str,
}

/// Histogram buckets in seconds, from a cached answer to a call that reached its deadline.
const BUCKETS: [f64; 15] = [
    0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

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

fn seconds() -> Histogram {
    Histogram::new(BUCKETS)
}

/// Registers a new metric of this name.
fn register<M: Metric + Clone + Default>(registry: &mut Registry, name: &str, help: &str) -> M {
    let metric = M::default();
    registry.register(name, help, metric.clone());
    metric
}

/// Registers a metric in seconds under this name.
fn register_seconds<M: Metric + Clone>(
    registry: &mut Registry,
    name: &str,
    help: &str,
    metric: M,
) -> M {
    registry.register_with_unit(name, help, Unit::Seconds, metric.clone());
    metric
}

/// All metrics of the gateway.
pub struct Metrics {
    registry: Registry,
    requests: Family<HttpLabels, Counter>,
    durations: Family<RouteLabels, Histogram, fn() -> Histogram>,
    answered: MetricCache<HttpLabels, (Counter, Histogram)>,
    errors: Family<ErrorLabels, Counter>,
    failed: MetricCache<ErrorLabels, Counter>,
    upstream: Family<UpstreamLabels, Counter>,
    upstream_durations: Family<CallLabels, Histogram, fn() -> Histogram>,
    nodes: Nodes,
    retries: Family<CallLabels, Counter>,
    retries_refused: Family<CallLabels, Counter>,
    called: MetricCache<UpstreamLabels, (Counter, Histogram)>,
    /// `gateway_message_confirm_seconds`: from WuKongIM's answer until the message was confirmed.
    pub confirm_seconds: Histogram,
    /// `gateway_message_confirm_looks_total`: pages read to confirm messages.
    pub confirm_polls: Counter,
    caches: Family<CacheLabels, Counter>,
    lookups: MetricCache<CacheLabels, Counter>,
    limits: Family<LimitLabels, Counter>,
    /// `gateway_foreign_messages_dropped_total`: messages of another channel in an upstream page (equal hashes on v2).
    pub foreign_messages: Counter,
    /// Messages by outcome.
    pub messages: MessageMeters,
    /// Idempotency lookups by outcome.
    pub idempotency: IdempotencyMeters,
    /// The API's connections.
    pub connections: ConnectionMeters,
    /// Calls to the application's backend and the issuer of keys.
    pub external: ExternalMetrics,
    /// Gauges that are set when metrics are scraped.
    pub gauges: Gauges,
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
        let requests = register(all, "http_requests", "requests answered");
        let durations = register_seconds(
            all,
            "http_request_duration",
            "time from a request's head to its answer",
            Family::new_with_constructor(seconds as fn() -> Histogram),
        );
        let errors = register(all, "http_errors", "requests that failed");
        let upstream = register(all, "upstream_requests", "calls made to WuKongIM");
        let upstream_durations = register_seconds(
            all,
            "upstream_request_duration",
            "time of a call to WuKongIM",
            Family::new_with_constructor(seconds as fn() -> Histogram),
        );
        let nodes = Nodes::registered(all);
        let help = "calls retried after a lost or unusable answer";
        let retries = register(all, "upstream_retries", help);
        let help = "calls not retried since the retry budget was used up";
        let retries_refused = register(all, "upstream_retries_refused", help);
        let help = "time until a sent message was confirmed";
        let confirm_seconds = register_seconds(all, "message_confirm", help, seconds());
        let help = "pages read to confirm messages";
        let confirm_polls = register(all, "message_confirm_looks", help);
        let caches = register(all, "cache_lookups", "lookups in caches");
        let limits: Family<LimitLabels, Counter> = register(all, "limited", "refusals by a limit");
        for limit in LIMITS {
            // Starts at 0, otherwise `increase()` would miss the first refusal.
            drop(limits.get_or_create(&LimitLabels { limit }));
        }
        let help = "messages of another channel found in an upstream page";
        let foreign_messages = register(all, "foreign_messages_dropped", help);
        let messages = MessageMeters::registered(all);
        let idempotency = IdempotencyMeters::registered(all);
        let connections = ConnectionMeters::registered(all);
        let external = ExternalMetrics::registered(all);
        store.register(all);
        let gauges = Gauges::registered(all);
        all.register(
            "build",
            "this build",
            Info::new([("version", env!("CARGO_PKG_VERSION"))]),
        );
        Self {
            registry,
            requests,
            durations,
            answered: MetricCache::new(),
            errors,
            failed: MetricCache::new(),
            upstream,
            upstream_durations,
            nodes,
            retries,
            retries_refused,
            called: MetricCache::new(),
            confirm_seconds,
            confirm_polls,
            caches,
            lookups: MetricCache::new(),
            limits,
            foreign_messages,
            messages,
            idempotency,
            connections,
            external,
            gauges,
        }
    }

    /// Counts one answered request that took `duration_s` seconds.
    pub fn request_answered(&self, labels: &HttpLabels, duration_s: f64) {
        let make = || {
            let route = RouteLabels {
                method: labels.method,
                route: labels.route,
            };
            let duration = self.durations.get_or_create(&route).clone();
            let count = self.requests.get_or_create(labels).clone();
            (labels.clone(), (count, duration))
        };
        let is = |known: &HttpLabels| known == labels;
        self.answered.with(is, make, |(count, duration)| {
            duration.observe(duration_s);
            count.inc();
        });
    }

    /// Counts one request that failed with this error code.
    pub fn request_failed(&self, route: &'static str, code: &'static str) {
        let make = || {
            let labels = ErrorLabels { route, code };
            let count = self.errors.get_or_create(&labels).clone();
            (labels, count)
        };
        let is = |known: &ErrorLabels| known.route == route && known.code == code;
        self.failed.with(is, make, |count| {
            count.inc();
        });
    }

    /// Counts one finished upstream call of the node called `node` that took `duration_s` seconds.
    pub fn upstream_called(
        &self,
        node: &Arc<str>,
        call: &'static str,
        outcome: &'static str,
        duration_s: f64,
    ) {
        let make = || {
            let labels = UpstreamLabels {
                node: node.clone(),
                call,
                outcome,
            };
            let duration = self
                .upstream_durations
                .get_or_create(&CallLabels { call })
                .clone();
            let count = self.upstream.get_or_create(&labels).clone();
            (labels, (count, duration))
        };
        let is = |known: &UpstreamLabels| {
            known.call == call && known.node == *node && known.outcome == outcome
        };
        self.called.with(is, make, |(count, duration)| {
            count.inc();
            duration.observe(duration_s);
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
        family.get_or_create(&CallLabels { call }).inc();
    }

    /// Counts one lookup in `cache`.
    pub fn cache_looked_up(&self, cache: &'static str, hit: bool) {
        let outcome = if hit { "hit" } else { "miss" };
        let make = || {
            let labels = CacheLabels { cache, outcome };
            let count = self.caches.get_or_create(&labels).clone();
            (labels, count)
        };
        let is = |known: &CacheLabels| known.cache == cache && known.outcome == outcome;
        self.lookups.with(is, make, |count| {
            count.inc();
        });
    }

    /// The counter of refusals by `limit`, for modules that count them themselves.
    pub fn refusals(&self, limit: &'static str) -> Counter {
        self.limits.get_or_create(&LimitLabels { limit }).clone()
    }

    /// Counts one refusal by `limit`.
    pub fn limited(&self, limit: &'static str) {
        self.limits.get_or_create(&LimitLabels { limit }).inc();
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
