//! Metrics per WuKongIM node.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::families::register;

/// The node's name.
type NodeLabel = [(&'static str, Arc<str>); 1];

/// The metrics of one WuKongIM node; stored in the node, so that calls need no lookup.
pub struct NodeMeters {
    /// `gateway_upstream_in_flight`.
    pub in_flight: Gauge,
    /// `gateway_upstream_latency_seconds`: the moving average used for load balancing.
    pub latency: Gauge<f64, AtomicU64>,
    /// `gateway_upstream_up`: 1 where the last probe succeeded.
    pub up: Gauge,
    /// `gateway_upstream_ejections_total`.
    pub ejections: Counter,
    /// `gateway_upstream_ejected`: 1 while it is ejected.
    pub ejected: Gauge,
    /// `gateway_upstream_generation`: 2 or 3, 0 while it is not known.
    pub generation: Gauge,
}

/// The metric families of all nodes.
pub(super) struct Nodes {
    in_flight: Family<NodeLabel, Gauge>,
    latency: Family<NodeLabel, Gauge<f64, AtomicU64>>,
    up: Family<NodeLabel, Gauge>,
    ejections: Family<NodeLabel, Counter>,
    ejected: Family<NodeLabel, Gauge>,
    generation: Family<NodeLabel, Gauge>,
}

impl Nodes {
    pub(super) fn registered(all: &mut Registry) -> Self {
        Self {
            in_flight: register(all, "upstream_in_flight", "calls in flight"),
            latency: register(all, "upstream_latency_seconds", "moving average of a node"),
            up: register(all, "upstream_up", "1 where the last probe succeeded"),
            ejections: register(all, "upstream_ejections", "ejections after failures"),
            ejected: register(all, "upstream_ejected", "1 while it is ejected"),
            generation: register(all, "upstream_generation", "2 or 3, 0 while not known"),
        }
    }

    /// The metrics of the node named `node`.
    pub(super) fn of(&self, node: &Arc<str>) -> NodeMeters {
        let labels = [("node", node.clone())];
        NodeMeters {
            in_flight: self.in_flight.get_or_create(&labels).clone(),
            latency: self.latency.get_or_create(&labels).clone(),
            up: self.up.get_or_create(&labels).clone(),
            ejections: self.ejections.get_or_create(&labels).clone(),
            ejected: self.ejected.get_or_create(&labels).clone(),
            generation: self.generation.get_or_create(&labels).clone(),
        }
    }
}
