//! The channel endpoints: create, delete, and subscribers.

use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use crate::auth::Caller;
use crate::channels::Actor;
use crate::config::Limits;
use crate::domain::caps::{AVATAR_CHARS, NAME_CHARS};
use crate::domain::{ChannelId, ChannelType, Uid};
use crate::http::envelope::Envelope;
use crate::http::errors::{ApiError, Failure};
use crate::http::extract::{BodyFields, FieldProblems, FromJson, Json};
use crate::http::openapi::{Avatar, GroupName, GroupType};
use crate::state::App;

/// Why a group is not created.
pub(super) const CREATE_REFUSALS: &[ApiError] = &[
    ApiError::Forbidden,
    ApiError::ChannelExists,
    ApiError::ChannelDeleted,
    ApiError::StoreUnavailable,
];
/// Why a group is not changed by those who own it.
pub(super) const OWNERS_REFUSALS: &[ApiError] = &[
    ApiError::Forbidden,
    ApiError::NotOwner,
    ApiError::ChannelNotFound,
    ApiError::StoreUnavailable,
];
/// Errors of adding subscribers or managers.
pub(super) const ADD_REFUSALS: &[ApiError] = &[
    ApiError::Forbidden,
    ApiError::NotOwner,
    ApiError::ChannelNotFound,
    ApiError::ChannelFull,
    ApiError::StoreUnavailable,
];
/// Errors of removing subscribers or managers.
pub(super) const REMOVE_REFUSALS: &[ApiError] = &[
    ApiError::Forbidden,
    ApiError::NotOwner,
    ApiError::ChannelNotFound,
    ApiError::OwnerCannotLeave,
    ApiError::StoreUnavailable,
];

/// A channel to create.
#[derive(ToSchema)]
#[schema(as = CreateChannelRequest, rename_all = "camelCase")]
#[expect(dead_code, reason = "the document's view of what is read by hand")]
struct CreateChannelBody {
    /// For a group: left out, the gateway makes one, `g_` and 22 random characters. Where the deployment lets only admins choose
    /// (`limits.group_ids`), others leave it out, but for a group that is theirs already.
    channel_id: Option<ChannelId>,
    channel_type: ChannelType,
    name: Option<GroupName>,
    avatar: Option<Avatar>,
}

/// A channel to create, read.
#[derive(Debug)]
pub(super) struct CreateChannelRequest {
    channel_type: ChannelType,
    /// `None` for a group whose id is to be made.
    id: Option<ChannelId>,
    name: Option<String>,
    avatar: Option<String>,
}

impl FromJson for CreateChannelRequest {
    fn from_json(
        body: Option<&[u8]>,
        limits: &Limits,
        problems: &mut FieldProblems,
    ) -> Option<Self> {
        let mut fields = BodyFields::of_body(body, limits, problems)?;
        let channel = fields.channel_to_create();
        let name = fields.optional_short_text("name", NAME_CHARS);
        let avatar = fields.optional_http_url("avatar", AVATAR_CHARS);
        let (channel_type, id) = channel?;
        Some(Self {
            channel_type,
            id,
            name: name?,
            avatar: avatar?,
        })
    }
}

/// The channel as it is stored.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct CreateChannelResponse {
    #[schema(value_type = ChannelId)]
    channel_id: String,
    #[schema(value_type = ChannelType)]
    channel_type: u8,
    /// Absent where none was ever given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<GroupName>, nullable = false)]
    name: Option<String>,
    /// Absent where none was ever given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Avatar>, nullable = false)]
    avatar: Option<String>,
}

/// Creates a group that the caller owns.
///
/// Its owner may repeat it: fields that are given are written anew. Without a `channelId` each call creates another group. A
/// conversation of two needs no creating: its echo is the answer.
#[utoipa::path(
    post,
    path = "",
    tag = "channels",
    request_body(content = CreateChannelBody, example = json!({
        "channelId": "channel-xxx", "channelType": 2, "name": "群组名称", "avatar": "https://example.com/avatar.jpg"
    })),
    responses((status = 200, description = "It is there.", body = CreateChannelResponse, example = json!({
        "channelId": "channel-xxx", "channelType": 2, "name": "群组名称", "avatar": "https://example.com/avatar.jpg"
    })))
)]
pub(super) async fn create_channel(
    caller: Caller,
    State(app): State<App>,
    Json(request): Json<CreateChannelRequest>,
) -> Result<Envelope<CreateChannelResponse>, Failure> {
    let CreateChannelRequest {
        channel_type,
        id,
        name,
        avatar,
    } = request;
    let (id, name, avatar) = match (channel_type, id) {
        (ChannelType::Person, Some(peer)) => (peer.to_string(), name, avatar),
        (_, id) => {
            let channels = app.channels();
            let record = channels.create(actor(&caller), id, name, avatar).await?;
            (record.id.to_string(), record.name, record.avatar)
        }
    };
    Ok(Envelope(CreateChannelResponse {
        channel_id: id,
        channel_type: channel_type.number(),
        name,
        avatar,
    }))
}

