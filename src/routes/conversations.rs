//! The conversation endpoints: the list, read and delete.

use axum::extract::State;
use axum::response::Response;
use http::{HeaderMap, HeaderValue};
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::synced::{self, SyncedMessage};
use crate::auth::{Caller, Cursors};
use crate::authorization::GroupRecord;
use crate::conversations::{List, Position};
use crate::domain::{Channel, ChannelId, ChannelType};
use crate::http::envelope::{Envelope, success};
use crate::http::errors::{Failure, FieldProblem, Problem};
use crate::http::extract::{Charge, Cursor, Json, MAX_NUMBER, Number, Query, request};
use crate::http::openapi::{MessageSeq, UnixMs};
use crate::state::App;
use crate::wukongim::Conversation;

/// Rows of a page when the request has no limit.
const DEFAULT_ROWS: u64 = 50;
/// Rows of a page at most.
const MAX_ROWS: u64 = 200;
/// The name of the list in its cursors.
const LIST: &str = "conversations";
/// Bytes of a row besides its message and strings.
const ROW_OVERHEAD: usize = 160;

request! {
    /// A page of the caller's conversations.
    #[derive(Debug, IntoParams)]
    #[into_params(parameter_in = Query)]
    pub(super) struct ListConversationsRequest: param {
        /// The maximum number of conversations, 50 by default; more than 200 means 200.
        #[param(value_type = Option<u64>, minimum = 1, maximum = 9_223_372_036_854_775_807_usize)]
        "limit" => limit: Option<Number<1, MAX_NUMBER>>,
        /// Where the page begins: the `x-next-cursor` of the page before, which is opaque. Without it the first page.
        #[param(value_type = Option<String>, max_length = 512, pattern = "^[A-Za-z0-9_-]*$")]
        "cursor" => cursor: Option<Cursor>,
        /// Only conversations with unread messages.
        "unreadOnly" => unread_only: Option<bool>,
    }
}

/// A conversation of the caller.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
#[expect(dead_code, reason = "`write_row` writes it; this is its shape")]
pub(super) struct ListedConversation {
    /// The group's id, or the peer's uid.
    channel_id: ChannelId,
    channel_type: ChannelType,
    /// Unread messages; the caller's own count as read.
    #[schema(minimum = 0)]
    unread: u64,
    /// The seq of the last read message: that of the newest one, less `unread`.
    read_to_seq: MessageSeq,
    /// The newest message, if WuKongIM gives it.
    #[schema(required = true)]
    last_message: Option<SyncedMessage>,
    /// The newest message's time; without one, when WuKongIM says the conversation was active.
    timestamp: UnixMs,
    /// A group's name, if it has one.
    #[schema(nullable = false)]
    name: Option<String>,
    /// A group's avatar, if it has one.
    #[schema(nullable = false)]
    avatar: Option<String>,
}

/// A page of conversations, the newest message first.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
#[expect(dead_code, reason = "`write` writes it; this is its shape")]
pub(super) struct ListConversationsResponse {
    conversations: Vec<ListedConversation>,
    /// Unread messages in all of the caller's conversations; a lower bound where `complete` is false.
    #[schema(minimum = 0)]
    unread_total: u64,
    /// Whether WuKongIM gave all conversations: `false` where it keeps no more (v2: 1,000), could not resolve some (v3), or after 2,000.
    complete: bool,
}

