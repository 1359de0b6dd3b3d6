//! Metrics per WuKongIM node.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::{register, register_seconds};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct NodeLabels {
    node: Arc<str>,
}

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
    in_flight: Family<NodeLabels, Gauge>,
    latency: Family<NodeLabels, Gauge<f64, AtomicU64>>,
    up: Family<NodeLabels, Gauge>,
    ejections: Family<NodeLabels, Counter>,
    ejected: Family<NodeLabels, Gauge>,
    generation: Family<NodeLabels, Gauge>,
}

impl Nodes {
    pub(super) fn registered(registry: &mut Registry) -> Self {
        let help = "moving average of a node's latency";
        Self {
            in_flight: register(registry, "upstream_in_flight", "calls in flight to a node"),
            latency: register_seconds(registry, "upstream_latency", help, Family::default()),
            up: register(
                registry,
                "upstream_up",
                "1 where a node was well when last looked at, 15 seconds ago at most",
            ),
            ejections: register(
                registry,
                "upstream_ejections",
                "ejections of a node after failures",
            ),
            ejected: register(registry, "upstream_ejected", "1 while a node is ejected"),
            generation: register(
                registry,
                "upstream_generation",
                "2 or 3, 0 while it is not known",
            ),
        }
    }

    /// The metrics of the node named `node`.
    pub(super) fn of(&self, node: &Arc<str>) -> NodeMeters {
        let labels = NodeLabels { node: node.clone() };
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
