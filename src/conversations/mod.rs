//! A user's conversations: the list with unread counts, read pointers, deletion. Does not know HTTP.
//!
//! No generation has a list that can be shown as it comes: v2 orders it by the age of its rows, v3 by activation. So a walk takes all rows
//! first, and keeps only their keys. They are filtered, sorted by their newest message and cut, and the page's rows are taken whole from a
//! second look at these channels, so that unread, last message and time of a row belong together. A walk of one page is its own answer.

mod position;
mod read;
mod walks;

use std::collections::HashMap;
use std::sync::Arc;

use crate::authorization::{Authorization, Denial, GroupRecord};
use crate::config;
use crate::domain::{Channel, ChannelId, Message, Uid};
use crate::limits::channel_limiter::ChannelLimiter;
use crate::store::StoreError;
use crate::telemetry::Metrics;
use crate::wukongim::{self, Client, Conversation, ConversationPage};

pub(crate) use position::Position;
use walks::{Row, Walk, Walks};

/// Why conversations cannot be listed or changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The user is not permitted.
    #[error(transparent)]
    Denied(#[from] Denial),
    /// This WuKongIM cannot do it.
    #[error("this wukongim cannot do it")]
    NotSupported,
    /// WuKongIM failed.
    #[error(transparent)]
    Upstream(#[from] wukongim::Error),
    /// The store failed, which knows the deleted groups.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A conversation with what the store has of a group.
#[derive(Debug)]
pub struct Listed {
    /// As WuKongIM has it.
    pub conversation: Conversation,
    /// The group's; the default for a pair.
    pub record: GroupRecord,
}

/// A page of a user's conversations.
#[derive(Debug)]
pub struct List {
    /// The newest message first.
    pub rows: Vec<Listed>,
    /// Unread messages in all conversations.
    pub unread_total: u64,
    /// Whether WuKongIM gave all conversations.
    pub complete: bool,
    /// Where the next page begins, if there is one.
    pub next: Option<Position>,
}

/// Lists and changes conversations. Shared by all requests.
pub struct Conversations {
    client: Arc<Client>,
    authorization: Arc<Authorization>,
    channel_limiter: Arc<ChannelLimiter>,
    walks: Arc<Walks>,
    /// Decoded payload bytes of one answer.
    budget: usize,
}

impl Conversations {
    /// The conversations of all users.
    pub fn new(
        client: Arc<Client>,
        authorization: Arc<Authorization>,
        channel_limiter: Arc<ChannelLimiter>,
        limits: &config::Limits,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            client,
            authorization,
            channel_limiter,
            walks: Walks::new(metrics),
            budget: limits.sync_bytes,
        }
    }

    /// The label of the cache of walks, and their number.
    pub fn size(&self) -> (&'static str, usize) {
        self.walks.size()
    }

    /// The gateway is about to change the group's members, or has: walks that have seen them before are not used again. Must not block.
    pub fn group_changed(&self, group: &ChannelId) {
        self.walks.group_changed(group);
    }

    /// At most `limit` (1 to 200) of the user's conversations that come after `after`, the newest message first. Deleted groups are left out.
    ///
    /// # Errors
    /// [`Denial::Forbidden`] for a banned user; where WuKongIM or the store fails, never a shorter list.
    pub async fn list(
        &self,
        user: &Uid,
        after: Option<&Position>,
        limit: usize,
        unread_only: bool,
    ) -> Result<List, Error> {
        self.check_ban(user).await?;
        let (client, payload_bytes) = (Arc::clone(&self.client), self.budget);
        let walking = user.clone();
        // Boxed: the future is large, and is moved several times on its way into the task.
        let walk = self.walks.get(user, || {
            Box::pin(async move { Walk::of(&client, &walking, payload_bytes).await })
        });
        let walk = walk.await?;
        let groups = walk.rows.iter().filter_map(|row| match &row.channel {
            Channel::Group(group) => Some(group),
            Channel::Person(_) => None,
        });
        let groups: Vec<&ChannelId> = groups.collect();
        let mut records = self.authorization.group_records(&groups).await?.into_iter();
        let mut list = List {
            rows: Vec::new(),
            unread_total: 0,
            complete: walk.complete,
            next: None,
        };
        let mut page: Vec<(&Row, GroupRecord)> = Vec::with_capacity(limit.min(walk.rows.len()));
        let mut has_more = false;
        for row in &walk.rows {
            let record = match &row.channel {
                Channel::Group(_) => records.next().unwrap_or_default(),
                Channel::Person(_) => GroupRecord::default(),
            };
            if record.is_deleted {
                continue;
            }
            list.unread_total += u64::from(row.unread);
            let is_wanted = (!unread_only || row.unread > 0)
                && after.is_none_or(|after| after.is_before(row.key, &row.channel));
            if is_wanted && page.len() < limit {
                page.push((row, record));
            } else {
                has_more |= is_wanted;
            }
        }
        let looked = self.whole_rows(user, &walk, &page).await?;
        list.complete &= looked.complete;
        has_more |= looked.rows.len() < page.len();
        list.rows.reserve_exact(page.len());
        let (mut bytes, mut last) = (0, None);
        for ((row, record), conversation) in page.into_iter().zip(looked.rows) {
            let message = conversation.as_ref().and_then(|row| row.message.as_ref());
            bytes += message.map_or(0, Message::payload_bytes);
            if bytes > self.budget && !list.rows.is_empty() {
                has_more = true;
                break;
            }
            last = Some(row);
            // It may be gone or read since.
            let Some(conversation) = conversation.filter(|row| !unread_only || row.unread > 0)
            else {
                continue;
            };
            list.rows.push(Listed {
                conversation,
                record,
            });
        }
        if walk.whole.is_none() {
            // They may be newer than the walk.
            list.rows
                .sort_by_cached_key(|row| Position::of(&row.conversation));
        }
        list.next = last.filter(|_| has_more).map(Row::position);
        Ok(list)
    }

    /// The page's rows as they are now, in the same order; fewer where their payloads have more than the budget. `None` for a row that is gone.
    async fn whole_rows(
        &self,
        user: &Uid,
        walk: &Walk,
        page: &[(&Row, GroupRecord)],
    ) -> Result<Looked, wukongim::Error> {
        if let Some(whole) = &walk.whole {
            let rows = page
                .iter()
                .map(|(row, _)| whole.get(row.index as usize).cloned());
            return Ok(Looked {
                rows: rows.collect(),
                complete: true,
            });
        }
        let channels: Vec<Channel> = page.iter().map(|(row, _)| row.channel.clone()).collect();
        let mut asked = channels.len();
        while asked > 0 {
            let part = &channels[..asked];
            match self.client.conversations(user, part, self.budget).await {
                Err(wukongim::Error::TooLarge { .. }) if asked > 1 => asked = asked.div_ceil(4),
                found => {
                    let ConversationPage { rows, complete, .. } = found?;
                    let rows = rows.into_iter().map(|row| (row.channel.clone(), row));
                    let mut rows: HashMap<_, _> = rows.collect();
                    let rows = part.iter().map(|channel| rows.remove(channel)).collect();
                    return Ok(Looked { rows, complete });
                }
            }
        }
        Ok(Looked {
            rows: Vec::new(),
            complete: true,
        })
    }

    /// In every mode: a user banned in WuKongIM (v2) has no conversations here.
    async fn check_ban(&self, user: &Uid) -> Result<(), Denial> {
        let is_banned = self.authorization.is_user_banned(user).await;
        if is_banned.map_err(Denial::Unavailable)? {
            return Err(Denial::Forbidden);
        }
        Ok(())
    }
}

/// What a second look found of a page.
struct Looked {
    rows: Vec<Option<Conversation>>,
    complete: bool,
}
