//! The protocol of v2 (v2.2.5): paths, bodies and the meaning of answers. HTTP 200 alone never means success.

mod conversation_rows;
pub(crate) mod conversations;

use std::borrow::Cow;

use http::StatusCode;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::domain::{ChannelId, ChannelRef, ChannelType, MessageId, Uid};
use crate::wukongim::call::{Answer, Call, Node};
use crate::wukongim::{
    Accepted, ChannelState, Error, Generation, MemberList, Outgoing, Reason, Record, Rejection,
    RouteInfo, SystemInfo,
};

/// Everything but RFC 3986's unreserved characters is encoded.
const COMPONENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// Fits a member list of 100,000 long ids; the gateway's own groups are far smaller.
const MAX_LIST_BYTES: usize = 32 * 1024 * 1024;

/// Encodes a string as one path segment or query value.
pub(crate) fn encode(text: &str) -> impl std::fmt::Display {
    utf8_percent_encode(text, COMPONENT)
}

#[derive(Serialize)]
struct Header {
    red_dot: u8,
}

/// The body of `/message/send`, the same for both generations. Built from parsed types only, since v3 trusts a `device_id` in it.
#[derive(Serialize)]
pub(crate) struct SendBody<'a> {
    /// A string in v2 and unknown to v3. Sent as a number, it makes v2 refuse the whole body (seen on running servers).
    #[serde(skip_serializing_if = "Option::is_none")]
    tag_key: Option<u8>,
    /// Unknown to v2 and a string in v3. Sent as a number, it makes v3 refuse the whole body (seen on running servers).
    #[serde(skip_serializing_if = "Option::is_none")]
    device_id: Option<u8>,
    /// v3's API has no such field.
    #[serde(skip_serializing_if = "Option::is_none")]
    header: Option<Header>,
    from_uid: &'a str,
    channel_id: &'a str,
    channel_type: u8,
    payload: &'a str,
    client_msg_no: &'a str,
}

impl<'a> SendBody<'a> {
    /// The body for a node of this generation, which one of the other refuses.
    pub(crate) fn new(generation: Generation, message: &Outgoing<'a>) -> Self {
        let is_v2 = generation == Generation::V2;
        Self {
            // A message whose check is left to v3 must not be stored unchecked by a v2 that has just replaced it.
            tag_key: (!is_v2).then_some(0),
            // Nor may a message permitted by v2's rules be stored by a v3, which has none of the channel's other messages.
            device_id: is_v2.then_some(0),
            header: is_v2.then_some(Header { red_dot: 1 }),
            from_uid: message.from.as_str(),
            channel_id: message.channel.id(),
            channel_type: message.channel.channel_type().number(),
            payload: message.payload.as_base64(),
            client_msg_no: message.client_msg_no.as_str(),
        }
    }
}

#[derive(Deserialize)]
struct StatusBody {
    status: i64,
}

/// Parses `{"status":200}`, the answer of all v2 (and most v3) calls that return no data.
pub(crate) fn command_result(answer: &Answer) -> Result<(), Error> {
    match answer.status {
        StatusCode::OK => match answer.json::<StatusBody>()?.status {
            200 => Ok(()),
            reason => Err(Error::Refused(Reason(reason))),
        },
        _ => Err(refusal(answer)),
    }
}

/// The error of an answer with another status than 200.
pub(crate) fn refusal(answer: &Answer) -> Error {
    match answer.status {
        StatusCode::BAD_REQUEST => Error::Rejected(Rejection::Other),
        status => Error::Status(status.as_u16()),
    }
}

/// Parses an answer that returns data. v2 reports errors as 400, or as 200 with a `status` field.
pub(crate) fn data<'a, T: Deserialize<'a>>(answer: &'a Answer) -> Result<T, Error> {
    match answer.status {
        StatusCode::OK => answer.json(),
        _ => Err(refusal(answer)),
    }
}

async fn get<T: DeserializeOwned>(
    node: &Node,
    name: &'static str,
    path: String,
) -> Result<T, Error> {
    data(&node.call(Call::get(name, path)).await?)
}

/// A GET about a log; `None` where v2 answers `not found`: there is no log under the key (seen on running servers).
async fn get_of_log<T: DeserializeOwned>(
    node: &Node,
    name: &'static str,
    path: String,
) -> Result<Option<T>, Error> {
    #[derive(Deserialize)]
    struct ErrorBody<'a> {
        #[serde(borrow)]
        msg: Cow<'a, str>,
    }
    let answer = node.call(Call::get(name, path)).await?;
    let is_not_found = || {
        answer
            .json()
            .is_ok_and(|ErrorBody { msg }| msg == "not found")
    };
    if answer.status == StatusCode::BAD_REQUEST && is_not_found() {
        return Ok(None);
    }
    data(&answer).map(Some)
}

