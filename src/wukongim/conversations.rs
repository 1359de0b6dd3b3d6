//! A user's conversations: the walk over all of them, a look at some by name, read pointers and deletion. `dialect` knows the wire formats.

mod by_hand;
mod rows;

use std::iter;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::{Value, json};

use super::call::{Call, Policy, Retry};
use super::dialect::v2::conversations as v2;
use super::dialect::v3::conversations as v3;
use super::{Client, Error, Generation, Rejection};
use crate::domain::{Channel, ChannelId, ChannelRef, ChannelType, Uid};

pub(super) use rows::channel_of;
pub use rows::{Conversation, ConversationPage};

/// A walk ends at this many rows.
const MAX_WALK_ROWS: usize = 2000;
/// Rows of a page on v2.
const V2_PAGE_ROWS: usize = 100;
/// Pages of a walk on v2 that are asked for at the same time.
const V2_PAGES_AT_ONCE: usize = 2;
/// The size of a page that is too large is divided by this; it divides both generations' pages down to one row.
const SHRINK: usize = 10;
/// Pages of a walk on v3, most of which may be empty: groups without messages and left ones count as candidates.
const MAX_V3_PAGES: usize = 100;
/// Decoded payloads of a page, per row: base64, and the fields.
const ROW_OVERHEAD: usize = 2 * 1024;
/// Minimum limit of a page: one message of the largest size that v2 stores.
const MIN_PAGE_BYTES: usize = 2 * 1024 * 1024;

/// How far a conversation's user has read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadPointer {
    /// As [`Conversation::last_seq`].
    pub last_seq: u64,
    /// As [`Conversation::unread`].
    pub unread: u64,
    /// As [`Conversation::read_to`].
    pub read_to: u64,
}

/// The limit of an answer with this many rows whose payloads together have `payload_bytes`.
fn max_bytes(rows: usize, payload_bytes: usize) -> usize {
    (payload_bytes / 3 * 4 + rows * ROW_OVERHEAD).max(MIN_PAGE_BYTES)
}

impl Client {
    /// Passes all of the user's conversations to `take`, page by page; a row may come twice, and then the later one is newer. Pages whose
    /// payloads have more than about `payload_bytes` are asked for in parts. Returns whether these are all: `false` where WuKongIM cut
    /// (v2 keeps 1,000 rows) or the walk ended after 2,000.
    ///
    /// # Errors
    /// Where any page fails: never a shorter list.
    pub async fn walk_conversations(
        &self,
        user: &Uid,
        payload_bytes: usize,
        take: impl FnMut(ConversationPage) + Send,
    ) -> Result<bool, Error> {
        match self.generation().await? {
            Generation::V3 => self.walk_v3(user, payload_bytes, take).await,
            Generation::V2 if self.is_token_cluster().await? => {
                self.walk_by_hand(user, payload_bytes, take).await
            }
            Generation::V2 => self.walk_v2(user, payload_bytes, take).await,
        }
    }

    /// v2's list of the user's channels.
    async fn channel_ids(&self, user: &Uid) -> Result<Vec<(String, u8)>, Error> {
        let policy = Policy::read("conversation_ids");
        let ids = self.on_node(policy, |node| v2::channel_ids(node, user));
        ids.await
    }

    /// Whether v2 has a row of the group among the user's newest 1,000 conversations, a hidden one or one without messages as well.
    pub async fn has_row(&self, user: &Uid, group: &ChannelId) -> Result<bool, Error> {
        let ids = self.channel_ids(user).await?;
        let is_it = |(id, number): &(String, u8)| {
            id == group.as_str() && *number == ChannelType::Group.number()
        };
        Ok(ids.iter().any(is_it))
    }

