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

/// A page of a user's conversations.
#[derive(Debug)]
pub struct List {
    source: Source,
    /// The newest message first: the row in `source`, and what the store has of a group (the default for a pair).
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
    pub fn rows(&self) -> impl Iterator<Item = (&Conversation, &GroupRecord)> {
        let rows = self.rows.iter();
        rows.filter_map(|(row, record)| Some((self.source.row(*row)?, record)))
    }
}

/// Where a page's rows are whole.
#[derive(Debug)]
enum Source {
    /// In the walk, by [`Row::index`].
    Walk(Arc<Walk>),
    /// In the answer to a second look, by their place on the page; `None` for one that is gone. Fewer than the page has where their payloads
    /// have more than the budget.
    Looked(Vec<Option<Conversation>>),
}

impl Source {
    fn row(&self, row: usize) -> Option<&Conversation> {
        match self {
            Self::Walk(walk) => walk.whole.as_ref()?.get(row),
            Self::Looked(rows) => rows.get(row)?.as_ref(),
        }
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
        let groups = walk.rows.iter().filter_map(|row| match &row.channel {
            Channel::Group(group) => Some(group),
            Channel::Person(_) => None,
        });
        let groups: Vec<&ChannelId> = groups.collect();
        let mut records = self.authorization.group_records(&groups).await?.into_iter();
        let mut page: Vec<(&Row, GroupRecord)> = Vec::with_capacity(limit.min(walk.rows.len()));
        let (mut unread_total, mut has_more) = (0, false);
        for row in &walk.rows {
            let record = match &row.channel {
                Channel::Group(_) => records.next().unwrap_or_default(),
                Channel::Person(_) => GroupRecord::default(),
            };
            if record.is_deleted {
                continue;
            }
            unread_total += u64::from(row.unread);
            let is_wanted = (!unread_only || row.unread > 0)
                && after.is_none_or(|after| after.is_before(row.key, &row.channel));
            if is_wanted && page.len() < limit {
                page.push((row, record));
            } else {
                has_more |= is_wanted;
            }
        }
        let (source, complete) = match &walk.whole {
            Some(_) => (Source::Walk(Arc::clone(&walk)), true),
            None => self.look(user, &page).await?,
        };
        let mut rows = Vec::with_capacity(page.len());
        let (mut bytes, mut last) = (0, None);
        for (place, (row, record)) in page.into_iter().enumerate() {
            let index = match &source {
                Source::Walk(_) => row.index as usize,
                Source::Looked(looked) if place < looked.len() => place,
                Source::Looked(_) => {
                    has_more = true;
                    break;
                }
            };
            let conversation = source.row(index);
            let message = conversation.and_then(|row| row.message.as_ref());
            bytes += message.map_or(0, Message::payload_bytes);
            if bytes > self.budget && !rows.is_empty() {
                has_more = true;
                break;
            }
            last = Some(row);
            // It may be gone or read since.
            if conversation.is_some_and(|row| !unread_only || row.unread > 0) {
                rows.push((index, record));
            }
        }
        if let Source::Looked(_) = source {
            // They may be newer than the walk.
            rows.sort_by_cached_key(|(row, _)| source.row(*row).map(Position::of));
        }
        let next = last.filter(|_| has_more).map(Row::position);
        Ok(List {
            source,
            rows,
            unread_total,
            complete: walk.complete && complete,
            next,
        })
    }

    /// The page's rows as they are now, and whether WuKongIM could resolve all.
    async fn look(
        &self,
        user: &Uid,
        page: &[(&Row, GroupRecord)],
    ) -> Result<(Source, bool), wukongim::Error> {
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
                    return Ok((Source::Looked(rows), complete));
                }
            }
        }
        Ok((Source::Looked(Vec::new()), true))
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
