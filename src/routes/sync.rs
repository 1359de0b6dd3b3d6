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
use crate::http::errors::{Failure, FieldProblem, LocalizedText, Problem};
use crate::http::extract::{MAX_NUMBER, Number, Query, request};
use crate::state::App;

request! {
    /// A part of a history.
    #[derive(Debug, IntoParams)]
    #[into_params(parameter_in = Query)]
    pub(super) struct SyncMessagesRequest: param {
        /// The group's id, or the peer's uid.
        "channelId" => channel_id: ChannelId,
        /// 1: a conversation of two users; 2: a group.
        "channelType" => channel_type: ChannelType,
        /// Messages directly above this seq; without it, or with 0, the newest.
        #[param(value_type = Option<u64>, minimum = 0, maximum = 9_223_372_036_854_775_807_usize)]
        "lastMessageSeq" => last_message_seq: Option<Number<0, MAX_NUMBER>>,
        /// Messages directly below this seq; not together with a `lastMessageSeq` other than 0.
        #[param(value_type = Option<u64>, minimum = 1, maximum = 9_223_372_036_854_775_807_usize)]
        "beforeMessageSeq" => before_message_seq: Option<Number<1, MAX_NUMBER>>,
        /// The maximum number of messages, 50 by default; reduced to the deployment's maximum (`limits.syncMax` of `/config`).
        #[param(value_type = Option<u64>, minimum = 1)]
        "limit" => limit: Option<Number<1, { u64::MAX }>>, check |fields| {
            if let (Some(Some(Number(1..))), Some(Some(_))) = (last_message_seq, before_message_seq) {
                fields.report("beforeMessageSeq", Problem::NotWith("lastMessageSeq"));
            }
        },
    }
    impl {
        fn cost(&self, limits: &Limits) -> usize {
            1 + self.limit(limits) / 50
        }

        fn failure(problems: Vec<FieldProblem>) -> Failure {
            let is_missing = |name| problems.iter().any(|it| it.field == name && it.problem == Problem::Required);
            // The reference's own words, in every language.
            let text = "channelId and channelType are required";
            let message = ["channelId", "channelType"].into_iter().any(is_missing).then_some(LocalizedText { zh: text, en: text });
            Failure { message, ..Failure::invalid(problems) }
        }
    }
}

impl SyncMessagesRequest {
    fn position(&self) -> Position {
        match (self.last_message_seq, self.before_message_seq) {
            (_, Some(Number(seq))) => Position::Before(seq),
            (Some(Number(seq @ 1..)), None) => Position::After(seq),
            _ => Position::Newest,
        }
    }

    fn limit(&self, limits: &Limits) -> usize {
        let limit = self.limit.map(|Number(limit)| usize::try_from(limit));
        let limit = limit.map_or(limits.sync_default, |limit| limit.unwrap_or(usize::MAX));
        limit.min(limits.sync_max)
    }
}

/// Reads a part of a history, oldest first.
#[utoipa::path(
    get,
    path = "",
    tag = "messages",
    extensions(("x-summary-zh" = json!("同步历史消息，按时间从旧到新返回"))),
    params(SyncMessagesRequest),
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
    let limit = request.limit(&app.settings.limits);
    let position = request.position();
    let channel = Channel::new(request.channel_type, request.channel_id);
    let history = &app.history;
    let excerpt = history.read(&caller.uid, &channel, position, limit).await?;
    let messages = &excerpt.messages;
    let mut response = success(synced::size(messages, &channel), |out| {
        synced::write(out, messages, &channel);
    });
    let has_more = HeaderValue::from_static(if excerpt.has_more { "true" } else { "false" });
    response.headers_mut().insert("x-has-more", has_more);
    Ok(response)
}