    async fn walk_v2(
        &self,
        user: &Uid,
        payload_bytes: usize,
        mut take: impl FnMut(ConversationPage) + Send,
    ) -> Result<bool, Error> {
        let page = async |offset: usize| {
            let mut size = V2_PAGE_ROWS;
            // A smaller page begins at the same row only where its size divides the offset.
            while !offset.is_multiple_of(size) {
                size /= SHRINK;
            }
            loop {
                let max_bytes = max_bytes(size, payload_bytes);
                let page = self.on_node(Policy::read("conversation_sync"), |node| {
                    v2::page(node, user, offset, size, max_bytes)
                });
                match page.await {
                    Err(Error::TooLarge { .. }) if size > 1 => size /= SHRINK,
                    page => return page.map(|page| (page, size)),
                }
            }
        };
        let (ids, (first, size)) = tokio::try_join!(self.channel_ids(user), page(0))?;
        // Rows that are hidden or empty count as well, so that this many are covered.
        let count = ids.len();
        let walked = count.min(MAX_WALK_ROWS);
        let begin = size.max(first.received);
        take(first);
        if begin < walked {
            // The pages from `first` on, up to the next whole page.
            let part = async |first: usize| {
                let (mut pages, mut offset) = (Vec::new(), first);
                let end = (first / V2_PAGE_ROWS + 1) * V2_PAGE_ROWS;
                while offset < end.min(walked) {
                    let (page, size) = page(offset).await?;
                    offset += size;
                    pages.push(page);
                }
                Ok::<_, Error>(pages)
            };
            let whole = (0..walked).step_by(V2_PAGE_ROWS);
            let parts = iter::once(begin).chain(whole.filter(|first| *first > begin));
            let mut parts = stream::iter(parts.map(part)).buffered(V2_PAGES_AT_ONCE);
            while let Some(pages) = parts.try_next().await? {
                pages.into_iter().for_each(&mut take);
            }
            // A read moves a row to the first page.
            take(page(0).await?.0);
        }
        Ok(count < v2::MAX_ROWS)
    }

    async fn walk_v3(
        &self,
        user: &Uid,
        payload_bytes: usize,
        mut take: impl FnMut(ConversationPage) + Send,
    ) -> Result<bool, Error> {
        let (mut cursor, mut size) = (String::new(), v3::MAX_PAGE_ROWS);
        let (mut rows, mut complete) = (0, true);
        for _ in 0..MAX_V3_PAGES {
            let max_bytes = max_bytes(size, payload_bytes);
            let (from, limit) = (&*cursor, size);
            let page = self.on_node(Policy::read("conversation_list"), |node| {
                v3::page(node, user, from, limit, max_bytes)
            });
            let v3::Page { page, next } = match page.await {
                Err(Error::TooLarge { .. }) if size > 1 => {
                    size = (size / SHRINK).max(1);
                    continue;
                }
                page => page?,
            };
            size = v3::MAX_PAGE_ROWS;
            rows += page.received;
            complete &= !page.is_partial;
            take(page);
            match next {
                None => return Ok(complete),
                Some(_) if rows >= MAX_WALK_ROWS => break,
                Some(next) => cursor = next,
            }
        }
        Ok(false)
    }

