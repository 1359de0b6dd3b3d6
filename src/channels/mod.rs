//! What owning means: create, delete and the subscribers of groups, over the store (who owns, what is deleted) and the upstream
//! (members, messages), which can fail one without the other. Knows no HTTP; tells [`Watch`] what memberships it changes.
//!
//! **One row an id, for ever.** The store's insert alone decides who owns an id; the row is never removed and its stage only moves on:
//! `Creating` (claimed by an owner after a look found nothing upstream) → `Live` → `Deleting` (the mark) → `Deleted`.
//! So a second person can never own it, and an id that was foreign when it was asked for never gets a row.
//!
//! | create fails or crashes | store | upstream | the owner's repeat | others |
//! |---|---|---|---|---|
//! | while looking, or before the claim | – | – | begins anew | may have it: nothing was promised |
//! | while claiming (answer lost) | – or Creating | – | begins anew, or goes on | `Exists` once claimed |
//! | before or while writing upstream | Creating | nothing, or the group | looks, writes what is missing, → Live | `Exists` |
//! | before or while noting Live | Creating or Live | the group | looks: his own, → Live | `Exists` |
//!
//! What lies upstream under a claim is the claimer's own when it bears exactly this id, is not disbanded and he is its only member (v3
//! without its manager port: he is a member, which it tells by what he may read). Anything else was put there by somebody who went
//! past the gateway between the look and the write: `Exists`, nothing is written, and the claim gives no right to it.
//!
//! | delete fails or crashes | store | upstream | repeated by owner or admin | everybody else |
//! |---|---|---|---|---|
//! | while marking | Live or Deleting | the group | marks (again), goes on | as before, or deleted |
//! | after the mark, any step upstream | Deleting | members and group, partly gone | empties and disbands, → Deleted | deleted |
//! | before noting Deleted | Deleting | gone | empties again, → Deleted | deleted |
//!
//! What takes WuKongIM longer than one call may is tried again for a minute, whoever waits for it.
//!
//! | who may | owner | manager | subscriber | admin; everybody in mode `open` |
//! |---|---|---|---|---|
//! | add subscribers | yes | yes | with `members_may_invite` | yes |
//! | remove subscribers (the owner never) | yes | all but other managers | himself | yes |
//! | name and dismiss managers, hand over, delete | yes | – | – | yes |
//!
//! In mode `callback` the application's backend is asked instead, whoever it is and whatever the table says. It is asked before the
//! operation waits for its turn, since the backend may itself change the group before it answers; what can have changed since is looked
//! at again in turn: that the group is there, and its owner.
//!
//! A manager who is removed from the group, or leaves it, loses the role before that; the former owner gets it when he hands over, so
//! that his repeat of a call whose answer was lost finds him in his new place. A group that lies upstream and has no record, or only
//! somebody's claim that came to nothing, is nobody's: admins manage it. Naming managers in it adopts it, still without an owner;
//! handing it to a subscriber does, too.
//!
//! Where WuKongIM says that another channel with an equal hash lies under an id (v2: occupied, but not by this id), nothing is ever
//! written there, since it would change that other channel: create answers `Exists`, to the owner of a lost group too, member
//! changes `NotFound`, and delete spends the id in the store alone.
//!
//! Operations on one channel, and on channels with an equal storage key of v2, run one after the other in this process, each in a task
//! of its own: a client that hangs up cannot leave one half done. Another replica is held off by the store's statements alone; what
//! something there can overtake (a create's, an add's or a removal's upstream call) reads the record again afterwards and takes its work
//! back where the group was deleted, or the role is gone that let it happen. Two groups with equal keys that are claimed on two replicas
//! at once are found by a look after the write: one of them is refused, or both.

mod create;
mod delete;
mod members;
mod operation;
mod rights;
mod roles;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::watch;

