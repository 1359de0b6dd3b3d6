//! What one message may weigh on a v2. v2.0.10 ends where it has more than 32,767 bytes to put down for a message, after it answered 200
//! (seen; v2.1.0 has the same line in its source), while v2.2.0 and later take 512 KiB. Until a node is known to bear more it gets no
//! more. Which it is, is asked before the first large message, and again where another one may have taken its place.

use futures_util::future::join_all;
use http::StatusCode;
use serde::Deserialize;

use super::detect::generation_of;
use super::nodes::Node;
use super::transport::{Call, Transport};
use super::{Client, Error, Generation, Outgoing, v2};

/// Payloads of at most so many bytes are borne by every v2.
pub const SMALL_PAYLOAD: usize = 32_000;
/// What v2.0.10 can put down for one message: payload, number, sender, channel and the overhead.
const SMALL_MESSAGE: usize = 32_767;
/// 34 bytes were seen.
const OVERHEAD: usize = 64;

impl Outgoing<'_> {
    /// How many bytes of its payload every v2 bears: fewer than [`SMALL_PAYLOAD`] only beside ids that are longer than the default allows.
    fn sure_payload(&self) -> usize {
        let stored_id = v2::stored_id(self.from, self.channel);
        let ids = [self.from.as_str(), &stored_id, self.client_msg_no.as_str()];
        let ids: usize = ids.into_iter().map(str::len).sum();
        SMALL_MESSAGE
            .saturating_sub(ids + OVERHEAD)
            .min(SMALL_PAYLOAD)
    }
}

impl Client {
    /// The largest payload, in bytes, that may be sent to the generation that is spoken to: v3 sets no bound beyond the contract's.
    ///
    /// # Errors
    /// Where that cannot be asked at all.
    pub async fn payload_limit(&self) -> Result<usize, Error> {
        if self.generation().await? == Generation::V3 {
            return Ok(usize::MAX);
        }
        if let Some(limit) = self.v2_payload_limit {
            return Ok(limit);
        }
        let asked = self.nodes.all().iter().map(async |node| {
            match generation_of(&self.transport, node).await? {
                Generation::V2 => bears_large(&self.transport, node).await,
                // No message goes there.
                Generation::V3 => Ok(true),
            }
        });
        let mut answers = join_all(asked).await;
        // A node that cannot be reached gets no message either; when it comes back it is asked.
        answers.retain(|answer| !matches!(answer, Err(Error::Connect)));
        let all_bear = answers.into_iter().collect::<Result<Vec<bool>, Error>>()?;
        Ok(
            if !all_bear.is_empty() && all_bear.into_iter().all(|bears| bears) {
                usize::MAX
            } else {
                SMALL_PAYLOAD
            },
        )
    }

    /// Refuses what this v2 node is not known to bear, before it is sent there.
    pub(super) async fn is_borne(&self, node: &Node, message: &Outgoing<'_>) -> Result<(), Error> {
        let length = message.payload.decoded_len();
        let max_bytes = match self.v2_payload_limit {
            Some(limit) => limit,
            None if length <= SMALL_PAYLOAD - 1024 => return Ok(()),
            None => message.sure_payload(),
        };
        if length <= max_bytes {
            return Ok(());
        }
        let too_large = Error::PayloadTooLarge { max_bytes };
        if self.v2_payload_limit.is_some() {
            return Err(too_large);
        }
        match Box::pin(bears_large(&self.transport, node)).await {
            Ok(true) => Ok(()),
            Err(Error::Connect) => Err(Error::Connect),
            // What was asked may have arrived, the message has not left.
            Ok(false) | Err(_) => Err(too_large),
        }
    }
}

/// Whether the v2 node takes large payloads; asked where that is not known, by one at a time.
async fn bears_large(transport: &Transport, node: &Node) -> Result<bool, Error> {
    if let Some(bears) = node.bears_large() {
        return Ok(bears);
    }
    let _asking = node.detecting.lock().await;
    if let Some(bears) = node.bears_large() {
        return Ok(bears);
    }
    let bears = ask(transport, node).await?;
    if node.set_bears_large(bears) {
        if bears {
            tracing::info!(node = %node.name, "wukongim takes large payloads now");
        } else {
            tracing::warn!(
                node = %node.name,
                max_bytes = SMALL_PAYLOAD,
                "wukongim is older than v2.2 or does not tell, larger payloads might end it and are refused; wukongim.v2_payload_limit overrides"
            );
        }
    }
    Ok(bears)
}

/// By the version it tells, where it tells one; else by a path that came with v2.2.0 and changes nothing.
async fn ask(transport: &Transport, node: &Node) -> Result<bool, Error> {
    #[derive(Deserialize)]
    struct Varz {
        #[serde(default)]
        version: String,
    }
    let answer = transport.call(node, Call::get("varz", "/varz")).await?;
    if let Ok(Varz { version }) = v2::data(&answer)
        && let Some(version) = parse_version(&version)
    {
        return Ok(version >= (2, 2));
    }
    let path = "/cluster/slots/0/localReplica";
    let answer = transport.call(node, Call::get("release", path)).await?;
    match answer.status {
        // A server that has the path may still have no such slot.
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
    use crate::wukongim::Route;

    #[test]
    fn versions_are_told_by_their_first_two_numbers() {
        assert_eq!(parse_version("v2.2.5-20260422"), Some((2, 2)));
        assert_eq!(parse_version("2.0.10"), Some((2, 0)));
        assert_eq!(parse_version("v2.10"), Some((2, 10)));
        for text in ["", "dev", "v2", "latest", "v.2"] {
            assert_eq!(parse_version(text), None, "{text}");
        }
    }

    #[test]
    fn long_ids_leave_less_to_the_payload_where_both_are_put_down_together() {
        let sure = |length: usize| {
            let uid = |c: &str| Uid::parse(&c.repeat(length), 255).unwrap();
            let outgoing = Outgoing {
                from: &uid("a"),
                channel: &Channel::Person(uid("b")),
                payload: &Payload::parse("YQ==", 9).unwrap(),
                client_msg_no: &ClientMsgNo::parse(&"n".repeat(length), 255).unwrap(),
                permitted_by: Generation::V2,
                route: &Route::default(),
            };
            outgoing.sure_payload()
        };
        assert_eq!(sure(128), SMALL_PAYLOAD, "as long as the default allows");
        assert_eq!(sure(255), SMALL_MESSAGE - OVERHEAD - 4 * 255 - 1);
    }
}
