//! The endpoints about who is what in a group: its record, its managers, its owner.

use axum::extract::State;
use serde::Serialize;

use super::channels::{AVATAR_CHARS, NAME_CHARS, actor};
use crate::app::App;
use crate::auth::Caller;
use crate::config::{Limits, Mode};
use crate::domain::{ChannelId, Uid};
use crate::error::Failure;
use crate::extract::{Fields, FromJson, FromQuery, Json, Problems, Query, QueryFields};
use crate::response::Envelope;

const GROUP: u8 = 2;

/// A group, named by the query.
#[derive(Debug)]
pub(super) struct GetChannelRequest {
    group: ChannelId,
}

impl FromQuery for GetChannelRequest {
    fn from_query(
        query: &mut QueryFields,
        limits: &Limits,
        problems: &mut Problems,
    ) -> Option<Self> {
        let group = query.group(limits, problems)?;
        Some(Self { group })
    }
}

/// What the store knows of a group; of one that nobody owns, that it is there.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct GetChannelResponse {
    channel_id: ChannelId,
    channel_type: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    avatar: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<Uid>,
    managers: Vec<Uid>,
    /// Unix milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    created_at: Option<u64>,
}

/// Shows a group's record to its subscribers, owner and managers, and to admins; in mode `callback` to whom the backend lets.
pub(super) async fn get_channel_info(
    caller: Caller,
    State(app): State<App>,
    Query(GetChannelRequest { group }): Query<GetChannelRequest>,
) -> Result<Envelope<GetChannelResponse>, Failure> {
    let record = app.channels().info(&group).await?;
    let has_role = record
        .as_ref()
        .is_some_and(|record| record.is_owned_by(&caller.uid) || record.is_managed_by(&caller.uid));
    let needs_asking = match app.settings().authorization.mode {
        Mode::Members => !(has_role || caller.is_admin),
        Mode::Open => false,
        // Whatever he is here: the backend says.
        Mode::Callback => true,
    };
    if needs_asking {
        app.authorization().may_see(&caller.uid, &group).await?;
    }
    let created_at = record.as_ref().map(|record| record.created_at_ms);
    let (owner, managers, name, avatar) = record.map_or_else(Default::default, |record| {
        (record.owner, record.managers, record.name, record.avatar)
    });
    Ok(Envelope(GetChannelResponse {
        channel_id: group,
        channel_type: GROUP,
        name,
        avatar,
        owner,
        managers,
        created_at,
    }))
}

/// A group and distinct uids.
#[derive(Debug)]
pub(super) struct ManagersRequest {
    group: ChannelId,
    uids: Vec<Uid>,
}

impl FromJson for ManagersRequest {
    fn from_json(body: Option<&[u8]>, limits: &Limits, problems: &mut Problems) -> Option<Self> {
        let mut fields = Fields::of_body(body, limits, problems)?;
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
#[derive(Debug, Serialize)]
pub(super) struct AddManagersResponse {
    added: u64,
}

/// Names managers.
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
#[derive(Debug, Serialize)]
pub(super) struct RemoveManagersResponse {
    removed: u64,
}

/// Dismisses managers, who stay subscribers.
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

/// A group and who shall own it. The other fields are for a group that is adopted.
#[derive(Debug)]
pub(super) struct TransferOwnershipRequest {
    group: ChannelId,
    uid: Uid,
    name: Option<String>,
    avatar: Option<String>,
}

impl FromJson for TransferOwnershipRequest {
    fn from_json(body: Option<&[u8]>, limits: &Limits, problems: &mut Problems) -> Option<Self> {
        let mut fields = Fields::of_body(body, limits, problems)?;
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
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct TransferOwnershipResponse {
    channel_id: ChannelId,
    owner: Option<Uid>,
}

/// Hands a group over to one of its subscribers; for an admin also one that the store does not know yet.
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
        .hand_over(actor(&caller), &group, &uid, name, avatar)
        .await?;
    Ok(Envelope(TransferOwnershipResponse {
        channel_id: record.id,
        owner: record.owner,
    }))
}
