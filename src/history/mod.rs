//! Reading histories: pages that skip nothing, repeat nothing and are bounded in bytes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::authorization::{Authorization, Denial};
use crate::config;
use crate::domain::{Channel, ConversationKey, Message, Uid, caps};
use crate::limits::channel_limiter::ChannelLimiter;
use crate::messages::Messages;
use crate::wukongim::{Client, Error, Page, Rejection, Window};

/// Bytes of one message besides its payload in an upstream answer.
const MESSAGE_OVERHEAD: usize = 2 * 1024;
/// Minimum limit of an upstream answer: v2 stores payloads of up to 1,024,000 bytes sent over its sockets.
const MIN_PAGE_BYTES: usize = 2 * 1024 * 1024;
/// Maximum upstream pages read for one answer.
const MAX_PAGES: usize = 256;
/// After so many consecutive pages without a message of this channel, the log is taken for that of another channel with the same hash. v2
/// stores the messages of only one of the two (seen), so reading on would find nothing.
const MAX_FOREIGN_PAGES: usize = 16;
/// The largest page size, reached over pages without a message of this channel.
const MAX_PAGE_SIZE: usize = 1000;
/// How long after an acknowledged send v3 may not know a new conversation (0.3–0.5 s; seen on a running server).
const FRESH_WINDOW: Duration = Duration::from_secs(1);
const FRESH_RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Which messages are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    /// The newest.
    Newest,
    /// Those just above this seq.
    After(u64),
    /// Those just below this seq, which is 1 or more.
    Before(u64),
}

/// A part of a history, oldest first.
#[derive(Debug, Default)]
pub struct Excerpt {
    /// The messages.
    pub messages: Vec<Message>,
    /// Whether there are more in the requested direction.
    pub has_more: bool,
}

/// Why a history cannot be read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReadError {
    /// The reader is not permitted.
    #[error(transparent)]
    Denied(#[from] Denial),
    /// WuKongIM did not answer.
    #[error(transparent)]
    Upstream(Error),
}

/// Reads histories. Shared by all requests.
pub struct History {
    client: Arc<Client>,
    authorization: Arc<Authorization>,
    messages: Arc<Messages>,
    channel_limiter: Arc<ChannelLimiter>,
    /// Decoded payload bytes of one answer.
    budget: usize,
    /// The largest payload that comes in through the gateway.
    payload_limit: usize,
}

impl History {
    /// A reader of histories.
    pub fn new(
        client: Arc<Client>,
        authorization: Arc<Authorization>,
        messages: Arc<Messages>,
        channel_limiter: Arc<ChannelLimiter>,
        limits: &config::Limits,
    ) -> Self {
        let payload_limit = limits.payload.min(caps::PAYLOAD_BYTES);
        Self {
            client,
            authorization,
            messages,
            channel_limiter,
            budget: limits.sync_bytes,
            payload_limit,
        }
    }

    /// At most `limit` (1 or more) messages of `channel` as `reader` sees it.
    pub async fn read(
        &self,
        reader: &Uid,
        channel: &Channel,
        position: Position,
        limit: usize,
    ) -> Result<Excerpt, ReadError> {
        let conversation = ConversationKey::of(reader, channel);
        let Some(_permit) = self.channel_limiter.try_acquire(&conversation) else {
            return Err(ReadError::Upstream(Error::Busy));
        };
        self.authorization.may_read(reader, channel).await?;
        let acknowledged_ago = || self.messages.acknowledged_ago(&conversation);
        loop {
            let mut read = HistoryRead {
                history: self,
                reader,
                channel,
                limit,
                pages_left: MAX_PAGES,
                foreign_pages: 0,
                // As many messages as certainly fit if all have the maximum size.
                page_size: (self.budget / self.payload_limit).clamp(1, limit + 1),
                messages: VecDeque::new(),
                bytes: 0,
                has_more: false,
            };
            let result = match position {
                Position::Newest => read.newest_below(u64::MAX).await,
                Position::After(seq) => read.upwards(seq).await,
                Position::Before(seq) => read.downwards(seq).await,
            };
            match result {
                Ok(()) => {
                    return Ok(Excerpt {
                        messages: read.messages.into(),
                        has_more: read.has_more,
                    });
                }
                Err(Error::Rejected(Rejection::MembershipRequired))
                    if acknowledged_ago().is_some_and(|ago| ago < FRESH_WINDOW) =>
                {
                    tokio::time::sleep(FRESH_RETRY_PAUSE).await;
                }
                Err(error) => {
                    let refusal = self.authorization.explain_read_refusal(channel, &error);
                    return match refusal.await {
                        None => Ok(Excerpt::default()),
                        Some(Denial::Upstream(error)) => Err(ReadError::Upstream(error)),
                        Some(denial) => Err(denial.into()),
                    };
                }
            }
        }
    }
}

/// One read in progress, and what it has collected: one further message shows that more remain.
struct HistoryRead<'a> {
    history: &'a History,
    reader: &'a Uid,
    channel: &'a Channel,
    limit: usize,
    /// Upstream pages that may still be read.
    pages_left: usize,
    /// Consecutive pages without a message of this channel.
    foreign_pages: usize,
    /// Messages to request next.
    page_size: usize,
    messages: VecDeque<Message>,
    /// Their decoded payloads.
    bytes: usize,
    has_more: bool,
}

