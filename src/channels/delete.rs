//! Deleting: mark, empty, disband, done. The table of what can go wrong stands in `mod.rs`.

use super::{Claimed, Error, Groups, TAKE_BACK_PAUSE, TAKE_BACK_TRIES, Who};
use crate::authorization::callback::Action;
use crate::domain::ChannelId;
use crate::store::ChannelStage;
use crate::wukongim::{self, Rejection};

impl Groups {
    pub(super) async fn delete(&self, who: &Who, id: &ChannelId) -> Result<(), Error> {
        self.may_delete(who, id).await?;
        let marked = self.store.mark_deleted(id).await;
        if marked.is_ok() {
            self.watch.group_deleted(id);
        } else {
            // The mark may have been set although no answer came.
            self.watch.group_changed(id);
        }
        marked?;
        self.wipe(id).await?;
        Ok(self.store.finish_delete(id).await?)
    }

    async fn may_delete(&self, who: &Who, id: &ChannelId) -> Result<(), Error> {
        let record = self.store.channel(id).await?;
        if self.rules.callback.is_some() {
            let is_there = match &record {
                Some(record) => record.state != ChannelStage::Deleted,
                None => self.is_upstream(id).await?,
            };
            if !is_there {
                return Err(Error::NotFound);
            }
            let record = record.as_ref();
            return self.may(who, Action::ChannelDelete, id, record, &[]).await;
        }
        let manages = self.manages(who, record.as_ref());
        let is_theirs = match &record {
            Some(record) => match record.state {
                ChannelStage::Live => return manages.then_some(()).ok_or(Error::NotOwner),
                // Whom it was deleted by may finish that; for everybody else it is gone.
                ChannelStage::Deleting => return manages.then_some(()).ok_or(Error::NotFound),
                ChannelStage::Deleted => return Err(Error::NotFound),
                ChannelStage::Creating if who.is_admin || self.rules.open => return Ok(()),
                // A claim gives a right to what its own create made, and to nothing else.
                ChannelStage::Creating => {
                    manages && self.claimed(record).await? != Claimed::Foreign
                }
            },
            None => false,
        };
        if is_theirs {
            return Ok(());
        }
        // v2 deletes what never was with 200, so an id that the store does not know is looked for first.
        if !self.is_upstream(id).await? {
            return Err(Error::NotFound);
        }
        if who.is_admin || self.rules.open {
            Ok(())
        } else {
            Err(Error::NotOwner)
        }
    }

    /// Removes all members, which no generation does by itself, and disbands the group. Nothing is written where it is not there, and
    /// above all not where another channel with an equal hash is.
    pub(super) async fn wipe(&self, id: &ChannelId) -> Result<(), Error> {
        if !self.client.group_state(id).await?.exists {
            return Ok(());
        }
        let emptied = {
            let _changing = self.changing(id);
            self.client.remove_all_subscribers(id).await
        };
        unless_gone(emptied)?;
        unless_gone(self.client.disband_group(id).await)
    }

    /// Wipes what was written under an id after it was deleted. The store's mark keeps everybody out of it in any case.
    pub(super) async fn wipe_again(&self, id: &ChannelId) {
        for _ in 0..TAKE_BACK_TRIES {
            match self.wipe(id).await {
                Ok(()) => return,
                Err(error) => {
                    tracing::warn!(channel.id = %id, %error, "cannot wipe a deleted group");
                }
            }
            tokio::time::sleep(TAKE_BACK_PAUSE).await;
        }
    }
}

/// v3 says no where there is nothing left to do.
fn unless_gone(result: Result<(), wukongim::Error>) -> Result<(), Error> {
    match result {
        Err(wukongim::Error::Rejected(
            Rejection::NotFound | Rejection::ChannelNotFound | Rejection::Disbanded,
        )) => Ok(()),
        result => Ok(result?),
    }
}
