//! A channel as the store keeps it.

use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::BoxError;
use crate::domain::{ChannelId, Uid, caps};

/// How far a channel's life has come. Only ever moves downwards in this list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChannelStage {
    /// Claimed: its owner's create has not finished. Nobody owns anything yet, and nobody else can claim the id.
    Creating,
    /// Made upstream.
    Live,
    /// Marked as deleted; something of it may be left upstream.
    Deleting,
    /// Gone. The id is spent for ever.
    Deleted,
}

/// One channel's record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelRecord {
    /// Its id.
    pub id: ChannelId,
    /// Who owns it; `None` where nobody owned it when an admin deleted it, or named managers.
    pub owner: Option<Uid>,
    /// Who may add and remove subscribers beside the owner, in the order in which they were named.
    pub managers: Vec<Uid>,
    /// As its owner gave it.
    pub name: Option<String>,
    /// An http(s) URL.
    pub avatar: Option<String>,
    /// When it was claimed, or adopted, in Unix milliseconds.
    pub created_at_ms: u64,
    /// How far its life has come.
    pub state: ChannelStage,
}

/// Who is what in a group.
#[derive(Debug, Clone, Copy)]
pub struct Roles<'a> {
    /// `None` for a group that was adopted and not handed to anybody yet.
    pub owner: Option<&'a Uid>,
    /// In the order in which they were named.
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
    /// Whether the mark is set: from then on nobody reads from, sends to or is added to it.
    pub fn is_deleted(&self) -> bool {
        matches!(self.state, ChannelStage::Deleting | ChannelStage::Deleted)
    }

    /// Whether its create has finished and no delete has begun.
    pub fn is_live(&self) -> bool {
        self.state == ChannelStage::Live
    }

    /// Whether `uid` owns it, or holds the claim to it.
    pub fn is_owned_by(&self, uid: &Uid) -> bool {
        self.owner.as_ref() == Some(uid)
    }

    /// Whether `uid` is one of its managers.
    pub fn is_managed_by(&self, uid: &Uid) -> bool {
        self.managers.contains(uid)
    }

    /// Reads [`columns`]. An id or a stage that this binary cannot read is an error, never a guess.
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
