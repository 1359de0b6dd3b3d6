//! The error texts of Go's JSON decoder, which v2 passes on to its callers.
//!
//! Bodies are parsed with serde; only when that fails is the reason worked out again in Go's words.

use serde::Deserialize;
use serde_json::Value;

/// Parses a body, or tells in Go's words why it cannot be. `target` is the Go type's name, such as `api.messageSendReq`.
pub(super) fn parse<'a, T: Deserialize<'a>>(body: &'a [u8], target: &str) -> Result<T, String> {
    // serde fills a struct from an array too, Go does not.
    if target.starts_with("api.") && body.trim_ascii_start().starts_with(b"[") {
        let array: Value = serde_json::from_slice(body).map_err(|e| explain(body, target, &e))?;
        return Err(mismatch(&array, target).unwrap_or_default());
    }
    serde_json::from_slice(body).map_err(|error| explain(body, target, &error))
}

fn explain(body: &[u8], target: &str, error: &serde_json::Error) -> String {
    if error.is_data() {
        return serde_json::from_slice(body).map_or_else(
            |_| error.to_string(),
            |value: Value| {
                mismatch(&value, target)
                    .unwrap_or_else(|| format!("json: cannot unmarshal into {target}: {error}"))
            },
        );
    }
    if body.is_empty() {
        return "EOF".to_owned();
    }
    if error.is_eof() {
        return "unexpected EOF".to_owned();
    }
    let at = offset(body, error.line(), error.column());
    let character = body
        .get(at)
        .map_or_else(String::new, |byte| char::from(*byte).to_string());
    let wanted = if error.to_string().starts_with("key must be a string") {
        "object key string"
    } else {
        "value"
    };
    format!("invalid character '{character}' looking for beginning of {wanted}")
}

/// The place serde names by line and column, both from 1.
fn offset(body: &[u8], line: usize, column: usize) -> usize {
    let line_start: usize = body
        .split_inclusive(|byte| *byte == b'\n')
        .take(line.saturating_sub(1))
        .map(<[u8]>::len)
        .sum();
    line_start + column.saturating_sub(1)
}

/// The first thing in `value` that is not of the type its name has in every request of the API.
fn mismatch(value: &Value, target: &str) -> Option<String> {
    let Value::Object(fields) = value else {
        return Some(format!(
            "json: cannot unmarshal {} into Go value of type {target}",
            kind(value)
        ));
    };
    let name = target.trim_start_matches("api.");
    for (field, value) in fields {
        let texts = matches!(field.as_str(), "subscribers" | "uids" | "client_msg_nos");
        let wrong = match value {
            Value::Array(items) if texts => items.iter().find(|item| !item.is_string()),
            Value::Null => None,
            other => (!fits(field, other)).then_some(other),
        };
        if let Some(wrong) = wrong {
            let wanted = if texts && value.is_array() {
                "string"
            } else {
                go_type(field)
            };
            return Some(format!(
                "json: cannot unmarshal {} into Go struct field {name}.{field} of type {wanted}",
                kind(wrong)
            ));
        }
    }
    None
}

fn fits(field: &str, value: &Value) -> bool {
    match go_type(field) {
        "string" | "[]uint8" => value.is_string(),
        "[]string" => value.is_array(),
        "uint8" => value.as_u64().is_some_and(|n| u8::try_from(n).is_ok()),
        "uint64" | "uint32" => value.is_u64(),
        "int" => value.is_i64(),
        _ => true,
    }
}

fn go_type(field: &str) -> &'static str {
    match field {
        "channel_id" | "uid" | "token" | "from_uid" | "login_uid" | "client_msg_no" | "tag_key" => {
            "string"
        }
        "payload" => "[]uint8",
        "subscribers" | "uids" | "client_msg_nos" => "[]string",
        "channel_type" | "device_level" | "pull_mode" => "uint8",
        "start_message_seq" | "end_message_seq" => "uint64",
        "expire" => "uint32",
        "large" | "ban" | "disband" | "send_ban" | "allow_stranger" | "reset" | "limit"
        | "device_flag" => "int",
        _ => "value",
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}