    /// These conversations of the user, in no order; those that WuKongIM does not know are left out. The channels must come from a walk,
    /// or be ones that the user may read: v2 does not check that.
    ///
    /// # Errors
    /// [`Error::TooLarge`] where their payloads have more than about `payload_bytes`: ask for fewer.
    pub async fn conversations(
        &self,
        user: &Uid,
        channels: &[ChannelRef<'_>],
        payload_bytes: usize,
    ) -> Result<ConversationPage, Error> {
        let max_bytes = max_bytes(channels.len(), payload_bytes);
        let generation = self.generation().await?;
        if generation == Generation::V2 && self.is_token_cluster().await? {
            let pointers = self.pointers(user).await?;
            let page = self.by_hand(user, channels, &pointers, payload_bytes).await;
            return page.map(ConversationPage::shrunk);
        }
        let page = self.on_node(Policy::read("conversation_channels"), |node| async move {
            let page = match generation {
                Generation::V2 => v2::of_channels(node, user, channels, max_bytes).await,
                Generation::V3 => v3::of_channels(node, user, channels, max_bytes).await,
            };
            page.map(ConversationPage::shrunk)
        });
        page.await
    }

    /// How far the user has read a conversation, which the user may read; `None` where it has no messages, or on v3 where it is not the
    /// user's. Creates no log on v2.
    ///
    /// # Errors
    /// [`Rejection::RetryRequired`] where v3 cannot resolve it now.
    pub async fn conversation(
        &self,
        user: &Uid,
        channel: &Channel,
    ) -> Result<Option<ReadPointer>, Error> {
        if self.generation().await? == Generation::V2
            && self.logs.entry(user, channel).seen.is_none()
        {
            let has_no_log = self.on_node(Policy::read("max_message_seq"), |node| {
                Box::pin(self.has_no_log(node, user, channel))
            });
            if has_no_log.await? {
                return Ok(None);
            }
        }
        if self.is_unknown_pair(user, channel).await? {
            return Ok(None);
        }
        let asked = [channel.borrowed()];
        let page = self.conversations(user, &asked, 0);
        let page = page.await?;
        let is_it = |row: &Conversation<'_>| row.channel == channel.borrowed() && row.last_seq > 0;
        match page.iter().filter(is_it).last() {
            None if page.is_partial => Err(Error::Rejected(Rejection::RetryRequired)),
            row => Ok(row.map(|row| ReadPointer {
                last_seq: row.last_seq,
                unread: row.unread,
                read_to: row.read_to(),
            })),
        }
    }

    /// Whether WuKongIM cannot have such a pair: v3 has none of a user with itself.
    async fn is_unknown_pair(&self, user: &Uid, channel: &Channel) -> Result<bool, Error> {
        let is_self = matches!(channel, Channel::Person(peer) if peer == user);
        Ok(is_self && self.generation().await? == Generation::V3)
    }

    /// Marks as read all but the newest `unread` messages, which must be fewer than there are; never backwards.
    ///
    /// # Errors
    /// [`Rejection::NotFound`] on v3 where the user has no such conversation.
    pub async fn set_unread(
        &self,
        user: &Uid,
        channel: &Channel,
        unread: u64,
    ) -> Result<(), Error> {
        let (name, path) = match unread {
            0 => ("conversation_clear", "/conversations/clearUnread"),
            _ => ("conversation_unread", "/conversations/setUnread"),
        };
        let mut body = of_channel(user, channel);
        if unread > 0 {
            body["unread"] = unread.into();
        }
        let policy = Policy::of(name, Retry::IfLost);
        self.post_command_by(policy, path, &body).await
    }

    /// Hides the conversation from its user until the next message; on v3 the user's own history up to here is gone.
    ///
    /// # Errors
    /// As [`Self::set_unread`].
    pub async fn delete_conversation(&self, user: &Uid, channel: &Channel) -> Result<(), Error> {
        if self.is_unknown_pair(user, channel).await? {
            return Ok(());
        }
        let policy = Policy::of("conversation_delete", Retry::IfLost);
        let body = of_channel(user, channel);
        self.post_command_by(policy, "/conversations/delete", &body)
            .await
    }

    /// Sends the command `name` with these parameters to all devices of the user that are connected; it is not stored. The gateway's own
    /// alone: no text of a client becomes a command.
    ///
    /// A send to a list of uids without a channel is the only one that reaches clients on both generations. v3 keeps a record of each
    /// distinct list for ever, and takes half a second for its first one (both seen): one uid, one record.
    pub async fn send_command(&self, user: &Uid, name: &str, param: &Value) -> Result<(), Error> {
        // 99: what the SDKs pass to their command listeners.
        let payload = json!({"type": 99, "cmd": name, "param": param}).to_string();
        let body = json!({
            "header": {"no_persist": 1, "sync_once": 1},
            "from_uid": user.as_str(),
            "subscribers": [user.as_str()],
            "payload": STANDARD.encode(payload),
        });
        let body = &body;
        let generation = self.generation().await?;
        let policy = Policy::write("command_send");
        let sent = self.on_node(policy, |node| async move {
            let call = Call::post("command_send", "/message/send", body);
            let answer = node.call(call).await?;
            match generation {
                Generation::V2 => super::dialect::v2::command_result(&answer),
                Generation::V3 => v3::command_sent(&answer),
            }
        });
        sent.await
    }
}

fn of_channel(user: &Uid, channel: &Channel) -> Value {
    json!({
        "uid": user.as_str(),
        "channel_id": channel.id(),
        "channel_type": channel.channel_type().number(),
    })
}
