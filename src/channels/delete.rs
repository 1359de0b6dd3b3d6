//! Deletion: mark, remove members, disband, finish. The table of failures is in `mod.rs`.

use std::time::{Duration, Instant};

use super::{ClaimState, Error, GroupCaller, Groups, UNDO_ATTEMPTS, UNDO_PAUSE};
use crate::domain::{ChannelId, ChannelType, Uid};
use crate::store::ChannelStage;
use crate::wukongim::{self, MemberChange, Rejection};

/// How long a delete continues, even if the client has gone.
const DELETE_TIMEOUT: Duration = Duration::from_mins(1);
/// Members per call where v2 cannot remove all at once: 0.6 s at 6 ms each (seen on a busy v2.2.0).
const REMOVE_CHUNK: usize = 100;

impl Groups {
    pub(super) async fn delete(&self, caller: &GroupCaller, id: &ChannelId) -> Result<(), Error> {
        self.mark(caller, id).await?;
        let until = Instant::now() + DELETE_TIMEOUT;
        loop {
            match self.empty_and_disband(id, Some(until)).await {
                // WuKongIM continues with the timed-out call.
                Err(Error::Upstream(wukongim::Error::Timeout)) if Instant::now() < until => {
                    tokio::time::sleep(UNDO_PAUSE).await;
                }
                result => {
                    result?;
                    return Ok(self.store.finish_delete(id).await?);
                }
            }
        }
    }

    /// Marks the group as deleted, if `caller` may do so by the current record.
    async fn mark(&self, caller: &GroupCaller, id: &ChannelId) -> Result<(), Error> {
        loop {
            let owner = self.may_delete(caller, id).await?;
            let mark = self.store.mark_deleted(id, owner.as_ref()).await;
            // Also without an answer the mark may have been set.
            (self.on_change)(id, matches!(mark, Ok(true)));
            if mark? {
                return Ok(());
            }
            let record = self.store.channel(id).await?;
            if record.is_some_and(|record| record.is_deleted()) {
                (self.on_change)(id, true);
                return Ok(());
            }
        }
    }

    /// Whether `caller` may delete the group. `Some`: only while this user is its owner.
    async fn may_delete(&self, caller: &GroupCaller, id: &ChannelId) -> Result<Option<Uid>, Error> {
        let record = self.store.channel(id).await?;
        if self.rules.callback.is_some() {
            // The backend was asked before.
            let is_there = self.is_deletable(record.as_ref(), id).await?;
            return is_there.then_some(None).ok_or(Error::NotFound);
        }
        let has_full_rights = self.has_full_rights(caller, record.as_ref());
        let as_owner = !(caller.is_admin || self.rules.open);
        let as_what = || as_owner.then(|| caller.uid.clone());
        let is_permitted = match &record {
            Some(record) => match record.state {
                ChannelStage::Live => return has_full_rights.then(as_what).ok_or(Error::NotOwner),
                // Callers that may delete it may complete that; for all others it does not exist.
                ChannelStage::Deleting => {
                    return has_full_rights.then(as_what).ok_or(Error::NotFound);
                }
                ChannelStage::Deleted => return Err(Error::NotFound),
                ChannelStage::Creating if !as_owner => return Ok(None),
                // A claim gives a right only to the group of its own creation.
                ChannelStage::Creating => {
                    has_full_rights && self.claim_state(record).await? != ClaimState::Foreign
                }
            },
            None => false,
        };
        if is_permitted {
            return Ok(as_what());
        }
        // v2 answers 200 to deleting a missing group, so an id without a record is checked first.
        if !self.is_upstream(id).await? {
            return Err(Error::NotFound);
        }
        if as_owner {
            Err(Error::NotOwner)
        } else {
            Ok(None)
        }
    }

    /// Removes all members, which neither generation does itself, and disbands the group. Writes nothing where the group does not exist, in
    /// particular where another channel has the same key.
    pub(super) async fn empty_and_disband(
        &self,
        id: &ChannelId,
        until: Option<Instant>,
    ) -> Result<(), Error> {
        let state = self.client.group_state(id).await?;
        if !state.exists {
            return self.empty_under_person_record(id, until).await;
        }
        self.empty(id, until).await?;
        // Emptying a large group takes time. Meanwhile a user's own record may have replaced the group's (`auth::im_token`); disbanding it
        // would lock that user out.
        let state = self.client.group_state(id).await?;
        if !state.exists || state.disbanded {
            return Ok(());
        }
        ignore_missing(self.client.disband_group(id).await)
    }

    /// Where a user's record with the same key has replaced the deleted group's, the members are still the group's, since users have none.
    async fn empty_under_person_record(
        &self,
        id: &ChannelId,
        until: Option<Instant>,
    ) -> Result<(), Error> {
        let record = self.client.group_record(id).await?;
        let is_person_record =
            record.is_some_and(|record| record.channel_type == ChannelType::Person.number());
        if is_person_record && self.members(id).await?.is_some_and(|all| !all.is_empty()) {
            self.empty(id, until).await?;
        }
        Ok(())
    }

    /// Removes all members. On v3, repeating one call for all members is four times as fast as chunks (seen on a running server: 4,000
    /// members in 15 s and in 59 s).
    async fn empty(&self, id: &ChannelId, until: Option<Instant>) -> Result<(), Error> {
        let emptied = {
            let _invalidation = self.invalidate_around(id);
            self.client.remove_all_subscribers(id).await
        };
        match emptied {
            // v2 before v2.2.2 has no such call (seen on running servers).
            Err(wukongim::Error::Status(404)) => {
                let members = self.members(id).await?.unwrap_or_default();
                self.remove_in_chunks(id, members, until).await
            }
            emptied => ignore_missing(emptied),
        }
    }

    async fn remove_in_chunks(
        &self,
        id: &ChannelId,
        members: impl IntoIterator<Item = String>,
        until: Option<Instant>,
    ) -> Result<(), Error> {
        let members: Vec<String> = members.into_iter().collect();
        for chunk in members.chunks(REMOVE_CHUNK) {
            let uids: Vec<&str> = chunk.iter().map(String::as_str).collect();
            match self.change(MemberChange::Remove, id, &uids, until).await {
                Ok(_) | Err(Error::NotFound) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Removes what was written under an id after its deletion. The store's mark denies all access in any case.
    pub(super) async fn retry_empty_and_disband(&self, id: &ChannelId) {
        for _ in 0..UNDO_ATTEMPTS {
            match self.empty_and_disband(id, None).await {
                Ok(()) => return,
                Err(error) => {
                    tracing::warn!(channel.id = %id, %error, "cannot remove a deleted group from wukongim");
                }
            }
            tokio::time::sleep(UNDO_PAUSE).await;
        }
    }
}

/// Ignores v3's refusal where nothing is left to do.
fn ignore_missing(result: Result<(), wukongim::Error>) -> Result<(), Error> {
    match result {
        Err(wukongim::Error::Rejected(
            Rejection::NotFound | Rejection::ChannelNotFound | Rejection::Disbanded,
        )) => Ok(()),
        result => Ok(result?),
    }
}
