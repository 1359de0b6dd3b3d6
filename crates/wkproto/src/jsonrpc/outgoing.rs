//! Answers and notifications to a client, in the shapes of WuKongIM v2, which the EasySDKs take.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::{Serialize, Serializer};

use super::{Header, Id};
use crate::Reason;

/// The result of a successful `connect`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectResult {
    /// The protocol version.
    pub server_version: u8,
    /// The server's clock minus the client's, in milliseconds.
    pub time_diff: i64,
    /// The node.
    pub node_id: u64,
}

/// The result of `send`, of a refused one as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SendResult {
    /// The flags that the message got.
    pub header: Header,
    /// Upstream's id of the message: a string in JSON, since JavaScript has 53 bits.
    pub message_id: i64,
    /// The message's place in its channel.
    pub message_seq: u64,
    /// [`Reason::SUCCESS`], or why not.
    pub reason: Reason,
}

/// A message, as the notification `recv` has it. Empty texts and an empty header are left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Recv<'a> {
    /// The message's flags.
    #[serde(skip_serializing_if = "Header::is_empty")]
    pub header: Header,
    /// Upstream's id of the message: a string in JSON, since JavaScript has 53 bits.
    #[serde(serialize_with = "as_string")]
    pub message_id: i64,
    /// The message's place in its channel; 0 when it was not stored.
    pub message_seq: u64,
    /// The sender's own id of the message.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub client_msg_no: &'a str,
    /// Unix time in seconds.
    pub timestamp: u32,
    /// For a person channel the sender, or the peer where the reader is the sender.
    pub channel_id: &'a str,
    /// 1 person, 2 group, and others.
    pub channel_type: u8,
    /// The message's topic.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub topic: &'a str,
    /// The sender; empty for the system.
    pub from_uid: &'a str,
    /// The opened payload; base64 in JSON.
    #[serde(serialize_with = "as_base64")]
    pub payload: &'a [u8],
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde calls it by reference"
)]
fn as_string<S: Serializer>(id: &i64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(id)
}

fn as_base64<S: Serializer>(payload: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&BASE64_STANDARD.encode(payload))
}

#[derive(Serialize)]
struct Answer<'a, R> {
    jsonrpc: &'static str,
    id: Option<&'a Id>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<R>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorObject<'a>>,
}

#[derive(Serialize)]
struct ErrorObject<'a> {
    code: i32,
    message: &'a str,
}

#[derive(Serialize)]
struct Notification<P> {
    jsonrpc: &'static str,
    method: &'static str,
    params: P,
}

/// Writes the result of a successful `connect`. A refusal must be an [`error`]: SDKs take any result for a success.
pub fn connect_result(id: Option<&Id>, result: &ConnectResult) -> String {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Result {
        server_version: u8,
        time_diff: i64,
        reason_code: u8,
        node_id: u64,
    }
    let result = Result {
        server_version: result.server_version,
        time_diff: result.time_diff,
        reason_code: Reason::SUCCESS.0,
        node_id: result.node_id,
    };
    answer(id, Some(result), None)
}

/// Writes the result of a `send`.
pub fn send_result(id: Option<&Id>, result: &SendResult) -> String {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Result {
        #[serde(skip_serializing_if = "Header::is_empty")]
        header: Header,
        #[serde(serialize_with = "as_string")]
        message_id: i64,
        message_seq: u64,
        reason_code: u8,
    }
    let result = Result {
        header: result.header,
        message_id: result.message_id,
        message_seq: result.message_seq,
        reason_code: result.reason.0,
    };
    answer(id, Some(result), None)
}

/// Writes the answer to a `ping`: v2's has neither result nor error.
pub fn pong(id: Option<&Id>) -> String {
    answer::<()>(id, None, None)
}

/// Writes an error. An unknown id is null.
pub fn error(id: Option<&Id>, code: i32, message: &str) -> String {
    answer::<()>(id, None, Some(ErrorObject { code, message }))
}

/// Writes the notification of a message.
pub fn recv(message: &Recv<'_>) -> String {
    notification("recv", message)
}

/// Writes the notification that the connection ends.
pub fn disconnect(reason: Reason, text: &str) -> String {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Params<'a> {
        reason_code: u8,
        #[serde(skip_serializing_if = "str::is_empty")]
        reason: &'a str,
    }
    let params = Params {
        reason_code: reason.0,
        reason: text,
    };
    notification("disconnect", params)
}

fn answer<R: Serialize>(
    id: Option<&Id>,
    result: Option<R>,
    error: Option<ErrorObject<'_>>,
) -> String {
    to_text(&Answer {
        jsonrpc: "2.0",
        id,
        result,
        error,
    })
}

fn notification<P: Serialize>(method: &'static str, params: P) -> String {
    to_text(&Notification {
        jsonrpc: "2.0",
        method,
        params,
    })
}

fn to_text<T: Serialize>(value: &T) -> String {
    // Structs of strings and numbers: nothing in them can fail.
    serde_json::to_string(value).unwrap_or_default()
}
