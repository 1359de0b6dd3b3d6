//! Calls about groups: members, state and existence. `v2` and `v3` know the wire formats.

use std::time::Instant;

use serde::Serialize;

use super::call_attempts::on_node;
use super::call_policy::CallPolicy;
use super::client::Client;
use super::manager::Manager;
use super::{ChannelState, Error, Generation, MemberList, v2, v3};
use crate::domain::{ChannelId, ChannelType, Uid};

/// v3 takes 2.9 ms for each uid added (seen on a running server): 0.3 s a call.
const V3_UIDS_PER_CALL: usize = 100;

/// Adding or removing subscribers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberChange {
    /// Make them subscribers.
    Add,
    /// Remove them from the subscribers.
    Remove,
}

/// The body of calls about a group as a whole.
#[derive(Serialize)]
struct GroupBody<'a> {
    channel_id: &'a str,
    channel_type: u8,
}

impl<'a> GroupBody<'a> {
    fn new(group: &'a ChannelId) -> Self {
        Self {
            channel_id: group.as_str(),
            channel_type: 2,
        }
    }
}

impl Client {
    /// Creates the group with one subscriber. On an existing group this would clear its flags: check first.
    pub async fn create_group(&self, group: &ChannelId, subscriber: &Uid) -> Result<(), Error> {
        #[derive(Serialize)]
        struct Body<'a> {
            channel_id: &'a str,
            channel_type: u8,
            subscribers: [&'a str; 1],
        }
        let body = Body {
            channel_id: group.as_str(),
            channel_type: 2,
            subscribers: [subscriber.as_str()],
        };
        self.post_command("channel_create", "/channel", &body).await
    }

    /// Disbands the group. [`super::Rejection::NotFound`] on v3 where there is none; v2 reports success.
    pub async fn disband_group(&self, group: &ChannelId) -> Result<(), Error> {
        self.post_command("channel_delete", "/channel/delete", &GroupBody::new(group))
            .await
    }

    /// Removes every subscriber of the group, which neither generation does when it disbands.
    pub async fn remove_all_subscribers(&self, group: &ChannelId) -> Result<(), Error> {
        self.post_command(
            "subscriber_remove_all",
            "/channel/subscriber_remove_all",
            &GroupBody::new(group),
        )
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
        #[derive(Serialize)]
        struct Body<'a> {
            channel_id: &'a str,
            channel_type: u8,
            subscribers: &'a [&'a str],
        }
        let (name, path) = match change {
            MemberChange::Add => ("subscriber_add", "/channel/subscriber_add"),
            MemberChange::Remove => ("subscriber_remove", "/channel/subscriber_remove"),
        };
        let generation = self.generation().await?;
        let chunk = if generation == Generation::V3 {
            V3_UIDS_PER_CALL
        } else {
            uids.len().max(1)
        };
        let mut changed = None;
        for uids in uids.chunks(chunk) {
            if until.is_some_and(|until| Instant::now() >= until) {
                return Err(Error::Timeout);
            }
            if let (Generation::V3, Some(manager)) = (generation, &self.manager) {
                let add = change == MemberChange::Add;
                let count = manager.change_subscribers(&self.transport, group, uids, add);
                let count = count.await?;
                changed = Some(changed.unwrap_or(0) + count);
            } else {
                let body = Body {
                    channel_id: group.as_str(),
                    channel_type: 2,
                    subscribers: uids,
                };
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
        if let Some(manager) = self.manager_of_v3().await? {
            let uids = manager.list(&self.transport, list, channel_type, id);
            return uids.await.map(Some);
        }
        on_node!(self, CallPolicy::read("list"), |node, generation| async {
            match generation {
                Generation::V2 => v2::list(node, list, channel_type, id).await.map(Some),
                Generation::V3 => Ok(None),
            }
        })
    }

    /// A group's state; on v3 from the manager port, else by a send that must be refused.
    pub async fn group_state(&self, group: &ChannelId) -> Result<ChannelState, Error> {
        if let Some(manager) = self.manager_of_v3().await? {
            return manager.group_state(&self.transport, group).await;
        }
        on_node!(
            self,
            CallPolicy::read("channel_state"),
            |node, generation| async {
                match generation {
                    Generation::V2 => v2::group_state(node, group).await,
                    Generation::V3 => v3::probe_group(node, group).await,
                }
            }
        )
    }

    /// The manager port, where it is configured and v3 is active. Its calls bypass `on_node`: their outcome says nothing about a node's
    /// generation or health.
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
        let occupied = on_node!(
            self,
            CallPolicy::read("max_message_seq"),
            |node, generation| async {
                match generation {
                    Generation::V2 => {
                        let (members, max) = tokio::join!(
                            v2::list(
                                node,
                                MemberList::Subscribers,
                                ChannelType::Group,
                                group.as_str()
                            ),
                            v2::max_message_seq(node, ChannelType::Group, group.as_str()),
                        );
                        Ok(!members?.is_empty() || max? > Some(0))
                    }
                    Generation::V3 => Ok(false),
                }
            }
        )?;
        if occupied || self.generation().await? == Generation::V3 {
            return Ok(occupied);
        }
        self.group_log_is_foreign(group).await
    }
}
