//! Creation: claim the id, create upstream, set live. The table of failures is in `mod.rs`.

use super::operation::Operation;
use super::{ClaimState, Error};
use crate::config::GroupIds;
use crate::store::{ChannelRecord, ChannelStage};
use crate::wukongim::{Generation, MemberChange};

impl Operation {
    /// Whether the caller may choose this id. The id of a group that the caller owns may always be repeated.
    pub(super) async fn check_id_choice(&self) -> Result<(), Error> {
        if self.is_admin || self.groups.rules.group_ids == GroupIds::Any {
            return Ok(());
        }
        let record = self.record().await?;
        let is_owned = record.is_some_and(|record| record.is_owned_by(&self.caller));
        is_owned.then_some(()).ok_or(Error::IdNotAllowed)
    }

    pub(super) async fn create(self) -> Result<ChannelRecord, Error> {
        // Repeats only when another replica changed the record in between. A row is never removed and its stage only moves forward, so the
        // loop ends.
        loop {
            match self.record().await? {
                None if self.claim().await? => self.write_claim().await?,
                None => continue,
                Some(record) if record.is_deleted() => return Err(Error::Deleted),
                Some(record) if !record.is_owned_by(&self.caller) => return Err(Error::Exists),
                Some(record) if record.state == ChannelStage::Creating => {
                    match self.groups.claim_state(&record).await? {
                        ClaimState::Foreign => return Err(Error::Exists),
                        ClaimState::Written => {}
                        ClaimState::Unwritten => self.write_claim().await?,
                    }
                }
                Some(_) if self.still_exists().await? => {}
                Some(_) => self.create_upstream().await?,
            }
            if let Some(record) = self.make_live().await? {
                return Ok(record);
            }
        }
    }

    /// Claims an id that has no record and does not exist upstream; `false` where it has a record by now.
    async fn claim(&self) -> Result<bool, Error> {
        let (name, avatar) = (self.name.as_deref(), self.avatar.as_deref());
        let (store, id) = (&self.groups.store, &self.id);
        if !self.groups.client.group_is_occupied(id).await? {
            return Ok(store.claim(id, &self.caller, name, avatar).await?);
        }
        // Another replica may have created it for this owner since the store was read.
        match self.record().await? {
            Some(_) => Ok(false),
            None => Err(Error::Exists),
        }
    }

    /// Whether WuKongIM still has a live group; a `POST /channel` on it would clear its flags.
    async fn still_exists(&self) -> Result<bool, Error> {
        let state = self.groups.client.group_state(&self.id).await?;
        if state.occupied && !state.exists {
            // The group is lost and another one with the same hash exists: creating it again would join that one.
            return Err(Error::Exists);
        }
        Ok(state.exists)
    }

    /// Creates the claimed group upstream, and then checks that no other group was written under its key at the same time (v2). Two groups
    /// with the same key share their members, and both check after their own write, so at least the later one sees both.
    async fn write_claim(&self) -> Result<(), Error> {
        let client = &self.groups.client;
        self.create_upstream().await?;
        if client.generation().await? != Generation::V2 {
            return Ok(());
        }
        let (state, members) = tokio::try_join!(
            async { Ok(client.group_state(&self.id).await?) },
            self.groups.members(&self.id)
        )?;
        let is_only_member = members.is_some_and(|all| all == [self.caller.as_str()]);
        if is_only_member && state.exists {
            return Ok(());
        }
        match self.record().await? {
            Some(record) if record.state == ChannelStage::Creating => {}
            // A call of the same owner on another replica was faster and has added members since, or the group was deleted.
            _ => return Ok(()),
        }
        // Other members may belong to another group by now, so only this group's owner is removed.
        let owner = [self.caller.as_str()];
        let undone = self.undo_change(MemberChange::Remove, &owner).await;
        Err(self.denied(Error::Exists, undone))
    }

    async fn create_upstream(&self) -> Result<(), Error> {
        let _invalidation = self.groups.invalidate_around(&self.id);
        let client = &self.groups.client;
        Ok(client.create_group(&self.id, &self.caller).await?)
    }

    /// Sets the record live; `None` where its stage or owner has changed.
    async fn make_live(&self) -> Result<Option<ChannelRecord>, Error> {
        let (name, avatar) = (self.name.as_deref(), self.avatar.as_deref());
        let store = &self.groups.store;
        let live = store.make_live(&self.id, &self.caller, name, avatar).await;
        if name.is_some() || avatar.is_some() {
            // Lists of conversations show them.
            (self.groups.on_change)(&self.id, false);
        }
        let record = live?;
        if record.is_none() && self.is_deleted().await? {
            // A delete on another replica preceded this upstream write, which may have recreated the group.
            self.retry_empty_and_disband().await;
        }
        Ok(record)
    }
}
