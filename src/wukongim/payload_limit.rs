//! The maximum payload of a v2 node. v2.0.10 crashes when a stored message exceeds 32,767 bytes, after it has answered 200 (seen; v2.1.0
//! has the same line in its source), while v2.2.0 and later accept 512 KiB. A node gets larger payloads only once it is known to accept
//! them. That is detected before the first large message, and again after the node may have been replaced.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use futures_util::future::join_all;
use http::StatusCode;
use serde::Deserialize;

use super::call::{Call, Node};
use super::dialect::v2;
use super::{Client, Error, Generation, Outgoing};

/// Every v2 accepts payloads of at most so many bytes.
pub const SAFE_PAYLOAD_BYTES: usize = 32_000;
/// The maximum size of a stored message on v2.0.10: payload, client_msg_no, sender, channel and overhead.
const MAX_SMALL_MESSAGE_BYTES: usize = 32_767;
/// How long a v2 counts as limited to small payloads; then it is checked again, which finds an upgrade that no call noticed.
const SMALL_TTL: Duration = Duration::from_mins(1);
/// Measured: 34 bytes.
const MESSAGE_OVERHEAD_BYTES: usize = 64;

impl Outgoing<'_> {
    /// The payload size that every v2 accepts for this message: less than [`SAFE_PAYLOAD_BYTES`] only with ids that are longer than the
    /// default limit.
    fn safe_payload_bytes(&self) -> usize {
        let stored_id = v2::stored_id(self.from, self.channel.borrowed());
        let ids = [self.from.as_str(), &stored_id, self.client_msg_no.as_str()];
        let ids: usize = ids.into_iter().map(str::len).sum();
        MAX_SMALL_MESSAGE_BYTES
            .saturating_sub(ids + MESSAGE_OVERHEAD_BYTES)
            .min(SAFE_PAYLOAD_BYTES)
    }
}

impl Client {
    /// The maximum payload in bytes for the generation in use: v3 has no bound beyond the contract's.
    ///
    /// # Errors
    /// Where no node can be asked.
    pub async fn payload_limit(&self) -> Result<usize, Error> {
        if self.generation().await? == Generation::V3 {
            return Ok(usize::MAX);
        }
        if let Some(limit) = self.v2_payload_limit {
            return Ok(limit);
        }
        let queries = self.nodes.all().iter().map(async |node| {
            node.check_generation().await?;
            node.accepts_large_payloads().await
        });
        let mut answers = join_all(queries).await;
        // These get no messages either; an unreachable node is asked when it is back.
        answers.retain(|answer| !matches!(answer, Err(Error::Connect | Error::OtherGeneration)));
        let all_accept = answers.into_iter().collect::<Result<Vec<bool>, Error>>()?;
        Ok(
            if !all_accept.is_empty() && all_accept.into_iter().all(|accepts| accepts) {
                usize::MAX
            } else {
                SAFE_PAYLOAD_BYTES
            },
        )
    }

    /// Refuses a payload that this v2 node is not known to accept, before it is sent.
    pub(super) async fn check_payload_size(
        &self,
        node: &Arc<Node>,
        message: &Outgoing<'_>,
    ) -> Result<(), Error> {
        let length = message.payload.decoded_len();
        let max_bytes = match self.v2_payload_limit {
            Some(limit) => limit,
            None if length <= SAFE_PAYLOAD_BYTES - 1024 => return Ok(()),
            None => message.safe_payload_bytes(),
        };
        if length <= max_bytes {
            return Ok(());
        }
        let too_large = Error::PayloadTooLarge { max_bytes };
        if self.v2_payload_limit.is_some() {
            return Err(too_large);
        }
        match Box::pin(node.accepts_large_payloads()).await {
            Ok(true) => Ok(()),
            Err(Error::Connect) => Err(Error::Connect),
            // The probe may have arrived, but the message was not sent.
            Ok(false) | Err(_) => Err(too_large),
        }
    }
}

impl Node {
    /// Whether the v2 node accepts large payloads; detected on first use, and again after [`SMALL_TTL`] where it does not.
    async fn accepts_large_payloads(self: &Arc<Self>) -> Result<bool, Error> {
        let detect = || {
            let node = Arc::clone(self);
            async move {
                let accepts = detect(&node).await?;
                node.log_payload_limit(accepts);
                Ok(accepts)
            }
        };
        let is_fresh = |accepts: &Result<bool, Error>, age| match accepts {
            Ok(accepts) => *accepts || age < SMALL_TTL,
            Err(_) => false,
        };
        self.large_payloads.get(is_fresh, detect).await
    }

    fn log_payload_limit(&self, accepts: bool) {
        match (self.is_limited.swap(!accepts, Relaxed), accepts) {
            (true, true) => {
                tracing::info!(node = %self.name, "wukongim accepts large payloads now");
            }
            (false, false) => tracing::warn!(
                node = %self.name,
                max_bytes = SAFE_PAYLOAD_BYTES,
                "wukongim is older than v2.2 or does not tell, larger payloads might end it and are refused; wukongim.v2_payload_limit overrides"
            ),
            _ => {}
        }
    }
}

/// By the reported version, else by a read-only path that exists since v2.2.0.
async fn detect(node: &Node) -> Result<bool, Error> {
    #[derive(Deserialize)]
    struct Varz {
        #[serde(default)]
        version: String,
    }
    let answer = node.call(Call::get("varz", "/varz")).await?;
    if let Ok(Varz { version }) = v2::data(&answer)
        && let Some(version) = parse_version(&version)
    {
        return Ok(version >= (2, 2));
    }
    let path = "/cluster/slots/0/localReplica";
    let answer = node.call(Call::get("release", path)).await?;
    match answer.status {
        // A server with this path may not have the slot.
        StatusCode::OK | StatusCode::BAD_REQUEST => Ok(true),
        StatusCode::NOT_FOUND => Ok(false),
        status => Err(Error::Status(status.as_u16())),
    }
}

/// The first two numbers of `v2.2.5-20260422`.
fn parse_version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.trim().trim_start_matches('v').split(['.', '-']);
    let major = numbers.next()?.parse().ok()?;
    let minor = numbers.next()?.parse().ok()?;
    Some((major, minor))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Channel, ClientMsgNo, Payload, Uid};
    use crate::wukongim::NodeAffinity;

    #[test]
    fn versions_are_compared_by_their_first_two_numbers() {
        assert_eq!(parse_version("v2.2.5-20260422"), Some((2, 2)));
        assert_eq!(parse_version("2.0.10"), Some((2, 0)));
        assert_eq!(parse_version("v2.10"), Some((2, 10)));
        for text in ["", "dev", "v2", "latest", "v.2"] {
            assert_eq!(parse_version(text), None, "{text}");
        }
    }

    #[test]
    fn long_ids_reduce_the_safe_payload_size() {
        let sure = |length: usize| {
            let uid = |c: &str| Uid::parse(&c.repeat(length), 255).unwrap();
            let outgoing = Outgoing {
                from: &uid("a"),
                channel: &Channel::Person(uid("b")),
                payload: &Payload::parse("YQ==", 9).unwrap(),
                client_msg_no: &ClientMsgNo::parse(&"n".repeat(length), 255).unwrap(),
                affinity: &NodeAffinity::default(),
            };
            outgoing.safe_payload_bytes()
        };
        assert_eq!(
            sure(128),
            SAFE_PAYLOAD_BYTES,
            "as long as the default allows"
        );
        assert_eq!(
            sure(255),
            MAX_SMALL_MESSAGE_BYTES - MESSAGE_OVERHEAD_BYTES - 4 * 255 - 1
        );
    }
}
