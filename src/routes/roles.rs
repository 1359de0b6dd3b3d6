//! The endpoints for a group's record, managers and owner.

use axum::extract::State;
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::channels::actor;
use crate::auth::Caller;
use crate::config::{Limits, Mode};
use crate::domain::{ChannelId, ConversationKey, Uid};
use crate::http::envelope::Envelope;
use crate::http::errors::{ApiError, Failure};
use crate::http::extract::{Avatar, GroupName, GroupType, Json, Query, request};
use crate::http::openapi::UnixMs;
use crate::state::App;
use crate::store::ChannelRecord;

const GROUP: u8 = 2;

request! {
    /// A group.
    #[derive(Debug, IntoParams)]
    #[into_params(parameter_in = Query)]
    pub(super) struct GetChannelInfoRequest: param {
        /// The group's id.
        "channelId" => channel_id: ChannelId,
        /// 2: a group.
        "channelType" => channel_type: GroupType,
    }
}

/// The record of a group; without an owner, only its id.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct GetChannelInfoResponse {
    channel_id: ChannelId,
    #[schema(value_type = GroupType)]
    channel_type: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<GroupName>, nullable = false)]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Avatar>, nullable = false)]
    avatar: Option<String>,
    /// Absent if the group has no owner.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    owner: Option<Uid>,
    managers: Vec<Uid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<UnixMs>, nullable = false)]
    created_at: Option<u64>,
}

/// The record of a group; for its subscribers, its owner and admins.
#[utoipa::path(
    get,
    path = "",
    tag = "channels",
    extensions(("x-summary-zh" = json!("获取群频道资料，限订阅者、群主和系统管理员"))),
    params(GetChannelInfoRequest),
    responses((status = 200, description = "The record.", body = GetChannelInfoResponse, example = json!({
        "channelId": "channel-xxx", "channelType": 2, "name": "群组名称", "avatar": "https://example.com/avatar.jpg",
        "owner": "user1", "managers": ["user2"], "createdAt": 1_705_312_800_000_u64
    })))
)]
pub(super) async fn get_channel_info(
    caller: Caller,
    State(app): State<App>,
    Query(request): Query<GetChannelInfoRequest>,
) -> Result<Envelope<GetChannelInfoResponse>, Failure> {
    let GetChannelInfoRequest {
        channel_id: group,
        channel_type: GroupType,
    } = request;
    let conversation = ConversationKey::Group(group.clone());
    let Some(_permit) = app.channel_limiter.try_acquire(&conversation) else {
        return Err(Failure::from(ApiError::Overloaded)
            .because("too many requests in flight in this group"));
    };
    let record = app.channels.info(&group).await?;
    if needs_permission(&app, &caller, record.as_ref()) {
        app.authorization.may_see(&caller.uid, &group).await?;
    }
    let created_at = record.as_ref().map(|record| record.created_at_ms);
    let (owner, managers, name, avatar) = record.map_or_else(Default::default, |record| {
        (record.owner, record.managers, record.name, record.avatar)
    });
    Ok(Envelope(GetChannelInfoResponse {
        channel_id: group,
        channel_type: GROUP,
        name,
        avatar,
        owner,
        managers,
        created_at,
    }))
}

/// Whether `authorization` decides: the owner, the managers and admins need no permission, but in mode `callback` the backend decides,
/// regardless of the caller's role.
fn needs_permission(app: &App, caller: &Caller, record: Option<&ChannelRecord>) -> bool {
    let has_role = |record: &ChannelRecord| {
        record.is_owned_by(&caller.uid) || record.is_managed_by(&caller.uid)
    };
    match app.settings.authorization.mode {
        Mode::Members => !(caller.is_admin || record.is_some_and(has_role)),
        Mode::Open => false,
        Mode::Callback => true,
    }
}

request! {
    /// A group and users. Duplicates are ignored.
    #[derive(Debug, ToSchema)]
    pub(super) struct ManagersRequest: schema {
        "channelId" => channel_id: ChannelId,
        "channelType" => channel_type: GroupType,
        /// At most `limits.subscribers` of `/config`, 500 by default.
        #[schema(min_items = 1, max_items = 5000)]
        "uids" => uids: Vec<Uid>,
    }
    impl {
        fn cost(&self, _: &Limits) -> usize {
            1 + self.uids.len() / 10
        }
    }
}

