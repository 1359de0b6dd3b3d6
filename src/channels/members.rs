//! Adding and removing subscribers.

use std::collections::HashSet;
use std::time::Instant;

use super::{Error, Groups, Known, Right, TAKE_BACK_PAUSE, TAKE_BACK_TRIES, Who};
use crate::authorization::callback::Action;
use crate::domain::{ChannelId, ChannelType, Uid};
use crate::store::ChannelRecord;
use crate::wukongim::{self, MemberChange, MemberList, Rejection};

impl Groups {
    pub(super) async fn add(&self, who: &Who, id: &ChannelId, uids: &[Uid]) -> Result<u64, Error> {
        let known = self.known(id).await?;
        let right = self.right(who, Action::SubscriberAdd, known.record(), uids);
        let must_be_a_member = right.is_none();
        if must_be_a_member && !(self.rules.members_may_invite && known.record().is_some()) {
            return Err(Error::NotOwner);
        }
        self.must_be_upstream(&known, id).await?;
        let members = self.members(id).await?;
        if must_be_a_member && !self.is_among(members.as_ref(), &who.uid, id).await? {
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
        let changed = self.change(MemberChange::Add, id, &new, who.deadline).await;
        // Only another replica can have changed the group meanwhile. Read even after a failure: part of the uids, or all of them,
        // may be in.
        let record = match self.store.channel(id).await {
            Ok(record) => record,
            // Without the store's word the add is not told to have worked, and it can be repeated.
            Err(error) => {
                changed?;
                return Err(error.into());
            }
        };
        match record {
            Some(record) if record.is_deleted() => {
                // Whoever is in is to be out.
                let taken_back = self.take_back(MemberChange::Remove, id, &new).await;
                Err(who.denied(Error::NotFound, taken_back))
            }
            Some(record)
                if right == Some(Right::Role)
                    && !self.still_adds(who, &record, uids, members.as_ref()) =>
            {
                let taken_back =
                    members.is_some() && self.take_back(MemberChange::Remove, id, &new).await;
                Err(who.denied(Error::NotOwner, taken_back))
            }
            _ => changed,
        }
    }

    /// Whether who added as a manager may have done so by the newer record.
    fn still_adds(
        &self,
        who: &Who,
        record: &ChannelRecord,
        uids: &[Uid],
        members: Option<&HashSet<String>>,
    ) -> bool {
        let is_member = || members.is_none_or(|all| all.contains(who.uid.as_str()));
        let action = Action::SubscriberAdd;
        self.right(who, action, Some(record), uids).is_some()
            || self.rules.members_may_invite && is_member()
    }

    pub(super) async fn remove(
        &self,
        who: &Who,
        id: &ChannelId,
        uids: &[Uid],
    ) -> Result<u64, Error> {
        let known = self.known(id).await?;
        let right = self.removes(who, known.record(), uids)?;
        let owner = known.record().and_then(|record| record.owner.as_ref());
        if owner.is_some_and(|owner| uids.contains(owner)) {
            return Err(Error::OwnerCannotLeave);
        }
        self.must_be_upstream(&known, id).await?;
        let members = self.members(id).await?;
        if let Known::Owned(record) = known {
            // First, so that nobody who is out has a say any more, whatever fails from here on.
            self.dismiss(who, right, record, uids).await?;
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
            .change(MemberChange::Remove, id, &present, who.deadline)
            .await;
        // Only another replica can have changed the group meanwhile.
        let record = self.store.channel(id).await?;
        let Some(record) = record.filter(ChannelRecord::is_live) else {
            return removed;
        };
        if let Some(owner) = record.owner.as_ref().filter(|owner| uids.contains(owner)) {
            // Of others it is not known whether they were in, where WuKongIM tells no members.
            let back = if members.is_some() {
                &present[..]
            } else {
                &[owner.as_str()]
            };
            self.change(MemberChange::Add, id, back, None).await?;
            let whole = back.len() == present.len();
            return Err(who.denied(Error::OwnerCannotLeave, whole));
        }
        if right == Right::Role && self.removes(who, Some(&record), uids).is_err() {
            let taken_back =
                members.is_some() && self.take_back(MemberChange::Add, id, &present).await;
            return Err(who.denied(Error::NotOwner, taken_back));
        }
        self.dismiss(who, right, record, uids).await?;
        removed
    }

    /// By what right `who` removes `uids` from the group with this record: everybody may leave.
    pub(super) fn removes(
        &self,
        who: &Who,
        record: Option<&ChannelRecord>,
        uids: &[Uid],
    ) -> Result<Right, Error> {
        let only_himself = uids.iter().all(|uid| *uid == who.uid);
        if only_himself && self.rules.callback.is_none() {
            return Ok(Right::Any);
        }
        let right = self.right(who, Action::SubscriberRemove, record, uids);
        right.ok_or(Error::NotOwner)
    }

    /// Both generations make a group by adding to it, and v2 changes the other one with an equal hash: so it must be there, under
    /// exactly this id. A live group that WuKongIM lost is its owner's to create again.
    pub(super) async fn must_be_upstream(
        &self,
        known: &Known,
        id: &ChannelId,
    ) -> Result<(), Error> {
        match known {
            Known::Owned(_) if !self.is_upstream(id).await? => Err(Error::NotFound),
            _ => Ok(()),
        }
    }

    /// The members, where WuKongIM tells them.
    pub(super) async fn members(&self, id: &ChannelId) -> Result<Option<HashSet<String>>, Error> {
        let members = self
            .client
            .list(MemberList::Subscribers, ChannelType::Group, id.as_str())
            .await?;
        Ok(members.map(|all| all.into_iter().collect()))
    }

    /// Whether `uid` is a member, by the list that was asked for already.
    async fn is_among(
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

    /// Changes members; how many, by WuKongIM's count where it has one. Of many, none further are changed after `until`: repeating the
    /// call finds the rest.
    pub(super) async fn change(
        &self,
        change: MemberChange,
        id: &ChannelId,
        uids: &[&str],
        until: Option<Instant>,
    ) -> Result<u64, Error> {
        let _changing = self.changing(id);
        match self
            .client
            .change_subscribers(change, id, uids, until)
            .await
        {
            Ok(count) => Ok(count.unwrap_or(uids.len() as u64)),
            // Gone since it was looked for.
            Err(wukongim::Error::Rejected(
                Rejection::NotFound | Rejection::ChannelNotFound | Rejection::Disbanded,
            )) => Err(Error::NotFound),
            Err(error) if change == MemberChange::Remove && error.may_have_arrived() => {
                // A v2 cluster takes the members out at once and answers when it has deleted each one's conversation, some 0.2 s
                // a uid (seen): what counts is the list.
                match self.members(id).await {
                    Ok(Some(left)) if !uids.iter().any(|uid| left.contains(*uid)) => {
                        Ok(uids.len() as u64)
                    }
                    _ => Err(error.into()),
                }
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Undoes a change that another replica's has overtaken, by the opposite one; whether that worked.
    pub(super) async fn take_back(
        &self,
        opposite: MemberChange,
        id: &ChannelId,
        uids: &[&str],
    ) -> bool {
        for _ in 0..TAKE_BACK_TRIES {
            match self.change(opposite, id, uids, None).await {
                Ok(_) | Err(Error::NotFound) => return true,
                Err(error) => {
                    tracing::warn!(channel.id = %id, %error, "cannot take back a change of members");
                }
            }
            tokio::time::sleep(TAKE_BACK_PAUSE).await;
        }
        false
    }
}
