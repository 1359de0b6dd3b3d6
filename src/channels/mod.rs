//! Groups: creation, deletion, subscribers and roles. The store has owners and deletions, the upstream has members and messages, and each
//! can fail without the other. Does not know HTTP.
//!
//! **One permanent row per id.** The store's insert alone decides who owns an id; the row is never removed and its stage only moves
//! forward: `Creating` (claimed by an owner after a check found nothing upstream) → `Live` → `Deleting` (the mark) → `Deleted`. So an id
//! never gets a second owner by creation, and an id that existed upstream before its creation never gets a row.
//!
//! | create fails or crashes | store | upstream | the owner's retry | others |
//! |---|---|---|---|---|
//! | while checking, or before the claim | – | – | starts again | may create it: it is not claimed |
//! | while claiming (answer lost) | – or Creating | – | starts again, or continues | `Exists` once claimed |
//! | before or while writing upstream | Creating | nothing, or the group | checks, writes what is missing, → Live | `Exists` |
//! | before or while setting Live | Creating or Live | the group | checks: its own, → Live | `Exists` |
//!
//! A group that exists upstream under a claim is the claimer's own if it has exactly this id, is not disbanded and the claimer is its only
//! member (v3 without its manager port: is a member, derived from the permission to read). Anything else was created past the gateway
//! between check and write: `Exists`, nothing is written, and the claim gives no right to it.
//!
//! | delete fails or crashes | store | upstream | retried by owner or admin | other users |
//! |---|---|---|---|---|
//! | while marking | Live or Deleting | the group | marks (again), continues | as before, or deleted |
//! | after the mark, any step upstream | Deleting | members and group, partly gone | empties and disbands, → Deleted | deleted |
//! | before setting Deleted | Deleting | gone | empties again, → Deleted | deleted |
//!
//! Steps that take WuKongIM longer than one call may are retried for a minute, even if the client has gone.
//!
//! | permission | owner | manager | subscriber | admin; all users in mode `open` |
//! |---|---|---|---|---|
//! | add subscribers | yes | yes | with `members_may_invite` | yes |
//! | remove subscribers (never the owner) | yes | all but other managers | only itself | yes |
//! | add and remove managers, transfer ownership, delete | yes | – | – | yes |
//!
//! In mode `callback` the application's backend decides instead, for all users and regardless of the table. It is called before the
//! operation waits for its turn, since the backend may itself change the group before it answers; what may have changed since is checked
//! again under the lock: that the group exists, and its owner.
//!
//! A manager that leaves or is removed loses the role first. The former owner becomes a manager by the transfer, so that a retry whose
//! first answer was lost still has a role. A group that exists upstream without a record, or only with a failed claim, has no owner: admins
//! manage it. Adding managers to it creates its record without an owner; transferring it to a subscriber creates one with an owner.
//!
//! Where another channel with the same hash exists under an id (v2: occupied, but not by this id), nothing is ever written upstream, since
//! that would change the other channel: create answers `Exists`, also to the owner of a lost group, member changes answer `NotFound`, and
//! delete marks the id in the store only.
//!
//! Operations on one channel, and on channels with the same v2 storage key, are serialised within this process, each in its own task, so
//! that a client that disconnects cannot leave one half done. Between replicas only the store's statements serialise them: after an
//! upstream call that another replica may overtake (of a create, an add or a removal), the record is read again, and the call is undone
//! where the group was deleted or the required role is gone. Two groups with the same key that are claimed on two replicas at once are
//! detected by a check after the write: one or both are refused.

mod create;
mod delete;
mod members;
mod operation;
mod rights;
mod roles;
mod subscribers;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::watch;

use crate::authorization::Denial;
use crate::authorization::callback::{Action, Callback};
use crate::config::GroupIds;
use crate::domain::{ChannelId, ChannelType, Uid};
use crate::limits::channel_limiter::ChannelLimiter;
use crate::limits::keyed_locks::KeyedLocks;
use crate::store::{ChannelRecord, ChannelStage, Store, StoreError};
use crate::wukongim::{self, Client, MemberList};

use operation::Operation;
pub use subscribers::{MemberPage, MemberPosition, Role, SubscriberRules, Subscribers};

/// Attempts, and the pause between them, to undo a call that a delete on another replica overtook.
const UNDO_ATTEMPTS: usize = 3;
const UNDO_PAUSE: Duration = Duration::from_millis(200);

/// The caller of an operation.
#[derive(Debug, Clone, Copy)]
pub struct Actor<'a> {
    /// The caller.
    pub uid: &'a Uid,
    /// Whether the caller's token has the admin scope.
    pub is_admin: bool,
}

/// Invalidates what is cached about a group. Called before and after each upstream call that changes its members, whatever the outcome, so
/// that a lookup that began before the change is never cached, and after each change of its roles; with `true` once the group is marked as
/// deleted, permanently. Must not block.
pub type OnChange = dyn Fn(&ChannelId, bool) + Send + Sync;

/// Whether the user is known not to be a subscriber of an existing group; `false` where that cannot be found out cheaply.
pub type IsKnownNonMember = dyn Fn(Uid, ChannelId) -> BoxFuture<'static, bool> + Send + Sync;

