//! The channel endpoints: create, delete, and subscribers.

use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use crate::auth::Caller;
use crate::channels::Actor;
use crate::config::Limits;
use crate::domain::{ChannelId, ChannelType, Uid};
use crate::http::envelope::Envelope;
use crate::http::errors::{Failure, Problem};
use crate::http::extract::{Avatar, GroupName, GroupType, Json, request};
use crate::state::App;

request! {
    /// A channel to create.
    #[derive(Debug, ToSchema)]
    pub(super) struct CreateChannelRequest: schema {
        /// Optional for a group: without it the gateway generates one, `g_` and 22 random characters. Where only admins may choose ids
        /// (`limits.group_ids`), other users must omit it, except for a group that they already own.
        "channelId" => channel_id: Option<ChannelId>,
        "channelType" => channel_type: ChannelType, check |fields| {
            // Not where it would be longer than allowed.
            let is_generated = channel_type == Some(ChannelType::Group) && fields.limits.id_bytes >= ChannelId::RANDOM_BYTES;
            if let (Some(None), Some(_), false) = (&channel_id, channel_type, is_generated) {
                fields.report("channelId", Problem::Required);
            }
        },
        "name" => name: Option<GroupName>,
        "avatar" => avatar: Option<Avatar>,
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
    /// Absent if never set.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<GroupName>, nullable = false)]
    name: Option<String>,
    /// Absent if never set.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Avatar>, nullable = false)]
    avatar: Option<String>,
}

/// Creates a group that the caller owns.
///
/// The owner may repeat the call; it overwrites the given fields. Without a `channelId` each call creates another group. A conversation
/// of two users needs no creation: the request is echoed.
#[utoipa::path(
    post,
    path = "",
    tag = "channels",
    extensions(("x-summary-zh" = json!("创建群频道，当前用户即为群主"))),
    request_body(content = CreateChannelRequest, example = json!({
        "channelId": "channel-xxx", "channelType": 2, "name": "群组名称", "avatar": "https://example.com/avatar.jpg"
    })),
    responses((status = 200, description = "The channel exists.", body = CreateChannelResponse, example = json!({
        "channelId": "channel-xxx", "channelType": 2, "name": "群组名称", "avatar": "https://example.com/avatar.jpg"
    })))
)]
pub(super) async fn create_channel(
    caller: Caller,
    State(app): State<App>,
    Json(request): Json<CreateChannelRequest>,
) -> Result<Envelope<CreateChannelResponse>, Failure> {
    let name = request.name.map(|GroupName(name)| name);
    let avatar = request.avatar.map(|Avatar(url)| url);
    let (id, name, avatar) = match (request.channel_type, request.channel_id) {
        (ChannelType::Person, Some(peer)) => (peer.to_string(), name, avatar),
        (_, id) => {
            let channels = &app.channels;
            let record = channels.create(actor(&caller), id, name, avatar).await?;
            (record.id.to_string(), record.name, record.avatar)
        }
    };
    Ok(Envelope(CreateChannelResponse {
        channel_id: id,
        channel_type: request.channel_type.number(),
        name,
        avatar,
    }))
}

request! {
    /// A group.
    #[derive(Debug, ToSchema)]
    pub(super) struct DeleteChannelRequest: schema {
        "channelId" => channel_id: ChannelId,
        "channelType" => channel_type: GroupType,
    }
}

/// The deleted channel.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct DeleteChannelResponse {
    channel_id: ChannelId,
}

