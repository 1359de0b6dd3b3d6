//! Adding and removing subscribers.

use std::collections::HashSet;
use std::time::Instant;

use super::{Error, GroupCaller, GroupOwnership, Groups, Right, UNDO_ATTEMPTS, UNDO_PAUSE};
use crate::authorization::callback::Action;
use crate::domain::{ChannelId, ChannelType, Uid};
use crate::store::ChannelRecord;
use crate::wukongim::{self, MemberChange, MemberList, Rejection};

impl Groups {
    pub(super) async fn add(
        &self,
        caller: &GroupCaller,
        id: &ChannelId,
        uids: &[Uid],
    ) -> Result<u64, Error> {
        let ownership = self.ownership(id).await?;
        let right = self.right(caller, Action::SubscriberAdd, ownership.record(), uids);
        let must_be_a_member = right.is_none();
        if must_be_a_member && !(self.rules.members_may_invite && ownership.record().is_some()) {
            return Err(Error::NotOwner);
        }
        self.require_upstream(&ownership, id).await?;
        let members = self.members(id).await?;
        if must_be_a_member && !self.is_member(members.as_ref(), &caller.uid, id).await? {
            return Err(Error::NotOwner);
        }
        let new: Vec<&str> = uids
            .iter()
            .map(Uid::as_str)
            .filter(|uid| members.as_ref().is_none_or(|all| !all.contains(*uid)))
            .collect();
        if new.is_empty() {
            return Ok(0);
        }
        let before = members.as_ref().map_or(0, HashSet::len);
        if before + new.len() > self.rules.group_members {
            return Err(Error::Full);
        }
        let changed = self
            .change(MemberChange::Add, id, &new, caller.deadline)
            .await;
        // Another replica may have changed the group meanwhile. Read even after a failure, since some or all uids may have been added.
        let record = match self.store.channel(id).await {
            Ok(record) => record,
            // Without the store's answer the add is not reported as done; it can be repeated.
            Err(error) => {
                changed?;
                return Err(error.into());
            }
        };
        match record {
            Some(record) if record.is_deleted() => {
                // Remove all of them, whether they were members before or not.
                let undone = self.undo_change(MemberChange::Remove, id, &new).await;
                Err(caller.denied(Error::NotFound, undone))
            }
            Some(record)
                if right == Some(Right::Role)
                    && !self.may_still_add(caller, &record, uids, members.as_ref()) =>
            {
                let undone =
                    members.is_some() && self.undo_change(MemberChange::Remove, id, &new).await;
                Err(caller.denied(Error::NotOwner, undone))
            }
            _ => changed,
        }
    }

    /// Whether a manager's add is still permitted by the newer record.
    fn may_still_add(
        &self,
        caller: &GroupCaller,
        record: &ChannelRecord,
        uids: &[Uid],
        members: Option<&HashSet<String>>,
    ) -> bool {
        let is_member = || members.is_none_or(|all| all.contains(caller.uid.as_str()));
        let action = Action::SubscriberAdd;
        self.right(caller, action, Some(record), uids).is_some()
            || self.rules.members_may_invite && is_member()
    }

    pub(super) async fn remove(
        &self,
        caller: &GroupCaller,
        id: &ChannelId,
        uids: &[Uid],
    ) -> Result<u64, Error> {
        let ownership = self.ownership(id).await?;
        let right = self.removal_right(caller, ownership.record(), uids)?;
        let owner = ownership.record().and_then(|record| record.owner.as_ref());
        if owner.is_some_and(|owner| uids.contains(owner)) {
            return Err(Error::OwnerCannotLeave);
        }
        self.require_upstream(&ownership, id).await?;
        let members = self.members(id).await?;
        if let GroupOwnership::Owned(record) = ownership {
            // Roles first, so that no removed user keeps one, whatever fails after this.
            self.revoke_manager_roles(caller, right, record, uids)
                .await?;
        }
        let present: Vec<&str> = uids
            .iter()
            .map(Uid::as_str)
            .filter(|uid| members.as_ref().is_none_or(|all| all.contains(*uid)))
            .collect();
        if present.is_empty() {
            return Ok(0);
        }
        let removed = self
            .change(MemberChange::Remove, id, &present, caller.deadline)
            .await;
        // Another replica may have changed the group meanwhile.
        let record = self.store.channel(id).await?;
        let Some(record) = record.filter(ChannelRecord::is_live) else {
            return removed;
        };
        if let Some(owner) = record.owner.as_ref().filter(|owner| uids.contains(owner)) {
            // Where WuKongIM provides no member list, it is unknown whether the others were members.
            let back = if members.is_some() {
                &present[..]
            } else {
                &[owner.as_str()]
            };
            self.change(MemberChange::Add, id, back, None).await?;
            let whole = back.len() == present.len();
            return Err(caller.denied(Error::OwnerCannotLeave, whole));
        }
        if right == Right::Role && self.removal_right(caller, Some(&record), uids).is_err() {
            let undone =
                members.is_some() && self.undo_change(MemberChange::Add, id, &present).await;
            return Err(caller.denied(Error::NotOwner, undone));
        }
        self.revoke_manager_roles(caller, right, record, uids)
            .await?;
        removed
    }

