//! How metrics are registered, histograms of seconds, and families that are fast to look up.

use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::RwLock;
use prometheus_client::encoding::{EncodeLabelSet, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::{MetricType, TypedMetric};
use prometheus_client::registry::{Metric, Registry, Unit};

/// One label: its name and its value.
pub(super) type Label = (&'static str, &'static str);

/// Histogram buckets in seconds, from a cached answer to a call that reached its deadline.
const BUCKETS: [f64; 15] = [
    0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// Registers a new metric under this name, which ends with its unit if it has one; samples of a counter have `_total` behind it.
pub(super) fn register<M: Metric + Clone + Default>(
    registry: &mut Registry,
    name: &str,
    help: &str,
) -> M {
    let metric = M::default();
    if let Some(name) = name.strip_suffix("_seconds") {
        registry.register_with_unit(name, help, Unit::Seconds, metric.clone());
    } else if let Some(name) = name.strip_suffix("_bytes") {
        registry.register_with_unit(name, help, Unit::Bytes, metric.clone());
    } else {
        registry.register(name, help, metric.clone());
    }
    metric
}

/// A histogram of seconds.
#[derive(Debug, Clone)]
pub struct Seconds(Histogram);

impl Default for Seconds {
    fn default() -> Self {
        Self(Histogram::new(BUCKETS))
    }
}

impl Seconds {
    /// Counts one that took so many seconds.
    pub fn observe(&self, seconds: f64) {
        self.0.observe(seconds);
    }
}

impl TypedMetric for Seconds {
    const TYPE: MetricType = MetricType::Histogram;
}

impl EncodeMetric for Seconds {
    fn encode(&self, encoder: MetricEncoder<'_>) -> fmt::Result {
        self.0.encode(encoder)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

/// A family with few members. To compare their labels is cheaper than the family's hashing.
#[derive(Debug, Clone)]
pub(super) struct SmallFamily<L, M> {
    family: Family<L, M>,
    found: Arc<RwLock<Vec<(L, M)>>>,
}

impl<L: Clone + Hash + Eq, M: Clone + Default> SmallFamily<L, M> {
    /// Applies `act` to the metric with these labels.
    pub(super) fn with(&self, labels: &L, act: impl FnOnce(&M)) {
        if let Some((_, metric)) = self.found.read().iter().find(|(known, _)| known == labels) {
            return act(metric);
        }
        let metric = self.family.get_or_create(labels).clone();
        act(&metric);
        let mut found = self.found.write();
        if !found.iter().any(|(known, _)| known == labels) {
            found.push((labels.clone(), metric));
        }
    }
}

impl<L: Clone + Hash + Eq, M: Default> Default for SmallFamily<L, M> {
    fn default() -> Self {
        Self {
            family: Family::default(),
            found: Arc::default(),
        }
    }
}

impl<L, M> EncodeMetric for SmallFamily<L, M>
where
    L: Clone + Hash + Eq + EncodeLabelSet,
    M: EncodeMetric + TypedMetric,
{
    fn encode(&self, encoder: MetricEncoder<'_>) -> fmt::Result {
        self.family.encode(encoder)
    }

    fn metric_type(&self) -> MetricType {
        M::TYPE
    }

    fn is_empty(&self) -> bool {
        self.family.is_empty()
    }
}
