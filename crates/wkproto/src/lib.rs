//! WuKongIM's socket protocol (wkproto, versions 2 to 6 of both generations) and its JSON-RPC form, without any I/O.
//!
//! It knows shapes, bounds and cryptography, and no rules: who may connect or send is decided by its users. Every parser bounds before it
//! reads, and no parser allocates for a length that has only been claimed.

mod body;
mod connection;
mod frame;
pub mod jsonrpc;
mod keys;
mod message;
mod reason;

pub use self::{
    connection::{Connack, Connect, Disconnect},
    frame::{
        DecodeError, EncodeError, Frame, FrameKind, MAX_STRING, PING, PONG, flags, next_frame,
    },
    keys::{Cipher, KeyError, KeyPair, is_valid_public_key},
    message::{Recv, Recvack, Send, Sendack, Stream, has_stream, setting},
    reason::Reason,
};

/// The lowest protocol version in use: that of `wukongimjssdk` 1.0.4.
pub const MIN_VERSION: u8 = 2;

/// The highest protocol version of v2; CONNACK names the lower one of both sides.
pub const V2_VERSION: u8 = 5;

/// The highest protocol version of v3, and of this crate.
pub const V3_VERSION: u8 = 6;
