//! Who may change a group: his role by its record, an admin's right, or the word of the application's backend. The table stands in
//! `mod.rs`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::operation::Who;
use super::{Actor, Error, Groups};
use crate::authorization::callback::Action;
use crate::domain::{Channel, ChannelId, Uid};
use crate::store::{ChannelRecord, ChannelStage};

/// By what somebody may do something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Right {
    /// His role in the group, which may end while he does it.
    Role,
    /// What no change of the group takes away.
    Any,
}

impl Groups {
    /// Whether `who` manages the group with this record; without one it is nobody's.
    pub(super) fn manages(&self, who: &Who, record: Option<&ChannelRecord>) -> bool {
        let owns = record.is_some_and(|record| record.is_owned_by(&who.uid));
        if who.is_admin && !owns {
            who.uses_it.store(true, Ordering::SeqCst);
        }
        self.rules.open || who.is_admin || owns
    }

    /// By what `who` may do `action` to `uids` in the group with this record: his role, or that he manages it. In mode `callback` the
    /// backend was asked before.
    pub(super) fn right(
        &self,
        who: &Who,
        action: Action,
        record: Option<&ChannelRecord>,
        uids: &[Uid],
    ) -> Option<Right> {
        // In any case, for the audit: it tells what an admin does that no role would let him do.
        let by_role = Self::has_role(who, action, record, uids);
        let has_any = !by_role && self.manages(who, record) || self.rules.callback.is_some();
        match (has_any, by_role) {
            (true, _) => Some(Right::Any),
            (false, true) => Some(Right::Role),
            (false, false) => None,
        }
    }

    pub(super) fn may(
        &self,
        who: &Who,
        action: Action,
        record: Option<&ChannelRecord>,
        uids: &[Uid],
    ) -> Result<(), Error> {
        let right = self.right(who, action, record, uids);
        right.map(|_| ()).ok_or(Error::NotOwner)
    }

    /// In mode `callback`: the backend's word on a change, once the group is known to be there.
    pub(super) async fn ask_callback(
        &self,
        who: &Who,
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
                if !self.is_to_be_deleted(record.as_ref(), id).await? {
                    return Err(Error::NotFound);
                }
                record
            }
            _ => self.known(id).await?.into_record(),
        };
        if action != Action::ChannelCreate {
            self.right(who, action, record.as_ref(), targets);
        }
        let channel = Channel::Group(id.clone());
        Ok(callback
            .ask(action, &who.uid, None, &channel, targets)
            .await?)
    }

    /// Whether there is anything to delete.
    pub(super) async fn is_to_be_deleted(
        &self,
        record: Option<&ChannelRecord>,
        id: &ChannelId,
    ) -> Result<bool, Error> {
        match record {
            Some(record) => Ok(record.state != ChannelStage::Deleted),
            None => self.is_upstream(id).await,
        }
    }

    /// Whether somebody wants to leave a group in which he is not. What is remembered of it tells, so that such a call costs neither the
    /// list of members nor the group's turn.
    pub(super) async fn has_nothing_to_leave(
        &self,
        actor: Actor<'_>,
        id: &ChannelId,
        uids: &[Uid],
    ) -> Result<bool, Error> {
        let leaves = uids.iter().all(|uid| uid == actor.uid) && self.rules.callback.is_none();
        if !leaves || !self.watch.is_outsider(actor.uid, id).await {
            return Ok(false);
        }
        let known = self.known(id).await?;
        let has_role = |record: &ChannelRecord| {
            record.is_owned_by(actor.uid) || record.is_managed_by(actor.uid)
        };
        // Those go the long way: an owner is told that he cannot leave, a manager loses his role.
        Ok(!known.record().is_some_and(has_role))
    }

    /// Refuses who may only add as a member and is none, as cheaply.
    pub(super) async fn refuse_outsider(
        &self,
        actor: Actor<'_>,
        id: &ChannelId,
        uids: &[Uid],
    ) -> Result<(), Error> {
        let goes_by_roles = !self.rules.open && self.rules.callback.is_none() && !actor.is_admin;
        if !goes_by_roles || !self.watch.is_outsider(actor.uid, id).await {
            return Ok(());
        }
        let known = self.known(id).await?;
        let who = Who {
            uid: actor.uid.clone(),
            is_admin: false,
            uses_it: Arc::default(),
            deadline: None,
        };
        self.may(&who, Action::SubscriberAdd, known.record(), uids)
    }
}
