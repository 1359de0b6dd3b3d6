//! Creating: claim, write upstream, live. The table of what can go wrong stands in `mod.rs`.

use super::{Claimed, Error, Groups};
use crate::authorization::callback::Action;
use crate::domain::{Channel, ChannelId, Uid};
use crate::store::{ChannelRecord, ChannelStage};

/// What the owner gives; `None` stays as it is stored.
pub(super) struct Fields {
    pub(super) name: Option<String>,
    pub(super) avatar: Option<String>,
}

impl Groups {
    pub(super) async fn create(
        &self,
        owner: &Uid,
        id: &ChannelId,
        fields: &Fields,
    ) -> Result<ChannelRecord, Error> {
        if let Some(callback) = &self.rules.callback {
            let (action, channel) = (Action::ChannelCreate, Channel::Group(id.clone()));
            callback.ask(action, owner, None, &channel, &[]).await?;
        }
        // Again only when another replica changed the record in between; a row is never removed and its stage only moves on, so
        // that ends.
        loop {
            let Some(record) = self.store.channel(id).await? else {
                if self.claim(owner, id, fields).await? {
                    self.write(owner, id).await?;
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
            let is_written = match record.state {
                ChannelStage::Creating => match self.claimed(&record).await? {
                    Claimed::Foreign => return Err(Error::Exists),
                    Claimed::Written => true,
                    Claimed::Unwritten => false,
                },
                _ => self.is_kept(id).await?,
            };
            if !is_written {
                self.write(owner, id).await?;
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
