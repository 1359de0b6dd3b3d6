//! Adding and removing subscribers.

use std::collections::HashSet;
use std::time::Instant;

use super::operation::Operation;
use super::rights::Right;
use super::{Error, Group, UNDO_ATTEMPTS, UNDO_PAUSE};
use crate::domain::Uid;
use crate::store::ChannelRecord;
use crate::wukongim::{self, MemberChange, Rejection};

impl Operation {
    pub(super) async fn add(self) -> Result<u64, Error> {
        let group = self.group().await?;
        let right = self.right(group.record.as_ref());
        let may_invite = self.groups.rules.members_may_invite;
        if right.is_none() && !(may_invite && group.record.is_some()) {
            return Err(Error::NotOwner);
        }
        let members = self.members_of(&group).await?;
        if right.is_none() {
            let client = &self.groups.client;
            let is_member = match &members {
                Some(all) => all.contains(self.caller.as_str()),
                None => client.may_read_group(&self.caller, &self.id).await?,
            };
            if !is_member {
                return Err(Error::NotOwner);
            }
        }
        let new = self.targets_by(members.as_ref(), false);
        if new.is_empty() {
            return Ok(0);
        }
        let before = members.as_ref().map_or(0, HashSet::len);
        if before + new.len() > self.groups.rules.group_members {
            return Err(Error::Full);
        }
        let changed = self.change(MemberChange::Add, &new, self.deadline).await;
        // Another replica may have changed the group meanwhile. Read even after a failure, since some or all uids may have been added.
        let record = match self.record().await {
            Ok(record) => record,
            // Without the store's answer the add is not reported as done; it can be repeated.
            Err(error) => return changed.and(Err(error)),
        };
        let Some(record) = record else {
            return changed;
        };
        if record.is_deleted() {
            // Remove all of them, whether they were members before or not.
            let undone = self.undo_change(MemberChange::Remove, &new).await;
            return Err(self.denied(Error::NotFound, undone));
        }
        let is_caller_in = |all: &HashSet<String>| all.contains(self.caller.as_str());
        if right == Some(Right::Role)
            && self.right(Some(&record)).is_none()
            && !(may_invite && members.as_ref().is_none_or(is_caller_in))
        {
            let undone = members.is_some() && self.undo_change(MemberChange::Remove, &new).await;
            return Err(self.denied(Error::NotOwner, undone));
        }
        changed
    }

    pub(super) async fn remove(self) -> Result<u64, Error> {
        let group = self.group().await?;
        let right = self.authorize(group.record.as_ref())?;
        let is_target = |owner: &&Uid| self.targets.contains(owner);
        let record = group.record.as_ref();
        let owner = record.and_then(|record| record.owner.as_ref());
        if owner.is_some_and(|owner| is_target(&owner)) {
            return Err(Error::OwnerCannotLeave);
        }
        let members = self.members_of(&group).await?;
        if let Some(record) = group.record {
            // Roles first, so that no removed user keeps one, whatever fails after this.
            self.revoke_manager_roles(right, record).await?;
        }
        let present = self.targets_by(members.as_ref(), true);
        if present.is_empty() {
            return Ok(0);
        }
        let removed = self
            .change(MemberChange::Remove, &present, self.deadline)
            .await;
        // Another replica may have changed the group meanwhile.
        let record = self.record().await?;
        let Some(record) = record.filter(ChannelRecord::is_live) else {
            return removed;
        };
        if let Some(owner) = record.owner.as_ref().filter(is_target) {
            // Where WuKongIM provides no member list, it is unknown whether the others were members.
            let owner = [owner.as_str()];
            let back = if members.is_some() {
                &present[..]
            } else {
                &owner
            };
            self.change(MemberChange::Add, back, None).await?;
            return Err(self.denied(Error::OwnerCannotLeave, back.len() == present.len()));
        }
        if right == Right::Role && self.right(Some(&record)).is_none() {
            let undone = members.is_some() && self.undo_change(MemberChange::Add, &present).await;
            return Err(self.denied(Error::NotOwner, undone));
        }
        self.revoke_manager_roles(right, record).await?;
        removed
    }