/// The deployment's settings for groups.
#[derive(Debug, Clone)]
pub struct Rules {
    /// The maximum number of members of a group, enforced when members are added through the gateway.
    pub group_members: usize,
    /// `authorization.mode = "open"`: every user manages every group. Ownership is unchanged.
    pub open: bool,
    /// `authorization.mode = "callback"`: the application's backend decides instead of the roles, for every operation and after the group
    /// is found. Ownership is unchanged.
    pub callback: Option<Arc<Callback>>,
    /// Whether every subscriber may add others.
    pub members_may_invite: bool,
    /// Who may choose a new group's id.
    pub group_ids: GroupIds,
}

/// Why a channel was not changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Only admins may choose ids in this deployment, and the actor does not own this group.
    #[error("the id is not the actor's to choose")]
    IdNotAllowed,
    /// No id could be generated because the system has no random numbers.
    #[error("no random numbers")]
    NoRandomId,
    /// The id belongs to another user, or exists upstream without an owner.
    #[error("channel exists")]
    Exists,
    /// The channel of this id was deleted; the id cannot be used again.
    #[error("channel was deleted")]
    Deleted,
    /// The channel does not exist, or no longer does.
    #[error("channel not found")]
    NotFound,
    /// The application's backend refuses, or does not answer.
    #[error(transparent)]
    Denied(#[from] Denial),
    /// The caller is neither the owner, nor a manager with this permission, nor an admin.
    #[error("not the channel's owner")]
    NotOwner,
    /// The new owner is not a subscriber.
    #[error("not a subscriber")]
    NotAMember,
    /// It would have too many members. None was added.
    #[error("channel is full")]
    Full,
    /// This WuKongIM cannot do it.
    #[error("this wukongim cannot do it")]
    NotSupported,
    /// The owner is among the users to remove. None was removed.
    #[error("the owner cannot leave")]
    OwnerCannotLeave,
    /// WuKongIM failed. The operation may be half done; a retry completes it.
    #[error(transparent)]
    Upstream(#[from] wukongim::Error),
    /// The store failed. The operation may be half done; a retry completes it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The inner error, and the upstream change made before it was detected could not be undone.
    #[error("{0}, and the change could not be undone")]
    NotUndone(Box<Error>),
    /// The process is shutting down. The operation may be half done; a retry completes it.
    #[error("interrupted by shutdown")]
    Interrupted,
}

/// The operations on this deployment's groups.
pub struct Channels {
    groups: Arc<Groups>,
    channel_limiter: Arc<ChannelLimiter>,
    /// Keyed by v2's storage key instead of the id, because v2 treats two ids with the same key as one.
    locks: KeyedLocks<u64>,
    /// The number of running operations.
    active: Arc<watch::Sender<usize>>,
}

impl Channels {
    /// Groups over `client` and `store`.
    pub fn new(
        client: Arc<Client>,
        store: Arc<Store>,
        channel_limiter: Arc<ChannelLimiter>,
        rules: Rules,
        on_change: Box<OnChange>,
        is_known_non_member: Box<IsKnownNonMember>,
    ) -> Self {
        let groups = Groups {
            client,
            store,
            rules,
            on_change,
            is_known_non_member,
        };
        Self {
            groups: Arc::new(groups),
            channel_limiter,
            locks: KeyedLocks::default(),
            active: Arc::default(),
        }
    }

    /// Creates the group `id`, or one with a random id, with the actor as owner and first subscriber; also completes or repeats an earlier
    /// create. Given fields are written, absent ones are kept; returns the stored record. Upstream flags are kept; a group that WuKongIM
    /// lost is created again.
    ///
    /// # Errors
    /// [`Error::Exists`] for users other than the owner and for ids that exist upstream already, [`Error::Deleted`] for deleted ids,
    /// [`Error::IdNotAllowed`] for ids that the actor may not choose.
    pub async fn create(
        &self,
        actor: Actor<'_>,
        id: Option<ChannelId>,
        name: Option<String>,
        avatar: Option<String>,
    ) -> Result<ChannelRecord, Error> {
        let is_chosen = id.is_some();
        let id = id.or_else(ChannelId::random).ok_or(Error::NoRandomId)?;
        let operation = Operation {
            name,
            avatar,
            ..self.operation(actor, Action::ChannelCreate, &id, &[])?
        };
        if is_chosen {
            operation.check_id_choice().await?;
        }
        self.run(operation, Operation::create).await
    }

    /// Marks the id as deleted, removes all subscribers and disbands the group; for the owner or an admin. Only an admin may delete a group
    /// without a record. Continues for at most a minute, even if the client has gone.
    ///
    /// # Errors
    /// [`Error::NotFound`] for unknown and deleted ids, [`Error::NotOwner`].
    pub async fn delete(&self, actor: Actor<'_>, id: &ChannelId) -> Result<(), Error> {
        let operation = self.operation(actor, Action::ChannelDelete, id, &[])?;
        self.run(operation, Operation::delete).await
    }

    /// Adds subscribers; `uids` are distinct. Returns how many were not subscribers before, or the number of `uids` on v3 without its
    /// manager port.
    ///
    /// The latter does not report a group's size either, so `group_members` bounds only the call. Elsewhere two replicas that add at the
    /// same time may together exceed it.
    ///
    /// # Errors
    /// [`Error::NotFound`] (adding never creates a group), [`Error::NotOwner`], [`Error::Full`].
    pub async fn add(&self, actor: Actor<'_>, id: &ChannelId, uids: &[Uid]) -> Result<u64, Error> {
        let operation = self.operation(actor, Action::SubscriberAdd, id, uids)?;
        operation.deny_non_member().await?;
        self.run(operation, Operation::add).await
    }

    /// Removes subscribers; `uids` are distinct. For the owner, an admin, a manager if none of `uids` is another manager, and any user for
    /// itself only. Managers among `uids` lose their role. Returns how many were subscribers, or the number of `uids` on v3 without its
    /// manager port.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::NotOwner`], [`Error::OwnerCannotLeave`] for every caller.
    pub async fn remove(
        &self,
        actor: Actor<'_>,
        id: &ChannelId,
        uids: &[Uid],
    ) -> Result<u64, Error> {
        let operation = self.operation(actor, Action::SubscriberRemove, id, uids)?;
        if operation.is_leave_without_effect().await? {
            return Ok(0);
        }
        self.run(operation, Operation::remove).await
    }
}

/// The state that the operations share.
struct Groups {
    client: Arc<Client>,
    store: Arc<Store>,
    rules: Rules,
    on_change: Box<OnChange>,
    is_known_non_member: Box<IsKnownNonMember>,
}

/// An existing group.
struct Group {
    /// Its live record, which may lack an owner if the group was adopted. `None` where it exists only upstream: it has no owner, and
    /// admins manage it.
    record: Option<ChannelRecord>,
    /// The record of a claim to its id that failed.
    claim: Option<ChannelRecord>,
}

/// The upstream state of a claimed id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ClaimState {
    /// Nothing, or a part of the claimer's group: still to be written.
    Unwritten,
    /// The claimer's group.
    Written,
    /// Another group.
    Foreign,
}

