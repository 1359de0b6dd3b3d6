//! The record of a channel.

use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::BoxError;
use crate::domain::{ChannelId, Uid, caps};

/// The stage of a channel's life. It only moves forward in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChannelStage {
    /// Claimed: the creation has not finished. There is no owner yet, and no other user can claim the id.
    Creating,
    /// Created upstream.
    Live,
    /// Marked as deleted; parts of it may still exist upstream.
    Deleting,
    /// Deleted. The id cannot be used again.
    Deleted,
}

/// One channel's record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelRecord {
    /// Its id.
    pub id: ChannelId,
    /// The owner; `None` for a group without one that an admin deleted or added managers to.
    pub owner: Option<Uid>,
    /// The managers, in the order in which they were added.
    pub managers: Vec<Uid>,
    /// The name given by its owner.
    pub name: Option<String>,
    /// An http(s) URL.
    pub avatar: Option<String>,
    /// When it was claimed, or adopted, in Unix milliseconds.
    pub created_at_ms: u64,
    /// Its stage.
    pub state: ChannelStage,
}

/// The roles in a group.
#[derive(Debug, Clone, Copy)]
pub struct Roles<'a> {
    /// `None` for an adopted group without an owner.
    pub owner: Option<&'a Uid>,
    /// In the order in which they were added.
    pub managers: &'a [Uid],
}

/// The columns a record is read from.
macro_rules! columns {
    () => {
        "id, owner, managers, name, avatar, stage, created_at_ms"
    };
}
pub(super) use columns;

impl ChannelRecord {
    /// Whether it is marked as deleted: then no user may read, send or be added.
    pub fn is_deleted(&self) -> bool {
        matches!(self.state, ChannelStage::Deleting | ChannelStage::Deleted)
    }

    /// Whether its creation has finished and no deletion has begun.
    pub fn is_live(&self) -> bool {
        self.state == ChannelStage::Live
    }

    /// Whether `uid` is its owner, or has claimed it.
    pub fn is_owned_by(&self, uid: &Uid) -> bool {
        self.owner.as_ref() == Some(uid)
    }

    /// Whether `uid` is one of its managers.
    pub fn is_managed_by(&self, uid: &Uid) -> bool {
        self.managers.contains(uid)
    }

    /// The managers but these.
    pub fn managers_without(&self, uids: &[Uid]) -> Vec<Uid> {
        let remains = |uid: &&Uid| !uids.contains(uid);
        self.managers.iter().filter(remains).cloned().collect()
    }

    /// Reads [`columns`]. An unknown id or stage is an error.
    pub(super) fn from_row(row: &AnyRow) -> Result<Self, BoxError> {
        let id: String = row.try_get("id")?;
        let owner: Option<String> = row.try_get("owner")?;
        let managers: String = row.try_get("managers")?;
        let managers: Vec<String> = serde_json::from_str(&managers)?;
        let managers = managers.iter().map(|uid| Uid::parse(uid, caps::ID_BYTES));
        let stage: String = row.try_get("stage")?;
        let created_at_ms: i64 = row.try_get("created_at_ms")?;
        Ok(Self {
            id: ChannelId::parse(&id, caps::ID_BYTES)?,
            owner: owner
                .map(|uid| Uid::parse(&uid, caps::ID_BYTES))
                .transpose()?,
            managers: managers.collect::<Result<_, _>>()?,
            name: row.try_get("name")?,
            avatar: row.try_get("avatar")?,
            created_at_ms: u64::try_from(created_at_ms).unwrap_or(0),
            state: match stage.as_str() {
                "creating" => ChannelStage::Creating,
                "live" => ChannelStage::Live,
                "deleting" => ChannelStage::Deleting,
                "deleted" => ChannelStage::Deleted,
                _ => return Err("unknown channel stage".into()),
            },
        })
    }
}