/// `/message/send`: an id for a message that is not stored yet and may never be.
pub(crate) async fn send(node: &Node, message: &Outgoing<'_>) -> Result<Accepted, Error> {
    #[derive(Deserialize)]
    struct Data {
        message_id: u64,
    }
    #[derive(Deserialize)]
    struct Sent {
        status: i64,
        data: Option<Data>,
    }
    /// v3's answer to a body marked for v2.
    #[derive(Deserialize)]
    struct V3Error<'a> {
        error: Cow<'a, str>,
    }
    let answer = node
        .call(Call::post(
            "message_send",
            "/message/send",
            &SendBody::new(Generation::V2, message),
        ))
        .await?;
    let is_v3_error = || {
        answer
            .json()
            .is_ok_and(|V3Error { error }| error == "invalid request")
    };
    if answer.status == StatusCode::BAD_REQUEST && is_v3_error() {
        return Err(Error::OtherGeneration);
    }
    match data::<Sent>(&answer)? {
        Sent {
            status: 200,
            data: Some(Data { message_id }),
        } if message_id != 0 => Ok(Accepted {
            id: MessageId(message_id),
            seq: None,
        }),
        Sent { status: 200, .. } => Err(Error::Decode(answer.call)),
        Sent { status, .. } => Err(Error::Refused(Reason(status))),
    }
}

/// `GET /cluster/channels/{id}/{type}/…`: the whole list, in no order.
pub(crate) async fn list(
    node: &Node,
    list: MemberList,
    channel_type: ChannelType,
    id: &str,
) -> Result<Vec<String>, Error> {
    let name = list.name();
    let number = channel_type.number();
    let path = format!("/cluster/channels/{}/{number}/{name}", encode(id));
    let call = Call::get(name, path).max_bytes(MAX_LIST_BYTES);
    let answer = node.call(call).await?;
    Ok(data::<Option<Vec<String>>>(&answer)?.unwrap_or_default())
}

/// `GET /cluster/channels?channel_id&channel_type`: always one row, empty where nothing is stored under the id's key (`None`). The record
/// may be another channel's with the same key.
pub(crate) async fn record(
    node: &Node,
    channel_type: ChannelType,
    id: &str,
) -> Result<Option<Record>, Error> {
    #[derive(Deserialize)]
    struct Row {
        channel_id: String,
        #[serde(default)]
        channel_type: u8,
        ban: u8,
        disband: u8,
    }
    #[derive(Deserialize)]
    struct Rows {
        data: Vec<Row>,
    }
    let number = channel_type.number();
    let path = format!(
        "/cluster/channels?channel_id={}&channel_type={number}",
        encode(id)
    );
    let rows: Rows = get(node, "channel_state", path).await?;
    let row = rows.data.into_iter().next();
    let row = row.filter(|row| !row.channel_id.is_empty());
    Ok(row.map(|row| Record {
        id: row.channel_id,
        channel_type: row.channel_type,
        banned: row.ban != 0,
        disbanded: row.disband != 0,
    }))
}

/// A group's state, by the record under its key.
pub(crate) async fn group_state(node: &Node, group: &ChannelId) -> Result<ChannelState, Error> {
    let record = record(node, ChannelType::Group, group.as_str()).await?;
    Ok(
        record.map_or_else(ChannelState::default, |record| ChannelState {
            exists: record.id == group.as_str(),
            occupied: true,
            // The row may be another channel's with the same key. v2 looks the flags up by that key as well, so they apply.
            banned: record.banned,
            disbanded: record.disbanded,
        }),
    )
}

/// The id under which v2 stores `channel` as addressed by `user`: for a pair, the uid with the larger CRC-32 comes first.
pub(crate) fn stored_id<'a>(user: &Uid, channel: ChannelRef<'a>) -> Cow<'a, str> {
    let (user, id) = (user.as_str(), channel.id);
    match channel.channel_type {
        ChannelType::Group => id.into(),
        ChannelType::Person => {
            let [own, peers] = [user, id].map(|uid| crc32fast::hash(uid.as_bytes()));
            let pair = if own > peers {
                format!("{user}@{id}")
            } else {
                format!("{id}@{user}")
            };
            pair.into()
        }
    }
}

