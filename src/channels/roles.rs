//! Who is what in a group: the owner, the managers he names, and how a group changes hands. The tables stand in `mod.rs`.
//!
//! Each change is one statement on the record as it was read, made again on the newer one where another replica was faster.

use super::create::Fields;
use super::{Actor, Channels, Error, Groups, Known, Right, Who};
use crate::authorization::callback::Action;
use crate::domain::{ChannelId, Uid};
use crate::store::{ChannelRecord, Roles};
use crate::wukongim::{Generation, MemberChange};

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

    /// Names managers, for the owner or an admin; `uids` are distinct. How many were none before. The owner needs no naming. A group
    /// that lies upstream and has no record is adopted by it; nobody owns it until it is handed over.
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
            move |groups, who, id| async move { groups.add_managers(&who, &id, &uids).await },
        )
        .await
    }

    /// Dismisses managers, for the owner or an admin; they stay subscribers. How many were managers.
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
            move |groups, who, id| async move { groups.remove_managers(&who, &id, &uids).await },
        )
        .await
    }

    /// Makes `to` the owner, for the owner or an admin; the former one becomes a manager. A group that is nobody's is an admin's to
    /// hand over: that adopts it where it has no record, and writes these fields. Elsewhere they count for nothing.
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
        let (targets, to) = (std::slice::from_ref(to), to.clone());
        self.run(
            actor,
            Action::OwnerTransfer,
            id,
            targets,
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
            let known = self.managed(who, Action::ManagerAdd, id, uids).await?;
            let record = known.record();
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
            let is_written = match &known {
                Known::Owned(record) => self.set_managers(record, &managers).await?,
                Known::Unowned(claim) => {
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
        who: &Who,
        id: &ChannelId,
        uids: &[Uid],
    ) -> Result<u64, Error> {
        loop {
            let known = self.managed(who, Action::ManagerRemove, id, uids).await?;
            let Some(record) = known.record() else {
                return Ok(0);
            };
            let left = without(&record.managers, uids);
            let removed = record.managers.len() - left.len();
            if removed == 0 || self.set_managers(record, &left).await? {
                return Ok(removed as u64);
            }
        }
    }

    /// Takes the role from those of `uids` who are managers: they are about to be removed from the group by `who`, or were.
    pub(super) async fn dismiss(
        &self,
        who: &Who,
        right: Right,
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
            if right == Right::Role {
                self.removes(who, Some(&record), uids)?;
            }
        }
    }

    /// Makes `to` the owner and the former one a manager. A group of nobody's gets its record, and these fields.
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
            self.may(who, Action::OwnerTransfer, known.record(), targets)?;
            if let Known::Owned(record) = &known
                && record.is_owned_by(to)
            {
                return Ok(record.clone());
            }
            self.must_be_upstream(&known, id).await?;
            if !self.client.is_subscriber(to, id).await? {
                return Err(Error::NotAMember);
            }
            let mut managers = known
                .record()
                .map_or_else(Vec::new, |record| without(&record.managers, targets));
            let owner = known.record().and_then(|record| record.owner.clone());
            let (name, avatar) = match &owner {
                None => (fields.name.as_deref(), fields.avatar.as_deref()),
                Some(_) => (None, None),
            };
            managers.extend(owner);
            let roles = Roles {
                owner: Some(to),
                managers: &managers,
            };
            let changed = match &known {
                Known::Owned(record) => self.store.set_roles(record, roles, name, avatar).await?,
                Known::Unowned(claim) => {
                    let claim = claim.as_ref();
                    self.store.adopt(id, claim, roles, name, avatar).await?
                }
            };
            if let Some(record) = changed {
                break record;
            }
        };
        // Another replica may have removed him meanwhile. If it does so from now on, it finds him to be the owner itself. v2 is not asked
        // for the whole list once more: who is in already stays as he is there (seen on running servers).
        let is_in = match self.client.generation().await? {
            Generation::V2 => false,
            Generation::V3 => self.client.is_subscriber(to, id).await?,
        };
        if !is_in {
            self.change(MemberChange::Add, id, &[to.as_str()], None)
                .await?;
        }
        Ok(record)
    }

    /// The group, in which `who` may do `action`.
    async fn managed(
        &self,
        who: &Who,
        action: Action,
        id: &ChannelId,
        uids: &[Uid],
    ) -> Result<Known, Error> {
        let known = self.known(id).await?;
        self.may(who, action, known.record(), uids)?;
        Ok(known)
    }

    /// Whether the managers were written; not where the record has changed.
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
    let is_left = |uid: &&Uid| !uids.contains(uid);
    managers.iter().filter(is_left).cloned().collect()
}
