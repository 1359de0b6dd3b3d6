//! The reason codes of CONNACK, SENDACK and DISCONNECT.

use std::fmt;

/// A reason code as it is on the wire; codes without a name here are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Reason(pub u8);

impl Reason {
    /// Done.
    pub const SUCCESS: Self = Self(1);
    /// A bad token.
    pub const AUTH_FAIL: Self = Self(2);
    /// The sender is no member.
    pub const SUBSCRIBER_NOT_EXIST: Self = Self(3);
    /// The sender is on the denylist.
    pub const IN_BLACKLIST: Self = Self(4);
    /// There is no such channel (v3).
    pub const CHANNEL_NOT_EXIST: Self = Self(5);
    /// The user's connection is on no known node.
    pub const USER_NOT_ON_NODE: Self = Self(6);
    /// The sender is offline.
    pub const SENDER_OFFLINE: Self = Self(7);
    /// The msgKey is wrong.
    pub const MSG_KEY_ERROR: Self = Self(8);
    /// The payload cannot be opened.
    pub const PAYLOAD_DECODE_ERROR: Self = Self(9);
    /// The node that the message belongs to cannot be reached.
    pub const FORWARD_ERROR: Self = Self(10);
    /// The sender may not send this.
    pub const NOT_ALLOW_SEND: Self = Self(11);
    /// Another connection or a call ends this one.
    pub const CONNECT_KICK: Self = Self(12);
    /// The sender is not on the allowlist.
    pub const NOT_IN_WHITELIST: Self = Self(13);
    /// The user's token cannot be read.
    pub const QUERY_TOKEN_ERROR: Self = Self(14);
    /// An error of the server; on v3 also a person channel that is not the sender's.
    pub const SYSTEM_ERROR: Self = Self(15);
    /// A bad channel id.
    pub const CHANNEL_ID_ERROR: Self = Self(16);
    /// The channel's node differs from what is stored.
    pub const NODE_MATCH_ERROR: Self = Self(17);
    /// This node does not lead the channel.
    pub const NODE_NOT_MATCH: Self = Self(18);
    /// The channel or the user is banned.
    pub const BAN: Self = Self(19);
    /// The frame's flags are not supported.
    pub const NOT_SUPPORT_HEADER: Self = Self(20);
    /// CONNECT has no client key.
    pub const CLIENT_KEY_EMPTY: Self = Self(21);
    /// Too many messages.
    pub const RATE_LIMIT: Self = Self(22);
    /// A channel type that is not supported.
    pub const NOT_SUPPORT_CHANNEL_TYPE: Self = Self(23);
    /// The channel is disbanded.
    pub const DISBAND: Self = Self(24);
    /// Sending to the channel is banned.
    pub const SEND_BAN: Self = Self(25);
}

impl fmt::Display for Reason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}
