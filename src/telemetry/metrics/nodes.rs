//! The metrics that each WuKongIM node has one of.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::{counted, timed};

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
    /// `gateway_upstream_up`: 1 where it was well when last looked at.
    pub up: Gauge,
    /// `gateway_upstream_ejections_total`.
    pub ejections: Counter,
    /// `gateway_upstream_ejected`: 1 while it is left alone.
    pub ejected: Gauge,
    /// `gateway_upstream_generation`: 2 or 3, 0 while it is not known.
    pub generation: Gauge,
}

/// The metrics that each node has one of.
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
        let help = "moving average of a node's answers' times";
        Self {
            in_flight: counted(registry, "upstream_in_flight", "calls under way to a node"),
            latency: timed(registry, "upstream_latency", help, Family::default()),
            up: counted(
                registry,
                "upstream_up",
                "1 where a node was well when last looked at, 15 seconds ago at most",
            ),
            ejections: counted(
                registry,
                "upstream_ejections",
                "how often a node that failed was left alone",
            ),
            ejected: counted(registry, "upstream_ejected", "1 while a node is left alone"),
            generation: counted(
                registry,
                "upstream_generation",
                "2 or 3, 0 while it is not known",
            ),
        }
    }

    /// What is shown of the node called `node`.
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
