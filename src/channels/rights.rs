//! Who may change a group: his role by its record, an admin's right, or the word of the application's backend. The table stands in
//! `mod.rs`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::operation::GroupCaller;
use super::{Actor, Error, Groups};
use crate::authorization::callback::Action;
use crate::domain::{Channel, ChannelId, Uid};
use crate::store::{ChannelRecord, ChannelStage};

/// The right by which an operation is permitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Right {
    /// The role in the group, which another replica may revoke meanwhile.
    Role,
    /// A right that does not depend on the group.
    Any,
}

impl Groups {
    /// Whether `caller` has all rights in the group with this record.
    pub(super) fn has_full_rights(
        &self,
        caller: &GroupCaller,
        record: Option<&ChannelRecord>,
    ) -> bool {
        let owns = record.is_some_and(|record| record.is_owned_by(&caller.uid));
        if caller.is_admin && !owns {
            caller.used_admin_right.store(true, Ordering::SeqCst);
        }
        self.rules.open || caller.is_admin || owns
    }

    /// The right by which `caller` may do `action` to `uids` in the group with this record: the role, or full rights. In mode `callback` the
    /// backend was asked before.
    pub(super) fn right(
        &self,
        caller: &GroupCaller,
        action: Action,
        record: Option<&ChannelRecord>,
        uids: &[Uid],
    ) -> Option<Right> {
        // Evaluated in every mode, since the audit records what only the admin right permits.
        let by_role = Self::has_role(caller, action, record, uids);
        let has_any =
            !by_role && self.has_full_rights(caller, record) || self.rules.callback.is_some();
        match (has_any, by_role) {
            (true, _) => Some(Right::Any),
            (false, true) => Some(Right::Role),
            (false, false) => None,
        }
    }

    pub(super) fn authorize(
        &self,
        caller: &GroupCaller,
        action: Action,
        record: Option<&ChannelRecord>,
        uids: &[Uid],
    ) -> Result<(), Error> {
        let right = self.right(caller, action, record, uids);
        right.map(|_| ()).ok_or(Error::NotOwner)
    }

    /// In mode `callback`: the backend's decision on a change, after the group is known to exist.
    pub(super) async fn ask_callback(
        &self,
        caller: &GroupCaller,
        action: Action,
        id: &ChannelId,
        targets: &[Uid],
    ) -> Result<(), Error> {
        let Some(callback) = &self.rules.callback else {
            return Ok(());
        };
        let record = match action {
            Action::ChannelCreate => None,
            Action::ChannelDelete => {
                let record = self.store.channel(id).await?;
                if !self.is_deletable(record.as_ref(), id).await? {
                    return Err(Error::NotFound);
                }
                record
            }
            _ => self.ownership(id).await?.into_record(),
        };
        if action != Action::ChannelCreate {
            self.right(caller, action, record.as_ref(), targets);
        }
        let channel = Channel::Group(id.clone());
        Ok(callback
            .ask(action, &caller.uid, None, &channel, targets)
            .await?)
    }

    /// Whether there is anything to delete.
    pub(super) async fn is_deletable(
        &self,
        record: Option<&ChannelRecord>,
        id: &ChannelId,
    ) -> Result<bool, Error> {
        match record {
            Some(record) => Ok(record.state != ChannelStage::Deleted),
            None => self.is_upstream(id).await,
        }
    }

    /// Whether the actor wants to leave a group without being in it. Cached facts decide, so that such a call needs neither the member list
    /// nor the lock.
    pub(super) async fn is_leave_without_effect(
        &self,
        actor: Actor<'_>,
        id: &ChannelId,
        uids: &[Uid],
    ) -> Result<bool, Error> {
        let is_leaving = uids.iter().all(|uid| uid == actor.uid) && self.rules.callback.is_none();
        if !is_leaving || !(self.is_known_non_member)(actor.uid.clone(), id.clone()).await {
            return Ok(false);
        }
        let ownership = self.ownership(id).await?;
        let has_role = |record: &ChannelRecord| {
            record.is_owned_by(actor.uid) || record.is_managed_by(actor.uid)
        };
        // Owners and managers take the normal path: an owner cannot leave, and a manager loses the role.
        Ok(!ownership.record().is_some_and(has_role))
    }

    /// Refuses a caller that could only add as a member but is none; as cheap as above.
    pub(super) async fn deny_non_member(
        &self,
        actor: Actor<'_>,
        id: &ChannelId,
        uids: &[Uid],
    ) -> Result<(), Error> {
        let is_role_based = !self.rules.open && self.rules.callback.is_none() && !actor.is_admin;
        if !is_role_based || !(self.is_known_non_member)(actor.uid.clone(), id.clone()).await {
            return Ok(());
        }
        let ownership = self.ownership(id).await?;
        let caller = GroupCaller {
            uid: actor.uid.clone(),
            is_admin: false,
            used_admin_right: Arc::default(),
            deadline: None,
        };
        self.authorize(&caller, Action::SubscriberAdd, ownership.record(), uids)
    }
}
