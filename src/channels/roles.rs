//! Who is what in a group: the owner, the managers he names, and how a group changes hands. The tables stand in `mod.rs`.
//!
//! Each change is one statement on the record as it was read, made again on the newer one where another replica was faster.

use super::create::Fields;
use super::{Actor, Channels, Error, Groups, Known, Who};
use crate::authorization::callback::Action;
use crate::domain::{ChannelId, Uid};
use crate::store::ChannelRecord;
use crate::wukongim::MemberChange;

impl Channels {
    /// The group's record; `None` where it is nobody's: the store does not know it. Who may see it is not decided here.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn info(&self, id: &ChannelId) -> Result<Option<ChannelRecord>, Error> {
        match self.groups.known(id).await? {
            Known::Owned(record) => Ok(Some(record)),
            Known::Unowned(_) => Ok(None),
        }
    }

    /// Names managers, for the owner or an admin; `uids` are distinct. How many were none before. The owner needs no naming.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a group of nobody's too, [`Error::NotOwner`], [`Error::Full`] for more managers than a group may
    /// have members.
    pub async fn add_managers(
        &self,
        actor: Actor<'_>,
        id: &ChannelId,
        uids: &[Uid],
    ) -> Result<u64, Error> {
        let uids = uids.to_vec();
        self.run(
            actor,
            Action::ManagerAdd,
            id,
            move |groups, who, id| async move { groups.add_managers(&who, &id, &uids).await },
        )
        .await
    }

    /// Dismisses managers, for the owner or an admin; they stay subscribers. How many were managers.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a group of nobody's too, [`Error::NotOwner`].
    pub async fn remove_managers(
        &self,
        actor: Actor<'_>,
        id: &ChannelId,
        uids: &[Uid],
    ) -> Result<u64, Error> {
        let uids = uids.to_vec();
        self.run(
            actor,
            Action::ManagerRemove,
            id,
            move |groups, who, id| async move { groups.remove_managers(&who, &id, &uids).await },
        )
        .await
    }

    /// Makes `to` the owner, for the owner or an admin; the former one becomes a manager. A group that lies upstream and is nobody's
    /// is an admin's to hand over: that adopts it, with these fields. Elsewhere they count for nothing.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::NotOwner`], [`Error::NotAMember`] where `to` is no subscriber.
    pub async fn hand_over(
        &self,
        actor: Actor<'_>,
        id: &ChannelId,
        to: &Uid,
        name: Option<String>,
        avatar: Option<String>,
    ) -> Result<ChannelRecord, Error> {
        let to = to.clone();
        self.run(
            actor,
            Action::OwnerTransfer,
            id,
            move |groups, who, id| async move {
                let fields = Fields { name, avatar };
                groups.hand_over(&who, &id, &to, &fields).await
            },
        )
        .await
    }
}

impl Groups {
    /// What `who` is lets him do `action` to `uids` in the group with this record; the table stands in `mod.rs`.
    pub(super) fn has_role(
        who: &Who,
        action: Action,
        record: Option<&ChannelRecord>,
        uids: &[Uid],
    ) -> bool {
        let Some(record) = record else {
            return false;
        };
        let is_peer = |uid: &Uid| *uid != who.uid && record.is_managed_by(uid);
        record.is_owned_by(&who.uid)
            || record.is_managed_by(&who.uid)
                && match action {
                    Action::SubscriberAdd | Action::ChannelInfo => true,
                    Action::SubscriberRemove => !uids.iter().any(is_peer),
                    _ => false,
                }
    }

    pub(super) async fn add_managers(
        &self,
        who: &Who,
        id: &ChannelId,
        uids: &[Uid],
    ) -> Result<u64, Error> {
        loop {
            let record = self.managed(who, Action::ManagerAdd, id, uids).await?;
            let is_new = |uid: &&Uid| !record.is_managed_by(uid) && !record.is_owned_by(uid);
            let new: Vec<Uid> = uids.iter().filter(is_new).cloned().collect();
            if new.is_empty() {
                return Ok(0);
            }
            let managers = [&record.managers[..], &new[..]].concat();
            if managers.len() > self.rules.group_members {
                return Err(Error::Full);
            }
            if self.set_managers(&record, &managers).await? {
                return Ok(new.len() as u64);
            }
        }
    }

