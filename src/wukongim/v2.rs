//! The protocol of v2 (v2.2.5): paths, bodies and the meaning of answers. HTTP 200 alone never means success.

use std::borrow::Cow;

use http::StatusCode;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};

use super::node::Node;
use super::transport::{Answer, Call};
use super::{
    Accepted, ChannelState, Error, Generation, MemberList, Outgoing, Reason, Record, Rejection,
    RouteInfo, SystemInfo,
};
use crate::domain::{Channel, ChannelId, ChannelType, MessageId, Uid};

/// Everything but RFC 3986's unreserved characters is encoded.
const COMPONENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// Fits a member list of 100,000 long ids; the gateway's own groups are far smaller.
const MAX_LIST_BYTES: usize = 32 * 1024 * 1024;

/// Encodes a string as one path segment or query value.
pub(super) fn encode(text: &str) -> impl std::fmt::Display {
    utf8_percent_encode(text, COMPONENT)
}

#[derive(Serialize)]
struct Header {
    red_dot: u8,
}

/// The body of `/message/send`, the same for both generations. Built from parsed types only, since v3 trusts a `device_id` in it.
#[derive(Serialize)]
pub(super) struct SendBody<'a> {
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
    pub(super) fn new(generation: Generation, message: &Outgoing<'a>) -> Self {
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
pub(super) fn command_result(answer: &Answer) -> Result<(), Error> {
    match answer.status {
        StatusCode::OK => match answer.json::<StatusBody>()?.status {
            200 => Ok(()),
            reason => Err(Error::Refused(Reason(reason))),
        },
        StatusCode::BAD_REQUEST => Err(Error::Rejected(Rejection::Other)),
        status => Err(Error::Status(status.as_u16())),
    }
}

/// Parses an answer that returns data. v2 reports errors as 400, or as 200 with a `status` field.
pub(super) fn data<'a, T: Deserialize<'a>>(answer: &'a Answer) -> Result<T, Error> {
    match answer.status {
        StatusCode::OK => answer.json(),
        StatusCode::BAD_REQUEST => Err(Error::Rejected(Rejection::Other)),
        status => Err(Error::Status(status.as_u16())),
    }
}

/// `/message/send`: an id for a message that is not stored yet and may never be.
pub(super) async fn send(node: &Node, message: &Outgoing<'_>) -> Result<Accepted, Error> {
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
pub(super) async fn list(
    node: &Node,
    list: MemberList,
    channel_type: ChannelType,
    id: &str,
) -> Result<Vec<String>, Error> {
    let (name, tail) = match list {
        MemberList::Subscribers => ("subscribers", "subscribers"),
        MemberList::Denylist => ("denylist", "denylist"),
        MemberList::Allowlist => ("allowlist", "allowlist"),
    };
    let path = format!(
        "/cluster/channels/{}/{}/{tail}",
        encode(id),
        channel_type.number()
    );
    let answer = node
        .call(Call::get(name, path).max_bytes(MAX_LIST_BYTES))
        .await?;
    Ok(data::<Option<Vec<String>>>(&answer)?.unwrap_or_default())
}

/// `GET /cluster/channels?channel_id&channel_type`: always one row, empty where nothing is stored under the id's key (`None`). The record
/// may be another channel's with the same key.
pub(super) async fn record(
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
    let answer = node.call(Call::get("channel_state", path)).await?;
    let rows: Rows = data(&answer)?;
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
pub(super) async fn group_state(node: &Node, group: &ChannelId) -> Result<ChannelState, Error> {
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
pub(super) fn stored_id<'a>(user: &Uid, channel: &'a Channel) -> Cow<'a, str> {
    match channel {
        Channel::Group(group) => group.as_str().into(),
        Channel::Person(peer) => {
            let [own, peers] = [user, peer].map(|uid| crc32fast::hash(uid.as_str().as_bytes()));
            if own > peers {
                format!("{user}@{peer}").into()
            } else {
                format!("{peer}@{user}").into()
            }
        }
    }
}

#[derive(Deserialize)]
struct ErrorBody<'a> {
    #[serde(borrow)]
    msg: Cow<'a, str>,
}

/// Whether v2 answered `not found`: there is no log under the key (seen on running servers).
fn is_not_found(answer: &Answer) -> bool {
    answer.status == StatusCode::BAD_REQUEST
        && answer
            .json::<ErrorBody<'_>>()
            .is_ok_and(|words| words.msg == "not found")
}

/// `GET /channel/max_message_seq`: 0 where nothing was ever stored under the stored id's hash, `None` where v2 reports that there is no
/// log. Creates no log.
///
/// For a channel that never existed, v2.0.10 answers 0; later versions answer 0 on some nodes of a cluster, and 400 `not found` on the
/// others and on a single node. A pair must be queried by its stored id: with the peer's uid and `login_uid`, v2 before v2.2.5 gives the
/// same answer for every pair (all seen on running servers).
pub(super) async fn max_message_seq(
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
    let answer = node.call(Call::get("max_message_seq", path)).await?;
    if is_not_found(&answer) {
        return Ok(None);
    }
    Ok(Some(data::<Max>(&answer)?.message_seq))
}

/// `GET /cluster/channels/{id}/{type}/config`: the stored id of the channel that owns the log under this one's hash, `None` where there is
/// none. Creates no log. Only the leader of the id's slot knows; `leader` is its node id in a cluster.
pub(super) async fn log_owner(
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
    let answer = node.call(Call::get("log_owner", path)).await?;
    if is_not_found(&answer) {
        return Ok(None);
    }
    Ok(Some(data::<Config>(&answer)?.channel_id).filter(|id| !id.is_empty()))
}

/// `GET /varz`.
pub(super) async fn system_info(node: &Node) -> Result<SystemInfo, Error> {
    #[derive(Deserialize)]
    struct Varz {
        #[serde(default)]
        version: String,
        uptime: String,
        connections: i64,
    }
    let answer = node.call(Call::get("varz", "/varz")).await?;
    let varz: Varz = data(&answer)?;
    Ok(SystemInfo {
        version: Some(varz.version).filter(|version| !version.is_empty()),
        uptime_s: parse_uptime(&varz.uptime).ok_or(Error::Decode(answer.call))?,
        connections: varz.connections.max(0).unsigned_abs(),
    })
}

/// `1y2d3h4m5s` in seconds; leading units are left out, a year has 365 days.
fn parse_uptime(text: &str) -> Option<u64> {
    let mut total = 0_u64;
    let mut number = None::<u64>;
    for c in text.chars() {
        if let Some(digit) = c.to_digit(10) {
            number = Some(
                number
                    .unwrap_or(0)
                    .checked_mul(10)?
                    .checked_add(u64::from(digit))?,
            );
            continue;
        }
        let unit = match c {
            'y' => 365 * 86_400,
            'd' => 86_400,
            'h' => 3600,
            'm' => 60,
            's' => 1,
            _ => return None,
        };
        total = total.checked_add(number.take()?.checked_mul(unit)?)?;
    }
    if number.is_some() || text.is_empty() {
        None
    } else {
        Some(total)
    }
}

/// `GET /route?uid`, the same on both generations.
pub(super) async fn route(node: &Node, uid: &Uid) -> Result<RouteInfo, Error> {
    #[derive(Deserialize)]
    #[expect(clippy::struct_field_names, reason = "the wire's names")]
    struct Route {
        #[serde(default)]
        tcp_addr: String,
        #[serde(default)]
        ws_addr: String,
        #[serde(default)]
        wss_addr: String,
    }
    let answer = node
        .call(Call::get(
            "route",
            format!("/route?uid={}", encode(uid.as_str())),
        ))
        .await?;
    let Route {
        tcp_addr,
        ws_addr,
        wss_addr,
    } = data(&answer)?;
    Ok(RouteInfo {
        tcp_addr,
        ws_addr,
        wss_addr,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(stored_id(&anna, &to(&bob)), "bob@alice");
        assert_eq!(stored_id(&bob, &to(&anna)), "bob@alice");
        assert_eq!(stored_id(&bob, &to(&bob)), "bob@bob");
    }

    #[test]
    fn ids_are_encoded_whole() {
        assert_eq!(
            encode("群 a+b=c:d").to_string(),
            "%E7%BE%A4%20a%2Bb%3Dc%3Ad"
        );
    }
}
