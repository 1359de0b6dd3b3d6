//! The upstream: one client for both generations of WuKongIM. Every call to WuKongIM goes through here and is built from parsed types; no
//! other module knows an upstream path, field or status code. Does not know axum.

mod call;
mod client;
mod conversations;
mod dialect;
mod error;
mod generation;
mod groups;
mod log_owner;
mod page;
mod payload_limit;
mod replication;
mod server_info;
mod single_flight;
mod sockets;
mod users;

pub use call::NodeAffinity;
pub use client::Client;
pub use conversations::{Conversation, ConversationPage, ReadPointer};
pub use error::{Error, Reason, Rejection};
pub use groups::MemberChange;
pub use page::{Page, Window};
pub use payload_limit::SAFE_PAYLOAD_BYTES;

use serde::Deserialize;

pub use crate::config::Generation;
use crate::domain::{Channel, ChannelType, ClientMsgNo, MessageId, Payload, Uid};

/// A message on its way to WuKongIM.
#[derive(Debug, Clone, Copy)]
pub struct Outgoing<'a> {
    /// The sender.
    pub from: &'a Uid,
    /// Where to, as the sender names it.
    pub channel: &'a Channel,
    /// The content.
    pub payload: &'a Payload,
    /// The idempotency key of the send.
    pub client_msg_no: &'a ClientMsgNo,
    /// The node that keeps the order of a batch's messages to one channel.
    pub affinity: &'a NodeAffinity,
}

/// WuKongIM's answer to a send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepted {
    /// The message's id.
    pub id: MessageId,
    /// Its seq in the channel on v3, where it is stored already; `None` on v2, which may still drop it.
    pub seq: Option<u64>,
}

/// The addresses WuKongIM gives a client that wants to connect, by the names of its answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct RouteInfo {
    /// Such as `127.0.0.1:5100`; may be empty.
    pub tcp_addr: String,
    /// Such as `ws://127.0.0.1:5200`; may be empty.
    pub ws_addr: String,
    /// Such as `wss://im.example.com`; may be empty.
    pub wss_addr: String,
}

/// Version, uptime and connections of WuKongIM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SystemInfo {
    /// `None` where WuKongIM reports none (v3, and v2 built without version flags).
    pub version: Option<String>,
    /// Whole seconds the (oldest) node has been running.
    pub uptime_s: u64,
    /// Client connections, summed over the nodes that answered.
    pub connections: u64,
}

/// What WuKongIM knows about a channel's (v2: or under type 1 a user's) state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "four flags that WuKongIM keeps independently"
)]
pub struct ChannelState {
    /// Whether the channel has a record of its own under exactly this id.
    pub exists: bool,
    /// Whether *any* record is stored under this id, including another channel's with the same hash (v2).
    pub occupied: bool,
    /// The channel is banned: messages sent to it are not stored.
    pub banned: bool,
    /// Deleted.
    pub disbanded: bool,
}

/// The record that v2 has under the key of a channel or (type 1) a user. It may be another channel's, since v2 compares only the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Whose it is.
    pub id: String,
    /// 1 for a user or a pair, 2 for a group.
    pub channel_type: u8,
    /// Messages to it are not stored; a user gets no token.
    pub banned: bool,
    /// Deleted; a user gets no token from v2.2.1 on (source).
    pub disbanded: bool,
}

/// FNV-1a-64 of `<id>-<type>`, the key under which v2 stores a channel's record, members and messages. Two ids with equal keys can be found
/// in minutes.
pub fn storage_key(id: &str, channel_type: ChannelType) -> u64 {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01b3;
    let key = format!("{id}-{}", channel_type.number());
    key.bytes().fold(OFFSET, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(PRIME)
    })
}

/// The lists WuKongIM keeps for a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberList {
    /// A group's subscribers.
    Subscribers,
    /// Who may not send (to a group, or to a person).
    Denylist,
    /// Who alone may send, where it is not empty.
    Allowlist,
}

impl MemberList {
    /// The last part of its path, on both generations.
    fn name(self) -> &'static str {
        match self {
            Self::Subscribers => "subscribers",
            Self::Denylist => "denylist",
            Self::Allowlist => "allowlist",
        }
    }
}
