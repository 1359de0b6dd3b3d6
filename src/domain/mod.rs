//! Domain types: ids, channels, payloads, messages. Parsed and validated once at the boundary. Knows neither HTTP nor WuKongIM's wire
//! format.

mod channel;
mod id;
mod message;

pub use channel::{Channel, ChannelRef, ChannelType, ConversationKey};
pub use id::{ChannelId, ClientMsgNo, IdProblem, Uid};
pub use message::{
    Message, MessageId, MessageOf, MessageRef, MessageText, Payload, PayloadProblem, SYSTEM_UID,
    Slice,
};

/// Hard limits that no configuration may exceed. The first three protect WuKongIM: a 32 KiB id or a 1 MiB payload crashes a v2 node, a 64
/// KiB client_msg_no a v3 node (seen on running servers).
pub mod caps {
    /// Longest uid or channel id, in bytes of UTF-8.
    pub const ID_BYTES: usize = 255;
    /// Longest client_msg_no, in bytes of UTF-8.
    pub const CLIENT_MSG_NO_BYTES: usize = 255;
    /// Largest payload, in bytes after base64 decoding.
    pub const PAYLOAD_BYTES: usize = 512 * 1024;
    /// Messages in one batch.
    pub const BATCH: usize = 1000;
    /// Uids in one call that changes subscribers or managers.
    pub const SUBSCRIBERS: usize = 5000;
    /// Characters of a group's name.
    pub const NAME_CHARS: usize = 128;
    /// Characters of an avatar's URL.
    pub const AVATAR_CHARS: usize = 1024;
}
