//! Why a socket ends, and what the client is told: a DISCONNECT where it must not come back, and a WebSocket close code.

use wkproto::Reason;

use super::transport::{CloseCode, WriteError};
use crate::state::EndSignal;
use crate::telemetry::SocketEnd;

/// Why a connected socket ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The client closed it, or said DISCONNECT.
    Client,
    /// WuKongIM, the store or the backend is gone, or too many bytes wait for clients: the client comes back by itself.
    Upstream,
    /// WuKongIM ended it with a DISCONNECT of this reason.
    Kicked(Reason),
    /// The connect token was revoked.
    Revoked,
    /// The user was banned.
    Banned,
    /// No frame came for `socket.idle_timeout`.
    Idle,
    /// The client did not read for `socket.write_timeout`.
    Slow,
    /// A frame was malformed, too large or not allowed.
    Protocol(CloseCode),
    /// The user has opened more than `socket.per_user`.
    Replaced,
    /// The gateway stops.
    Drain,
}

impl End {
    /// The reason of the DISCONNECT that is sent first. An SDK that gets one does not reconnect.
    pub(super) fn disconnect_reason(self) -> Option<Reason> {
        match self {
            Self::Revoked | Self::Replaced => Some(Reason::CONNECT_KICK),
            Self::Banned => Some(Reason::BAN),
            Self::Kicked(reason) => Some(reason),
            _ => None,
        }
    }

    /// The WebSocket close code.
    pub(super) fn close_code(self) -> CloseCode {
        match self {
            Self::Protocol(code) => code,
            Self::Upstream | Self::Client => CloseCode::TryAgain,
            Self::Drain => CloseCode::Restart,
            Self::Kicked(_)
            | Self::Revoked
            | Self::Banned
            | Self::Idle
            | Self::Slow
            | Self::Replaced => CloseCode::Policy,
        }
    }

    /// The label of metrics and log.
    pub(super) fn cause(self) -> SocketEnd {
        match self {
            Self::Client => SocketEnd::Client,
            Self::Upstream | Self::Kicked(_) => SocketEnd::Upstream,
            Self::Revoked => SocketEnd::Revoked,
            Self::Banned => SocketEnd::Banned,
            Self::Idle => SocketEnd::Idle,
            Self::Slow => SocketEnd::Slow,
            Self::Protocol(_) => SocketEnd::Protocol,
            Self::Replaced => SocketEnd::Replaced,
            Self::Drain => SocketEnd::Drain,
        }
    }
}

impl From<EndSignal> for End {
    fn from(signal: EndSignal) -> Self {
        match signal {
            EndSignal::Revoked => Self::Revoked,
            EndSignal::Replaced => Self::Replaced,
            EndSignal::Drain => Self::Drain,
        }
    }
}

impl From<WriteError> for End {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Slow => Self::Slow,
            WriteError::Gone => Self::Client,
        }
    }
}