    /// The targets that are members, or that are none; all of them where that is unknown.
    fn targets_by(&self, members: Option<&HashSet<String>>, are_members: bool) -> Vec<&str> {
        let uids = self.targets.iter().map(Uid::as_str);
        uids.filter(|uid| members.is_none_or(|all| all.contains(*uid) == are_members))
            .collect()
    }

    /// The members of a group that exists upstream, where WuKongIM can list them.
    async fn members_of(&self, group: &Group) -> Result<Option<HashSet<String>>, Error> {
        self.require_upstream(group).await?;
        self.members().await
    }

    /// Checks that the group exists upstream under exactly this id: adding would create a missing group in both generations, and on v2 it
    /// would change another group with the same hash. A live group that WuKongIM lost must be created again by its owner.
    pub(super) async fn require_upstream(&self, group: &Group) -> Result<(), Error> {
        if group.record.is_some() && !self.groups.is_upstream(&self.id).await? {
            return Err(Error::NotFound);
        }
        Ok(())
    }

    /// The members, where WuKongIM can list them.
    pub(super) async fn members(&self) -> Result<Option<HashSet<String>>, Error> {
        let members = self.groups.members(&self.id).await?;
        Ok(members.map(|all| all.into_iter().collect()))
    }

    /// Changes members; returns WuKongIM's count where it reports one, else the number of `uids`. After `until` no further chunk is
    /// started; a repeated call does the rest.
    pub(super) async fn change(
        &self,
        change: MemberChange,
        uids: &[&str],
        until: Option<Instant>,
    ) -> Result<u64, Error> {
        let _invalidation = self.groups.invalidate_around(&self.id);
        let client = &self.groups.client;
        let changed = client.change_subscribers(change, &self.id, uids, until);
        match changed.await {
            Ok(count) => Ok(count.unwrap_or(uids.len() as u64)),
            // Deleted since it was checked.
            Err(wukongim::Error::Rejected(
                Rejection::NotFound | Rejection::ChannelNotFound | Rejection::Disbanded,
            )) => Err(Error::NotFound),
            Err(error) if change == MemberChange::Remove && error.may_have_arrived() => {
                // A v2 cluster removes the members at once, but answers only after it has deleted each one's conversation, at about 0.2 s
                // per uid (seen). So the list decides.
                match self.members().await {
                    Ok(Some(remaining)) if !uids.iter().any(|uid| remaining.contains(*uid)) => {
                        Ok(uids.len() as u64)
                    }
                    _ => Err(error.into()),
                }
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Undoes a change that another replica has overtaken, by the opposite one; returns whether that succeeded.
    pub(super) async fn undo_change(&self, opposite: MemberChange, uids: &[&str]) -> bool {
        for _ in 0..UNDO_ATTEMPTS {
            match self.change(opposite, uids, None).await {
                Ok(_) | Err(Error::NotFound) => return true,
                Err(error) => {
                    tracing::warn!(channel.id = %self.id, %error, "cannot undo a change of members");
                }
            }
            tokio::time::sleep(UNDO_PAUSE).await;
        }
        false
    }

    /// Removes the manager role from the targets, which the caller is about to remove from the group, or has removed.
    async fn revoke_manager_roles(
        &self,
        right: Right,
        mut record: ChannelRecord,
    ) -> Result<(), Error> {
        loop {
            let remaining = record.managers_without(&self.targets);
            if remaining.len() == record.managers.len()
                || self.set_managers(&record, &remaining).await?
            {
                return Ok(());
            }
            match self.group().await?.record {
                Some(newer) => record = newer,
                None => return Ok(()),
            }
            if right == Right::Role {
                self.authorize(Some(&record))?;
            }
        }
    }
}
