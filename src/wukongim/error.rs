//! Failures of calls to WuKongIM. Knows nothing of the gateway's own answers.

use crate::context::Full;

/// Why a call to WuKongIM did not succeed.
///
/// The texts go to the log, never to a client; none holds an address, a body or a token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No connection could be made: nothing was sent.
    #[error("no connection to wukongim")]
    Connect,
    /// No whole answer in time: the call may have been carried out.
    #[error("no answer from wukongim in time")]
    Timeout,
    /// The connection broke before the whole answer had come: the call may have been carried out.
    #[error("connection to wukongim lost before its answer")]
    Lost,
    /// An HTTP status that the call's contract does not know.
    #[error("unexpected http status {0} from wukongim")]
    Status(u16),
    /// WuKongIM refused with one of its reason codes (v2's `status`, v3's `reason`).
    #[error("refused by wukongim with reason {}", .0.0)]
    Refused(Reason),
    /// WuKongIM refused with a text; only the texts the gateway knows are distinguished.
    #[error("refused by wukongim: {0:?}")]
    Rejected(Rejection),
    /// The answer does not have this call's format: truncated, not JSON, or of another generation.
    #[error("undecodable answer from wukongim to {0}")]
    Decode(&'static str),
    /// The answer is larger than this call's limit.
    #[error("answer from wukongim larger than {max_bytes} bytes")]
    TooLarge {
        /// The call's limit in bytes.
        max_bytes: usize,
    },
    /// The gateway's byte budget has no room for the answer.
    #[error("no room for the answer from wukongim: {0}")]
    NoRoom(Full),
    /// Every suitable node is at its limit of concurrent calls: nothing was sent.
    #[error("too many calls to wukongim in flight")]
    Busy,
    /// v3 is restoring a backup.
    #[error("wukongim is in maintenance")]
    Maintenance,
    /// The node is not of the generation that this process uses: nothing was done.
    #[error("wukongim node is of another generation than the one in use")]
    OtherGeneration,
    /// The node is not known to accept so large a payload; nothing was sent.
    #[error("this wukongim accepts payloads of at most {max_bytes} bytes")]
    PayloadTooLarge {
        /// The maximum in bytes.
        max_bytes: usize,
    },
    /// The sender has lost the permission; nothing was sent.
    #[error("permission ended before the message was sent")]
    Withdrawn,
    /// The gateway's own credentials (manager token or manager login) are refused.
    #[error("wukongim refused the gateway's credentials")]
    Credentials,
}

/// A reason code of WuKongIM, as both generations number them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reason(pub i64);

impl Reason {
    /// The sender is no subscriber.
    pub const NOT_SUBSCRIBED: Self = Self(3);
    /// The sender is on the channel's or the peer's denylist.
    pub const IN_DENYLIST: Self = Self(4);
    /// No such channel.
    pub const NO_CHANNEL: Self = Self(5);
    /// The sender may not send.
    pub const NOT_ALLOWED: Self = Self(11);
    /// There is an allowlist and the sender is not on it.
    pub const NOT_IN_ALLOWLIST: Self = Self(13);
    /// The channel, or at `/user/token` the user, is banned.
    pub const BANNED: Self = Self(19);
    /// Too many messages.
    pub const RATE_LIMITED: Self = Self(22);
    /// The channel was deleted.
    pub const DISBANDED: Self = Self(24);
    /// Sending is banned.
    pub const SEND_BANNED: Self = Self(25);
}

/// The refusal texts that the gateway distinguishes (v3; seen on a running server).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejection {
    /// `valid channel membership required`: not a member, or no such channel.
    MembershipRequired,
    /// `channel disbanded`.
    Disbanded,
    /// `channel not found`: known group without any message.
    ChannelNotFound,
    /// `db: not found`: no such channel to delete or empty.
    NotFound,
    /// `… log conflict`: this client_msg_no was used for another payload.
    Conflict,
    /// `retry required`: stale route, nothing was done.
    RetryRequired,
    /// Anything else with status 400.
    Other,
}

impl Error {
    /// Whether the call may have been carried out despite the error.
    pub fn may_have_arrived(&self) -> bool {
        matches!(
            self,
            Self::Timeout
                | Self::Lost
                | Self::Decode(_)
                | Self::Status(_)
                | Self::TooLarge { .. }
                | Self::NoRoom(_)
        )
    }

    /// Whether the node certainly did nothing, and another one can take the call.
    pub fn can_go_to_next_node(&self) -> bool {
        matches!(self, Self::Connect | Self::Busy | Self::OtherGeneration)
    }

    /// Whether WuKongIM answered, but not with this call's result: it lacks the call or cannot tell.
    pub(super) fn is_unexpected(&self) -> bool {
        matches!(
            self,
            Self::Status(_)
                | Self::Refused(_)
                | Self::Rejected(_)
                | Self::Decode(_)
                | Self::TooLarge { .. }
                | Self::Credentials
        )
    }

    /// The more telling of two nodes' errors: first refused credentials, last the other generation.
    pub(super) fn combine(self, other: Self) -> Self {
        match (self, other) {
            (Self::Credentials, _) | (_, Self::Credentials) => Self::Credentials,
            (one, Self::OtherGeneration) => one,
            (_, other) => other,
        }
    }

    /// The short label of this outcome in metrics.
    pub fn outcome(&self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Timeout => "timeout",
            Self::Lost => "lost",
            Self::Status(_) => "status",
            Self::Refused(_) | Self::Rejected(_) => "refused",
            Self::Decode(_) => "decode",
            Self::TooLarge { .. } => "too_large",
            Self::NoRoom(_) => "no_room",
            Self::Busy => "busy",
            Self::Maintenance => "maintenance",
            Self::OtherGeneration => "generation",
            Self::PayloadTooLarge { .. } => "payload_too_large",
            Self::Withdrawn => "withdrawn",
            Self::Credentials => "credentials",
        }
    }
}