/// The number of new managers.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AddManagersResponse {
    added: u64,
}

/// Appoints managers of a group; for its owner or an admin.
///
/// Managers add and remove subscribers, but not other managers or the owner.
#[utoipa::path(
    post,
    path = "",
    tag = "channels",
    extensions(("x-summary-zh" = json!("添加群管理员，仅群主或系统管理员"))),
    request_body(content = ManagersRequest, example = json!({"channelId": "channel-xxx", "channelType": 2, "uids": ["user2"]})),
    responses((status = 200, description = "The users are managers.", body = AddManagersResponse, example = json!({"added": 1})))
)]
pub(super) async fn add_managers(
    caller: Caller,
    State(app): State<App>,
    Json(ManagersRequest {
        channel_id,
        channel_type: GroupType,
        uids,
    }): Json<ManagersRequest>,
) -> Result<Envelope<AddManagersResponse>, Failure> {
    let channels = &app.channels;
    let added = channels
        .add_managers(actor(&caller), &channel_id, &uids)
        .await?;
    Ok(Envelope(AddManagersResponse { added }))
}

/// The number of removed managers.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RemoveManagersResponse {
    removed: u64,
}

/// Removes managers of a group; for its owner or an admin.
///
/// They remain subscribers.
#[utoipa::path(
    post,
    path = "",
    tag = "channels",
    extensions(("x-summary-zh" = json!("移除群管理员，仅群主或系统管理员"))),
    request_body(content = ManagersRequest, example = json!({"channelId": "channel-xxx", "channelType": 2, "uids": ["user2"]})),
    responses((status = 200, description = "The users are not managers.", body = RemoveManagersResponse, example = json!({"removed": 1})))
)]
pub(super) async fn remove_managers(
    caller: Caller,
    State(app): State<App>,
    Json(ManagersRequest {
        channel_id,
        channel_type: GroupType,
        uids,
    }): Json<ManagersRequest>,
) -> Result<Envelope<RemoveManagersResponse>, Failure> {
    let channels = &app.channels;
    let removed = channels
        .remove_managers(actor(&caller), &channel_id, &uids)
        .await?;
    Ok(Envelope(RemoveManagersResponse { removed }))
}

request! {
    /// A group and its new owner.
    #[derive(Debug, ToSchema)]
    pub(super) struct TransferOwnershipRequest: schema {
        "channelId" => channel_id: ChannelId,
        "channelType" => channel_type: GroupType,
        /// A subscriber of the group.
        "uid" => uid: Uid,
        /// Only for a group without an owner.
        "name" => name: Option<GroupName>,
        /// Only for a group without an owner.
        "avatar" => avatar: Option<Avatar>,
    }
}

/// The new owner.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct TransferOwnershipResponse {
    channel_id: ChannelId,
    owner: Uid,
}

/// Transfers a group to one of its subscribers; for its owner or an admin.
///
/// The former owner becomes a manager. An admin also sets the owner of a group that has none because it was not created through the
/// gateway.
#[utoipa::path(
    post,
    path = "",
    tag = "channels",
    extensions(("x-summary-zh" = json!("把群转让给群内的一位订阅者，仅群主或系统管理员"))),
    request_body(content = TransferOwnershipRequest, example = json!({"channelId": "channel-xxx", "channelType": 2, "uid": "user2"})),
    responses((status = 200, description = "The ownership is transferred.", body = TransferOwnershipResponse, example = json!({
        "channelId": "channel-xxx", "owner": "user2"
    })))
)]
pub(super) async fn transfer_ownership(
    caller: Caller,
    State(app): State<App>,
    Json(request): Json<TransferOwnershipRequest>,
) -> Result<Envelope<TransferOwnershipResponse>, Failure> {
    let TransferOwnershipRequest {
        channel_id,
        channel_type: GroupType,
        uid,
        name,
        avatar,
    } = request;
    let name = name.map(|GroupName(name)| name);
    let avatar = avatar.map(|Avatar(url)| url);
    let channels = &app.channels;
    let record = channels
        .transfer_ownership(actor(&caller), &channel_id, &uid, name, avatar)
        .await?;
    Ok(Envelope(TransferOwnershipResponse {
        channel_id: record.id,
        owner: uid,
    }))
}