    pub(super) async fn remove_managers(
        &self,
        who: &Who,
        id: &ChannelId,
        uids: &[Uid],
    ) -> Result<u64, Error> {
        loop {
            let record = self.managed(who, Action::ManagerRemove, id, uids).await?;
            let left = without(&record.managers, uids);
            let removed = record.managers.len() - left.len();
            if removed == 0 || self.set_managers(&record, &left).await? {
                return Ok(removed as u64);
            }
        }
    }

    /// Takes the role from those of `uids` who are managers: they are about to be removed from the group.
    pub(super) async fn dismiss(
        &self,
        mut record: ChannelRecord,
        uids: &[Uid],
    ) -> Result<(), Error> {
        loop {
            let left = without(&record.managers, uids);
            if left.len() == record.managers.len() || self.set_managers(&record, &left).await? {
                return Ok(());
            }
            match self.known(&record.id).await? {
                Known::Owned(newer) => record = newer,
                Known::Unowned(_) => return Ok(()),
            }
        }
    }

    /// Makes `to` the owner and the former one a manager. A group of nobody's is adopted: it gets its record, with these fields.
    pub(super) async fn hand_over(
        &self,
        who: &Who,
        id: &ChannelId,
        to: &Uid,
        fields: &Fields,
    ) -> Result<ChannelRecord, Error> {
        let record = loop {
            let known = self.known(id).await?;
            if self.rules.callback.is_none()
                && let Known::Owned(record) = &known
                && record.is_owned_by(to)
                && record.is_managed_by(&who.uid)
            {
                // His own call again, whose answer was lost: he is a manager by now.
                return Ok(record.clone());
            }
            let targets = std::slice::from_ref(to);
            self.may(who, Action::OwnerTransfer, id, known.record(), targets)
                .await?;
            if let Known::Owned(record) = &known
                && record.is_owned_by(to)
            {
                return Ok(record.clone());
            }
            self.must_be_upstream(&known, id).await?;
            if !self.client.is_subscriber(to, id).await? {
                return Err(Error::NotAMember);
            }
            let changed = match &known {
                Known::Owned(record) => {
                    let mut managers = without(&record.managers, targets);
                    managers.extend(record.owner.clone());
                    self.store.set_roles(record, to, &managers).await?
                }
                Known::Unowned(claim) => {
                    let (name, avatar) = (fields.name.as_deref(), fields.avatar.as_deref());
                    let claim = claim.as_ref();
                    self.store.adopt(id, claim, to, name, avatar).await?
                }
            };
            if let Some(record) = changed {
                break record;
            }
        };
        // Another replica may have removed him meanwhile. If it does so from now on, it finds him to be the owner itself.
        if !self.client.is_subscriber(to, id).await? {
            self.change(MemberChange::Add, id, &[to.as_str()]).await?;
        }
        Ok(record)
    }

    /// The live record of a group in which `who` may do `action`.
    async fn managed(
        &self,
        who: &Who,
        action: Action,
        id: &ChannelId,
        uids: &[Uid],
    ) -> Result<ChannelRecord, Error> {
        let known = self.known(id).await?;
        self.may(who, action, id, known.record(), uids).await?;
        match known {
            Known::Owned(record) => Ok(record),
            // There is nothing to write it into before somebody owns it.
            Known::Unowned(_) => Err(Error::NotFound),
        }
    }

    /// Whether the managers were written; not where the record has changed.
    async fn set_managers(&self, record: &ChannelRecord, managers: &[Uid]) -> Result<bool, Error> {
        // A live record has an owner.
        let owner = record.owner.as_ref().ok_or(Error::NotFound)?;
        let changed = self.store.set_roles(record, owner, managers).await?;
        Ok(changed.is_some())
    }
}

fn without(managers: &[Uid], uids: &[Uid]) -> Vec<Uid> {
    let is_left = |uid: &&Uid| !uids.contains(uid);
    managers.iter().filter(is_left).cloned().collect()
}
