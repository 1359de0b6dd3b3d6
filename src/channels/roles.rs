//! Roles in a group: managers and the transfer of ownership. The tables are in `mod.rs`.
//!
//! Each change is one statement conditional on the record that was read, retried on the newer record after a concurrent change.

use super::create::GroupFields;
use super::{Actor, Channels, Error, GroupCaller, GroupOwnership, Groups, Right};
use crate::authorization::callback::Action;
use crate::domain::{ChannelId, Uid};
use crate::store::{ChannelRecord, Roles};
use crate::wukongim::{Generation, MemberChange};

impl Channels {
    /// The group's record; `None` where it exists without a live one. Does not check permissions.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn info(&self, id: &ChannelId) -> Result<Option<ChannelRecord>, Error> {
        match self.groups.ownership(id).await? {
            GroupOwnership::Owned(record) => Ok(Some(record)),
            GroupOwnership::Unowned(_) => Ok(None),
        }
    }

    /// Adds managers, for the owner or an admin; `uids` are distinct. Returns how many were not managers before; the owner does not count.
    /// A group without a record gets one without an owner.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::NotOwner`], [`Error::Full`] for more managers than a group may have members.
    pub async fn add_managers(
        &self,
        actor: Actor<'_>,
        id: &ChannelId,
        uids: &[Uid],
    ) -> Result<u64, Error> {
        let (targets, uids) = (uids, uids.to_vec());
        self.run(
            actor,
            Action::ManagerAdd,
            id,
            targets,
            move |groups, caller, id| async move { groups.add_managers(&caller, &id, &uids).await },
        )
        .await
    }

    /// Removes managers, for the owner or an admin; they stay subscribers. Returns how many were managers.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::NotOwner`].
    pub async fn remove_managers(
        &self,
        actor: Actor<'_>,
        id: &ChannelId,
        uids: &[Uid],
    ) -> Result<u64, Error> {
        let (targets, uids) = (uids, uids.to_vec());
        self.run(
            actor,
            Action::ManagerRemove,
            id,
            targets,
            move |groups, caller, id| async move { groups.remove_managers(&caller, &id, &uids).await },
        )
        .await
    }

    /// Makes `to` the owner, for the owner or an admin; the former owner becomes a manager. Only an admin may transfer a group without an
    /// owner; that creates a missing record and writes these fields, which are ignored otherwise.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::NotOwner`], [`Error::NotAMember`] where `to` is not a subscriber.
    pub async fn transfer_ownership(
        &self,
        actor: Actor<'_>,
        id: &ChannelId,
        to: &Uid,
        name: Option<String>,
        avatar: Option<String>,
    ) -> Result<ChannelRecord, Error> {
        let (targets, to) = (std::slice::from_ref(to), to.clone());
        self.run(
            actor,
            Action::OwnerTransfer,
            id,
            targets,
            move |groups, caller, id| async move {
                let fields = GroupFields { name, avatar };
                groups.transfer_ownership(&caller, &id, &to, &fields).await
            },
        )
        .await
    }
}

impl Groups {
    /// Whether the role of `caller` permits `action` on `uids` in the group with this record; the table is in `mod.rs`.
    pub(super) fn has_role(
        caller: &GroupCaller,
        action: Action,
        record: Option<&ChannelRecord>,
        uids: &[Uid],
    ) -> bool {
        let Some(record) = record else {
            return false;
        };
        let is_peer = |uid: &Uid| *uid != caller.uid && record.is_managed_by(uid);
        record.is_owned_by(&caller.uid)
            || record.is_managed_by(&caller.uid)
                && match action {
                    Action::SubscriberAdd | Action::ChannelInfo => true,
                    Action::SubscriberRemove => !uids.iter().any(is_peer),
                    _ => false,
                }
    }

    pub(super) async fn add_managers(
        &self,
        caller: &GroupCaller,
        id: &ChannelId,
        uids: &[Uid],
    ) -> Result<u64, Error> {
        loop {
            let ownership = self
                .authorized_group(caller, Action::ManagerAdd, id, uids)
                .await?;
            let record = ownership.record();
            let is_new = |uid: &&Uid| {
                record.is_none_or(|record| !record.is_managed_by(uid) && !record.is_owned_by(uid))
            };
            let new: Vec<Uid> = uids.iter().filter(is_new).cloned().collect();
            if new.is_empty() {
                return Ok(0);
            }
            let before = record.map_or(&[][..], |record| &record.managers);
            let managers = [before, &new].concat();
            if managers.len() > self.rules.group_members {
                return Err(Error::Full);
            }
            let is_written = match &ownership {
                GroupOwnership::Owned(record) => self.set_managers(record, &managers).await?,
                GroupOwnership::Unowned(claim) => {
                    let roles = Roles {
                        owner: None,
                        managers: &managers,
                    };
                    let adopted = self.store.adopt(id, claim.as_ref(), roles, None, None);
                    adopted.await?.is_some()
                }
            };
            if is_written {
                return Ok(new.len() as u64);
            }
        }
    }

