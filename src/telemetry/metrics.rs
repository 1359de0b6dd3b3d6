//! The metrics registry behind `/metrics`. Labels are bounded: never a uid, an id or a raw path.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use parking_lot::{Mutex, RwLock};
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use tokio::runtime::Handle;

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
struct NodeLabels {
    node: Arc<str>,
}

/// What is shown of one WuKongIM node; kept by it, so that no call looks it up.
pub struct NodeMeters {
    /// `gateway_upstream_in_flight`.
    pub in_flight: Gauge,
    /// `gateway_upstream_latency_seconds`: the moving average that nodes are chosen by.
    pub latency: Gauge<f64, AtomicU64>,
    /// `gateway_upstream_ejections_total`.
    pub ejections: Counter,
    /// `gateway_upstream_ejected`: 1 while it is left alone.
    pub ejected: Gauge,
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
const BUCKETS: [f64; 14] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

fn seconds() -> Histogram {
    Histogram::new(BUCKETS)
}

/// Metrics that were looked up by their labels before: comparing a few dozen is cheaper than hashing for each look-up, as a family does.
struct Handles<L, M>(RwLock<Vec<(L, M)>>);

impl<L, M> Handles<L, M> {
    fn new() -> Self {
        Self(RwLock::new(Vec::new()))
    }

    /// Does `act` to the metric whose labels `is` says are meant; `make` gives it with its labels the first time.
    fn with(&self, is: impl Fn(&L) -> bool, make: impl FnOnce() -> (L, M), act: impl FnOnce(&M)) {
        if let Some((_, metric)) = self.0.read().iter().find(|(labels, _)| is(labels)) {
            return act(metric);
        }
        let (labels, metric) = make();
        act(&metric);
        let mut handles = self.0.write();
        if !handles.iter().any(|(labels, _)| is(labels)) {
            handles.push((labels, metric));
        }
    }
}

/// Every metric of the gateway. Cheap to share; all methods take `&self`.
pub struct Metrics {
    registry: Registry,
    requests: Family<HttpLabels, Counter>,
    durations: Family<RouteLabels, Histogram, fn() -> Histogram>,
    answered: Handles<HttpLabels, (Counter, Histogram)>,
    /// `gateway_http_requests_in_flight`.
    pub in_flight: Gauge,
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
    /// `gateway_idempotency_forgotten_total`: entries dropped before their window ended, since the table was full.
    pub idempotency_forgotten: Counter,
    runtimes: Mutex<Vec<Handle>>,
    tasks: Gauge,
}

/// The metrics that each node has one of.
#[derive(Default)]
struct Nodes {
    in_flight: Family<NodeLabels, Gauge>,
    latency: Family<NodeLabels, Gauge<f64, AtomicU64>>,
    ejections: Family<NodeLabels, Counter>,
    ejected: Family<NodeLabels, Gauge>,
}

impl Nodes {
    fn registered(registry: &mut Registry) -> Self {
        let nodes = Self::default();
        registry.register(
            "upstream_in_flight",
            "calls under way to a node",
            nodes.in_flight.clone(),
        );
        registry.register_with_unit(
            "upstream_latency",
            "moving average of a node's answers' times",
            Unit::Seconds,
            nodes.latency.clone(),
        );
        registry.register(
            "upstream_ejections",
            "how often a node that failed was left alone",
            nodes.ejections.clone(),
        );
        registry.register(
            "upstream_ejected",
            "1 while a node is left alone",
            nodes.ejected.clone(),
        );
        nodes
    }
}

impl Metrics {
    /// An empty registry with every metric registered.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("gateway");
        let requests = Family::<HttpLabels, Counter>::default();
        registry.register("http_requests", "requests answered", requests.clone());
        let durations =
            Family::<RouteLabels, Histogram, fn() -> Histogram>::new_with_constructor(seconds);
        registry.register_with_unit(
            "http_request_duration",
            "time from a request's head to its answer",
            Unit::Seconds,
            durations.clone(),
        );
        let in_flight = Gauge::default();
        registry.register(
            "http_requests_in_flight",
            "requests being worked on",
            in_flight.clone(),
        );
        let upstream = Family::<UpstreamLabels, Counter>::default();
        registry.register(
            "upstream_requests",
            "calls made to WuKongIM",
            upstream.clone(),
        );
        let upstream_durations =
            Family::<CallLabels, Histogram, fn() -> Histogram>::new_with_constructor(seconds);
        registry.register_with_unit(
            "upstream_request_duration",
            "time of a call to WuKongIM",
            Unit::Seconds,
            upstream_durations.clone(),
        );
        let nodes = Nodes::registered(&mut registry);
        let retries = Family::<CallLabels, Counter>::default();
        registry.register(
            "upstream_retries",
            "calls made once more since their answer was lost or useless",
            retries.clone(),
        );
        let retries_refused = Family::<CallLabels, Counter>::default();
        registry.register(
            "upstream_retries_refused",
            "calls not made once more since a tenth of the traffic was repeated already",
            retries_refused.clone(),
        );
        let confirm_seconds = seconds();
        registry.register_with_unit(
            "message_confirm",
            "time until a sent message was seen stored",
            Unit::Seconds,
            confirm_seconds.clone(),
        );
        let confirm_looks = Counter::default();
        registry.register(
            "message_confirm_looks",
            "pages read to see messages stored",
            confirm_looks.clone(),
        );
        let caches = Family::<CacheLabels, Counter>::default();
        registry.register("cache_lookups", "look-ups in caches", caches.clone());
        let limits = Family::<LimitLabels, Counter>::default();
        registry.register("limited", "refusals by a limit", limits.clone());
        let foreign_messages = Counter::default();
        registry.register(
            "foreign_messages_dropped",
            "messages of another channel found in an upstream page",
            foreign_messages.clone(),
        );
        let idempotency_forgotten = Counter::default();
        registry.register(
            "idempotency_forgotten",
            "remembered sends dropped before their window ended",
            idempotency_forgotten.clone(),
        );
        let tasks = Gauge::default();
        registry.register("tasks", "tasks that are alive", tasks.clone());
        registry.register(
            "build",
            "this build",
            Info::new([("version", env!("CARGO_PKG_VERSION"))]),
        );
        Self {
            registry,
            requests,
            durations,
            answered: Handles::new(),
            in_flight,
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
            idempotency_forgotten,
            runtimes: Mutex::default(),
            tasks,
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
        let labels = NodeLabels { node: node.clone() };
        NodeMeters {
            in_flight: self.nodes.in_flight.get_or_create(&labels).clone(),
            latency: self.nodes.latency.get_or_create(&labels).clone(),
            ejections: self.nodes.ejections.get_or_create(&labels).clone(),
            ejected: self.nodes.ejected.get_or_create(&labels).clone(),
        }
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

    /// Counts the tasks of `runtime` in `gateway_tasks` from here on.
    pub fn watch_runtime(&self, runtime: Handle) {
        self.runtimes.lock().push(runtime);
    }

    /// The Prometheus text exposition of everything.
    pub fn render(&self) -> String {
        let runtimes = self.runtimes.lock();
        let alive = runtimes.iter().map(|of| of.metrics().num_alive_tasks());
        self.tasks
            .set(i64::try_from(alive.sum::<usize>()).unwrap_or(i64::MAX));
        drop(runtimes);
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
