//! Work on nodes beside the calls: failing nodes are ejected and probed, and nodes of an unknown generation are probed for it. Started by
//! the next call, so an idle gateway sends nothing.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::detect::{generation_of, health};
use super::ejection::probe_until_healthy;
use super::nodes::Node;
use super::transport::Transport;
use super::{Client, Generation};

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
        let transport = Arc::downgrade(&client.transport);
        let recovery = probe_until_healthy(Arc::downgrade(node), ejection_id, move |node| {
            let transport = transport.upgrade();
            async move {
                match transport {
                    Some(transport) => is_healthy(&transport, &node).await,
                    None => true,
                }
            }
        });
        tokio::spawn(recovery);
    }
    for node in nodes.due_for_probe() {
        tokio::spawn(probe_generation(client.transport.clone(), node.clone()));
    }
}

async fn is_healthy(transport: &Transport, node: &Node) -> bool {
    // Another generation may run at this address by now.
    node.forget_generation();
    let healthy = health(transport, node).await.is_ok();
    if healthy {
        tracing::info!(node = %node.name, "wukongim node is healthy again");
    }
    healthy
}

/// Probes the generation of a node that receives no calls.
async fn probe_generation(transport: Arc<Transport>, node: Arc<Node>) {
    /// Allows the next probe, however this one ends.
    struct ProbeGuard(Arc<Node>);
    impl Drop for ProbeGuard {
        fn drop(&mut self) {
            self.0.is_probing.store(false, Relaxed);
        }
    }
    let guard = ProbeGuard(node);
    guard.0.forget_generation();
    let generation = tokio::time::timeout(PROBE_TIMEOUT, generation_of(&transport, &guard.0)).await;
    if !matches!(generation, Ok(Ok(Generation::V2 | Generation::V3))) {
        guard.0.ejection.record_failure(true);
    }
}
