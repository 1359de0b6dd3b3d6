//! The calls about groups: their members, their state, whether there are any. The dialects know how each is asked.

use std::time::Instant;

use serde::Serialize;

use super::client::Client;
use super::manager::Manager;
use super::plan::Plan;
use super::trip::on_node;
use super::{ChannelState, Error, Generation, MemberList, v2, v3};
use crate::domain::{ChannelId, ChannelType, Uid};

/// v3 takes 2.9 ms for each uid added (seen on a running server): 0.3 s a call.
const V3_CHUNK: usize = 100;

/// Adding or removing subscribers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberChange {
    /// Make them subscribers.
    Add,
    /// Make them none.
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
    /// Creates the group with one subscriber. On an existing group this would clear its flags: look first.
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
        self.act("channel_create", "/channel", &body).await
    }

    /// Disbands the group. [`super::Rejection::NotFound`] on v3 where there is none; v2 never minds.
    pub async fn disband_group(&self, group: &ChannelId) -> Result<(), Error> {
        self.act("channel_delete", "/channel/delete", &GroupBody::new(group))
            .await
    }

    /// Removes every subscriber of the group, which neither generation does when it disbands.
    pub async fn remove_all_subscribers(&self, group: &ChannelId) -> Result<(), Error> {
        self.act(
            "subscriber_remove_all",
            "/channel/subscriber_remove_all",
            &GroupBody::new(group),
        )
        .await
    }

    /// Adds or removes subscribers; how many changed, where WuKongIM tells (v3's manager port alone does).
    ///
    /// Adding creates the group where there is none: look first. On v3 the uids go in pieces of 100.
    ///
    /// # Errors
    /// [`Error::Timeout`] where `until` came before the last piece was begun: those before it are done.
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
            V3_CHUNK
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
                self.act(name, path, &body).await?;
            }
        }
        Ok(changed)
    }

    /// A list of a channel, whole; `None` where this WuKongIM does not tell (v3 without its manager port).
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
        on_node!(self, Plan::read("list"), |node, generation| async {
            match generation {
                Generation::V2 => v2::list(&self.transport, node, list, channel_type, id)
                    .await
                    .map(Some),
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
            Plan::read("channel_state"),
            |node, generation| async {
                match generation {
                    Generation::V2 => v2::group_state(&self.transport, node, group).await,
                    Generation::V3 => v3::probe_group(&self.transport, node, group).await,
                }
            }
        )
    }

    /// The manager port, where there is one and a v3 to go with it. Its calls go past `on_node`: what becomes of them says
    /// nothing of a node's generation, nor whether it can be reached.
    pub(super) async fn manager_of_v3(&self) -> Result<Option<&Manager>, Error> {
        match &self.manager {
            Some(manager) if self.generation().await? == Generation::V3 => Ok(Some(manager)),
            _ => Ok(None),
        }
    }

    /// Whether anything at all lies under this id: a record, members or messages, or another channel's log, be it without messages,
    /// by an equal hash (v2). To be asked before anything is written under an id.
    pub async fn group_is_occupied(&self, group: &ChannelId) -> Result<bool, Error> {
        if self.group_state(group).await?.occupied {
            return Ok(true);
        }
        let occupied = on_node!(
            self,
            Plan::read("max_message_seq"),
            |node, generation| async {
                match generation {
                    Generation::V2 => {
                        let (members, max) = tokio::join!(
                            v2::list(
                                &self.transport,
                                node,
                                MemberList::Subscribers,
                                ChannelType::Group,
                                group.as_str()
                            ),
                            v2::max_message_seq(
                                &self.transport,
                                node,
                                ChannelType::Group,
                                group.as_str()
                            ),
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