    pub(super) async fn remove_managers(
        &self,
        caller: &GroupCaller,
        id: &ChannelId,
        uids: &[Uid],
    ) -> Result<u64, Error> {
        loop {
            let ownership = self
                .authorized_group(caller, Action::ManagerRemove, id, uids)
                .await?;
            let Some(record) = ownership.record() else {
                return Ok(0);
            };
            let remaining = without(&record.managers, uids);
            let removed = record.managers.len() - remaining.len();
            if removed == 0 || self.set_managers(record, &remaining).await? {
                return Ok(removed as u64);
            }
        }
    }

    /// Removes the manager role from `uids`, which `caller` is about to remove from the group, or has removed.
    pub(super) async fn revoke_manager_roles(
        &self,
        caller: &GroupCaller,
        right: Right,
        mut record: ChannelRecord,
        uids: &[Uid],
    ) -> Result<(), Error> {
        loop {
            let remaining = without(&record.managers, uids);
            if remaining.len() == record.managers.len()
                || self.set_managers(&record, &remaining).await?
            {
                return Ok(());
            }
            match self.ownership(&record.id).await? {
                GroupOwnership::Owned(newer) => record = newer,
                GroupOwnership::Unowned(_) => return Ok(()),
            }
            if right == Right::Role {
                self.removal_right(caller, Some(&record), uids)?;
            }
        }
    }

    /// Makes `to` the owner and the former owner a manager. A group without a record gets one with these fields.
    pub(super) async fn transfer_ownership(
        &self,
        caller: &GroupCaller,
        id: &ChannelId,
        to: &Uid,
        fields: &GroupFields,
    ) -> Result<ChannelRecord, Error> {
        let record = loop {
            let ownership = self.ownership(id).await?;
            if self.rules.callback.is_none()
                && let GroupOwnership::Owned(record) = &ownership
                && record.is_owned_by(to)
                && record.is_managed_by(&caller.uid)
            {
                // A retry by the former owner, who is a manager by now.
                return Ok(record.clone());
            }
            let targets = std::slice::from_ref(to);
            self.authorize(caller, Action::OwnerTransfer, ownership.record(), targets)?;
            if let GroupOwnership::Owned(record) = &ownership
                && record.is_owned_by(to)
            {
                return Ok(record.clone());
            }
            self.require_upstream(&ownership, id).await?;
            if !self.client.is_subscriber(to, id).await? {
                return Err(Error::NotAMember);
            }
            let mut managers = ownership
                .record()
                .map_or_else(Vec::new, |record| without(&record.managers, targets));
            let owner = ownership.record().and_then(|record| record.owner.clone());
            let (name, avatar) = match &owner {
                None => (fields.name.as_deref(), fields.avatar.as_deref()),
                Some(_) => (None, None),
            };
            managers.extend(owner);
            let roles = Roles {
                owner: Some(to),
                managers: &managers,
            };
            let changed = match &ownership {
                GroupOwnership::Owned(record) => {
                    self.store.set_roles(record, roles, name, avatar).await?
                }
                GroupOwnership::Unowned(claim) => {
                    let claim = claim.as_ref();
                    self.store.adopt(id, claim, roles, name, avatar).await?
                }
            };
            if let Some(record) = changed {
                break record;
            }
        };
        // Another replica may have removed the new owner meanwhile. From now on it would find that this user is the owner. On v2 the whole
        // list is not fetched again, since adding an existing member changes nothing there (seen on running servers).
        let is_member = match self.client.generation().await? {
            Generation::V2 => false,
            Generation::V3 => self.client.is_subscriber(to, id).await?,
        };
        if !is_member {
            self.change(MemberChange::Add, id, &[to.as_str()], None)
                .await?;
        }
        Ok(record)
    }

    /// The group, after checking that `caller` may do `action` in it.
    async fn authorized_group(
        &self,
        caller: &GroupCaller,
        action: Action,
        id: &ChannelId,
        uids: &[Uid],
    ) -> Result<GroupOwnership, Error> {
        let ownership = self.ownership(id).await?;
        self.authorize(caller, action, ownership.record(), uids)?;
        Ok(ownership)
    }

    /// Writes the managers; false where the record has changed.
    async fn set_managers(&self, record: &ChannelRecord, managers: &[Uid]) -> Result<bool, Error> {
        let roles = Roles {
            owner: record.owner.as_ref(),
            managers,
        };
        let changed = self.store.set_roles(record, roles, None, None).await?;
        Ok(changed.is_some())
    }
}

fn without(managers: &[Uid], uids: &[Uid]) -> Vec<Uid> {
    let remains = |uid: &&Uid| !uids.contains(uid);
    managers.iter().filter(remains).cloned().collect()
}
