//! The message endpoints: send, sendbatch, sync.

use axum::extract::State;
use axum::response::Response;
use http::HeaderValue;
use http::header::HeaderMap;
use serde::Serialize;
use serde_json::value::to_raw_value;

use crate::app::App;
use crate::auth::Caller;
use crate::config::Limits;
use crate::domain::{Channel, ClientMsgNo, MessageId, Uid};
use crate::error::{ApiError, Failure, Lang, Problem, Text};
use crate::extract::{
    Deadline, Fields, FromJson, FromQuery, Json, MAX_NUMBER, Problems, Query, QueryFields, entries,
};
use crate::history::Position;
use crate::messages::{Draft, SendError, Sent};
use crate::response::{Envelope, language, message_of, success};
use crate::routes::Endpoint;

use super::synced;

/// A message to send, and who is to be its sender where an admin says so.
#[derive(Debug)]
pub(super) struct SendMessageRequest {
    draft: Draft,
    from_uid: Option<Uid>,
}

impl SendMessageRequest {
    fn read(mut fields: Fields<'_, '_>) -> Option<Self> {
        let channel = fields.channel();
        let payload = fields.payload();
        let client_msg_no = fields.client_msg_no();
        let from_uid = fields.optional_uid("fromUid");
        let draft = Draft {
            actor: None,
            channel: channel?,
            payload: payload?,
            client_msg_no: client_msg_no?,
        };
        Some(Self {
            draft,
            from_uid: from_uid?,
        })
    }

    /// Only an admin sends as somebody else, and under that user's rules.
    fn with_sender(self, caller: &Caller) -> Result<(Uid, Draft), Failure> {
        let Self {
            mut draft,
            from_uid,
        } = self;
        match from_uid.filter(|uid| *uid != caller.uid) {
            None => Ok((caller.uid.clone(), draft)),
            Some(sender) if caller.is_admin => {
                draft.actor = Some(caller.uid.clone());
                Ok((sender, draft))
            }
            Some(_) => Err(Failure::from(ApiError::Forbidden).because("foreign fromUid")),
        }
    }
}

impl FromJson for SendMessageRequest {
    fn from_json(body: Option<&[u8]>, limits: &Limits, problems: &mut Problems) -> Option<Self> {
        Self::read(Fields::of_body(body, limits, problems)?)
    }
}

/// Where the message is stored.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SendMessageResponse {
    message_id: MessageId,
    message_seq: u64,
    client_msg_no: ClientMsgNo,
    /// Unix milliseconds.
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

/// Sends one message; answers when it is stored.
pub(super) async fn send_message(
    caller: Caller,
    State(app): State<App>,
    Deadline(deadline): Deadline,
    Json(request): Json<SendMessageRequest>,
) -> Result<Envelope<SendMessageResponse>, Failure> {
    let (sender, draft) = request.with_sender(&caller)?;
    let sent = app.messages().send(&sender, draft, deadline).await?;
    Ok(Envelope(sent.into()))
}

/// At least one message, at most `limits.batch`.
#[derive(Debug)]
pub(super) struct SendMessageBatchRequest(Vec<SendMessageRequest>);

impl FromJson for SendMessageBatchRequest {
    fn from_json(body: Option<&[u8]>, limits: &Limits, problems: &mut Problems) -> Option<Self> {
        let entries = entries(body, problems)?;
        if entries.is_empty() {
            problems.add("body", Problem::Empty);
            return None;
        }
        if entries.len() > limits.batch {
            problems.add("body", Problem::TooMany { max: limits.batch });
            return None;
        }
        let mut requests = Vec::with_capacity(entries.len());
        for (place, raw) in entries.into_iter().enumerate() {
            // Every item is read, so that all bad ones are told.
            if let Some(fields) = Fields::of_entry(place, raw, limits, problems) {
                requests.extend(SendMessageRequest::read(fields));
            }
        }
        problems.is_empty().then_some(Self(requests))
    }

    fn cost(&self) -> usize {
        self.0.len()
    }
}

