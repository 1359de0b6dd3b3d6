//! Deleting: mark, empty, disband, done. The table of what can go wrong stands in `mod.rs`.

use std::time::{Duration, Instant};

use super::{Claimed, Error, Groups, TAKE_BACK_PAUSE, TAKE_BACK_TRIES, Who};
use crate::domain::{ChannelId, ChannelType, Uid};
use crate::store::ChannelStage;
use crate::wukongim::{self, MemberChange, Rejection};

/// How long a delete goes on, whoever waits for it.
const MAX_DELETE: Duration = Duration::from_mins(1);
/// Members that are taken out at a time where v2 does not take them out as a whole: 0.6 s at 6 ms each (seen on a busy v2.2.0).
const CHUNK: usize = 100;

impl Groups {
    pub(super) async fn delete(&self, who: &Who, id: &ChannelId) -> Result<(), Error> {
        self.mark(who, id).await?;
        let until = Instant::now() + MAX_DELETE;
        loop {
            match self.wipe(id, Some(until)).await {
                // WuKongIM goes on with what it was asked for.
                Err(Error::Upstream(wukongim::Error::Timeout)) if Instant::now() < until => {
                    tokio::time::sleep(TAKE_BACK_PAUSE).await;
                }
                wiped => {
                    wiped?;
                    return Ok(self.store.finish_delete(id).await?);
                }
            }
        }
    }

    /// Marks the group as deleted, where `who` may do so by the record as it is then.
    async fn mark(&self, who: &Who, id: &ChannelId) -> Result<(), Error> {
        loop {
            let owner = self.may_delete(who, id).await?;
            let marked = self.store.mark_deleted(id, owner.as_ref()).await;
            if matches!(marked, Ok(true)) {
                self.watch.group_deleted(id);
            } else {
                // The mark may have been set although no answer came.
                self.watch.group_changed(id);
            }
            if marked? {
                return Ok(());
            }
            let record = self.store.channel(id).await?;
            if record.is_some_and(|record| record.is_deleted()) {
                self.watch.group_deleted(id);
                return Ok(());
            }
        }
    }

    /// Whether `who` may delete the group. `Some`: as its owner, and for as long as he is.
    async fn may_delete(&self, who: &Who, id: &ChannelId) -> Result<Option<Uid>, Error> {
        let record = self.store.channel(id).await?;
        if self.rules.callback.is_some() {
            // The backend was asked before.
            let is_there = self.is_to_be_deleted(record.as_ref(), id).await?;
            return is_there.then_some(None).ok_or(Error::NotFound);
        }
        let manages = self.manages(who, record.as_ref());
        let by_owning = !(who.is_admin || self.rules.open);
        let as_what = || by_owning.then(|| who.uid.clone());
        let is_theirs = match &record {
            Some(record) => match record.state {
                ChannelStage::Live => return manages.then(as_what).ok_or(Error::NotOwner),
                // Whom it was deleted by may finish that; for everybody else it is gone.
                ChannelStage::Deleting => return manages.then(as_what).ok_or(Error::NotFound),
                ChannelStage::Deleted => return Err(Error::NotFound),
                ChannelStage::Creating if !by_owning => return Ok(None),
                // A claim gives a right to what its own create made, and to nothing else.
                ChannelStage::Creating => {
                    manages && self.claimed(record).await? != Claimed::Foreign
                }
            },
            None => false,
        };
        if is_theirs {
            return Ok(as_what());
        }
        // v2 deletes what never was with 200, so an id that the store does not know is looked for first.
        if !self.is_upstream(id).await? {
            return Err(Error::NotFound);
        }
        if by_owning {
            Err(Error::NotOwner)
        } else {
            Ok(None)
        }
    }

    /// Removes all members, which no generation does by itself, and disbands the group. Nothing is written where it is not there, and
    /// above all not where another channel with an equal key is.
    pub(super) async fn wipe(&self, id: &ChannelId, until: Option<Instant>) -> Result<(), Error> {
        let state = self.client.group_state(id).await?;
        if !state.exists {
            return self.empty_under_a_users_record(id, until).await;
        }
        self.empty(id, until).await?;
        // Emptying a large group takes its time. A user's own record has perhaps taken the group's place since (`auth::im_token`):
        // disbanding it would lock him out.
        let state = self.client.group_state(id).await?;
        if !state.exists || state.disbanded {
            return Ok(());
        }
        unless_gone(self.client.disband_group(id).await)
    }

    /// Where a user's record with an equal key has replaced the deleted group's, the members are still the group's: users have none.
    async fn empty_under_a_users_record(
        &self,
        id: &ChannelId,
        until: Option<Instant>,
    ) -> Result<(), Error> {
        let record = self.client.group_record(id).await?;
        let is_a_users =
            record.is_some_and(|record| record.channel_type == ChannelType::Person.number());
        if is_a_users && self.members(id).await?.is_some_and(|all| !all.is_empty()) {
            self.empty(id, until).await?;
        }
        Ok(())
    }

    /// Removes all members. Repeating the one call for all of them empties a large group of v3 four times as fast as pieces do (seen on
    /// a running server: 4,000 members in 15 s and in 59 s).
    async fn empty(&self, id: &ChannelId, until: Option<Instant>) -> Result<(), Error> {
        let emptied = {
            let _changing = self.changing(id);
            self.client.remove_all_subscribers(id).await
        };
        match emptied {
            // v2 before v2.2.2 has no such call (seen on running servers).
            Err(wukongim::Error::Status(404)) => {
                let members = self.members(id).await?.unwrap_or_default();
                self.take_out_in_chunks(id, members, until).await
            }
            emptied => unless_gone(emptied),
        }
    }

    async fn take_out_in_chunks(
        &self,
        id: &ChannelId,
        members: impl IntoIterator<Item = String>,
        until: Option<Instant>,
    ) -> Result<(), Error> {
        let members: Vec<String> = members.into_iter().collect();
        for chunk in members.chunks(CHUNK) {
            let uids: Vec<&str> = chunk.iter().map(String::as_str).collect();
            match self.change(MemberChange::Remove, id, &uids, until).await {
                Ok(_) | Err(Error::NotFound) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Wipes what was written under an id after it was deleted. The store's mark keeps everybody out of it in any case.
    pub(super) async fn wipe_again(&self, id: &ChannelId) {
        for _ in 0..TAKE_BACK_TRIES {
            match self.wipe(id, None).await {
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
