//! Roles in a group: managers and the transfer of ownership. The tables are in `mod.rs`.
//!
//! Each change is one statement conditional on the record that was read, retried on the newer record after a concurrent change.

use super::operation::Operation;
use super::{Actor, Channels, Error, Group};
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
        Ok(self.groups.group(id).await?.record)
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
        let operation = self.operation(actor, Action::ManagerAdd, id, uids)?;
        self.run(operation, Operation::add_managers).await
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
        let operation = self.operation(actor, Action::ManagerRemove, id, uids)?;
        self.run(operation, Operation::remove_managers).await
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
        let operation = Operation {
            name,
            avatar,
            ..self.operation(actor, Action::OwnerTransfer, id, std::slice::from_ref(to))?
        };
        let to = to.clone();
        self.run(operation, |operation| operation.transfer_ownership(to))
            .await
    }
}

impl Operation {
    pub(super) async fn add_managers(self) -> Result<u64, Error> {
        loop {
            let group = self.group().await?;
            let record = group.record.as_ref();
            self.authorize(record)?;
            let is_new = |uid: &&Uid| {
                record.is_none_or(|record| !record.is_managed_by(uid) && !record.is_owned_by(uid))
            };
            let new: Vec<Uid> = self.targets.iter().filter(is_new).cloned().collect();
            if new.is_empty() {
                return Ok(0);
            }
            let before = record.map_or(&[][..], |record| &record.managers);
            let managers = [before, &new].concat();
            if managers.len() > self.groups.rules.group_members {
                return Err(Error::Full);
            }
            let owner = record.and_then(|record| record.owner.as_ref());
            let changed = self.set_roles(&group, owner, &managers, false).await?;
            if changed.is_some() {
                return Ok(new.len() as u64);
            }
        }
    }

    pub(super) async fn remove_managers(self) -> Result<u64, Error> {
        loop {
            let group = self.group().await?;
            self.authorize(group.record.as_ref())?;
            let Some(record) = group.record else {
                return Ok(0);
            };
            let remaining = record.managers_without(&self.targets);
            let removed = record.managers.len() - remaining.len();
            if removed == 0 || self.set_managers(&record, &remaining).await? {
                return Ok(removed as u64);
            }
        }
    }

    /// Makes `to` the owner and the former owner a manager. A group without an owner gets the given fields.
    pub(super) async fn transfer_ownership(self, to: Uid) -> Result<ChannelRecord, Error> {
        let record = loop {
            let group = self.group().await?;
            let record = group.record.as_ref();
            let is_owner = record.is_some_and(|record| record.is_owned_by(&to));
            // A retry by the former owner, who is a manager by now, needs no right.
            let is_retry = is_owner
                && self.groups.rules.callback.is_none()
                && record.is_some_and(|record| record.is_managed_by(&self.caller));
            if !is_retry {
                self.authorize(record)?;
            }
            if is_owner && let Some(record) = group.record {
                return Ok(record);
            }
            self.require_upstream(&group).await?;
            if !self.groups.client.is_subscriber(&to, &self.id).await? {
                return Err(Error::NotAMember);
            }
            let former = record.and_then(|record| record.owner.clone());
            let is_first = former.is_none();
            let mut managers =
                record.map_or_else(Vec::new, |record| record.managers_without(&self.targets));
            managers.extend(former);
            let changed = self.set_roles(&group, Some(&to), &managers, is_first);
            if let Some(record) = changed.await? {
                break record;
            }
        };
        // Another replica may have removed the new owner meanwhile. From now on it would find that this user is the owner. On v2 the whole
        // list is not fetched again, since adding an existing member changes nothing there (seen on running servers).
        let is_member = match self.groups.client.generation().await? {
            Generation::V2 => false,
            Generation::V3 => self.groups.client.is_subscriber(&to, &self.id).await?,
        };
        if !is_member {
            self.change(MemberChange::Add, &[to.as_str()], None).await?;
        }
        Ok(record)
    }

    /// Writes the roles, and where `with_fields` is set the given fields; creates a missing record. `None` where the record has changed.
    async fn set_roles(
        &self,
        group: &Group,
        owner: Option<&Uid>,
        managers: &[Uid],
        with_fields: bool,
    ) -> Result<Option<ChannelRecord>, Error> {
        let (store, roles) = (&self.groups.store, Roles { owner, managers });
        let given = |field| with_fields.then_some(field).flatten();
        let (name, avatar) = (given(self.name.as_deref()), given(self.avatar.as_deref()));
        let changed = match &group.record {
            Some(record) => store.set_roles(record, roles, name, avatar).await,
            None => {
                let claim = group.claim.as_ref();
                store.adopt(&self.id, claim, roles, name, avatar).await
            }
        };
        (self.groups.on_change)(&self.id, false);
        Ok(changed?)
    }

    /// Writes the managers; false where the record has changed.
    pub(super) async fn set_managers(
        &self,
        record: &ChannelRecord,
        managers: &[Uid],
    ) -> Result<bool, Error> {
        let owner = record.owner.as_ref();
        let roles = Roles { owner, managers };
        let changed = self.groups.store.set_roles(record, roles, None, None);
        let changed = changed.await;
        (self.groups.on_change)(&self.id, false);
        Ok(changed?.is_some())
    }
}