/// Deletes a group permanently; for its owner or an admin.
///
/// The id is never used again. Repeat a call that failed to complete it.
#[utoipa::path(
    post,
    path = "",
    tag = "channels",
    extensions(("x-summary-zh" = json!("永久删除群频道，仅群主或系统管理员"))),
    request_body(content = DeleteChannelRequest, example = json!({"channelId": "channel-xxx", "channelType": 2})),
    responses((status = 200, description = "The group is deleted.", body = DeleteChannelResponse, example = json!({"channelId": "channel-xxx"})))
)]
pub(super) async fn delete_channel(
    caller: Caller,
    State(app): State<App>,
    Json(request): Json<DeleteChannelRequest>,
) -> Result<Envelope<DeleteChannelResponse>, Failure> {
    let DeleteChannelRequest {
        channel_id,
        channel_type: GroupType,
    } = request;
    app.channels.delete(actor(&caller), &channel_id).await?;
    Ok(Envelope(DeleteChannelResponse { channel_id }))
}

request! {
    /// A group and users. Duplicates are ignored.
    #[derive(Debug, ToSchema)]
    pub(super) struct SubscribersRequest: schema {
        "channelId" => channel_id: ChannelId,
        "channelType" => channel_type: GroupType,
        /// At most `limits.subscribers` of `/config`, 500 by default.
        #[schema(min_items = 1, max_items = 5000)]
        "subscribers" => subscribers: Vec<Uid>,
    }
    impl {
        fn cost(&self, _: &Limits) -> usize {
            1 + self.subscribers.len() / 10
        }
    }
}

/// The number of new subscribers.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AddSubscribersResponse {
    /// On v3 without its manager port: the number of distinct uids in the request.
    added: u64,
}

/// Adds subscribers to a group; for its owner, its managers or an admin.
///
/// For every subscriber where the deployment lets members invite.
#[utoipa::path(
    post,
    path = "",
    tag = "channels",
    extensions(("x-summary-zh" = json!("向群频道添加订阅者，仅群主、群管理员或系统管理员"))),
    request_body(content = SubscribersRequest, example = json!({
        "channelId": "channel-xxx", "channelType": 2, "subscribers": ["user1", "user2", "user3", "user4", "user5"]
    })),
    responses((status = 200, description = "The users are subscribers.", body = AddSubscribersResponse, example = json!({"added": 5})))
)]
pub(super) async fn add_subscribers(
    caller: Caller,
    State(app): State<App>,
    Json(SubscribersRequest {
        channel_id,
        channel_type: GroupType,
        subscribers,
    }): Json<SubscribersRequest>,
) -> Result<Envelope<AddSubscribersResponse>, Failure> {
    let added = app
        .channels
        .add(actor(&caller), &channel_id, &subscribers)
        .await?;
    Ok(Envelope(AddSubscribersResponse { added }))
}

/// The number of removed subscribers.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RemoveSubscribersResponse {
    /// On v3 without its manager port: the number of distinct uids in the request.
    removed: u64,
}

/// Removes subscribers from a group; for its owner, its managers or an admin. Every subscriber may remove itself.
///
/// The owner cannot be removed, and managers cannot remove other managers.
#[utoipa::path(
    post,
    path = "",
    tag = "channels",
    extensions(("x-summary-zh" = json!("从群频道移除订阅者，仅群主、群管理员或系统管理员；订阅者可以自行退群"))),
    request_body(content = SubscribersRequest, example = json!({
        "channelId": "channel-xxx", "channelType": 2, "subscribers": ["user1", "user2", "user3", "user4", "user5"]
    })),
    responses((status = 200, description = "The users are not subscribers.", body = RemoveSubscribersResponse, example = json!({"removed": 5})))
)]
pub(super) async fn remove_subscribers(
    caller: Caller,
    State(app): State<App>,
    Json(SubscribersRequest {
        channel_id,
        channel_type: GroupType,
        subscribers,
    }): Json<SubscribersRequest>,
) -> Result<Envelope<RemoveSubscribersResponse>, Failure> {
    let removed = app
        .channels
        .remove(actor(&caller), &channel_id, &subscribers)
        .await?;
    Ok(Envelope(RemoveSubscribersResponse { removed }))
}

pub(super) fn actor(caller: &Caller) -> Actor<'_> {
    Actor {
        uid: &caller.uid,
        is_admin: caller.is_admin,
    }
}