    /// The right by which `caller` removes `uids` from the group with this record; every member may leave.
    pub(super) fn removal_right(
        &self,
        caller: &GroupCaller,
        record: Option<&ChannelRecord>,
        uids: &[Uid],
    ) -> Result<Right, Error> {
        let only_self = uids.iter().all(|uid| *uid == caller.uid);
        if only_self && self.rules.callback.is_none() {
            return Ok(Right::Any);
        }
        let right = self.right(caller, Action::SubscriberRemove, record, uids);
        right.ok_or(Error::NotOwner)
    }

    /// Checks that the group exists upstream under exactly this id: adding would create a missing group in both generations, and on v2 it
    /// would change another group with the same hash. A live group that WuKongIM lost must be created again by its owner.
    pub(super) async fn require_upstream(
        &self,
        ownership: &GroupOwnership,
        id: &ChannelId,
    ) -> Result<(), Error> {
        match ownership {
            GroupOwnership::Owned(_) if !self.is_upstream(id).await? => Err(Error::NotFound),
            _ => Ok(()),
        }
    }

    /// The members, where WuKongIM can list them.
    pub(super) async fn members(&self, id: &ChannelId) -> Result<Option<HashSet<String>>, Error> {
        let members = self
            .client
            .list(MemberList::Subscribers, ChannelType::Group, id.as_str())
            .await?;
        Ok(members.map(|all| all.into_iter().collect()))
    }

    /// Whether `uid` is a member, by the list that was fetched before.
    async fn is_member(
        &self,
        members: Option<&HashSet<String>>,
        uid: &Uid,
        id: &ChannelId,
    ) -> Result<bool, Error> {
        match members {
            Some(all) => Ok(all.contains(uid.as_str())),
            None => Ok(self.client.may_read_group(uid, id).await?),
        }
    }

    /// Changes members; returns WuKongIM's count where it reports one, else the number of `uids`. After `until` no further chunk is
    /// started; a repeated call does the rest.
    pub(super) async fn change(
        &self,
        change: MemberChange,
        id: &ChannelId,
        uids: &[&str],
        until: Option<Instant>,
    ) -> Result<u64, Error> {
        let _invalidation = self.invalidate_around(id);
        match self
            .client
            .change_subscribers(change, id, uids, until)
            .await
        {
            Ok(count) => Ok(count.unwrap_or(uids.len() as u64)),
            // Deleted since it was checked.
            Err(wukongim::Error::Rejected(
                Rejection::NotFound | Rejection::ChannelNotFound | Rejection::Disbanded,
            )) => Err(Error::NotFound),
            Err(error) if change == MemberChange::Remove && error.may_have_arrived() => {
                // A v2 cluster removes the members at once, but answers only after it has deleted each one's conversation, at about 0.2 s
                // per uid (seen). So the list decides.
                match self.members(id).await {
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
    pub(super) async fn undo_change(
        &self,
        opposite: MemberChange,
        id: &ChannelId,
        uids: &[&str],
    ) -> bool {
        for _ in 0..UNDO_ATTEMPTS {
            match self.change(opposite, id, uids, None).await {
                Ok(_) | Err(Error::NotFound) => return true,
                Err(error) => {
                    tracing::warn!(channel.id = %id, %error, "cannot undo a change of members");
                }
            }
            tokio::time::sleep(UNDO_PAUSE).await;
        }
        false
    }
}
