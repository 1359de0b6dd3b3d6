//! Calls about groups: members, state and existence. `dialect` knows the wire formats.

use std::time::Instant;

use serde_json::json;

use super::call::Policy;
use super::dialect::manager_port::Manager;
use super::dialect::{v2, v3};
use super::page::Window;
use super::{ChannelState, Client, Error, Generation, MemberList, Rejection};
use crate::domain::{Channel, ChannelId, ChannelType, Uid};

/// v3 takes 2.9 ms for each uid added (seen on a running server): 0.3 s a call.
const V3_UIDS_PER_CALL: usize = 100;
/// Limit of a page whose content is not used; exceeding it is an answer as well.
const MAX_PAGE_BYTES: usize = 2 * 1024 * 1024;

/// Adding or removing subscribers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberChange {
    /// Make them subscribers.
    Add,
    /// Remove them from the subscribers.
    Remove,
}

impl Client {
    /// Creates the group with one subscriber. On an existing group this would clear its flags: check first.
    pub async fn create_group(&self, group: &ChannelId, subscriber: &Uid) -> Result<(), Error> {
        let body = json!({
            "channel_id": group.as_str(),
            "channel_type": 2,
            "subscribers": [subscriber.as_str()],
        });
        self.post_command("channel_create", "/channel", &body).await
    }

    /// Disbands the group. [`Rejection::NotFound`] on v3 where there is none; v2 reports success.
    pub async fn disband_group(&self, group: &ChannelId) -> Result<(), Error> {
        let body = json!({"channel_id": group.as_str(), "channel_type": 2});
        self.post_command("channel_delete", "/channel/delete", &body)
            .await
    }

    /// Removes every subscriber of the group, which neither generation does when it disbands.
    pub async fn remove_all_subscribers(&self, group: &ChannelId) -> Result<(), Error> {
        let body = json!({"channel_id": group.as_str(), "channel_type": 2});
        let path = "/channel/subscriber_remove_all";
        self.post_command("subscriber_remove_all", path, &body)
            .await
    }

    /// Adds or removes subscribers; returns how many changed, where WuKongIM reports it (only v3's manager port does).
    ///
    /// Adding creates the group where there is none: check first. On v3 the uids are sent in chunks of 100.
    ///
    /// # Errors
    /// [`Error::Timeout`] where `until` passed before the last chunk was started; the earlier chunks are done.
    pub async fn change_subscribers(
        &self,
        change: MemberChange,
        group: &ChannelId,
        uids: &[&str],
        until: Option<Instant>,
    ) -> Result<Option<u64>, Error> {
        let (name, path) = match change {
            MemberChange::Add => ("subscriber_add", "/channel/subscriber_add"),
            MemberChange::Remove => ("subscriber_remove", "/channel/subscriber_remove"),
        };
        let chunk = match self.generation().await? {
            Generation::V2 => uids.len().max(1),
            Generation::V3 => V3_UIDS_PER_CALL,
        };
        let manager = self.manager_of_v3().await?;
        let mut changed = None;
        for uids in uids.chunks(chunk) {
            if until.is_some_and(|until| Instant::now() >= until) {
                return Err(Error::Timeout);
            }
            if let Some(manager) = manager {
                let count = manager.change_subscribers(group, uids, change);
                changed = Some(changed.unwrap_or(0) + count.await?);
            } else {
                let body = json!({
                    "channel_id": group.as_str(),
                    "channel_type": 2,
                    "subscribers": uids,
                });
                self.post_command(name, path, &body).await?;
            }
        }
        Ok(changed)
    }

    /// A channel's complete list; `None` where this WuKongIM cannot report it (v3 without its manager port).
    pub async fn list(
        &self,
        list: MemberList,
        channel_type: ChannelType,
        id: &str,
    ) -> Result<Option<Vec<String>>, Error> {
        let uids = match (self.generation().await?, &self.manager) {
            (Generation::V2, _) => {
                let list = self.on_node(Policy::read("list"), |node| {
                    v2::list(node, list, channel_type, id)
                });
                list.await?
            }
            (Generation::V3, Some(manager)) => {
                let list = manager.list(list, channel_type, id);
                list.await?
            }
            (Generation::V3, None) => return Ok(None),
        };
        Ok(Some(uids))
    }

