//! Detects a node's generation by probing, again whenever an answer contradicts it.

use std::time::{Duration, Instant};

use http::StatusCode;
use serde::Deserialize;

use super::nodes::Node;
use super::transport::{Call, Transport, retry_once};
use super::{Error, Generation};

/// How long a failed detection is reused: while WuKongIM is down, there are at most four probes a second.
const FAILURE_TTL: Duration = Duration::from_millis(250);
/// A slower node counts as unhealthy, so that health reflects the state of two seconds ago at most.
const HEALTH_TIMEOUT: Duration = Duration::from_millis(900);

#[derive(Deserialize)]
struct Health {
    status: String,
}

/// The node's generation; probes the node where it is not known, one probe at a time.
pub(super) async fn generation_of(transport: &Transport, node: &Node) -> Result<Generation, Error> {
    if let Some(generation) = node.generation() {
        return Ok(generation);
    }
    let asked = Instant::now();
    let mut last_failure = node.detecting.lock().await;
    if let Some(generation) = node.generation() {
        return Ok(generation);
    }
    // All callers that waited for a probe get its failure. Otherwise each would probe in turn, and the last would wait for all of them.
    if let Some((at, error)) = &*last_failure
        && (*at >= asked || at.elapsed() < FAILURE_TTL)
    {
        return Err(error.clone());
    }
    match retry_once(|| probe(transport, node)).await {
        Ok(generation) => {
            *last_failure = None;
            if node.set_generation(generation) {
                tracing::info!(node = %node.name, ?generation, "wukongim found");
            }
            if generation == Generation::V3 {
                transport.warn_unchecked_tokens();
            }
            Ok(generation)
        }
        Err(error) => {
            *last_failure = Some((Instant::now(), error.clone()));
            Err(error)
        }
    }
}

/// v2 alone answers `/health` (500 when its cluster is unwell), v3 alone `/healthz`; seen on running servers.
async fn probe(transport: &Transport, node: &Node) -> Result<Generation, Error> {
    let answer = transport.call(node, Call::get("detect", "/health")).await?;
    match answer.status {
        StatusCode::OK | StatusCode::INTERNAL_SERVER_ERROR if answer.json::<Health>().is_ok() => {
            return Ok(Generation::V2);
        }
        StatusCode::NOT_FOUND => {}
        status => return Err(Error::Status(status.as_u16())),
    }
    let answer = transport
        .call(node, Call::get("detect", "/healthz"))
        .await?;
    match answer.status {
        StatusCode::OK if answer.json::<Health>().is_ok() => Ok(Generation::V3),
        status => Err(Error::Status(status.as_u16())),
    }
}

/// Whether the node reports itself healthy within [`HEALTH_TIMEOUT`], by its generation's own endpoint.
pub(super) async fn health(transport: &Transport, node: &Node) -> Result<(), Error> {
    let asking = tokio::time::timeout(HEALTH_TIMEOUT, ask_health(transport, node));
    let health = asking.await.unwrap_or(Err(Error::Timeout));
    node.meters.up.set(health.is_ok().into());
    health
}

async fn ask_health(transport: &Transport, node: &Node) -> Result<(), Error> {
    match generation_of(transport, node).await? {
        Generation::V2 => {
            let answer = transport.call(node, Call::get("health", "/health")).await?;
            if answer.status == StatusCode::OK
                && answer
                    .json::<Health>()
                    .is_ok_and(|health| health.status == "ok")
            {
                return Ok(());
            }
            unhealthy(node, answer.status)
        }
        Generation::V3 => {
            #[derive(Deserialize)]
            struct Ready {
                ready: bool,
            }
            let answer = transport.call(node, Call::get("health", "/readyz")).await?;
            if answer.status == StatusCode::OK
                && answer.json::<Ready>().is_ok_and(|ready| ready.ready)
            {
                return Ok(());
            }
            unhealthy(node, answer.status)
        }
    }
}

fn unhealthy(node: &Node, status: StatusCode) -> Result<(), Error> {
    if status == StatusCode::NOT_FOUND {
        node.forget_generation();
    }
    Err(Error::Status(status.as_u16()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::context::ByteBudget;
    use crate::telemetry::Metrics;
    use crate::wukongim::nodes::tests::nodes;

    #[tokio::test]
    async fn a_failed_probe_answers_every_caller_that_waited_for_it() {
        let second = Duration::from_secs(1);
        let (metrics, byte_budget) = (Arc::new(Metrics::new()), ByteBudget::unbounded());
        let transport = Transport::new(
            crate::http_client::client,
            second,
            None,
            0,
            metrics,
            byte_budget,
        )
        .unwrap();
        let nodes = nodes(1);
        let node = &nodes.all()[0];
        let mut probing = node.detecting.lock().await;
        let waiting = generation_of(&transport, node);
        let failing = async {
            tokio::task::yield_now().await;
            *probing = Some((Instant::now(), Error::Maintenance));
            tokio::time::sleep(2 * FAILURE_TTL).await;
            drop(probing);
        };
        let (answer, ()) = tokio::join!(waiting, failing);
        assert_eq!(
            answer,
            Err(Error::Maintenance),
            "the waiting caller probed again"
        );
    }
}