/// `GET /channel/max_message_seq`: 0 where nothing was ever stored under the stored id's hash, `None` where v2 reports that there is no
/// log. Creates no log.
///
/// For a channel that never existed, v2.0.10 answers 0; later versions answer 0 on some nodes of a cluster, and 400 `not found` on the
/// others and on a single node. A pair must be queried by its stored id: with the peer's uid and `login_uid`, v2 before v2.2.5 gives the
/// same answer for every pair (all seen on running servers).
pub(crate) async fn max_message_seq(
    node: &Node,
    channel_type: ChannelType,
    stored_id: &str,
) -> Result<Option<u64>, Error> {
    #[derive(Deserialize)]
    struct Max {
        message_seq: u64,
    }
    let path = format!(
        "/channel/max_message_seq?channel_id={}&channel_type={}",
        encode(stored_id),
        channel_type.number()
    );
    let max = get_of_log::<Max>(node, "max_message_seq", path).await?;
    Ok(max.map(|max| max.message_seq))
}

/// `GET /cluster/channels/{id}/{type}/config`: the stored id of the channel that owns the log under this one's hash, `None` where there is
/// none. Creates no log. Only the leader of the id's slot knows; `leader` is its node id in a cluster.
pub(crate) async fn log_owner(
    node: &Node,
    channel_type: ChannelType,
    stored_id: &str,
    leader: Option<u64>,
) -> Result<Option<String>, Error> {
    #[derive(Deserialize)]
    struct Config {
        channel_id: String,
    }
    let query = leader.map_or_else(String::new, |leader| format!("?node_id={leader}"));
    let path = format!(
        "/cluster/channels/{}/{}/config{query}",
        encode(stored_id),
        channel_type.number()
    );
    let config = get_of_log::<Config>(node, "log_owner", path).await?;
    Ok(config
        .map(|config| config.channel_id)
        .filter(|id| !id.is_empty()))
}

/// `GET /varz`.
pub(crate) async fn system_info(node: &Node) -> Result<SystemInfo, Error> {
    #[derive(Deserialize)]
    struct Varz {
        #[serde(default)]
        version: String,
        uptime: String,
        connections: i64,
    }
    let varz: Varz = get(node, "varz", "/varz".to_owned()).await?;
    Ok(SystemInfo {
        version: Some(varz.version).filter(|version| !version.is_empty()),
        uptime_s: parse_uptime(&varz.uptime).ok_or(Error::Decode("varz"))?,
        connections: varz.connections.max(0).unsigned_abs(),
    })
}

/// `1y2d3h4m5s` in seconds; leading units are left out, a year has 365 days.
fn parse_uptime(text: &str) -> Option<u64> {
    let mut total = (!text.is_empty()).then_some(0_u64)?;
    for part in text.split_inclusive(|c: char| !c.is_ascii_digit()) {
        let (number, unit) = part.split_at_checked(part.len() - 1)?;
        let unit = match unit {
            "y" => 365 * 86_400,
            "d" => 86_400,
            "h" => 3600,
            "m" => 60,
            "s" => 1,
            _ => return None,
        };
        total = total.checked_add(number.parse::<u64>().ok()?.checked_mul(unit)?)?;
    }
    Some(total)
}

/// `GET /route?uid`, the same on both generations.
pub(crate) async fn route(node: &Node, uid: &str) -> Result<RouteInfo, Error> {
    let path = format!("/route?uid={}", encode(uid));
    get(node, "route", path).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Channel;

    #[test]
    fn uptime_is_read_as_seconds() {
        assert_eq!(parse_uptime("42s"), Some(42));
        assert_eq!(parse_uptime("1m20s"), Some(80));
        assert_eq!(parse_uptime("3h0m5s"), Some(10_805));
        assert_eq!(
            parse_uptime("1y2d3h4m5s"),
            Some(365 * 86_400 + 2 * 86_400 + 3 * 3600 + 245)
        );
        for text in ["", "s", "12", "1x", "1m2", "-1s", "99999999999999999999s"] {
            assert_eq!(parse_uptime(text), None, "{text}");
        }
    }

    #[test]
    fn a_pair_has_one_stored_id_for_both_users() {
        let [anna, bob] = ["alice", "bob"].map(|uid| Uid::parse(uid, 99).unwrap());
        let to = |peer: &Uid| Channel::Person(peer.clone());
        assert_eq!(stored_id(&anna, to(&bob).borrowed()), "bob@alice");
        assert_eq!(stored_id(&bob, to(&anna).borrowed()), "bob@alice");
        assert_eq!(stored_id(&bob, to(&bob).borrowed()), "bob@bob");
    }

    #[test]
    fn ids_are_encoded_whole() {
        assert_eq!(
            encode("群 a+b=c:d").to_string(),
            "%E7%BE%A4%20a%2Bb%3Dc%3Ad"
        );
    }
}