/// A group.
#[derive(ToSchema)]
#[schema(as = DeleteChannelRequest, rename_all = "camelCase")]
#[expect(dead_code, reason = "the document's view of what is read by hand")]
struct DeleteChannelBody {
    channel_id: ChannelId,
    channel_type: GroupType,
}

/// A group, named by the body.
#[derive(Debug)]
pub(super) struct DeleteChannelRequest {
    group: ChannelId,
}

impl FromJson for DeleteChannelRequest {
    fn from_json(
        body: Option<&[u8]>,
        limits: &Limits,
        problems: &mut FieldProblems,
    ) -> Option<Self> {
        let group = BodyFields::of_body(body, limits, problems)?.group()?;
        Some(Self { group })
    }
}

/// The channel that is gone.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct DeleteChannelResponse {
    channel_id: ChannelId,
}

/// Deletes a group for ever, for its owner or an admin.
///
/// Its id is never used again. A delete that failed half-way is finished by repeating it.
#[utoipa::path(
    post,
    path = "",
    tag = "channels",
    request_body(content = DeleteChannelBody, example = json!({"channelId": "channel-xxx", "channelType": 2})),
    responses((status = 200, description = "It is gone.", body = DeleteChannelResponse, example = json!({"channelId": "channel-xxx"})))
)]
pub(super) async fn delete_channel(
    caller: Caller,
    State(app): State<App>,
    Json(DeleteChannelRequest { group }): Json<DeleteChannelRequest>,
) -> Result<Envelope<DeleteChannelResponse>, Failure> {
    app.channels().delete(actor(&caller), &group).await?;
    Ok(Envelope(DeleteChannelResponse { channel_id: group }))
}

/// A group, and users. Who is named twice counts once.
#[derive(ToSchema)]
#[schema(as = SubscribersRequest, rename_all = "camelCase")]
#[expect(dead_code, reason = "the document's view of what is read by hand")]
struct SubscribersBody {
    channel_id: ChannelId,
    channel_type: GroupType,
    /// At most `limits.subscribers` of `/config`, 500 unless configured.
    #[schema(min_items = 1, max_items = 5000)]
    subscribers: Vec<Uid>,
}

/// A group and distinct uids.
#[derive(Debug)]
pub(super) struct SubscribersRequest {
    group: ChannelId,
    subscribers: Vec<Uid>,
}

impl FromJson for SubscribersRequest {
    fn from_json(
        body: Option<&[u8]>,
        limits: &Limits,
        problems: &mut FieldProblems,
    ) -> Option<Self> {
        let mut fields = BodyFields::of_body(body, limits, problems)?;
        let group = fields.group();
        let subscribers = fields.uids("subscribers");
        Some(Self {
            group: group?,
            subscribers: subscribers?,
        })
    }

    fn cost(&self) -> usize {
        1 + self.subscribers.len() / 10
    }
}

/// How many were no subscribers before.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AddSubscribersResponse {
    /// On v3 without its manager port: how many distinct ones were asked for.
    added: u64,
}

/// Adds subscribers to a group, for its owner, its managers or an admin.
///
/// Where the deployment lets members invite, for every subscriber too.
#[utoipa::path(
    post,
    path = "",
    tag = "channels",
    request_body(content = SubscribersBody, example = json!({
        "channelId": "channel-xxx", "channelType": 2, "subscribers": ["user1", "user2", "user3", "user4", "user5"]
    })),
    responses((status = 200, description = "They are subscribers.", body = AddSubscribersResponse, example = json!({"added": 5})))
)]
pub(super) async fn add_subscribers(
    caller: Caller,
    State(app): State<App>,
    Json(SubscribersRequest { group, subscribers }): Json<SubscribersRequest>,
) -> Result<Envelope<AddSubscribersResponse>, Failure> {
    let added = app
        .channels()
        .add(actor(&caller), &group, &subscribers)
        .await?;
    Ok(Envelope(AddSubscribersResponse { added }))
}

/// How many were subscribers before.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RemoveSubscribersResponse {
    /// On v3 without its manager port: how many distinct ones were asked for.
    removed: u64,
}

/// Removes subscribers from a group, for its owner, its managers or an admin; everybody may leave by himself.
///
/// The owner cannot be removed, and managers remove no other managers.
#[utoipa::path(
    post,
    path = "",
    tag = "channels",
    request_body(content = SubscribersBody, example = json!({
        "channelId": "channel-xxx", "channelType": 2, "subscribers": ["user1", "user2", "user3", "user4", "user5"]
    })),
    responses((status = 200, description = "They are no subscribers.", body = RemoveSubscribersResponse, example = json!({"removed": 5})))
)]
pub(super) async fn remove_subscribers(
    caller: Caller,
    State(app): State<App>,
    Json(SubscribersRequest { group, subscribers }): Json<SubscribersRequest>,
) -> Result<Envelope<RemoveSubscribersResponse>, Failure> {
    let removed = app
        .channels()
        .remove(actor(&caller), &group, &subscribers)
        .await?;
    Ok(Envelope(RemoveSubscribersResponse { removed }))
}

pub(super) fn actor(caller: &Caller) -> Actor<'_> {
    Actor {
        uid: &caller.uid,
        is_admin: caller.is_admin,
    }
}
