//! `GET /message/sync`: reading a history.

use axum::extract::State;
use axum::response::Response;
use http::HeaderValue;
use utoipa::IntoParams;

use super::synced::{self, SyncedMessage};
use crate::auth::Caller;
use crate::config::Limits;
use crate::domain::{Channel, ChannelId, ChannelType};
use crate::history::Position;
use crate::http::envelope::success;
use crate::http::errors::{ApiError, Failure, LocalizedText, Problem};
use crate::http::extract::{FieldProblems, FromQuery, MAX_NUMBER, Query, QueryFields};
use crate::state::App;

/// Why a history is not read.
pub(super) const REFUSALS: &[ApiError] = &[
    ApiError::Forbidden,
    ApiError::NotAMember,
    ApiError::ChannelNotFound,
];

/// Which part of which history.
#[derive(IntoParams)]
#[into_params(parameter_in = Query, rename_all = "camelCase")]
#[expect(dead_code, reason = "the document's view of what is read by hand")]
struct SyncMessagesQuery {
    /// The group's id, or the other one's uid.
    channel_id: ChannelId,
    /// 1: a conversation of two; 2: a group.
    channel_type: ChannelType,
    /// Those just above this number; without it, or with 0, the newest.
    #[param(minimum = 0, maximum = 9_223_372_036_854_775_807_usize)]
    last_message_seq: Option<u64>,
    /// Those just below this number; not together with a `lastMessageSeq` other than 0.
    #[param(minimum = 1, maximum = 9_223_372_036_854_775_807_usize)]
    before_message_seq: Option<u64>,
    /// How many at most, 50 unless configured; more than the deployment's maximum (`limits.syncMax` of `/config`) means that maximum.
    #[param(minimum = 1)]
    limit: Option<u64>,
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
        problems: &mut FieldProblems,
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

    fn failure(problems: FieldProblems) -> Failure {
        let missing = problems.lacks("channelId") || problems.lacks("channelType");
        // The reference's own words, in every language.
        let text = "channelId and channelType are required";
        let message = missing.then_some(LocalizedText { zh: text, en: text });
        Failure {
            message,
            ..Failure::invalid(problems.into_details())
        }
    }
}

/// Reads a part of a history, oldest first.
#[utoipa::path(
    get,
    path = "",
    tag = "messages",
    params(SyncMessagesQuery),
    responses(
        (status = 200, description = "The messages.", headers(("x-has-more")), body = [SyncedMessage], example = json!([{
            "messageId": "2124961498668208128", "messageSeq": 12345, "channelId": "user2", "channelType": 1, "fromUid": "user2",
            "payload": "eyJ0eXBlIjoxLCJjb250ZW50IjoiaGVsbG8ifQ==", "timestamp": 1_705_312_800_000_u64, "clientMsgNo": "note-1"
        }])),
        (status = 400, content_type = "application/json", examples(("without_channel" = (value = json!({
            "success": false, "message": "channelId and channelType are required", "code": "invalid_request",
            "requestId": "62594eb9ff9f49d281ae136bce06db32",
            "details": [{"field": "channelId", "message": "必填"}, {"field": "channelType", "message": "必填"}]
        })))))
    )
)]
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