use crate::authorization::Denial;
use crate::authorization::callback::{Action, Callback};
use crate::config::GroupIds;
use crate::domain::{ChannelId, ChannelType, Uid};
use crate::keyed_locks::KeyedLocks;
use crate::store::{ChannelRecord, ChannelStage, Store, StoreError};
use crate::wukongim::{self, Client, MemberList};

use operation::Who;
use rights::Right;

/// How often it is tried to take back what a delete on another replica overtook, and after what pauses.
const TAKE_BACK_TRIES: usize = 3;
const TAKE_BACK_PAUSE: Duration = Duration::from_millis(200);

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub struct Actor<'a> {
    /// The caller.
    pub uid: &'a Uid,
    /// Whether his token makes him an admin.
    pub is_admin: bool,
}

/// Whoever remembers memberships, told when to forget them. Called from within the operation: must not block.
pub trait Watch: Send + Sync {
    /// The members of `group` are about to change, or have just changed: called before and after each such upstream call, whatever
    /// comes of it, so that a look-up begun before the change is never kept.
    fn group_changed(&self, group: &ChannelId);
    /// `group` is marked as deleted, from now on and for ever.
    fn group_deleted(&self, group: &ChannelId);
    /// Whether `uid` is known to be no subscriber of a group that is there. `false` where that is not remembered and cannot be told
    /// without troubling the group.
    fn is_outsider<'a>(&'a self, uid: &'a Uid, group: &'a ChannelId) -> BoxFuture<'a, bool>;
}

/// What this deployment allows.
#[derive(Debug, Clone)]
pub struct Rules {
    /// The most members a group may have, counting those added through the gateway.
    pub group_members: usize,
    /// `authorization.mode = "open"`: everybody manages every group. Owning stays what it is.
    pub open: bool,
    /// `authorization.mode = "callback"`: the application's backend is asked instead of looking at who owns, each time and once
    /// the group is known to be there. Owning stays what it is.
    pub callback: Option<Arc<Callback>>,
    /// Whether every subscriber may add others.
    pub members_may_invite: bool,
    /// Who may choose a new group's id.
    pub group_ids: GroupIds,
}

