//! The endpoints that send messages: one, or many.

use axum::extract::State;
use http::header::HeaderMap;
use serde::Serialize;
use serde_json::value::to_raw_value;
use utoipa::ToSchema;

use crate::auth::Caller;
use crate::config::Limits;
use crate::domain::{
    Channel, ChannelId, ChannelType, ClientMsgNo, MessageId, Payload, PayloadProblem, Uid,
};
use crate::http::envelope::{Envelope, language, message_of};
use crate::http::errors::{ApiError, Failure, FieldProblem, Lang, Problem};
use crate::http::extract::{Deadline, FromJson, Json, list, request};
use crate::http::openapi::{MessageSeq, UnixMs};
use crate::messages::{Draft, SendError, Sent};
use crate::routes::Endpoint;
use crate::state::App;
use crate::wukongim::SAFE_PAYLOAD_BYTES;

request! {
    /// A message to send.
    #[derive(Debug, ToSchema)]
    pub(super) struct SendMessageRequest: schema {
        "channelId" => channel_id: ChannelId,
        "channelType" => channel_type: ChannelType,
        "payload" => payload: Payload,
        /// The idempotency key: a message sent again with the same one is stored once, with the same answer. Generated if absent.
        "clientMsgNo" => client_msg_no: Option<ClientMsgNo>,
        /// The sender, only for admins; the caller by default.
        "fromUid" => from_uid: Option<Uid>,
    }
}

impl SendMessageRequest {
    /// The sender and the message. Only an admin may send as another user, under that user's permissions.
    fn with_sender(self, caller: &Caller) -> Result<(Uid, Draft), Failure> {
        let sender = self.from_uid.unwrap_or_else(|| caller.uid.clone());
        let is_foreign = sender != caller.uid;
        if is_foreign && !caller.is_admin {
            return Err(Failure::from(ApiError::Forbidden).because("foreign fromUid"));
        }
        let draft = Draft {
            actor: is_foreign.then(|| caller.uid.clone()),
            channel: Channel::new(self.channel_type, self.channel_id),
            payload: self.payload,
            client_msg_no: self.client_msg_no,
        };
        Ok((sender, draft))
    }
}

/// Where the message is stored.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct SendMessageResponse {
    message_id: MessageId,
    #[schema(value_type = MessageSeq)]
    message_seq: u64,
    client_msg_no: ClientMsgNo,
    #[schema(value_type = UnixMs)]
    timestamp: u64,
}

impl From<Sent> for SendMessageResponse {
    fn from(
        Sent {
            stored,
            client_msg_no,
        }: Sent,
    ) -> Self {
        Self {
            message_id: stored.id,
            message_seq: stored.seq,
            client_msg_no,
            timestamp: stored.id.unix_ms(),
        }
    }
}

/// Sends one message, and answers when it is stored.
///
/// After `message_unconfirmed` the message may be stored. When it is sent again with the `clientMsgNo` of that answer, the gateway searches
/// for it first.
#[utoipa::path(
    post,
    path = "",
    tag = "messages",
    extensions(("x-summary-zh" = json!("发送一条消息，存储成功后才返回"))),
    request_body(content = SendMessageRequest, example = json!({
        "channelId": "user2", "channelType": 1, "payload": "eyJ0eXBlIjoxLCJjb250ZW50IjoiaGVsbG8ifQ==", "clientMsgNo": "note-1"
    })),
    responses((status = 200, description = "The message is stored.", body = SendMessageResponse, example = json!({
        "messageId": "2124961498668208128", "messageSeq": 12345, "clientMsgNo": "note-1", "timestamp": 1_705_312_800_000_u64
    })))
)]
pub(super) async fn send_message(
    caller: Caller,
    State(app): State<App>,
    Deadline(deadline): Deadline,
    Json(request): Json<SendMessageRequest>,
) -> Result<Envelope<SendMessageResponse>, Failure> {
    let draft = request.with_sender(&caller)?;
    check_payloads(&app, std::slice::from_ref(&draft), false).await?;
    let (sender, draft) = draft;
    let sent = app.messages.send(&sender, draft, deadline).await?;
    Ok(Envelope(sent.into()))
}

/// At most `limits.batch` of `/config`, 100 by default.
#[derive(Debug, ToSchema)]
#[schema(min_items = 1, max_items = 1000)]
pub(super) struct SendMessageBatchRequest(Vec<SendMessageRequest>);

impl FromJson for SendMessageBatchRequest {
    fn from_json(body: Option<&[u8]>, limits: &Limits) -> Result<Self, Vec<FieldProblem>> {
        list(body, limits.batch, limits).map(Self)
    }

    fn cost(&self, _: &Limits) -> usize {
        self.0.len()
    }
}

/// The result of one message of a batch that was not sent completely.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
enum BatchEntry {
    Sent(SendMessageResponse),
    Failed { error: BatchError },
}

