//! The channel endpoints: create, delete, and who is in a group.

use axum::extract::State;
use serde::Serialize;

use crate::app::App;
use crate::auth::Caller;
use crate::channels::Actor;
use crate::config::Limits;
use crate::domain::{Channel, ChannelId, Uid};
use crate::error::Failure;
use crate::extract::{Fields, FromJson, Json, Problems};
use crate::response::Envelope;

/// Characters of a group's name.
pub(super) const NAME_CHARS: usize = 128;
/// Characters of an avatar's URL.
pub(super) const AVATAR_CHARS: usize = 1024;

/// A channel to create.
#[derive(Debug)]
pub(super) struct CreateChannelRequest {
    channel: Channel,
    name: Option<String>,
    avatar: Option<String>,
}

impl FromJson for CreateChannelRequest {
    fn from_json(body: Option<&[u8]>, limits: &Limits, problems: &mut Problems) -> Option<Self> {
        let mut fields = Fields::of_body(body, limits, problems)?;
        let channel = fields.channel();
        let name = fields.optional_short_text("name", NAME_CHARS);
        let avatar = fields.optional_http_url("avatar", AVATAR_CHARS);
        Some(Self {
            channel: channel?,
            name: name?,
            avatar: avatar?,
        })
    }
}

/// The channel as it is stored.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CreateChannelResponse {
    channel_id: String,
    channel_type: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    avatar: Option<String>,
}

/// Creates a group that the caller owns. A person channel needs no creating: its echo is the answer.
pub(super) async fn create_channel(
    caller: Caller,
    State(app): State<App>,
    Json(request): Json<CreateChannelRequest>,
) -> Result<Envelope<CreateChannelResponse>, Failure> {
    let CreateChannelRequest {
        channel,
        name,
        avatar,
    } = request;
    let channel_type = channel.channel_type().number();
    let (id, name, avatar) = match channel {
        Channel::Person(peer) => (peer.to_string(), name, avatar),
        Channel::Group(id) => {
            let record = app
                .channels()
                .create(actor(&caller), &id, name, avatar)
                .await?;
            (record.id.to_string(), record.name, record.avatar)
        }
    };
    Ok(Envelope(CreateChannelResponse {
        channel_id: id,
        channel_type,
        name,
        avatar,
    }))
}

/// A group, named by the body.
#[derive(Debug)]
pub(super) struct DeleteChannelRequest {
    group: ChannelId,
}

impl FromJson for DeleteChannelRequest {
    fn from_json(body: Option<&[u8]>, limits: &Limits, problems: &mut Problems) -> Option<Self> {
        let group = Fields::of_body(body, limits, problems)?.group()?;
        Some(Self { group })
    }
}

/// The channel that is gone.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DeleteChannelResponse {
    channel_id: ChannelId,
}

/// Deletes a group for ever.
pub(super) async fn delete_channel(
    caller: Caller,
    State(app): State<App>,
    Json(DeleteChannelRequest { group }): Json<DeleteChannelRequest>,
) -> Result<Envelope<DeleteChannelResponse>, Failure> {
    app.channels().delete(actor(&caller), &group).await?;
    Ok(Envelope(DeleteChannelResponse { channel_id: group }))
}

/// A group and distinct uids.
#[derive(Debug)]
pub(super) struct SubscribersRequest {
    group: ChannelId,
    subscribers: Vec<Uid>,
}

impl FromJson for SubscribersRequest {
    fn from_json(body: Option<&[u8]>, limits: &Limits, problems: &mut Problems) -> Option<Self> {
        let mut fields = Fields::of_body(body, limits, problems)?;
        let group = fields.group();
        let subscribers = fields.uids("subscribers");
        Some(Self {
            group: group?,
            subscribers: subscribers?,
        })
    }
}

/// How many were no subscribers before.
#[derive(Debug, Serialize)]
pub(super) struct AddSubscribersResponse {
    added: u64,
}

/// Adds subscribers to a group.
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
#[derive(Debug, Serialize)]
pub(super) struct RemoveSubscribersResponse {
    removed: u64,
}

/// Removes subscribers from a group.
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
