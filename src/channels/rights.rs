//! Who may change a group: by the role in its record, the admin right, or the decision of the application's backend. The table is in
//! `mod.rs`.

use std::sync::atomic::Ordering;

use super::operation::Operation;
use super::{Error, Group};
use crate::authorization::callback::Action;
use crate::domain::{Channel, Uid};
use crate::store::{ChannelRecord, ChannelStage};

/// The right by which an operation is permitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Right {
    /// The role in the group, which another replica may revoke meanwhile.
    Role,
    /// A right that does not depend on the group.
    Any,
}

impl Operation {
    /// Whether the caller has all rights in the group with this record.
    pub(super) fn has_full_rights(&self, record: Option<&ChannelRecord>) -> bool {
        let owns = record.is_some_and(|record| record.is_owned_by(&self.caller));
        if self.is_admin && !owns {
            self.used_admin_right.store(true, Ordering::SeqCst);
        }
        self.groups.rules.open || self.is_admin || owns
    }

    /// The right by which the caller may do this in the group with this record; every member may leave. In mode `callback` the backend was
    /// asked before.
    pub(super) fn right(&self, record: Option<&ChannelRecord>) -> Option<Right> {
        if self.is_leave() {
            return Some(Right::Any);
        }
        // Evaluated in every mode, since the audit records what only the admin right permits.
        let by_role = record.is_some_and(|record| self.has_role(record));
        let has_any =
            !by_role && self.has_full_rights(record) || self.groups.rules.callback.is_some();
        match (has_any, by_role) {
            (true, _) => Some(Right::Any),
            (false, true) => Some(Right::Role),
            (false, false) => None,
        }
    }

    /// [`Self::right`], or an error.
    pub(super) fn authorize(&self, record: Option<&ChannelRecord>) -> Result<Right, Error> {
        self.right(record).ok_or(Error::NotOwner)
    }

    /// Whether the caller's role in the group with this record permits the operation.
    fn has_role(&self, record: &ChannelRecord) -> bool {
        let is_peer = |uid: &Uid| *uid != self.caller && record.is_managed_by(uid);
        record.is_owned_by(&self.caller)
            || record.is_managed_by(&self.caller)
                && match self.action {
                    Action::SubscriberAdd => true,
                    Action::SubscriberRemove => !self.targets.iter().any(is_peer),
                    _ => false,
                }
    }

    /// Whether a user leaves, which needs no right where no backend decides.
    fn is_leave(&self) -> bool {
        self.action == Action::SubscriberRemove
            && self.groups.rules.callback.is_none()
            && self.targets.iter().all(|uid| *uid == self.caller)
    }

    /// In mode `callback`: the backend's decision on a change, after the group is known to exist.
    pub(super) async fn ask_callback(&self) -> Result<(), Error> {
        let Some(callback) = &self.groups.rules.callback else {
            return Ok(());
        };
        let record = match self.action {
            Action::ChannelCreate => None,
            Action::ChannelDelete => self.deletable().await?,
            _ => self.group().await?.record,
        };
        if self.action != Action::ChannelCreate {
            self.right(record.as_ref());
        }
        let channel = Channel::Group(self.id.clone());
        Ok(callback
            .ask(self.action, &self.caller, None, &channel, &self.targets)
            .await?)
    }

    /// The record, if there is anything to delete.
    pub(super) async fn deletable(&self) -> Result<Option<ChannelRecord>, Error> {
        let record = self.record().await?;
        let is_there = match &record {
            Some(record) => record.state != ChannelStage::Deleted,
            None => self.groups.is_upstream(&self.id).await?,
        };
        is_there.then_some(record).ok_or(Error::NotFound)
    }

    /// The group, where the caller is known to be no subscriber of it, and to have no other right than one's. Cached facts decide, so that
    /// such a call needs neither the member list nor the lock.
    async fn group_as_outsider(&self) -> Result<Option<Group>, Error> {
        let is_outsider = (self.groups.is_known_non_member)(self.caller.clone(), self.id.clone());
        Ok(if is_outsider.await {
            Some(self.group().await?)
        } else {
            None
        })
    }

    /// Whether the caller wants to leave a group without being in it.
    pub(super) async fn is_leave_without_effect(&self) -> Result<bool, Error> {
        if !self.is_leave() {
            return Ok(false);
        }
        let has_role = |record: &ChannelRecord| {
            record.is_owned_by(&self.caller) || record.is_managed_by(&self.caller)
        };
        // Owners and managers take the normal path: an owner cannot leave, and a manager loses the role.
        let group = self.group_as_outsider().await?;
        Ok(group.is_some_and(|group| !group.record.as_ref().is_some_and(has_role)))
    }

    /// Refuses a caller that could only add as a member but is none.
    pub(super) async fn deny_non_member(&self) -> Result<(), Error> {
        let rules = &self.groups.rules;
        let by_role = rules.members_may_invite && !rules.open && rules.callback.is_none();
        if by_role
            && !self.is_admin
            && let Some(group) = self.group_as_outsider().await?
        {
            self.authorize(group.record.as_ref())?;
        }
        Ok(())
    }
}
