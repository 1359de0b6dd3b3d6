//! Requests and notifications from a client.

use std::{borrow::Cow, fmt};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use serde_json::{Number, value::RawValue};

use super::{ErrorKind, Header, strict};

/// A request's id, which its answer repeats as it came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Id {
    /// The EasySDKs' form.
    Text(String),
    /// Allowed by JSON-RPC.
    Number(Number),
}

/// A message from a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request<'a> {
    /// Missing or null in a notification, which has no answer.
    pub id: Option<Id>,
    /// What is asked for.
    pub call: Call<'a>,
}

/// The method and its parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call<'a> {
    /// `connect`, first of all.
    Connect(Connect<'a>),
    /// `send`.
    Send(Send<'a>),
    /// `recvack`; some SDKs send it with an id, and none awaits the answer.
    Recvack(Recvack),
    /// `ping`; parameters are ignored.
    Ping,
    /// `disconnect`.
    Disconnect(Disconnect<'a>),
}

/// The parameters of `connect`.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Connect<'a> {
    /// The user.
    #[serde(borrow)]
    pub uid: Cow<'a, str>,
    /// The connect token.
    #[serde(borrow)]
    pub token: Cow<'a, str>,
    /// The client's own name for its device; empty when missing.
    #[serde(borrow, default, deserialize_with = "null_is_default")]
    pub device_id: Cow<'a, str>,
    /// 0 app, 1 web (the default), 2 PC, or another number.
    #[serde(default = "web", deserialize_with = "null_is_web")]
    pub device_flag: u8,
}

/// Without the token.
impl fmt::Debug for Connect<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Connect")
            .field("uid", &self.uid)
            .field("device_flag", &self.device_flag)
            .finish_non_exhaustive()
    }
}

/// The parameters of `send`. `setting` and `expire` are ignored: a topic alone tells that there is one.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Send<'a> {
    /// The flags that the client asks for.
    #[serde(default, deserialize_with = "null_is_default")]
    pub header: Header,
    /// The client's own id of the message; empty when missing.
    #[serde(borrow, default, deserialize_with = "null_is_default")]
    pub client_msg_no: Cow<'a, str>,
    /// The peer's uid or the group's id.
    #[serde(borrow)]
    pub channel_id: Cow<'a, str>,
    /// 1 person, 2 group.
    pub channel_type: u8,
    /// Empty when missing.
    #[serde(borrow, default, deserialize_with = "null_is_default")]
    pub topic: Cow<'a, str>,
    /// Decoded from base64.
    #[serde(deserialize_with = "base64")]
    pub payload: Vec<u8>,
}

/// Without the payload.
impl fmt::Debug for Send<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Send")
            .field("header", &self.header)
            .field("client_msg_no", &self.client_msg_no)
            .field("channel_id", &self.channel_id)
            .field("channel_type", &self.channel_type)
            .finish_non_exhaustive()
    }
}

/// The parameters of `recvack`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Recvack {
    /// The flags of the message.
    #[serde(default, deserialize_with = "null_is_default")]
    pub header: Header,
    /// That of `recv`: a string or a number.
    #[serde(deserialize_with = "message_id")]
    pub message_id: i64,
    /// That of `recv`.
    pub message_seq: u64,
}

/// The parameters of `disconnect`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Disconnect<'a> {
    /// 0 when missing.
    #[serde(deserialize_with = "null_is_default")]
    pub reason_code: u8,
    /// Empty when missing.
    #[serde(borrow, deserialize_with = "null_is_default")]
    pub reason: Cow<'a, str>,
}

/// A request that is answered with an error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind}")]
pub struct RequestError {
    /// What is wrong.
    #[source]
    pub kind: ErrorKind,
    /// The request's id, where one could be read.
    pub id: Option<Id>,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow, default)]
    jsonrpc: Option<Cow<'a, str>>,
    #[serde(default)]
    id: Option<Id>,
    #[serde(borrow)]
    method: Cow<'a, str>,
    #[serde(borrow, default)]
    params: Option<&'a RawValue>,
}

/// Reads one message.
pub fn parse(text: &str) -> Result<Request<'_>, RequestError> {
    let invalid = |kind| RequestError { kind, id: None };
    strict::check(text).map_err(invalid)?;
    let message: Message<'_> =
        serde_json::from_str(text).map_err(|_| invalid(ErrorKind::InvalidRequest))?;
    let Message { id, params, .. } = message;
    if message.jsonrpc.is_some_and(|version| version != "2.0") {
        let kind = ErrorKind::InvalidRequest;
        return Err(RequestError { kind, id });
    }
    let call = match &*message.method {
        "connect" => read(params).map(Call::Connect),
        "send" => read(params).map(Call::Send),
        "recvack" => read(params).map(Call::Recvack),
        "ping" => Ok(Call::Ping),
        "disconnect" if params.is_none() => Ok(Call::Disconnect(Disconnect::default())),
        "disconnect" => read(params).map(Call::Disconnect),
        _ => Err(ErrorKind::UnknownMethod),
    };
    match call {
        Ok(call) => Ok(Request { id, call }),
        Err(kind) => Err(RequestError { kind, id }),
    }
}

/// Reads an object: serde would take an array for a struct, too.
fn read<'a, T: Deserialize<'a>>(params: Option<&'a RawValue>) -> Result<T, ErrorKind> {
    let text = params.map_or("", RawValue::get);
    if !text.starts_with('{') {
        return Err(ErrorKind::InvalidParams);
    }
    serde_json::from_str(text).map_err(|_| ErrorKind::InvalidParams)
}

fn web() -> u8 {
    1
}

fn null_is_web<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u8, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_else(web))
}

fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

fn base64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = Cow::<str>::deserialize(deserializer)?;
    BASE64_STANDARD.decode(&*text).map_err(D::Error::custom)
}

fn message_id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum MessageId {
        Number(i64),
        Text(String),
    }
    match MessageId::deserialize(deserializer)? {
        MessageId::Number(id) => Ok(id),
        MessageId::Text(id) => id.parse().map_err(D::Error::custom),
    }
}
