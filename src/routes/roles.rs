//! The endpoints for a group's record, managers and owner.

use axum::extract::State;
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::channels::actor;
use crate::auth::Caller;
use crate::config::{Limits, Mode};
use crate::domain::caps::{AVATAR_CHARS, NAME_CHARS};
use crate::domain::{ChannelId, ConversationKey, Uid};
use crate::http::envelope::Envelope;
use crate::http::errors::{ApiError, Failure};
use crate::http::extract::{
    BodyFields, FieldProblems, FromJson, FromQuery, Json, Query, QueryFields,
};
use crate::http::openapi::{Avatar, GroupName, GroupType, UnixMs};
use crate::state::App;

/// Why a group's record is not shown.
pub(super) const INFO_REFUSALS: &[ApiError] = &[
    ApiError::Forbidden,
    ApiError::NotAMember,
    ApiError::ChannelNotFound,
    ApiError::StoreUnavailable,
];
/// Errors of an ownership transfer.
pub(super) const OWNER_REFUSALS: &[ApiError] = &[
    ApiError::Forbidden,
    ApiError::NotAMember,
    ApiError::NotOwner,
    ApiError::ChannelNotFound,
    ApiError::StoreUnavailable,
];

const GROUP: u8 = 2;

/// A group.
#[derive(IntoParams)]
#[into_params(parameter_in = Query, rename_all = "camelCase")]
#[expect(dead_code, reason = "the document's view of what is read by hand")]
struct GetChannelQuery {
    /// The group's id.
    channel_id: ChannelId,
    /// 2.
    channel_type: GroupType,
}

/// A group, named by the query.
#[derive(Debug)]
pub(super) struct GetChannelRequest {
    group: ChannelId,
}

impl FromQuery for GetChannelRequest {
    fn from_query(
        query: &mut QueryFields,
        limits: &Limits,
        problems: &mut FieldProblems,
    ) -> Option<Self> {
        let group = query.group(limits, problems)?;
        Some(Self { group })
    }
}

/// What the store knows of a group; of one that nobody owns, that it is there.
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
    /// Absent where nobody owns the group.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    owner: Option<Uid>,
    managers: Vec<Uid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<UnixMs>, nullable = false)]
    created_at: Option<u64>,
}

/// What is known of a group, for its subscribers, its owner and admins.
#[utoipa::path(
    get,
    path = "",
    tag = "channels",
    params(GetChannelQuery),
    responses((status = 200, description = "What is known.", body = GetChannelInfoResponse, example = json!({
        "channelId": "channel-xxx", "channelType": 2, "name": "群组名称", "avatar": "https://example.com/avatar.jpg",
        "owner": "user1", "managers": ["user2"], "createdAt": 1_705_312_800_000_u64
    })))
)]
pub(super) async fn get_channel_info(
    caller: Caller,
    State(app): State<App>,
    Query(GetChannelRequest { group }): Query<GetChannelRequest>,
) -> Result<Envelope<GetChannelInfoResponse>, Failure> {
    let conversation = ConversationKey::Group(group.clone());
    let Some(_permit) = app.channel_limiter().try_acquire(&conversation) else {
        return Err(Failure::from(ApiError::Overloaded).because("too much under way in this group"));
    };
    let record = app.channels().info(&group).await?;
    let has_role = record
        .as_ref()
        .is_some_and(|record| record.is_owned_by(&caller.uid) || record.is_managed_by(&caller.uid));
    let needs_asking = match app.settings().authorization.mode {
        Mode::Members => !(has_role || caller.is_admin),
        Mode::Open => false,
        // The backend decides, regardless of the caller's role.
        Mode::Callback => true,
    };
    if needs_asking {
        app.authorization().may_see(&caller.uid, &group).await?;
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

/// A group, and users. Who is named twice counts once.
#[derive(ToSchema)]
#[schema(as = ManagersRequest, rename_all = "camelCase")]
#[expect(dead_code, reason = "the document's view of what is read by hand")]
struct ManagersBody {
    channel_id: ChannelId,
    channel_type: GroupType,
    /// At most `limits.subscribers` of `/config`, 500 unless configured.
    #[schema(min_items = 1, max_items = 5000)]
    uids: Vec<Uid>,
}

/// A group and distinct uids.
#[derive(Debug)]
pub(super) struct ManagersRequest {
    group: ChannelId,
    uids: Vec<Uid>,
}

impl FromJson for ManagersRequest {
    fn from_json(
        body: Option<&[u8]>,
        limits: &Limits,
        problems: &mut FieldProblems,
    ) -> Option<Self> {
        let mut fields = BodyFields::of_body(body, limits, problems)?;
        let group = fields.group();
        let uids = fields.uids("uids");
        Some(Self {
            group: group?,
            uids: uids?,
        })
    }

    fn cost(&self) -> usize {
        1 + self.uids.len() / 10
    }
}

/// How many were no managers before.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AddManagersResponse {
    added: u64,
}

/// Names managers of a group, for its owner or an admin.
///
/// Managers add and remove subscribers, but neither each other nor the owner.
#[utoipa::path(
    post,
    path = "",
    tag = "channels",
    request_body(content = ManagersBody, example = json!({"channelId": "channel-xxx", "channelType": 2, "uids": ["user2"]})),
    responses((status = 200, description = "They are managers.", body = AddManagersResponse, example = json!({"added": 1})))
)]
pub(super) async fn add_managers(
    caller: Caller,
    State(app): State<App>,
    Json(ManagersRequest { group, uids }): Json<ManagersRequest>,
) -> Result<Envelope<AddManagersResponse>, Failure> {
    let channels = app.channels();
    let added = channels.add_managers(actor(&caller), &group, &uids).await?;
    Ok(Envelope(AddManagersResponse { added }))
}

