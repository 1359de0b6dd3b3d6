//! The upstream: one client for both generations of WuKongIM. Everything the gateway asks of WuKongIM goes through here, built
//! from parsed types; nothing above this room knows an upstream path, field or status. Knows no axum.

mod about;
mod background;
mod bears;
mod budget;
mod client;
mod copies;
mod detect;
mod error;
mod groups;
mod load;
mod log_owner;
mod manager;
mod members;
mod nodes;
mod page;
mod plan;
mod rest;
mod shared;
mod transport;
mod trip;
mod under_way;
mod users;
mod v2;
mod v3;

pub use bears::SMALL_PAYLOAD;
pub use client::Client;
pub use error::{Error, Reason, Rejection};
pub use groups::MemberChange;
pub use page::{Page, Window};
pub use plan::Route;
pub use transport::{
    begun_by_this_request, current_deadline, current_request_id, in_this_request, with_request,
    with_request_id,
};

pub use crate::config::Generation;
use crate::domain::{Channel, ChannelType, ClientMsgNo, MessageId, Payload, Uid};
use crate::fnv::fnv1a64;

/// A message on its way to WuKongIM.
#[derive(Debug, Clone, Copy)]
pub struct Outgoing<'a> {
    /// The sender.
    pub from: &'a Uid,
    /// Where to, as the sender names it.
    pub channel: &'a Channel,
    /// The content.
    pub payload: &'a Payload,
    /// The sender's number.
    pub client_msg_no: &'a ClientMsgNo,
    /// By whose rules it was permitted: v2 checks nothing itself, so it must not get what was left to v3 to check.
    pub permitted_by: Generation,
    /// The way of those that are to be stored in the order in which they are sent.
    pub route: &'a Route,
}

/// WuKongIM's answer to a send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepted {
    /// The message's id.
    pub id: MessageId,
    /// Its number in the channel on v3, where it is stored by now; `None` on v2, where it may yet be dropped.
    pub seq: Option<u64>,
}

/// The addresses WuKongIM gives a client that wants to connect.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RouteInfo {
    /// Such as `127.0.0.1:5100`; may be empty.
    pub tcp_addr: String,
    /// Such as `ws://127.0.0.1:5200`; may be empty.
    pub ws_addr: String,
    /// Such as `wss://im.example.com`; may be empty.
    pub wss_addr: String,
}

/// What WuKongIM tells about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SystemInfo {
    /// `None` where it tells none (v3, and v2 built without version flags).
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
    /// Whether *any* record lies under this id, be it of another channel with an equal hash (v2).
    pub occupied: bool,
    /// Nothing sent to it is stored.
    pub banned: bool,
    /// Deleted.
    pub disbanded: bool,
}

/// The record that v2 has under a channel's, or under type 1 a user's, key: perhaps another one's, since the key is all that is compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Whose it is.
    pub id: String,
    /// 1 for a user or a pair, 2 for a group.
    pub channel_type: u8,
    /// Nothing sent to it is stored; a user gets no token.
    pub banned: bool,
    /// Deleted; a user gets no token from v2.2.1 on (source).
    pub disbanded: bool,
}

/// FNV-1a-64 of `<id>-<type>`: all that v2 keeps a channel's record, members and messages by. Equal keys of two ids are found in minutes.
pub fn storage_key(id: &str, channel_type: ChannelType) -> u64 {
    let number = channel_type.number().to_string();
    fnv1a64(&[id.as_bytes(), b"-", number.as_bytes()])
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
