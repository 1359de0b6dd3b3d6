//! Work on nodes beside the calls: failing nodes are ejected and probed, and nodes of an unknown generation are probed for it. Started by
//! the next call, so an idle gateway sends nothing.

use std::sync::Arc;
use std::time::Duration;

use super::ejection::probe_until_healthy;
use super::node::Node;
use super::{Client, Error};

/// A slower probe counts as failed.
const PROBE_TIMEOUT: Duration = Duration::from_millis(900);

/// Starts the ejections and probes that are due.
pub(super) fn spawn_maintenance(client: &Client) {
    let nodes = &client.nodes;
    if nodes.is_single() {
        return;
    }
    for (node, ejection_id) in nodes.newly_ejected() {
        tracing::warn!(node = %node.name, "wukongim node ejected");
        let node = Arc::downgrade(node);
        tokio::spawn(probe_until_healthy(node, ejection_id, is_healthy));
    }
    for node in nodes.due_for_probe() {
        let node = Arc::clone(node);
        tokio::spawn(async move {
            let probe = tokio::time::timeout(PROBE_TIMEOUT, node.probe()).await;
            if !matches!(probe, Ok(Ok(_))) {
                node.ejection.record_failure(true);
            }
        });
    }
}

async fn is_healthy(node: Arc<Node>) -> bool {
    // Another generation may run at this address by now.
    node.forget_generation();
    let health = node.health().await;
    if health.is_ok() {
        tracing::info!(node = %node.name, "wukongim node is healthy again");
    }
    // A node of the other generation is excluded as such.
    matches!(health, Ok(()) | Err(Error::OtherGeneration))
}