impl Groups {
    /// Whether the group is upstream under exactly this id, and not disbanded.
    async fn is_upstream(&self, id: &ChannelId) -> Result<bool, Error> {
        let state = self.client.group_state(id).await?;
        Ok(state.exists && !state.disbanded)
    }

    /// The group, if it exists. A live record is not checked upstream yet.
    ///
    /// A group whose creation is unfinished does not exist for any caller, including admins: a member added now would make it look foreign
    /// to its own creation.
    async fn group(&self, id: &ChannelId) -> Result<Group, Error> {
        let claim = self.store.channel(id).await?;
        if let Some(record) = &claim {
            match record.state {
                ChannelStage::Live => {
                    let (record, claim) = (claim, None);
                    return Ok(Group { record, claim });
                }
                ChannelStage::Creating
                    if self.claim_state(record).await? == ClaimState::Foreign => {}
                _ => return Err(Error::NotFound),
            }
        }
        let record = None;
        let is_upstream = self.is_upstream(id).await?;
        let group = Group { record, claim };
        is_upstream.then_some(group).ok_or(Error::NotFound)
    }

    /// The members, where WuKongIM can list them.
    async fn members(&self, id: &ChannelId) -> Result<Option<Vec<String>>, Error> {
        let group = ChannelType::Group;
        let members = self
            .client
            .list(MemberList::Subscribers, group, id.as_str());
        Ok(members.await?)
    }

    /// Distinguishes the claimer's own unfinished group from another one.
    async fn claim_state(&self, record: &ChannelRecord) -> Result<ClaimState, Error> {
        let id = &record.id;
        let Some(owner) = &record.owner else {
            return Ok(ClaimState::Foreign);
        };
        let state = self.client.group_state(id).await?;
        if state.disbanded || (state.occupied && !state.exists) {
            return Ok(ClaimState::Foreign);
        }
        if !state.exists && !self.client.group_is_occupied(id).await? {
            return Ok(ClaimState::Unwritten);
        }
        Ok(match self.members(id).await?.as_deref() {
            // v2 writes record and member separately: either may be missing after a crash of the node.
            Some([only]) if only == owner.as_str() && !state.exists => ClaimState::Unwritten,
            Some([]) if state.exists => ClaimState::Unwritten,
            Some([only]) if only == owner.as_str() => ClaimState::Written,
            None if self.client.may_read_group(owner, id).await? => ClaimState::Written,
            Some(_) | None => ClaimState::Foreign,
        })
    }

    /// Invalidates before a change of members, and again when the returned guard is dropped.
    fn invalidate_around<'a>(&'a self, group: &'a ChannelId) -> InvalidationGuard<'a> {
        (self.on_change)(group, false);
        InvalidationGuard(&self.on_change, group)
    }
}

/// A change of members in progress.
struct InvalidationGuard<'a>(&'a OnChange, &'a ChannelId);

impl Drop for InvalidationGuard<'_> {
    fn drop(&mut self) {
        (self.0)(self.1, false);
    }
}
