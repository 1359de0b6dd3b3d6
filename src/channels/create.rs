//! Creation: claim the id, create upstream, set live. The table of failures is in `mod.rs`.

use super::{Actor, ClaimState, Error, GroupCaller, Groups};
use crate::config::GroupIds;
use crate::domain::{ChannelId, Uid};
use crate::store::{ChannelRecord, ChannelStage};
use crate::wukongim::{Generation, MemberChange};

/// The fields given by the owner; `None` keeps the stored value.
pub(super) struct GroupFields {
    pub(super) name: Option<String>,
    pub(super) avatar: Option<String>,
}

impl Groups {
    /// Whether the actor may choose this id. The id of a group that the actor owns may always be repeated.
    pub(super) async fn check_id_choice(
        &self,
        actor: Actor<'_>,
        id: &ChannelId,
    ) -> Result<(), Error> {
        if actor.is_admin || self.rules.group_ids == GroupIds::Any {
            return Ok(());
        }
        let record = self.store.channel(id).await?;
        let is_owned = record.is_some_and(|record| record.is_owned_by(actor.uid));
        is_owned.then_some(()).ok_or(Error::IdNotAllowed)
    }

    pub(super) async fn create(
        &self,
        caller: &GroupCaller,
        id: &ChannelId,
        fields: &GroupFields,
    ) -> Result<ChannelRecord, Error> {
        let owner = &caller.uid;
        // Repeats only when another replica changed the record in between. A row is never removed and its stage only moves forward, so the
        // loop ends.
        loop {
            let Some(record) = self.store.channel(id).await? else {
                if self.claim(owner, id, fields).await? {
                    self.write_claim(caller, id).await?;
                    if let Some(record) = self.make_live(owner, id, fields).await? {
                        return Ok(record);
                    }
                }
                continue;
            };
            if record.is_deleted() {
                return Err(Error::Deleted);
            }
            if !record.is_owned_by(owner) {
                return Err(Error::Exists);
            }
            match record.state {
                ChannelStage::Creating => match self.claim_state(&record).await? {
                    ClaimState::Foreign => return Err(Error::Exists),
                    ClaimState::Written => {}
                    ClaimState::UnwrittenBytes => self.write_claim(caller, id).await?,
                },
                _ if self.still_exists(id).await? => {}
                _ => self.create_upstream(owner, id).await?,
            }
            if let Some(record) = self.make_live(owner, id, fields).await? {
                return Ok(record);
            }
        }
    }

    /// Claims an id that has no record and does not exist upstream; `false` where it has a record by now.
    async fn claim(
        &self,
        owner: &Uid,
        id: &ChannelId,
        fields: &GroupFields,
    ) -> Result<bool, Error> {
        if self.client.group_is_occupied(id).await? {
            // Another replica may have created it for this owner since the store was read.
            return match self.store.channel(id).await? {
                Some(_) => Ok(false),
                None => Err(Error::Exists),
            };
        }
        let (name, avatar) = (fields.name.as_deref(), fields.avatar.as_deref());
        Ok(self.store.claim(id, owner, name, avatar).await?)
    }

    /// Whether WuKongIM still has a live group; a `POST /channel` on it would clear its flags.
    async fn still_exists(&self, id: &ChannelId) -> Result<bool, Error> {
        let state = self.client.group_state(id).await?;
        if state.occupied && !state.exists {
            // The group is lost and another one with the same hash exists: creating it again would join that one.
            return Err(Error::Exists);
        }
        Ok(state.exists)
    }

    /// Creates the claimed group upstream, and then checks that no other group was written under its key at the same time (v2). Two groups
    /// with the same key share their members, and both check after their own write, so at least the later one sees both.
    async fn write_claim(&self, caller: &GroupCaller, id: &ChannelId) -> Result<(), Error> {
        let owner = &caller.uid;
        self.create_upstream(owner, id).await?;
        if self.client.generation().await? != Generation::V2 {
            return Ok(());
        }
        let (state, members) = tokio::try_join!(
            async { Ok(self.client.group_state(id).await?) },
            self.members(id)
        )?;
        let is_only_member =
            members.is_some_and(|all| all.len() == 1 && all.contains(owner.as_str()));
        if is_only_member && state.exists {
            return Ok(());
        }
        match self.store.channel(id).await? {
            Some(record) if record.state == ChannelStage::Creating => {}
            // A call of the same owner on another replica was faster and has added members since, or the group was deleted.
            _ => return Ok(()),
        }
        // Other members may belong to another group by now, so only this group's owner is removed.
        let owner = [owner.as_str()];
        let undone = self.undo_change(MemberChange::Remove, id, &owner).await;
        Err(caller.denied(Error::Exists, undone))
    }

    async fn create_upstream(&self, owner: &Uid, id: &ChannelId) -> Result<(), Error> {
        let _invalidation = self.invalidate_around(id);
        Ok(self.client.create_group(id, owner).await?)
    }

    /// Sets the record live; `None` where its stage or owner has changed.
    async fn make_live(
        &self,
        owner: &Uid,
        id: &ChannelId,
        fields: &GroupFields,
    ) -> Result<Option<ChannelRecord>, Error> {
        let (name, avatar) = (fields.name.as_deref(), fields.avatar.as_deref());
        let record = self.store.make_live(id, owner, name, avatar).await?;
        if record.is_none()
            && let Some(mark) = self.store.channel(id).await?
            && mark.is_deleted()
        {
            // A delete on another replica preceded this upstream write, which may have recreated the group.
            self.retry_empty_and_disband(id).await;
        }
        Ok(record)
    }
}
