//! The metrics registry behind `/metrics`. Labels are bounded: never a uid, an id or a raw path. Each one has its row in
//! docs/METRICS.md.

mod exposition;
mod handles;
mod levels;
mod nodes;
mod process;
mod rooms;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Metric, Registry, Unit};

use handles::Handles;
use levels::Levels;
use nodes::Nodes;
use rooms::{MessageMeters, NumberMeters, OutsideMeters};

pub use levels::Measured;
pub use nodes::NodeMeters;
pub use rooms::{ConnectionMeters, StoreMeters};

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

/// Seconds; from a cached answer to a call that ran into its deadline.
const BUCKETS: [f64; 15] = [
    0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// What refuses.
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

/// A new metric of this name.
fn counted<M: Metric + Clone + Default>(registry: &mut Registry, name: &str, help: &str) -> M {
    let metric = M::default();
    registry.register(name, help, metric.clone());
    metric
}

/// This metric, which is of seconds, under this name.
fn timed<M: Metric + Clone>(registry: &mut Registry, name: &str, help: &str, metric: M) -> M {
    registry.register_with_unit(name, help, Unit::Seconds, metric.clone());
    metric
}

/// Every metric of the gateway. Cheap to share; all methods take `&self`.
pub struct Metrics {
    registry: Registry,
    requests: Family<HttpLabels, Counter>,
    durations: Family<RouteLabels, Histogram, fn() -> Histogram>,
    answered: Handles<HttpLabels, (Counter, Histogram)>,
    errors: Family<ErrorLabels, Counter>,
    failed: Handles<ErrorLabels, Counter>,
    upstream: Family<UpstreamLabels, Counter>,
    upstream_durations: Family<CallLabels, Histogram, fn() -> Histogram>,
    nodes: Nodes,
    retries: Family<CallLabels, Counter>,
    retries_refused: Family<CallLabels, Counter>,
    called: Handles<UpstreamLabels, (Counter, Histogram)>,
    /// `gateway_message_confirm_seconds`: from WuKongIM's answer until the message was seen stored.
    pub confirm_seconds: Histogram,
    /// `gateway_message_confirm_looks_total`: pages read to see messages stored.
    pub confirm_looks: Counter,
    caches: Family<CacheLabels, Counter>,
    looked_up: Handles<CacheLabels, Counter>,
    limits: Family<LimitLabels, Counter>,
    /// `gateway_foreign_messages_dropped_total`: messages of another channel in an upstream page (equal hashes on v2).
    pub foreign_messages: Counter,
    /// What became of messages.
    pub messages: MessageMeters,
    /// What their numbers meant.
    pub numbers: NumberMeters,
    /// The API's connections.
    pub connections: ConnectionMeters,
    /// The application's backend and the issuer of keys.
    pub outside: OutsideMeters,
    /// What is measured when somebody looks.
    pub levels: Levels,
}

impl Metrics {
    /// A registry with every metric, those of no store included.
    pub fn new() -> Self {
        Self::with_store(&StoreMeters::default())
    }

    /// A registry with every metric, those of this store included.
    pub fn with_store(store: &StoreMeters) -> Self {
        let mut registry = Registry::with_prefix("gateway");
        let all = &mut registry;
        let requests = counted(all, "http_requests", "requests answered");
        let durations = timed(
            all,
            "http_request_duration",
            "time from a request's head to its answer",
            Family::new_with_constructor(seconds as fn() -> Histogram),
        );
        let errors = counted(all, "http_errors", "requests that failed");
        let upstream = counted(all, "upstream_requests", "calls made to WuKongIM");
        let upstream_durations = timed(
            all,
            "upstream_request_duration",
            "time of a call to WuKongIM",
            Family::new_with_constructor(seconds as fn() -> Histogram),
        );
        let nodes = Nodes::registered(all);
        let help = "calls made once more since their answer was lost or useless";
        let retries = counted(all, "upstream_retries", help);
        let help = "calls not made once more since a tenth of the traffic was repeated already";
        let retries_refused = counted(all, "upstream_retries_refused", help);
        let help = "time until a sent message was seen stored";
        let confirm_seconds = timed(all, "message_confirm", help, seconds());
        let help = "pages read to see messages stored";
        let confirm_looks = counted(all, "message_confirm_looks", help);
        let caches = counted(all, "cache_lookups", "look-ups in caches");
        let limits: Family<LimitLabels, Counter> = counted(all, "limited", "refusals by a limit");
        for limit in LIMITS {
            // At 0 from the start, or whoever looks for a rise would miss the first one.
            drop(limits.get_or_create(&LimitLabels { limit }));
        }
        let help = "messages of another channel found in an upstream page";
        let foreign_messages = counted(all, "foreign_messages_dropped", help);
        let messages = MessageMeters::registered(all);
        let numbers = NumberMeters::registered(all);
        let connections = ConnectionMeters::registered(all);
        let outside = OutsideMeters::registered(all);
        store.register(all);
        let levels = Levels::registered(all);
        all.register(
            "build",
            "this build",
            Info::new([("version", env!("CARGO_PKG_VERSION"))]),
        );
        Self {
            registry,
            requests,
            durations,
            answered: Handles::new(),
            errors,
            failed: Handles::new(),
            upstream,
            upstream_durations,
            nodes,
            retries,
            retries_refused,
            called: Handles::new(),
            confirm_seconds,
            confirm_looks,
            caches,
            looked_up: Handles::new(),
            limits,
            foreign_messages,
            messages,
            numbers,
            connections,
            outside,
            levels,
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

    /// What is shown of the node called `node`.
    pub fn node(&self, node: &Arc<str>) -> NodeMeters {
        self.nodes.of(node)
    }

    /// Counts one upstream call that was made once more, or where `refused` might have been.
    pub fn upstream_retried(&self, call: &'static str, refused: bool) {
        let family = if refused {
            &self.retries_refused
        } else {
            &self.retries
        };
        family.get_or_create(&CallLabels { call }).inc();
    }

    /// Counts one look-up in `cache`.
    pub fn cache_looked_up(&self, cache: &'static str, hit: bool) {
        let outcome = if hit { "hit" } else { "miss" };
        let make = || {
            let labels = CacheLabels { cache, outcome };
            let count = self.caches.get_or_create(&labels).clone();
            (labels, count)
        };
        let is = |known: &CacheLabels| known.cache == cache && known.outcome == outcome;
        self.looked_up.with(is, make, |count| {
            count.inc();
        });
    }

    /// The refusals by `limit`, for a room that counts them itself.
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

    /// Everything, as OpenMetrics text.
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