/// What became of one message of a batch that was not sent whole.
#[derive(Serialize)]
#[serde(untagged)]
enum BatchEntry {
    Sent(SendMessageResponse),
    Failed { error: BatchError },
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct BatchError {
    code: &'static str,
    message: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_msg_no: Option<ClientMsgNo>,
}

/// Sends many messages. All sent: 200; some: 207 with an entry for each; none: the first error's status, with the entries.
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
    let results = app.messages().send_batch(drafts, deadline).await;
    if results.iter().all(Result::is_ok) {
        return Ok(Envelope(
            results
                .into_iter()
                .flatten()
                .map(SendMessageResponse::from)
                .collect(),
        ));
    }
    Err(partial_failure(results, language(&headers)))
}

fn partial_failure(results: Vec<Result<Sent, SendError>>, lang: Lang) -> Failure {
    let text = Endpoint::at("/api/v1/im/message/sendbatch").failure;
    let any_sent = results.iter().any(Result::is_ok);
    let mut first = None;
    let entries: Vec<BatchEntry> = results
        .into_iter()
        .map(|result| match result {
            Ok(sent) => BatchEntry::Sent(sent.into()),
            Err(error) => {
                let failure = Failure::from(error);
                let entry = BatchEntry::Failed {
                    error: batch_error(&failure, text, lang),
                };
                first.get_or_insert(failure);
                entry
            }
        })
        .collect();
    let first = first.unwrap_or_else(|| ApiError::Internal.into());
    let error = if any_sent {
        ApiError::PartialFailure
    } else {
        first.error
    };
    Failure {
        data: to_raw_value(&entries).ok(),
        message: Some(text),
        cause: first.cause,
        ..error.into()
    }
}

fn batch_error(failure: &Failure, text: Text, lang: Lang) -> BatchError {
    BatchError {
        code: failure.error.code(),
        message: message_of(failure.error, text).in_lang(lang),
        client_msg_no: failure.client_msg_no.clone(),
    }
}

/// Which part of which history.
#[derive(Debug)]
pub(super) struct SyncMessagesRequest {
    channel: Channel,
    position: Position,
    limit: usize,
}

impl FromQuery for SyncMessagesRequest {
    fn from_query(
        query: &mut QueryFields,
        limits: &Limits,
        problems: &mut Problems,
    ) -> Option<Self> {
        let channel = query.channel(limits, problems);
        let after = query.number("lastMessageSeq", 0, MAX_NUMBER, problems);
        let before = query.number("beforeMessageSeq", 1, MAX_NUMBER, problems);
        // More than the maximum means the maximum.
        let limit = query.number("limit", 1, u64::MAX, problems);
        let position = match (after?.filter(|seq| *seq > 0), before?) {
            (Some(_), Some(_)) => {
                problems.add("beforeMessageSeq", Problem::NotWith("lastMessageSeq"));
                return None;
            }
            (Some(seq), None) => Position::After(seq),
            (None, Some(seq)) => Position::Before(seq),
            (None, None) => Position::Newest,
        };
        let limit = match limit? {
            None => limits.sync_default,
            Some(limit) => usize::try_from(limit).unwrap_or(usize::MAX),
        };
        Some(Self {
            channel: channel?,
            position,
            limit: limit.min(limits.sync_max),
        })
    }

    fn cost(&self) -> usize {
        1 + self.limit / 50
    }

    fn failure(problems: Problems) -> Failure {
        let missing = problems.lacks("channelId") || problems.lacks("channelType");
        // The reference's own words, in every language.
        let text = "channelId and channelType are required";
        let message = missing.then_some(Text { zh: text, en: text });
        Failure {
            message,
            ..Failure::invalid(problems.into_details())
        }
    }
}

/// Reads a history; `x-has-more` tells whether more remain in the direction asked.
pub(super) async fn sync_messages(
    caller: Caller,
    State(app): State<App>,
    Query(request): Query<SyncMessagesRequest>,
) -> Result<Response, Failure> {
    let SyncMessagesRequest {
        channel,
        position,
        limit,
    } = request;
    let excerpt = app
        .history()
        .read(&caller.uid, &channel, position, limit)
        .await?;
    let messages = &excerpt.messages;
    let mut response = success(synced::size(messages, &channel), |out| {
        synced::write(out, messages, &channel);
    });
    let has_more = HeaderValue::from_static(if excerpt.has_more { "true" } else { "false" });
    response.headers_mut().insert("x-has-more", has_more);
    Ok(response)
}