/// Why a channel was not changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Only admins choose ids here, and this one is no group of the actor's.
    #[error("the id is not the actor's to choose")]
    IdIsMade,
    /// No id could be made: the system has no random numbers.
    #[error("no random numbers")]
    NoRandomId,
    /// The id belongs to somebody else, or lies upstream and belongs to nobody.
    #[error("channel exists")]
    Exists,
    /// The id is spent: its channel was deleted.
    #[error("channel was deleted")]
    Deleted,
    /// There is no such channel, or there is none any more.
    #[error("channel not found")]
    NotFound,
    /// The application's backend does not allow it, or does not answer.
    #[error(transparent)]
    Denied(#[from] Denial),
    /// Neither its owner, nor a manager where those may, nor an admin.
    #[error("not the channel's owner")]
    NotOwner,
    /// Whom it is to be handed over to is no subscriber.
    #[error("not a subscriber")]
    NotAMember,
    /// It would have more members than allowed. Nobody was added.
    #[error("channel is full")]
    Full,
    /// The owner is among those to be removed. Nobody was removed.
    #[error("the owner cannot leave")]
    OwnerCannotLeave,
    /// WuKongIM failed; the operation may be half done, repeating it finishes it.
    #[error(transparent)]
    Upstream(#[from] wukongim::Error),
    /// The store failed; the operation may be half done, repeating it finishes it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// This, and what was done upstream before that was known could not be undone.
    #[error("{0}, and what was done could not be taken back")]
    NotTakenBack(Box<Error>),
    /// The process is ending; the operation may be half done, repeating it finishes it.
    #[error("interrupted by shutdown")]
    Interrupted,
}

/// The groups of this deployment.
pub struct Channels {
    groups: Arc<Groups>,
    /// By v2's storage key, not by the id: two ids with equal keys are one thing to v2.
    locks: KeyedLocks<u64>,
    /// How many operations are under way.
    under_way: Arc<watch::Sender<usize>>,
}

impl Channels {
    /// The rules of owning over `client` and `store`; `watch` hears of every change.
    pub fn new(
        client: Arc<Client>,
        store: Arc<Store>,
        watch: Arc<dyn Watch>,
        rules: Rules,
    ) -> Self {
        let groups = Groups {
            client,
            store,
            watch,
            rules,
        };
        Self {
            groups: Arc::new(groups),
            locks: KeyedLocks::default(),
            under_way: Arc::default(),
        }
    }

    /// Makes the group `id`, or one with a random id, with the actor as owner and first subscriber, or finishes or repeats that. Given fields are written,
    /// absent ones stay; the record as it is stored then. Flags upstream stay; a group that WuKongIM lost is made again.
    ///
    /// # Errors
    /// [`Error::Exists`] for anybody but the owner and for ids that lie upstream already, [`Error::Deleted`] for spent ids,
    /// [`Error::IdIsMade`] for ids that are not the actor's to choose.
    pub async fn create(
        &self,
        actor: Actor<'_>,
        id: Option<ChannelId>,
        name: Option<String>,
        avatar: Option<String>,
    ) -> Result<ChannelRecord, Error> {
        let id = match id {
            Some(id) => {
                self.groups.may_choose(actor, &id).await?;
                id
            }
            None => ChannelId::random().ok_or(Error::NoRandomId)?,
        };
        self.run(
            actor,
            Action::ChannelCreate,
            &id,
            &[],
            move |groups, who, id| async move {
                let fields = create::Fields { name, avatar };
                groups.create(&who, &id, &fields).await
            },
        )
        .await
    }

    /// Spends the id, removes all subscribers and disbands the group; for the owner or an admin. A group that the store does not
    /// know is an admin's to delete. Goes on for a minute at the most, whoever waits for it.
    ///
    /// # Errors
    /// [`Error::NotFound`] for what is unknown or deleted already, [`Error::NotOwner`].
    pub async fn delete(&self, actor: Actor<'_>, id: &ChannelId) -> Result<(), Error> {
        self.run(
            actor,
            Action::ChannelDelete,
            id,
            &[],
            |groups, who, id| async move { groups.delete(&who, &id).await },
        )
        .await
    }

    /// Adds subscribers; `uids` are distinct. How many were none before, or, on v3 without its manager port, how many were asked for.
    ///
    /// There nobody tells how many members a group has either, so `group_members` bounds only the call. Elsewhere two replicas that
    /// add at once may together pass it by what they add.
    ///
    /// # Errors
    /// [`Error::NotFound`] (never made by accident), [`Error::NotOwner`], [`Error::Full`].
    pub async fn add(&self, actor: Actor<'_>, id: &ChannelId, uids: &[Uid]) -> Result<u64, Error> {
        if self.groups.rules.members_may_invite {
            self.groups.refuse_outsider(actor, id, uids).await?;
        }
        let (targets, uids) = (uids, uids.to_vec());
        self.run(
            actor,
            Action::SubscriberAdd,
            id,
            targets,
            move |groups, who, id| async move { groups.add(&who, &id, &uids).await },
        )
        .await
    }

    /// Removes subscribers; `uids` are distinct. For the owner, an admin, managers where none of them is another manager, and everybody
    /// for exactly himself. Managers among them lose their role. How many were subscribers, or, on v3 without its manager port, how
    /// many were asked for.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::NotOwner`], [`Error::OwnerCannotLeave`], whoever asks.
    pub async fn remove(
        &self,
        actor: Actor<'_>,
        id: &ChannelId,
        uids: &[Uid],
    ) -> Result<u64, Error> {
        if self.groups.has_nothing_to_leave(actor, id, uids).await? {
            return Ok(0);
        }
        let (targets, uids) = (uids, uids.to_vec());
        self.run(
            actor,
            Action::SubscriberRemove,
            id,
            targets,
            move |groups, who, id| async move { groups.remove(&who, &id, &uids).await },
        )
        .await
    }
}

/// What the operations share.
struct Groups {
    client: Arc<Client>,
    store: Arc<Store>,
    watch: Arc<dyn Watch>,
    rules: Rules,
}

/// A group that there is, as far as the store and, where the store does not know it, the upstream tell.
enum Known {
    /// The store's: live. With its owner, where it was not adopted without one.
    Owned(ChannelRecord),
    /// Upstream's alone: nobody's, so an admin's. With the record of somebody who claimed the id for a group of his own, and failed.
    Unowned(Option<ChannelRecord>),
}

impl Known {
    fn record(&self) -> Option<&ChannelRecord> {
        match self {
            Self::Owned(record) => Some(record),
            Self::Unowned(_) => None,
        }
    }

    fn into_record(self) -> Option<ChannelRecord> {
        match self {
            Self::Owned(record) => Some(record),
            Self::Unowned(_) => None,
        }
    }
}

/// What lies upstream under a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Claimed {
    /// Nothing, or the beginning of the claimer's group: to be written.
    Unwritten,
    /// The claimer's group.
    Written,
    /// Somebody else's.
    Foreign,
}