    /// A group's state; on v3 from the manager port, else by a send that must be refused.
    pub async fn group_state(&self, group: &ChannelId) -> Result<ChannelState, Error> {
        let policy = Policy::read("channel_state");
        match (self.generation().await?, &self.manager) {
            (Generation::V2, _) => {
                let state = self.on_node(policy, |node| v2::group_state(node, group));
                state.await
            }
            (Generation::V3, Some(manager)) => manager.group_state(group).await,
            (Generation::V3, None) => {
                let state = self.on_node(policy, |node| v3::probe_group(node, group));
                state.await
            }
        }
    }

    /// The manager port, where it is configured and v3 is in use. Its calls bypass `on_node`: their outcome says nothing about a node.
    pub(super) async fn manager_of_v3(&self) -> Result<Option<&Manager>, Error> {
        match &self.manager {
            Some(manager) if self.generation().await? == Generation::V3 => Ok(Some(manager)),
            _ => Ok(None),
        }
    }

    /// Whether anything is stored under this id: a record, members or messages, or another channel's log with the same hash, even an empty
    /// one (v2). Check it before writing anything under a new id.
    pub async fn group_is_occupied(&self, group: &ChannelId) -> Result<bool, Error> {
        if self.group_state(group).await?.occupied {
            return Ok(true);
        }
        if self.generation().await? == Generation::V3 {
            return Ok(false);
        }
        let (kind, id) = (ChannelType::Group, group.as_str());
        let policy = Policy::read("max_message_seq");
        let is_used = self.on_node(policy, |node| async move {
            let (members, max) = tokio::join!(
                v2::list(node, MemberList::Subscribers, kind, id),
                v2::max_message_seq(node, kind, id),
            );
            Ok(!members?.is_empty() || max? > Some(0))
        });
        Ok(is_used.await? || self.group_log_is_foreign(group).await?)
    }

    /// Whether `uid` is a subscriber of the group: by v3's manager port, by v2's whole list, or where neither is available (v3 without its
    /// manager port) by whether the user may read it.
    pub async fn is_subscriber(&self, uid: &Uid, group: &ChannelId) -> Result<bool, Error> {
        if let Some(is_listed) = self.is_listed(uid, group).await? {
            return Ok(is_listed);
        }
        let list = MemberList::Subscribers;
        match self.list(list, ChannelType::Group, group.as_str()).await? {
            Some(all) => Ok(all.iter().any(|member| member == uid.as_str())),
            None => self.may_read_group(uid, group).await,
        }
    }

    /// Whether `uid` is a subscriber of the group, where a single call tells it (v3's manager port).
    pub async fn is_listed(&self, uid: &Uid, group: &ChannelId) -> Result<Option<bool>, Error> {
        match self.manager_of_v3().await? {
            Some(manager) => {
                let listed = manager.is_subscriber(group, uid);
                listed.await.map(Some)
            }
            None => Ok(None),
        }
    }

    /// Whether v3 lets `uid` read the group, which only members may.
    pub async fn may_read_group(&self, uid: &Uid, group: &ChannelId) -> Result<bool, Error> {
        let channel = Channel::Group(group.clone());
        match self
            .page(uid, &channel, Window::Newest, 1, MAX_PAGE_BYTES)
            .await
        {
            // A member of an empty group is told that there is no channel (seen on a running server).
            Ok(_) | Err(Error::TooLarge { .. } | Error::Rejected(Rejection::ChannelNotFound)) => {
                Ok(true)
            }
            Err(Error::Rejected(Rejection::MembershipRequired | Rejection::Disbanded)) => Ok(false),
            Err(error) => Err(error),
        }
    }
}