/// How many were managers before.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RemoveManagersResponse {
    removed: u64,
}

/// Dismisses managers of a group, for its owner or an admin.
///
/// They stay subscribers.
#[utoipa::path(
    post,
    path = "",
    tag = "channels",
    request_body(content = ManagersBody, example = json!({"channelId": "channel-xxx", "channelType": 2, "uids": ["user2"]})),
    responses((status = 200, description = "They are no managers.", body = RemoveManagersResponse, example = json!({"removed": 1})))
)]
pub(super) async fn remove_managers(
    caller: Caller,
    State(app): State<App>,
    Json(ManagersRequest { group, uids }): Json<ManagersRequest>,
) -> Result<Envelope<RemoveManagersResponse>, Failure> {
    let channels = app.channels();
    let removed = channels
        .remove_managers(actor(&caller), &group, &uids)
        .await?;
    Ok(Envelope(RemoveManagersResponse { removed }))
}

/// A group and who shall own it.
#[derive(ToSchema)]
#[schema(as = TransferOwnershipRequest, rename_all = "camelCase")]
#[expect(dead_code, reason = "the document's view of what is read by hand")]
struct TransferOwnershipBody {
    channel_id: ChannelId,
    channel_type: GroupType,
    /// A subscriber of the group.
    uid: Uid,
    /// Only for a group that is nobody's yet.
    name: Option<GroupName>,
    /// Only for a group that is nobody's yet.
    avatar: Option<Avatar>,
}

/// A group and who shall own it. The other fields are for a group that is adopted.
#[derive(Debug)]
pub(super) struct TransferOwnershipRequest {
    group: ChannelId,
    uid: Uid,
    name: Option<String>,
    avatar: Option<String>,
}

impl FromJson for TransferOwnershipRequest {
    fn from_json(
        body: Option<&[u8]>,
        limits: &Limits,
        problems: &mut FieldProblems,
    ) -> Option<Self> {
        let mut fields = BodyFields::of_body(body, limits, problems)?;
        let group = fields.group();
        let uid = fields.uid("uid");
        let name = fields.optional_short_text("name", NAME_CHARS);
        let avatar = fields.optional_http_url("avatar", AVATAR_CHARS);
        Some(Self {
            group: group?,
            uid: uid?,
            name: name?,
            avatar: avatar?,
        })
    }
}

/// Who owns the group now.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct TransferOwnershipResponse {
    channel_id: ChannelId,
    owner: Uid,
}

/// Hands a group over to one of its subscribers, for its owner or an admin.
///
/// The former owner becomes a manager. An admin also gives an owner to a group that was made past the gateway and is nobody's.
#[utoipa::path(
    post,
    path = "",
    tag = "channels",
    request_body(content = TransferOwnershipBody, example = json!({"channelId": "channel-xxx", "channelType": 2, "uid": "user2"})),
    responses((status = 200, description = "It is his.", body = TransferOwnershipResponse, example = json!({
        "channelId": "channel-xxx", "owner": "user2"
    })))
)]
pub(super) async fn transfer_ownership(
    caller: Caller,
    State(app): State<App>,
    Json(request): Json<TransferOwnershipRequest>,
) -> Result<Envelope<TransferOwnershipResponse>, Failure> {
    let TransferOwnershipRequest {
        group,
        uid,
        name,
        avatar,
    } = request;
    let channels = app.channels();
    let record = channels
        .transfer_ownership(actor(&caller), &group, &uid, name, avatar)
        .await?;
    Ok(Envelope(TransferOwnershipResponse {
        channel_id: record.id,
        owner: uid,
    }))
}
