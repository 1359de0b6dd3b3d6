//! The values of the API as schemas: ids, payloads, numbers. Each states the hard caps, which hold regardless of a deployment's limits,
//! in characters where the rule counts bytes.

use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{Object, ObjectBuilder, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

use crate::auth::{DeviceFlag, ImToken};
use crate::domain::{ChannelId, ChannelType, ClientMsgNo, MessageId, Payload, Uid, caps};
use crate::http::errors::ApiError;
use crate::http::extract::{Avatar, GroupName, GroupType};

/// No control characters, no white space, none of `@ # & / \ ? %`; no reserved name. White space is listed because `\s` is another set
/// in each language.
const ID: &str = "^(?!\\.{1,2}$)(?!____)(?!.*(?:____cmd|___vstr)$)[^\\u0000-\\u0020\\u007f-\\u00a0@#&/\\\\?%\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000]+$";
const NO_CONTROLS: &str = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$";
/// Standard base64 with padding, not empty, no bits after the end.
const BASE64: &str = "^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{4}|[A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=|[A-Za-z0-9+/][AQgw]==)$";

/// The number of a message in its channel.
pub struct MessageSeq;
/// A time in Unix milliseconds.
pub struct UnixMs;

macro_rules! values {
    ($($Value:ty = $schema:expr;)*) => {$(
        impl PartialSchema for $Value {
            fn schema() -> RefOr<Schema> {
                RefOr::T(Schema::Object($schema))
            }
        }
        impl ToSchema for $Value {}
    )*};
}

values! {
    Uid = id("A user's id, as the application assigned it.");
    ChannelId = id("A group's id, or the peer's uid in a conversation of two users.");
    ClientMsgNo = text(1, caps::CLIENT_MSG_NO_BYTES, NO_CONTROLS, "The client's idempotency key of a message, without control characters. At \
        most 255 **bytes** of UTF-8, or fewer if configured (`limits.clientMsgNoBytes` of `/config`; 128 by default).");
    Payload = text(4, caps::PAYLOAD_BYTES.div_ceil(3) * 4, BASE64, "A message's content: standard base64 with padding. At most 512 KiB \
        **after decoding**, or less if configured (`limits.payloadBytes` of `/config`; 64 KiB by default).");
    MessageId = text(1, 20, "^[0-9]+$", "WuKongIM's id of a message: digits in a string, since a JavaScript number would lose the last ones.");
    ImToken = described(Type::String, "A connect token for WuKongIM: 43 characters. Keep it secret.").build();
    ChannelType = numbers([1, 2], "1: a conversation of two users; 2: a group.");
    GroupType = numbers([2], "2: a group.");
    DeviceFlag = numbers([0, 1, 2], "0: a phone app; 1: a browser; 2: a desktop program.");
    GroupName = text(0, caps::NAME_CHARS, NO_CONTROLS, "A group's name, without control characters.");
    Avatar = text(8, caps::AVATAR_CHARS, "^[Hh][Tt][Tt][Pp][Ss]?://[^\\u0000-\\u001f\\u007f-\\u009f]+$", "An http or https URL.");
    MessageSeq = described(Type::Integer, "A message's number in its channel, from 1. 0 only if the deployment answers before a message \
        is stored (`wukongim.confirm = \"accepted\"`, on v2).").minimum(Some(0)).build();
    UnixMs = described(Type::Integer, "Unix time in milliseconds.").minimum(Some(0)).build();
}

impl PartialSchema for ApiError {
    fn schema() -> RefOr<Schema> {
        let all = Self::ALL.map(Self::code);
        let code = described(
            Type::String,
            "For programs: never translated, never changed. [All codes](ERRORS.md).",
        );
        code.enum_values(Some(all)).into()
    }
}

impl ToSchema for ApiError {
    fn name() -> std::borrow::Cow<'static, str> {
        "ErrorCode".into()
    }
}

fn described(kind: Type, description: &str) -> ObjectBuilder {
    let value = ObjectBuilder::new().schema_type(kind);
    value.description(Some(description))
}

fn text(min: usize, max: usize, pattern: &str, description: &str) -> Object {
    let text = described(Type::String, description).pattern(Some(pattern));
    let least = (min > 0).then_some(min);
    text.min_length(least).max_length(Some(max)).build()
}

fn id(what: &str) -> Object {
    let rule = "At most 255 **bytes** of UTF-8, or fewer if configured (`limits.idBytes` of `/config`; 128 by \
        default). Any script, but no control characters, no white space, none of `@ # & / \\ ? %`; not `.` or `..`, not beginning \
        with `____`, not ending in `____cmd` or `___vstr`.";
    text(1, caps::ID_BYTES, ID, &format!("{what} {rule}"))
}

fn numbers<const N: usize>(numbers: [u8; N], description: &str) -> Object {
    let value = described(Type::Integer, description);
    value.enum_values(Some(numbers)).build()
}
