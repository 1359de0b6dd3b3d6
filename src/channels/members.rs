//! Adding and removing subscribers.

use std::collections::HashSet;

use super::{Error, Groups, Known, TAKE_BACK_PAUSE, TAKE_BACK_TRIES, Who};
use crate::authorization::callback::Action;
use crate::domain::{ChannelId, ChannelType, Uid};
use crate::store::ChannelStage;
use crate::wukongim::{self, MemberChange, MemberList, Rejection};

impl Groups {
    pub(super) async fn add(&self, who: &Who, id: &ChannelId, uids: &[Uid]) -> Result<u64, Error> {
        let known = self.known(id).await?;
        self.may(who, Action::SubscriberAdd, id, known.record(), uids)
            .await?;
        self.must_be_upstream(&known, id).await?;
        let members = self.members(id).await?;
        let new: Vec<&str> = uids
            .iter()
            .map(Uid::as_str)
            .filter(|uid| members.as_ref().is_none_or(|all| !all.contains(*uid)))
            .collect();
        if new.is_empty() {
            return Ok(0);
        }
        let before = members.map_or(0, |all| all.len());
        if before + new.len() > self.rules.group_members {
            return Err(Error::Full);
        }
        let changed = self.change(MemberChange::Add, id, &new).await;
        // Only another replica can have deleted the group meanwhile. Read even after a failure: part of the uids, or all of them,
        // may be in.
        match self.store.channel(id).await {
            Ok(Some(record)) if record.is_deleted() => {
                self.take_out(id, &new).await;
                return Err(Error::NotFound);
            }
            Ok(_) => {}
            // Without the store's word the add is not told to have worked, and it can be repeated.
            Err(error) => {
                changed?;
                return Err(error.into());
            }
        }
        changed
    }

    pub(super) async fn remove(
        &self,
        who: &Who,
        id: &ChannelId,
        uids: &[Uid],
    ) -> Result<u64, Error> {
        let known = self.known(id).await?;
        let only_himself = uids.iter().all(|uid| *uid == who.uid);
        if !only_himself || self.rules.callback.is_some() {
            self.may(who, Action::SubscriberRemove, id, known.record(), uids)
                .await?;
        }
        let owner = known.record().and_then(|record| record.owner.as_ref());
        if owner.is_some_and(|owner| uids.contains(owner)) {
            return Err(Error::OwnerCannotLeave);
        }
        self.must_be_upstream(&known, id).await?;
        let members = self.members(id).await?;
        if let Known::Owned(record) = known {
            // First, so that nobody who is out has a say any more, whatever fails from here on.
            self.dismiss(record, uids).await?;
        }
        let present: Vec<&str> = uids
            .iter()
            .map(Uid::as_str)
            .filter(|uid| members.as_ref().is_none_or(|all| all.contains(*uid)))
            .collect();
        if present.is_empty() {
            return Ok(0);
        }
        let removed = self.change(MemberChange::Remove, id, &present).await;
        // Only another replica can have handed the group over meanwhile.
        if let Some(record) = self.store.channel(id).await?
            && let Some(owner) = record.owner.filter(|owner| uids.contains(owner))
            && record.state == ChannelStage::Live
        {
            self.change(MemberChange::Add, id, &[owner.as_str()])
                .await?;
            return Err(Error::OwnerCannotLeave);
        }
        removed
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
    async fn members(&self, id: &ChannelId) -> Result<Option<HashSet<String>>, Error> {
        let members = self
            .client
            .list(MemberList::Subscribers, ChannelType::Group, id.as_str())
            .await?;
        Ok(members.map(|all| all.into_iter().collect()))
    }

    /// Changes members; how many, by WuKongIM's count where it has one.
    pub(super) async fn change(
        &self,
        change: MemberChange,
        id: &ChannelId,
        uids: &[&str],
    ) -> Result<u64, Error> {
        let _changing = self.changing(id);
        match self.client.change_subscribers(change, id, uids).await {
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

    /// Takes uids out of a group that was deleted while they were added. The store's mark keeps them out of it in any case.
    async fn take_out(&self, id: &ChannelId, uids: &[&str]) {
        for _ in 0..TAKE_BACK_TRIES {
            match self.change(MemberChange::Remove, id, uids).await {
                Ok(_) | Err(Error::NotFound) => return,
                Err(error) => {
                    tracing::warn!(channel.id = %id, %error, "cannot take uids out of a deleted group");
                }
            }
            tokio::time::sleep(TAKE_BACK_PAUSE).await;
        }
    }
}