/// Why a message of a batch was not sent.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct BatchError {
    #[schema(value_type = ApiError)]
    code: &'static str,
    /// One sentence for users.
    message: &'static str,
    /// Present if the message may be stored: send it again with this number.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    client_msg_no: Option<ClientMsgNo>,
}

/// Sends several messages; those to one channel keep their order.
///
/// If one message is invalid, none is sent. If all are sent, the status is 200; if some are, 207 with one entry per message in the order of
/// the request; if none is, the first error's status and code, with the entries.
#[utoipa::path(
    post,
    path = "",
    tag = "messages",
    extensions(("x-summary-zh" = json!("批量发送消息，同一频道内保持顺序"))),
    request_body(content = SendMessageBatchRequest, example = json!([
        {"channelId": "user2", "channelType": 1, "payload": "eyJ0eXBlIjoxLCJjb250ZW50IjoiaGVsbG8ifQ==", "clientMsgNo": "note-1"}
    ])),
    responses(
        (status = 200, description = "All messages are stored.", body = [SendMessageResponse], example = json!([
            {"messageId": "2124961498668208128", "messageSeq": 12345, "clientMsgNo": "note-1", "timestamp": 1_705_312_800_000_u64}
        ])),
        (status = 207, body = [BatchEntry], examples(("partial_failure" = (value = json!({
            "success": false, "message": "批量发送消息失败", "code": "partial_failure", "requestId": "62594eb9ff9f49d281ae136bce06db32",
            "data": [
                {"messageId": "2124961498668208128", "messageSeq": 12345, "clientMsgNo": "note-1", "timestamp": 1_705_312_800_000_u64},
                {"error": {"code": "not_a_member", "message": "不是该群成员"}}
            ]
        })))))
    )
)]
pub(super) async fn send_message_batch(
    caller: Caller,
    State(app): State<App>,
    Deadline(deadline): Deadline,
    headers: HeaderMap,
    Json(SendMessageBatchRequest(requests)): Json<SendMessageBatchRequest>,
) -> Result<Envelope<Vec<SendMessageResponse>>, Failure> {
    let with_senders = requests
        .into_iter()
        .map(|request| request.with_sender(&caller));
    let drafts = with_senders.collect::<Result<Vec<_>, Failure>>()?;
    check_payloads(&app, &drafts, true).await?;
    let self_messages = app.messages.indices_refused_to_self(&drafts).await;
    if !self_messages.is_empty() {
        let details = self_messages
            .into_iter()
            .map(|index| FieldProblem::new(format!("[{index}].channelId"), Problem::Oneself));
        return Err(Failure::invalid(details.collect()));
    }
    let results = app.messages.send_batch(drafts, deadline).await;
    if results.iter().all(Result::is_ok) {
        let sent = results.into_iter().flatten();
        return Ok(Envelope(sent.map(SendMessageResponse::from).collect()));
    }
    Err(partial_failure(results, language(&headers)))
}

/// Refuses payloads above the upstream limit, naming their fields. Payloads that every WuKongIM accepts need no check.
async fn check_payloads(app: &App, drafts: &[(Uid, Draft)], is_batch: bool) -> Result<(), Failure> {
    let lengths = drafts.iter().map(|(_, draft)| draft.payload.decoded_len());
    if lengths.max() <= Some(SAFE_PAYLOAD_BYTES) {
        return Ok(());
    }
    let max_bytes = app.client.payload_limit().await?;
    let problem = Problem::Payload(PayloadProblem::TooLarge { max_bytes });
    let mut details = Vec::new();
    for (index, (_, draft)) in drafts.iter().enumerate() {
        if draft.payload.decoded_len() > max_bytes {
            let prefix = is_batch.then(|| format!("[{index}]."));
            let field = prefix.unwrap_or_default() + "payload";
            details.push(FieldProblem::new(field, problem));
        }
    }
    if details.is_empty() {
        Ok(())
    } else {
        Err(Failure::invalid(details))
    }
}

fn partial_failure(results: Vec<Result<Sent, SendError>>, lang: Lang) -> Failure {
    let text = Endpoint::found_at("/api/v1/im/message/sendbatch").failure;
    let results = results.into_iter();
    let results: Vec<_> = results
        .map(|result| result.map_err(Failure::from))
        .collect();
    let entries = results.iter().map(|result| match result {
        Ok(sent) => BatchEntry::Sent(sent.clone().into()),
        Err(failure) => BatchEntry::Failed {
            error: BatchError {
                code: failure.error.code(),
                message: message_of(failure, text).in_lang(lang),
                client_msg_no: failure.client_msg_no.clone(),
            },
        },
    });
    let data = to_raw_value(&entries.collect::<Vec<_>>()).ok();
    let any_sent = results.iter().any(Result::is_ok);
    let first = results.into_iter().find_map(Result::err);
    let first = first.unwrap_or_else(|| ApiError::Internal.into());
    let error = if any_sent {
        ApiError::PartialFailure
    } else {
        first.error
    };
    Failure {
        data,
        message: Some(text),
        cause: first.cause,
        ..error.into()
    }
}
