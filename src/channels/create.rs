//! Creating: claim, write upstream, live. The table of what can go wrong stands in `mod.rs`.

use super::{Actor, Claimed, Error, Groups, Who};
use crate::config::GroupIds;
use crate::domain::{ChannelId, Uid};
use crate::store::{ChannelRecord, ChannelStage};
use crate::wukongim::{Generation, MemberChange};

/// What the owner gives; `None` stays as it is stored.
pub(super) struct Fields {
    pub(super) name: Option<String>,
    pub(super) avatar: Option<String>,
}

impl Groups {
    /// Whether the actor may bring this id. That of a group that is his may always come again.
    pub(super) async fn may_choose(&self, actor: Actor<'_>, id: &ChannelId) -> Result<(), Error> {
        if actor.is_admin || self.rules.group_ids == GroupIds::Any {
            return Ok(());
        }
        let record = self.store.channel(id).await?;
        let is_his = record.is_some_and(|record| record.is_owned_by(actor.uid));
        is_his.then_some(()).ok_or(Error::IdIsMade)
    }

    pub(super) async fn create(
        &self,
        who: &Who,
        id: &ChannelId,
        fields: &Fields,
    ) -> Result<ChannelRecord, Error> {
        let owner = &who.uid;
        // Again only when another replica changed the record in between; a row is never removed and its stage only moves on, so
        // that ends.
        loop {
            let Some(record) = self.store.channel(id).await? else {
                if self.claim(owner, id, fields).await? {
                    self.write_claim(who, id).await?;
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
                ChannelStage::Creating => match self.claimed(&record).await? {
                    Claimed::Foreign => return Err(Error::Exists),
                    Claimed::Written => {}
                    Claimed::Unwritten => self.write_claim(who, id).await?,
                },
                _ if self.is_kept(id).await? => {}
                _ => self.write(owner, id).await?,
            }
            if let Some(record) = self.make_live(owner, id, fields).await? {
                return Ok(record);
            }
        }
    }

    /// Claims an id that the store does not know and under which nothing lies upstream. `false`: it has a record by now.
    async fn claim(&self, owner: &Uid, id: &ChannelId, fields: &Fields) -> Result<bool, Error> {
        if self.client.group_is_occupied(id).await? {
            // Perhaps by what another replica made for this very owner since the store was asked.
            return match self.store.channel(id).await? {
                Some(_) => Ok(false),
                None => Err(Error::Exists),
            };
        }
        let (name, avatar) = (fields.name.as_deref(), fields.avatar.as_deref());
        Ok(self.store.claim(id, owner, name, avatar).await?)
    }

    /// Whether WuKongIM still has a live group; a `POST /channel` on it would clear its flags.
    async fn is_kept(&self, id: &ChannelId) -> Result<bool, Error> {
        let state = self.client.group_state(id).await?;
        if state.occupied && !state.exists {
            // Lost, and another group with an equal hash has its place: making it again would join that one.
            return Err(Error::Exists);
        }
        Ok(state.exists)
    }

    /// Writes a claim, and looks once more whether nobody else wrote under its key at the same time (v2): two groups with equal keys
    /// share their members, and each of the two looks after its own write, so at least the later one sees both.
    async fn write_claim(&self, who: &Who, id: &ChannelId) -> Result<(), Error> {
        let owner = &who.uid;
        self.write(owner, id).await?;
        if self.client.generation().await? != Generation::V2 {
            return Ok(());
        }
        let (state, members) = tokio::try_join!(
            async { Ok(self.client.group_state(id).await?) },
            self.members(id)
        )?;
        let is_alone = members.is_some_and(|all| all.len() == 1 && all.contains(owner.as_str()));
        if is_alone && state.exists {
            return Ok(());
        }
        match self.store.channel(id).await? {
            Some(record) if record.state == ChannelStage::Creating => {}
            // The owner's own call on another replica was faster, and he has added members since; or it was deleted.
            _ => return Ok(()),
        }
        // What else lies there may be another group's by now: only the own owner is taken out.
        let owner = [owner.as_str()];
        let taken_back = self.take_back(MemberChange::Remove, id, &owner).await;
        Err(who.denied(Error::Exists, taken_back))
    }

    async fn write(&self, owner: &Uid, id: &ChannelId) -> Result<(), Error> {
        let _changing = self.changing(id);
        Ok(self.client.create_group(id, owner).await?)
    }

    /// The live record; `None` where it is no longer `owner`'s to make live.
    async fn make_live(
        &self,
        owner: &Uid,
        id: &ChannelId,
        fields: &Fields,
    ) -> Result<Option<ChannelRecord>, Error> {
        let (name, avatar) = (fields.name.as_deref(), fields.avatar.as_deref());
        let record = self.store.make_live(id, owner, name, avatar).await?;
        if record.is_none()
            && let Some(marked) = self.store.channel(id).await?
            && marked.is_deleted()
        {
            // A delete on another replica came before our write upstream, which has perhaps brought the group back.
            self.wipe_again(id).await;
        }
        Ok(record)
    }
}