impl Groups {
    /// Whether the group is upstream under exactly this id, and not disbanded.
    async fn is_upstream(&self, id: &ChannelId) -> Result<bool, Error> {
        let state = self.client.group_state(id).await?;
        Ok(state.exists && !state.disbanded)
    }

    /// The group, if there is one. A live record is not looked for upstream yet.
    ///
    /// A claim whose create has not finished is no group for anybody, not for an admin either: a member he added would make the
    /// claimer's own group look foreign to its create.
    async fn known(&self, id: &ChannelId) -> Result<Known, Error> {
        let claim = match self.store.channel(id).await? {
            None => None,
            Some(record) => match record.state {
                ChannelStage::Live => return Ok(Known::Owned(record)),
                ChannelStage::Creating if self.claimed(&record).await? == Claimed::Foreign => {
                    Some(record)
                }
                _ => return Err(Error::NotFound),
            },
        };
        if self.is_upstream(id).await? {
            Ok(Known::Unowned(claim))
        } else {
            Err(Error::NotFound)
        }
    }

    /// Tells the claimer's own half-made group from somebody else's.
    async fn claimed(&self, record: &ChannelRecord) -> Result<Claimed, Error> {
        let id = &record.id;
        let Some(owner) = &record.owner else {
            return Ok(Claimed::Foreign);
        };
        let state = self.client.group_state(id).await?;
        if state.disbanded || (state.occupied && !state.exists) {
            return Ok(Claimed::Foreign);
        }
        if !state.exists && !self.client.group_is_occupied(id).await? {
            return Ok(Claimed::Unwritten);
        }
        let members = self
            .client
            .list(MemberList::Subscribers, ChannelType::Group, id.as_str())
            .await?;
        let is_written = match members.as_deref() {
            // v2 writes record and member one after the other: either may be missing after a crash of the node.
            Some([only]) if only == owner.as_str() => state.exists,
            Some([]) if state.exists => false,
            None if self.client.may_read_group(owner, id).await? => true,
            Some(_) | None => return Ok(Claimed::Foreign),
        };
        Ok(if is_written {
            Claimed::Written
        } else {
            Claimed::Unwritten
        })
    }

    /// Tells the watch before and, when the answer is dropped, after a change of members.
    fn changing<'a>(&'a self, group: &'a ChannelId) -> Changing<'a> {
        self.watch.group_changed(group);
        Changing {
            watch: &*self.watch,
            group,
        }
    }
}

/// A change of members under way.
struct Changing<'a> {
    watch: &'a dyn Watch,
    group: &'a ChannelId,
}

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        self.watch.group_changed(self.group);
    }
}
