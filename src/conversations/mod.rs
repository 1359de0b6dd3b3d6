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
use crate::domain::{ChannelId, ChannelRef, ChannelType, MessageRef, Uid};
use crate::limits::channel_limiter::ChannelLimiter;
use crate::store::StoreError;
use crate::telemetry::Metrics;
use crate::wukongim::{self, Client, Conversation, ConversationPage};

pub(crate) use position::Position;
use position::{key, rank};
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

/// A page of a user's conversations.
#[derive(Debug)]
pub struct List {
    page: Arc<ConversationPage>,
    /// The newest message first: the index in `page`, and what the store has of a group (the default for a pair).
    rows: Vec<(usize, GroupRecord)>,
    /// Unread messages in all conversations.
    pub unread_total: u64,
    /// Whether WuKongIM gave all conversations.
    pub complete: bool,
    /// Where the next page begins, if there is one.
    pub next: Option<Position>,
}

impl List {
    /// The number of conversations.
    pub fn count(&self) -> usize {
        self.rows.len()
    }

    /// The conversations as WuKongIM has them, with what the store has of a group; the newest message first.
    pub fn rows(&self) -> impl Iterator<Item = (Conversation<'_>, &GroupRecord)> {
        let rows = self.rows.iter();
        rows.filter_map(|(index, record)| Some((self.page.get(*index)?, record)))
    }
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
        let channels = walk.rows.iter().map(|row| walk.channel(row));
        let groups = channels.filter(|channel| channel.channel_type == ChannelType::Group);
        let groups: Vec<&str> = groups.map(|channel| channel.id).collect();
        let mut records = self.authorization.group_records(&groups).await?.into_iter();
        let mut wanted: Vec<(&Row, GroupRecord)> = Vec::with_capacity(limit.min(walk.rows.len()));
        let (mut unread_total, mut has_more) = (0, false);
        for row in &walk.rows {
            let channel = walk.channel(row);
            let record = match channel.channel_type {
                ChannelType::Group => records.next().unwrap_or_default(),
                ChannelType::Person => GroupRecord::default(),
            };
            if record.is_deleted {
                continue;
            }
            unread_total += u64::from(row.unread);
            let is_wanted = (!unread_only || row.unread > 0)
                && after.is_none_or(|after| after.is_before(row.key, channel));
            if is_wanted && wanted.len() < limit {
                wanted.push((row, record));
            } else {
                has_more |= is_wanted;
            }
        }
        let (page, indices) = match &walk.page {
            Some(page) => {
                let indices = wanted.iter().map(|(row, _)| Some(row.index as usize));
                (Arc::clone(page), indices.collect())
            }
            None => self.look(user, &walk, &wanted).await?,
        };
        has_more |= indices.len() < wanted.len();
        let mut rows = Vec::with_capacity(indices.len());
        let (mut bytes, mut last) = (0, None);
        for ((row, record), index) in wanted.into_iter().zip(indices) {
            let conversation = index.and_then(|index| page.get(index));
            let message = conversation.and_then(|row| row.message);
            bytes += message.map_or(0, MessageRef::payload_bytes);
            if bytes > self.budget && !rows.is_empty() {
                has_more = true;
                break;
            }
            last = Some(row);
            // It may be gone or read since.
            if let (Some(index), Some(conversation)) = (index, conversation)
                && (!unread_only || conversation.unread > 0)
            {
                rows.push((index, record));
            }
        }
        if walk.page.is_none() {
            // They may be newer than the walk.
            let rank = |index| page.get(index).map(|row| rank(key(&row), row.channel));
            rows.sort_by(|(a, _), (b, _)| rank(*a).cmp(&rank(*b)));
        }
        let next = last.filter(|_| has_more).map(|row| walk.position(row));
        Ok(List {
            complete: walk.complete && !page.is_partial,
            page,
            rows,
            unread_total,
            next,
        })
    }

    /// The conversations of these rows as they are now, and the index of each one; fewer where their payloads have more than the budget.
    /// `None` for one that is gone.
    async fn look(
        &self,
        user: &Uid,
        walk: &Walk,
        rows: &[(&Row, GroupRecord)],
    ) -> Result<(Arc<ConversationPage>, Vec<Option<usize>>), wukongim::Error> {
        let channels = rows.iter().map(|(row, _)| walk.channel(row));
        let channels: Vec<ChannelRef<'_>> = channels.collect();
        let mut asked = channels.len();
        while asked > 0 {
            let part = &channels[..asked];
            match self.client.conversations(user, part, self.budget).await {
                Err(wukongim::Error::TooLarge { .. }) if asked > 1 => asked = asked.div_ceil(4),
                page => {
                    let page = page?;
                    let indices = page.iter().map(|row| row.channel).zip(0_usize..);
                    let indices: HashMap<_, _> = indices.collect();
                    let indices = part.iter().map(|channel| indices.get(channel).copied());
                    let indices = indices.collect();
                    return Ok((Arc::new(page), indices));
                }
            }
        }
        Ok(Default::default())
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
