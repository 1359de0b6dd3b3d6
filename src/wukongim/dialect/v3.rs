//! The protocol of v3 (beta of 2026-08): the meaning of its answers. v3 checks permissions itself and reports the outcome in `reason`.

mod conversation_rows;
pub(crate) mod conversations;

use http::StatusCode;
use serde::Deserialize;
use serde_json::Value;

use super::v2::SendBody;
use crate::domain::{ChannelId, MessageId};
use crate::wukongim::call::{Answer, Call, Node};
use crate::wukongim::{
    Accepted, ChannelState, Error, Generation, Outgoing, Reason, Rejection, SystemInfo,
};

/// The texts of refusals, as seen on a running server; the first that matches counts.
const REJECTIONS: [(&str, Rejection); 4] = [
    ("membership required", Rejection::MembershipRequired),
    ("channel disbanded", Rejection::Disbanded),
    ("channel not found", Rejection::ChannelNotFound),
    ("not found", Rejection::NotFound),
];

/// Maps an answer other than 200 to an error; the texts were seen on a running server.
pub(crate) fn refusal(answer: &Answer) -> Error {
    #[derive(Deserialize, Default)]
    struct ErrorBody {
        #[serde(default)]
        error: String,
        #[serde(default)]
        msg: String,
    }
    if !answer.is_json {
        return Error::Status(answer.status.as_u16());
    }
    let words: ErrorBody = answer.json().unwrap_or_default();
    let text = if words.error.is_empty() {
        words.msg
    } else {
        words.error
    };
    let rejection = match answer.status {
        StatusCode::SERVICE_UNAVAILABLE if text == "maintenance" => return Error::Maintenance,
        StatusCode::SERVICE_UNAVAILABLE if text.contains("retry required") => {
            Rejection::RetryRequired
        }
        StatusCode::REQUEST_TIMEOUT => return Error::Timeout,
        StatusCode::INTERNAL_SERVER_ERROR if text.contains("log conflict") => Rejection::Conflict,
        status @ (StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND) => {
            let known = REJECTIONS.iter().find(|(known, _)| text.contains(known));
            match known {
                Some((_, rejection)) => *rejection,
                None if status == StatusCode::BAD_REQUEST => Rejection::Other,
                None => return Error::Status(status.as_u16()),
            }
        }
        status => return Error::Status(status.as_u16()),
    };
    Error::Rejected(rejection)
}

/// `{"status":200}`, or the refusal.
pub(crate) fn command_result(answer: &Answer) -> Result<(), Error> {
    if answer.status == StatusCode::OK {
        super::v2::command_result(answer)
    } else {
        Err(refusal(answer))
    }
}

/// `/message/send`: id and seq of a stored message, or the reason why it was not stored.
pub(crate) async fn send(node: &Node, message: &Outgoing<'_>) -> Result<Accepted, Error> {
    let answer = node
        .call(Call::post(
            "message_send",
            "/message/send",
            &SendBody::new(Generation::V3, message),
        ))
        .await?;
    sent(&answer)
}

fn sent(answer: &Answer) -> Result<Accepted, Error> {
    /// v2's answer to a body marked for v3: `json: cannot unmarshal number into Go struct field messageSendReq.tag_key …`.
    #[derive(Deserialize)]
    struct V2Error {
        msg: String,
    }
    #[derive(Deserialize)]
    struct Sent {
        message_id: u64,
        message_seq: u64,
        reason: i64,
    }
    let is_v2_error = || {
        answer
            .json()
            .is_ok_and(|V2Error { msg }| msg.contains("tag_key"))
    };
    if answer.status == StatusCode::BAD_REQUEST && is_v2_error() {
        return Err(Error::OtherGeneration);
    }
    if answer.status != StatusCode::OK {
        return Err(refusal(answer));
    }
    let Sent {
        message_id,
        message_seq,
        reason,
    } = answer.json()?;
    match reason {
        1 if message_id != 0 && message_seq != 0 => Ok(Accepted {
            id: MessageId(message_id),
            seq: Some(message_seq),
        }),
        1 => Err(Error::Decode(answer.call)),
        reason => Err(Error::Refused(Reason(reason))),
    }
}

