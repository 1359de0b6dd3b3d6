//! What is done about nodes beside the calls: those that fail are left alone and probed, those that are not known are asked what they
//! are. Begun by whoever calls next, so an idle gateway calls nobody.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::detect::{generation_of, health};
use super::nodes::Node;
use super::rest::bring_back;
use super::transport::Transport;
use super::{Client, Generation};

/// A probe that takes longer found nothing.
const PROBE: Duration = Duration::from_millis(900);

/// Begins what is due.
pub(super) fn tend(client: &Client) {
    let nodes = &client.nodes;
    if nodes.is_one() {
        return;
    }
    for (node, round) in nodes.newly_resting() {
        tracing::warn!(node = %node.name, "wukongim node fails and is left alone");
        let transport = Arc::downgrade(&client.transport);
        let back = bring_back(Arc::downgrade(node), round, move |node| {
            let transport = transport.upgrade();
            async move {
                match transport {
                    Some(transport) => is_well(&transport, &node).await,
                    None => true,
                }
            }
        });
        tokio::spawn(back);
    }
    for node in nodes.to_be_asked() {
        tokio::spawn(ask(client.transport.clone(), node.clone()));
    }
}

async fn is_well(transport: &Transport, node: &Node) -> bool {
    // Whatever it was, another WuKongIM may have taken its place.
    node.forget_generation();
    let well = health(transport, node).await.is_ok();
    if well {
        tracing::info!(node = %node.name, "wukongim node is well again");
    }
    well
}

/// Finds out what a node is that no call goes to.
async fn ask(transport: Arc<Transport>, node: Arc<Node>) {
    /// It may be asked again, whatever becomes of this.
    struct Asked(Arc<Node>);
    impl Drop for Asked {
        fn drop(&mut self) {
            self.0.is_asked.store(false, Relaxed);
        }
    }
    let asked = Asked(node);
    asked.0.forget_generation();
    let generation = tokio::time::timeout(PROBE, generation_of(&transport, &asked.0)).await;
    if !matches!(generation, Ok(Ok(Generation::V2 | Generation::V3))) {
        asked.0.rest.failed(true);
    }
}
