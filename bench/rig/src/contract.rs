//! Whether an answer is one that the gateway's contract allows: its shape always, and its code where something is wrong upstream.

use serde_json::Value;

use crate::client::Answer;
use crate::mix::{Asked, Kind, PAGE};
use crate::upstream::MARKER;

/// What an answer that the contract allows says.
pub struct Judged {
    /// Why a request failed. An expected refusal is not a failure.
    pub failed: Option<&'static str>,
    /// Messages that are stored.
    pub sent: usize,
}

/// The failures that are not the client's fault.
const CODES: [(&str, u16); 6] = [
    ("upstream_error", 502),
    ("upstream_unavailable", 503),
    ("overloaded", 503),
    ("upstream_timeout", 504),
    ("message_unconfirmed", 504),
    ("partial_failure", 207),
];

/// Reads `answer`, while `allowed` says which codes may be.
///
/// # Errors
/// For an answer that the contract does not allow now: why, and what it looks like.
pub fn judge(
    asked: &Asked,
    answer: &Answer,
    allowed: impl Fn(&str) -> bool,
) -> Result<Judged, String> {
    read(asked, answer, allowed).map_err(|why| {
        let repeated = if asked.repeated { ", repeated" } else { "" };
        format!("{:?}{repeated}: {why}: {}", asked.kind, answer.sample())
    })
}

fn read(
    asked: &Asked,
    answer: &Answer,
    allowed: impl Fn(&str) -> bool,
) -> Result<Judged, &'static str> {
    let must = |is_so: bool, otherwise| if is_so { Ok(()) } else { Err(otherwise) };
    let shown = memchr::memmem::find(&answer.body, MARKER.as_bytes());
    must(shown.is_none(), "shows a text of the upstream")?;
    let body: Value = serde_json::from_slice(&answer.body).map_err(|_| "no JSON")?;
    let id = answer.header("x-request-id").unwrap_or_default();
    must(!id.is_empty(), "no x-request-id")?;
    let data = &body["data"];
    let sent = sent(asked, data);
    if body["success"] == true {
        let needs_no_escape = answer.status == 200 && body.get("message").is_none();
        must(
            needs_no_escape && is_good(asked, answer, data, sent),
            "no such success",
        )?;
        return Ok(Judged { failed: None, sent });
    }
    let is_envelope = body["success"] == false && body["requestId"] == id;
    must(is_envelope && body["message"].is_string(), "no envelope")?;
    let code = body["code"].as_str().unwrap_or_default();
    let expected = match asked.kind {
        Kind::Anonymous => code == "token_missing",
        Kind::Invalid => code == "invalid_request",
        _ => false,
    };
    if expected {
        let is_whole = match asked.kind {
            Kind::Anonymous => {
                answer.status == 401 && answer.header("www-authenticate") == Some("Bearer")
            }
            _ => answer.status == 400 && body["details"][0]["field"] == "payload",
        };
        must(is_whole, "no such refusal")?;
        return Ok(Judged { failed: None, sent });
    }
    let known = CODES.into_iter().find(|(known, _)| *known == code);
    let (code, status) = known.ok_or("not this code")?;
    must(
        may_say(asked.kind, code) && allowed(code),
        "not this code now",
    )?;
    let is_told_so = answer.status == status && body["message"] == text_of(asked.kind);
    must(is_told_so, "not this status or message")?;
    must(
        status != 503 || answer.header("retry-after").is_some(),
        "no Retry-After",
    )?;
    if code == "message_unconfirmed" && asked.kind != Kind::Batch {
        must(body["clientMsgNo"] == asked.numbers[0], "no clientMsgNo")?;
    }
    match data {
        Value::Null => must(code != "partial_failure", "no entries")?,
        Value::Array(entries) if asked.kind == Kind::Batch => {
            let failed = entries.iter().filter(|entry| {
                let code = entry["error"]["code"].as_str().unwrap_or_default();
                // What follows a message without an answer is not sent, and told why that one had none.
                let follows = matches!(code, "upstream_timeout" | "upstream_unavailable")
                    && allowed("message_unconfirmed");
                code != "partial_failure"
                    && CODES.iter().any(|(known, _)| *known == code)
                    && (follows || allowed(code))
            });
            must(
                entries.len() == asked.numbers.len() && sent + failed.count() == entries.len(),
                "no such entries",
            )?;
            must(
                (code == "partial_failure") == (sent > 0),
                "not the code of these entries",
            )?;
        }
        _ => return Err("data"),
    }
    Ok(Judged {
        failed: Some(code),
        sent,
    })
}