/// Lists the caller's own conversations, the newest message first.
///
/// Costs 1 and a twentieth of the conversations in the answer. What moves up while pages are read is seen on the first page again. For two
/// seconds a replica answers from one look at WuKongIM: what is sent meanwhile may be missing. What the caller reads or deletes shows at once
/// on the replica that did it.
#[utoipa::path(
    get,
    path = "",
    tag = "conversations",
    extensions(("x-summary-zh" = json!("最近会话列表，最新消息的会话在前"))),
    params(ListConversationsRequest),
    responses((
        status = 200, description = "The conversations.", headers(("x-has-more"), ("x-next-cursor")),
        body = ListConversationsResponse, example = json!({
            "conversations": [{
                "channelId": "user2", "channelType": 1, "unread": 3, "readToSeq": 12342, "lastMessage": {
                    "messageId": "2124961498668208128", "messageSeq": 12345, "channelId": "user2", "channelType": 1,
                    "fromUid": "user2", "payload": "eyJ0eXBlIjoxLCJjb250ZW50IjoiaGVsbG8ifQ==",
                    "timestamp": 1_705_312_800_000_u64, "clientMsgNo": "note-1"
                }, "timestamp": 1_705_312_800_123_u64
            }],
            "unreadTotal": 3, "complete": true
        })
    ))
)]
pub(super) async fn list_conversations(
    caller: Caller,
    charge: Charge,
    State(app): State<App>,
    Query(request): Query<ListConversationsRequest>,
) -> Result<Response, Failure> {
    let after = request.cursor.map(|Cursor(cursor)| {
        let position = app.cursors.open(LIST, caller.uid.as_str(), &cursor);
        let position = position.and_then(|bytes| Position::from_bytes(&bytes));
        position.ok_or_else(bad_cursor)
    });
    let after = after.transpose()?;
    let limit = limit(request.limit, DEFAULT_ROWS, MAX_ROWS);
    let unread_only = request.unread_only.unwrap_or(false);
    let list = app
        .conversations
        .list(&caller.uid, after.as_ref(), limit, unread_only)
        .await?;
    charge.take(list.count() / 20)?;
    let mut response = success(size(&list), |out| write(out, &list));
    let next = list.next.map(|position| position.to_bytes());
    let owner = caller.uid.as_str();
    write_paging(response.headers_mut(), &app.cursors, LIST, owner, next);
    Ok(response)
}

/// The limit of a page: no more than `max`.
pub(super) fn limit<const MIN: u64, const MAX: u64>(
    limit: Option<Number<MIN, MAX>>,
    default: u64,
    max: u64,
) -> usize {
    let limit = limit.map_or(default, |Number(limit)| limit).min(max);
    usize::try_from(limit).unwrap_or(1)
}

/// A broken cursor, or one of another user or list.
pub(super) fn bad_cursor() -> Failure {
    Failure::invalid(vec![FieldProblem::new("cursor", Problem::NotCursor)])
}

/// Says whether there is a page after this one, and where it begins.
pub(super) fn write_paging(
    headers: &mut HeaderMap,
    cursors: &Cursors,
    list: &str,
    owner: &str,
    next: Option<Vec<u8>>,
) {
    let has_more = if next.is_some() { "true" } else { "false" };
    headers.insert("x-has-more", HeaderValue::from_static(has_more));
    let cursor = next.map(|position| cursors.seal(list, owner, &position));
    // URL-safe base64 is always a valid value.
    if let Some(Ok(cursor)) = cursor.map(HeaderValue::try_from) {
        headers.insert("x-next-cursor", cursor);
    }
}

fn size(list: &List) -> usize {
    let row = |(conversation, record): (Conversation<'_>, &GroupRecord)| {
        let id = conversation.channel.id;
        let message = conversation.message;
        let texts = [&record.name, &record.avatar].into_iter().flatten();
        ROW_OVERHEAD
            + id.len()
            + message.map_or(0, |message| synced::size_of_one(message, id))
            + texts.map(|text| text.len()).sum::<usize>()
    };
    list.rows().map(row).sum::<usize>() + ROW_OVERHEAD
}