impl HistoryRead<'_> {
    async fn downwards(&mut self, before: u64) -> Result<(), Error> {
        if self.read_down(before).await? {
            return Ok(());
        }
        // Nothing just below: the position is above the newest message, or below all that this reader may see.
        self.newest_below(before).await
    }

    /// Reads downwards from the newest message, if that is below `before`.
    async fn newest_below(&mut self, before: u64) -> Result<(), Error> {
        let page = self.newest_page().await?;
        if let Some((low, high)) = page.seq_range
            && high < before
            && self.push_older(page)
        {
            self.read_down(low).await?;
        }
        Ok(())
    }

    /// Reads downwards from just below `low` until the limits are reached; false when the first page was empty.
    ///
    /// Uses upward pages that end where the last one began: on v2, downward pages from above the newest message are empty.
    async fn read_down(&mut self, mut low: u64) -> Result<bool, Error> {
        let mut first = true;
        while low > 1 && !self.ends_early() {
            let from = low.saturating_sub(self.page_size as u64).max(1);
            let until = Some(low);
            let Some(page) = self.page(Window::Up { from, until }).await? else {
                continue;
            };
            if page.received == 0 {
                // Seqs have no gaps, except before the first message that v3 shows to a member.
                return Ok(!first);
            }
            first = false;
            low = from;
            if !self.push_older(page) {
                break;
            }
        }
        Ok(true)
    }

    async fn upwards(&mut self, after: u64) -> Result<(), Error> {
        let mut from = after.saturating_add(1);
        while !self.ends_early() {
            let requested = self.page_size;
            let Some(page) = self.page(Window::Up { from, until: None }).await? else {
                continue;
            };
            let Some((_, high)) = page.seq_range else {
                break;
            };
            let last = page.received < requested;
            self.messages.reserve(page.messages.len());
            for message in page.messages {
                if !self.push(message, false) {
                    return Ok(());
                }
            }
            if last {
                break;
            }
            from = high.saturating_add(1);
            self.adapt_page_size();
        }
        Ok(())
    }

    /// Whether reading ends before the end of the log. The client can continue from the last message, if there is one.
    fn ends_early(&mut self) -> bool {
        let ends = self.pages_left == 0 || self.foreign_pages >= MAX_FOREIGN_PAGES;
        if ends {
            self.has_more = !self.messages.is_empty();
        }
        ends
    }

    /// Adds the messages of a page, which are older than all before; false when one does not fit.
    fn push_older(&mut self, page: Page) -> bool {
        self.messages.reserve(page.messages.len());
        for message in page.messages.into_iter().rev() {
            if !self.push(message, true) {
                return false;
            }
        }
        self.adapt_page_size();
        true
    }

    /// Adds one message at the far end; false when it does not fit.
    fn push(&mut self, message: Message, at_front: bool) -> bool {
        let bytes = self.bytes + message.payload_bytes();
        let is_full = self.messages.len() >= self.limit;
        if is_full || (!self.messages.is_empty() && bytes > self.history.budget) {
            self.has_more = true;
            return false;
        }
        self.bytes = bytes;
        if at_front {
            self.messages.push_front(message);
        } else {
            self.messages.push_back(message);
        }
        true
    }

    async fn newest_page(&mut self) -> Result<Page, Error> {
        loop {
            if let Some(page) = self.page(Window::Newest).await? {
                return Ok(page);
            }
        }
    }

    /// One upstream page; `None` where it was too large, after the page size was reduced.
    async fn page(&mut self, window: Window) -> Result<Option<Page>, Error> {
        self.pages_left = self.pages_left.saturating_sub(1);
        let size = self.page_size;
        let rest = self.history.budget.saturating_sub(self.bytes);
        let max_bytes = (rest / 3 * 4 + size * MESSAGE_OVERHEAD).max(MIN_PAGE_BYTES);
        let client = &self.history.client;
        let page = client.page(self.reader, self.channel, window, size, max_bytes);
        let page = match page.await {
            Err(Error::TooLarge { .. }) if size > 1 && self.pages_left > 0 => {
                self.page_size = (size / 4).max(1);
                return Ok(None);
            }
            page => page?,
        };
        if page.received > 0 && page.messages.is_empty() {
            self.foreign_pages += 1;
            self.page_size = (size * 2).min(MAX_PAGE_SIZE);
        } else {
            self.foreign_pages = 0;
        }
        Ok(Some(page))
    }

    /// Sets the page size to what is still needed and will fit, by the average size so far.
    fn adapt_page_size(&mut self) {
        let seen = self.messages.len();
        if let Some(average) = self.bytes.checked_div(seen) {
            let wanted = (self.limit + 1).saturating_sub(seen).max(1);
            let rest = self.history.budget.saturating_sub(self.bytes);
            self.page_size = wanted.min(rest / average.max(64) + 1);
        }
    }
}