/// Whether this kind of request may ever be answered so.
fn may_say(kind: Kind, code: &str) -> bool {
    match kind {
        Kind::Batch => true,
        Kind::SendToGroup | Kind::SendToPerson => code != "partial_failure",
        Kind::Sync | Kind::Config => !matches!(code, "partial_failure" | "message_unconfirmed"),
        Kind::Invalid | Kind::Anonymous => code == "overloaded",
    }
}

/// What every 5xx of this kind's endpoint says.
fn text_of(kind: Kind) -> &'static str {
    match kind {
        Kind::SendToGroup | Kind::SendToPerson | Kind::Invalid | Kind::Anonymous => "发送消息失败",
        Kind::Batch => "批量发送消息失败",
        Kind::Sync => "同步消息失败",
        Kind::Config => "获取连接配置失败",
    }
}

/// How many of the messages are stored, going by `data`.
fn sent(asked: &Asked, data: &Value) -> usize {
    match asked.kind {
        Kind::SendToGroup | Kind::SendToPerson => usize::from(is_sent(data, &asked.numbers[0])),
        Kind::Batch => {
            let entries = data.as_array().into_iter().flatten().zip(&asked.numbers);
            entries
                .filter(|(entry, number)| is_sent(entry, number))
                .count()
        }
        _ => 0,
    }
}

fn is_good(asked: &Asked, answer: &Answer, data: &Value, sent: usize) -> bool {
    match asked.kind {
        Kind::SendToGroup | Kind::SendToPerson => sent == 1,
        Kind::Batch => {
            sent == asked.numbers.len() && data.as_array().is_some_and(|all| all.len() == sent)
        }
        Kind::Sync => {
            let seq = |message: &Value| message["messageSeq"].as_u64();
            answer.header("x-has-more").is_some()
                && data.as_array().is_some_and(|messages| {
                    messages.len() <= PAGE
                        && messages.is_sorted_by(|one, next| seq(one) < seq(next))
                })
        }
        Kind::Config => data["wsUrl"].is_string() && data["tcpAddr"].is_string(),
        Kind::Invalid | Kind::Anonymous => false,
    }
}

/// A message that is stored.
fn is_sent(data: &Value, number: &str) -> bool {
    let is_id = |id: &str| !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit());
    data["messageId"].as_str().is_some_and(is_id)
        && data["messageSeq"].as_u64().is_some_and(|seq| seq >= 1)
        && data["clientMsgNo"] == number
        && data["timestamp"].is_u64()
}

/// What `/health` says: `None` for what it may not say.
pub fn health(answer: &Answer) -> Option<bool> {
    let body: Value = serde_json::from_slice(&answer.body).ok()?;
    let status = body["data"]["status"].as_str()?;
    match (answer.status, status) {
        (200, "healthy") if body["success"] == true => Some(true),
        (503, "unhealthy")
            if body["success"] == false
                && body["code"] == "upstream_unavailable"
                && body["message"] == "服务不可用" =>
        {
            Some(false)
        }
        _ => None,
    }
}

/// What `/readyz` says.
pub fn readiness(answer: &Answer) -> Option<bool> {
    let body: Value = serde_json::from_slice(&answer.body).ok()?;
    match (answer.status, &body["ready"]) {
        (200, Value::Bool(true)) => Some(true),
        (503, Value::Bool(false)) if body["reasons"][0] == "no wukongim node answers" => {
            Some(false)
        }
        _ => None,
    }
}