/// Writes [`ListConversationsResponse`] without serde, as a history is written.
fn write(out: &mut Vec<u8>, list: &List) {
    out.extend_from_slice(br#"{"conversations":["#);
    for (index, (conversation, record)) in list.rows().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_row(out, &conversation, record);
    }
    out.extend_from_slice(br#"],"unreadTotal":"#);
    synced::write_number(out, list.unread_total);
    out.extend_from_slice(br#","complete":"#);
    out.extend_from_slice(if list.complete { b"true}" } else { b"false}" });
}

/// Writes [`ListedConversation`].
fn write_row(out: &mut Vec<u8>, conversation: &Conversation<'_>, record: &GroupRecord) {
    out.push(b'{');
    let begin = out.len();
    synced::write_channel(out, conversation.channel);
    let of_channel = begin..out.len();
    let time = conversation
        .message
        .map_or(conversation.active_ms, |message| message.id.unix_ms());
    for (name, number) in [
        (&br#","unread":"#[..], conversation.unread),
        (br#","readToSeq":"#, conversation.read_to()),
        (br#","timestamp":"#, time),
    ] {
        out.extend_from_slice(name);
        synced::write_number(out, number);
    }
    for (name, text) in [
        (&br#","name":"#[..], &record.name),
        (br#","avatar":"#, &record.avatar),
    ] {
        if let Some(text) = text {
            out.extend_from_slice(name);
            synced::write_escaped(out, text.as_bytes());
        }
    }
    out.extend_from_slice(br#","lastMessage":"#);
    match conversation.message {
        Some(message) => synced::write_one(out, message, of_channel),
        None => out.extend_from_slice(b"null"),
    }
    out.push(b'}');
}

request! {
    /// A conversation, and how far it is read.
    #[derive(Debug, ToSchema)]
    pub(super) struct ReadConversationRequest: schema {
        /// The group's id, or the peer's uid.
        "channelId" => channel_id: ChannelId,
        "channelType" => channel_type: ChannelType,
        /// Read up to this seq, at most to the newest message; without it, to that.
        #[schema(value_type = Option<u64>, minimum = 1, maximum = 9_223_372_036_854_775_807_usize)]
        "messageSeq" => message_seq: Option<Number<1, MAX_NUMBER>>,
    }
}

/// How far the conversation is read now.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ReadConversationResponse {
    /// Unread messages.
    #[schema(minimum = 0)]
    unread: u64,
    /// The seq of the last read message; 0 in a conversation without messages.
    #[schema(value_type = MessageSeq)]
    read_to_seq: u64,
}

/// Marks a conversation as read up to a message, or to the newest.
///
/// Forward only: a message that is read already changes nothing, and nothing can be marked as unread. The caller's other devices get the
/// command `conversationRead` with `channelId`, `channelType`, `readToSeq` and `unread`.
#[utoipa::path(
    post,
    path = "",
    tag = "conversations",
    extensions(("x-summary-zh" = json!("标记会话已读，到某条消息或最新一条"))),
    request_body(content = ReadConversationRequest, example = json!({"channelId": "user2", "channelType": 1, "messageSeq": 12345})),
    responses((status = 200, description = "It is read up to there.", body = ReadConversationResponse, example = json!({
        "unread": 0, "readToSeq": 12345
    })))
)]
pub(super) async fn read_conversation(
    caller: Caller,
    State(app): State<App>,
    Json(request): Json<ReadConversationRequest>,
) -> Result<Envelope<ReadConversationResponse>, Failure> {
    let channel = Channel::new(request.channel_type, request.channel_id);
    let up_to = request.message_seq.map(|Number(seq)| seq);
    let conversations = &app.conversations;
    let state = conversations.read(&caller.uid, &channel, up_to).await?;
    Ok(Envelope(ReadConversationResponse {
        unread: state.unread,
        read_to_seq: state.read_to,
    }))
}

request! {
    /// A conversation.
    #[derive(Debug, ToSchema)]
    pub(super) struct DeleteConversationRequest: schema {
        /// The group's id, or the peer's uid.
        "channelId" => channel_id: ChannelId,
        "channelType" => channel_type: ChannelType,
    }
}

/// The hidden conversation.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct DeleteConversationResponse {
    #[schema(value_type = ChannelId)]
    channel_id: String,
    #[schema(value_type = ChannelType)]
    channel_type: u8,
    /// Whether the messages up to now are hidden from the caller as well (v3), or stay readable (v2).
    history_hidden: bool,
}

/// Hides a conversation from the caller's own list until its next message.
///
/// Its messages count as read. The others notice nothing.
#[utoipa::path(
    post,
    path = "",
    tag = "conversations",
    extensions(("x-summary-zh" = json!("从自己的最近会话列表中删除会话，下一条消息到来时重新出现"))),
    request_body(content = DeleteConversationRequest, example = json!({"channelId": "user2", "channelType": 1})),
    responses((status = 200, description = "It is hidden.", body = DeleteConversationResponse, example = json!({
        "channelId": "user2", "channelType": 1, "historyHidden": false
    })))
)]
pub(super) async fn delete_conversation(
    caller: Caller,
    State(app): State<App>,
    Json(request): Json<DeleteConversationRequest>,
) -> Result<Envelope<DeleteConversationResponse>, Failure> {
    let channel = Channel::new(request.channel_type, request.channel_id);
    let history_hidden = app.conversations.delete(&caller.uid, &channel).await?;
    Ok(Envelope(DeleteConversationResponse {
        channel_id: channel.id().to_owned(),
        channel_type: channel.channel_type().number(),
        history_hidden,
    }))
}
