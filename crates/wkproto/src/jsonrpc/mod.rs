//! WuKongIM's JSON-RPC 2.0, as the EasySDKs speak it: one JSON object a message, without keys and sealing.
//!
//! Requests are read strictly, since two readers that understand one text differently are an attack: keys in their exact case, none twice
//! at any depth, at most 128 levels. Unknown keys are ignored. What is written is always made anew.

mod outgoing;
mod request;
mod strict;

pub use self::{
    outgoing::{
        ConnectResult, Recv, SendResult, connect_result, disconnect, error, pong, recv, send_result,
    },
    request::{Call, Connect, Disconnect, Id, Recvack, Request, RequestError, Send, parse},
};

use serde::{Deserialize, Serialize};

use super::flags;

/// What is wrong with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ErrorKind {
    /// No JSON, more than one value, or too deep.
    #[error("parse error")]
    Parse,
    /// No object with a method, or a key given twice.
    #[error("invalid request")]
    InvalidRequest,
    /// A method that the protocol does not have.
    #[error("method not found")]
    UnknownMethod,
    /// Parameters that are missing, or of another type or range.
    #[error("invalid params")]
    InvalidParams,
}

impl ErrorKind {
    /// The code in the error object.
    pub fn code(self) -> i32 {
        match self {
            Self::Parse => -32700,
            Self::InvalidRequest => -32600,
            Self::UnknownMethod => -32601,
            Self::InvalidParams => -32602,
        }
    }

    /// Whether the connection is closed after the error has been sent.
    pub fn closes(self) -> bool {
        matches!(self, Self::Parse | Self::InvalidRequest)
    }
}

/// A frame's flags in JSON; absent ones are false.
#[expect(
    clippy::struct_excessive_bools,
    reason = "the protocol's own flags, each set on its own"
)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Header {
    /// The message is not stored.
    #[serde(skip_serializing_if = "is_false")]
    pub no_persist: bool,
    /// The message counts as unread.
    #[serde(skip_serializing_if = "is_false")]
    pub red_dot: bool,
    /// A command, delivered to one device once.
    #[serde(skip_serializing_if = "is_false")]
    pub sync_once: bool,
    /// Sent again.
    #[serde(skip_serializing_if = "is_false")]
    pub dup: bool,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde calls it by reference"
)]
fn is_false(flag: &bool) -> bool {
    !flag
}

impl Header {
    /// The header of a frame with these [`flags`].
    pub fn from_flags(bits: u8) -> Self {
        Self {
            no_persist: bits & flags::NO_PERSIST != 0,
            red_dot: bits & flags::RED_DOT != 0,
            sync_once: bits & flags::SYNC_ONCE != 0,
            dup: bits & flags::DUP != 0,
        }
    }

    /// The [`flags`] of a frame with this header.
    pub fn flags(self) -> u8 {
        let bit = |set, flag| if set { flag } else { 0 };
        bit(self.no_persist, flags::NO_PERSIST)
            | bit(self.red_dot, flags::RED_DOT)
            | bit(self.sync_once, flags::SYNC_ONCE)
            | bit(self.dup, flags::DUP)
    }

    /// Whether no flag is set; upstream leaves such a header out.
    pub fn is_empty(&self) -> bool {
        self.flags() == 0
    }
}
