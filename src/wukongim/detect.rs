//! Which generation a node is, found by probing and found again whenever the node gives reason to doubt it.

use std::time::{Duration, Instant};

use http::StatusCode;
use serde::Deserialize;

use super::nodes::Node;
use super::transport::{Call, Transport, once_more};
use super::{Error, Generation};

/// For how long a failed detection is believed: while WuKongIM is down, a flood of requests costs four probes a second.
const FAILURE_HOLDS: Duration = Duration::from_millis(250);
/// A node that takes longer is not well: health tells the truth within two seconds.
const HEALTH_TIMEOUT: Duration = Duration::from_millis(900);

#[derive(Deserialize)]
struct Health {
    status: String,
}

/// The node's generation; probes it where that is not known, one probe at a time.
pub(super) async fn generation_of(transport: &Transport, node: &Node) -> Result<Generation, Error> {
    if let Some(generation) = node.generation() {
        return Ok(generation);
    }
    let asked = Instant::now();
    let mut last_failure = node.detecting.lock().await;
    if let Some(generation) = node.generation() {
        return Ok(generation);
    }
    // What failed meanwhile is the answer of all who waited for it, however many they are: else those who are called last would wait
    // for another one.
    if let Some((at, error)) = &*last_failure
        && (*at >= asked || at.elapsed() < FAILURE_HOLDS)
    {
        return Err(error.clone());
    }
    match once_more(|| probe(transport, node)).await {
        Ok(generation) => {
            *last_failure = None;
            if node.set_generation(generation) {
                tracing::info!(node = %node.name, ?generation, "wukongim found");
            }
            if generation == Generation::V3 {
                transport.v3_found();
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

/// Whether the node says it is well, by its own generation's probe, within [`HEALTH_TIMEOUT`].
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
            doubt(node, answer.status)
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
            doubt(node, answer.status)
        }
    }
}

fn doubt(node: &Node, status: StatusCode) -> Result<(), Error> {
    if status == StatusCode::NOT_FOUND {
        node.forget_generation();
    }
    Err(Error::Status(status.as_u16()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::memory::Memory;
    use crate::telemetry::Metrics;
    use crate::wukongim::nodes::tests::nodes;

    #[tokio::test]
    async fn a_probe_that_failed_while_they_waited_answers_all_who_did_however_long_it_takes() {
        let second = Duration::from_secs(1);
        let (metrics, memory) = (Arc::new(Metrics::new()), Memory::unbounded());
        let transport =
            Transport::new(crate::outbound::client, second, None, 0, metrics, memory).unwrap();
        let nodes = nodes(1);
        let node = &nodes.all()[0];
        let mut probing = node.detecting.lock().await;
        let waiting = generation_of(&transport, node);
        let failing = async {
            tokio::task::yield_now().await;
            *probing = Some((Instant::now(), Error::Maintenance));
            tokio::time::sleep(2 * FAILURE_HOLDS).await;
            drop(probing);
        };
        let (told, ()) = tokio::join!(waiting, failing);
        assert_eq!(told, Err(Error::Maintenance), "it probed for itself");
    }
}
