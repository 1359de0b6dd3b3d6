//! Deletion: mark, remove members, disband, finish. The table of failures is in `mod.rs`.

use std::time::{Duration, Instant};

use super::operation::Operation;
use super::{ClaimState, Error, UNDO_ATTEMPTS, UNDO_PAUSE};
use crate::domain::{ChannelType, Uid};
use crate::store::ChannelStage;
use crate::wukongim::{self, MemberChange, Rejection};

/// How long a delete continues, even if the client has gone.
const DELETE_TIMEOUT: Duration = Duration::from_mins(1);
/// Members per call where v2 cannot remove all at once: 0.6 s at 6 ms each (seen on a busy v2.2.0).
const REMOVE_CHUNK: usize = 100;

impl Operation {
    pub(super) async fn delete(self) -> Result<(), Error> {
        self.mark().await?;
        let until = Instant::now() + DELETE_TIMEOUT;
        loop {
            match self.empty_and_disband(Some(until)).await {
                // WuKongIM continues with the timed-out call.
                Err(Error::Upstream(wukongim::Error::Timeout)) if Instant::now() < until => {
                    tokio::time::sleep(UNDO_PAUSE).await;
                }
                result => {
                    result?;
                    return Ok(self.groups.store.finish_delete(&self.id).await?);
                }
            }
        }
    }

    /// Marks the group as deleted, if the caller may do so by the current record.
    async fn mark(&self) -> Result<(), Error> {
        loop {
            let owner = self.may_delete().await?;
            let store = &self.groups.store;
            let mark = store.mark_deleted(&self.id, owner.as_ref()).await;
            // Also without an answer the mark may have been set.
            (self.groups.on_change)(&self.id, matches!(mark, Ok(true)));
            if mark? {
                return Ok(());
            }
            if self.is_deleted().await? {
                (self.groups.on_change)(&self.id, true);
                return Ok(());
            }
        }
    }

    /// Whether the caller may delete the group. `Some`: only while this user is its owner.
    async fn may_delete(&self) -> Result<Option<Uid>, Error> {
        if self.groups.rules.callback.is_some() {
            // The backend was asked before.
            return self.deletable().await.map(|_| None);
        }
        let record = self.record().await?;
        let has_full_rights = self.has_full_rights(record.as_ref());
        let owner = (!self.is_admin && !self.groups.rules.open).then(|| self.caller.clone());
        let permitted = has_full_rights.then_some(owner.clone());
        let is_permitted = match &record {
            None => false,
            Some(record) => match record.state {
                ChannelStage::Live => return permitted.ok_or(Error::NotOwner),
                // Callers that may delete it may complete that; for all others it does not exist.
                ChannelStage::Deleting => return permitted.ok_or(Error::NotFound),
                ChannelStage::Deleted => return Err(Error::NotFound),
                // A claim gives a right only to the group of its own creation.
                ChannelStage::Creating => {
                    owner.is_none()
                        || has_full_rights
                            && self.groups.claim_state(record).await? != ClaimState::Foreign
                }
            },
        };
        // v2 answers 200 to deleting a missing group, so an id without a record is checked first.
        if !is_permitted && !self.groups.is_upstream(&self.id).await? {
            return Err(Error::NotFound);
        }
        if !is_permitted && owner.is_some() {
            return Err(Error::NotOwner);
        }
        Ok(owner)
    }

    /// Removes all members, which neither generation does itself, and disbands the group. Writes nothing where the group does not exist, in
    /// particular where another channel has the same key.
    async fn empty_and_disband(&self, until: Option<Instant>) -> Result<(), Error> {
        let (client, id) = (&self.groups.client, &self.id);
        if !client.group_state(id).await?.exists {
            return self.empty_under_person_record(until).await;
        }
        self.empty(until).await?;
        // Emptying a large group takes time. Meanwhile a user's own record may have replaced the group's (`auth::im_token`); disbanding it
        // would lock that user out.
        if !self.groups.is_upstream(id).await? {
            return Ok(());
        }
        ignore_missing(client.disband_group(id).await)
    }

    /// Where a user's record with the same key has replaced the deleted group's, the members are still the group's, since users have none.
    async fn empty_under_person_record(&self, until: Option<Instant>) -> Result<(), Error> {
        let record = self.groups.client.group_record(&self.id).await?;
        let is_person_record =
            record.is_some_and(|record| record.channel_type == ChannelType::Person.number());
        if is_person_record && self.members().await?.is_some_and(|all| !all.is_empty()) {
            self.empty(until).await?;
        }
        Ok(())
    }

    /// Removes all members. On v3, repeating one call for all members is four times as fast as chunks (seen on a running server: 4,000
    /// members in 15 s and in 59 s).
    async fn empty(&self, until: Option<Instant>) -> Result<(), Error> {
        let emptied = {
            let _invalidation = self.groups.invalidate_around(&self.id);
            self.groups.client.remove_all_subscribers(&self.id).await
        };
        if !matches!(emptied, Err(wukongim::Error::Status(404))) {
            return ignore_missing(emptied);
        }
        // v2 before v2.2.2 has no such call (seen on running servers).
        let members = self.groups.members(&self.id).await?.unwrap_or_default();
        let uids: Vec<&str> = members.iter().map(String::as_str).collect();
        for chunk in uids.chunks(REMOVE_CHUNK) {
            match self.change(MemberChange::Remove, chunk, until).await {
                Ok(_) | Err(Error::NotFound) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Removes what was written under an id after its deletion. The store's mark denies all access in any case.
    pub(super) async fn retry_empty_and_disband(&self) {
        for _ in 0..UNDO_ATTEMPTS {
            match self.empty_and_disband(None).await {
                Ok(()) => return,
                Err(error) => {
                    tracing::warn!(channel.id = %self.id, %error, "cannot remove a deleted group from wukongim");
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