/// Whether a group exists, without the manager port: a send from a uid that cannot be a member is always refused, with reason 5 where there
/// is no group (v3 checks the channel first, then membership). Nothing is ever stored.
pub(crate) async fn probe_group(node: &Node, group: &ChannelId) -> Result<ChannelState, Error> {
    // No user can have this uid: the gateway refuses ids that begin with `____`, and WuKongIM does not use it itself.
    let body = serde_json::json!({
        "header": {"no_persist": 1},
        "from_uid": "____gateway",
        "channel_id": group.as_str(),
        "channel_type": 2,
        "payload": "e30=",
        // As in `SendBody`: unknown to v3, and refused by v2.
        "tag_key": 0,
    });
    let answer = node
        .call(Call::post("channel_probe", "/message/send", &body))
        .await?;
    let exists = |banned, disbanded| {
        Ok(ChannelState {
            exists: true,
            occupied: true,
            banned,
            disbanded,
        })
    };
    match sent(&answer) {
        Err(Error::Refused(Reason::NO_CHANNEL) | Error::Rejected(Rejection::ChannelNotFound)) => {
            Ok(ChannelState::default())
        }
        Err(Error::Rejected(Rejection::Disbanded)) => exists(false, true),
        Err(Error::Refused(reason)) => {
            exists(reason == Reason::BANNED, reason == Reason::DISBANDED)
        }
        Ok(_) => exists(false, false),
        Err(error) => Err(error),
    }
}

/// `/metrics` for the start time, `/top/v1/snapshot` for connections (0 while that has no figures or is switched off).
pub(crate) async fn system_info(node: &Node) -> Result<SystemInfo, Error> {
    let (metrics, snapshot) = tokio::join!(
        node.call(Call::get("metrics", "/metrics").max_bytes(4 * 1024 * 1024)),
        node.call(Call::get("snapshot", "/top/v1/snapshot")),
    );
    let metrics = metrics?;
    if metrics.status != StatusCode::OK {
        return Err(refusal(&metrics));
    }
    let started_s = std::str::from_utf8(&metrics.body)
        .ok()
        .and_then(process_start);
    let started_s = started_s.ok_or(Error::Decode(metrics.call))?;
    let now_s = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |now| now.as_secs());
    let snapshot: Value = snapshot?.json().unwrap_or_default();
    let connections = &snapshot["clients"]["connections"];
    Ok(SystemInfo {
        version: None,
        uptime_s: now_s.saturating_sub(started_s),
        connections: connections.as_u64().unwrap_or(0),
    })
}

/// `process_start_time_seconds 1.79546258425e+09` in whole seconds.
fn process_start(metrics: &str) -> Option<u64> {
    let line = metrics
        .lines()
        .find_map(|line| line.strip_prefix("process_start_time_seconds "))?;
    let seconds: f64 = line.trim().parse().ok()?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked just before"
    )]
    (0.0..1e12).contains(&seconds).then_some(seconds as u64)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::context::ByteBudget;

    fn refused(status: u16, body: &'static str) -> Error {
        refusal(&Answer {
            call: "x",
            status: StatusCode::from_u16(status).unwrap(),
            body: Bytes::from_static(body.as_bytes()),
            is_json: true,
            reservation: ByteBudget::unbounded().new_reservation().into(),
        })
    }

    #[test]
    fn lookalike_words_are_distinguished() {
        use Rejection as R;
        let membership =
            r#"{"msg":"internal/message: valid channel membership required","status":400}"#;
        assert_eq!(
            refused(400, membership),
            Error::Rejected(R::MembershipRequired)
        );
        assert_eq!(
            refused(400, r#"{"msg":"internal/message: channel disbanded"}"#),
            Error::Rejected(R::Disbanded)
        );
        assert_eq!(
            refused(400, r#"{"msg":"db: not found","status":400}"#),
            Error::Rejected(R::NotFound)
        );
        assert_eq!(
            refused(500, r#"{"error":"x: append log conflict"}"#),
            Error::Rejected(R::Conflict)
        );
        assert_eq!(
            refused(503, r#"{"error":"retry required"}"#),
            Error::Rejected(R::RetryRequired)
        );
        assert_eq!(
            refused(503, r#"{"error":"maintenance","message":"…"}"#),
            Error::Maintenance
        );
        assert_eq!(refused(500, r#"{"error":"boom"}"#), Error::Status(500));
    }

    #[test]
    fn the_start_time_is_read_from_the_metrics() {
        let text = "# TYPE process_start_time_seconds gauge\nprocess_start_time_seconds 1.79546258425e+09\n";
        assert_eq!(process_start(text), Some(1_795_462_584));
        assert_eq!(process_start("nothing"), None);
    }
}
