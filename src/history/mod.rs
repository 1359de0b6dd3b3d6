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
    /// Whether more remain in the direction asked.
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
        loop {
            let mut read = HistoryRead {
                history: self,
                reader,
                channel,
                pages_left: MAX_PAGES,
                foreign_pages: 0,
                page_size: self.initial_page_size(limit),
            };
            let result = match position {
                Position::Newest => read.newest(limit).await,
                Position::After(seq) => read.upwards(seq, limit).await,
                Position::Before(seq) => read.downwards(seq, limit).await,
            };
            match result {
                Ok(excerpt) => return Ok(excerpt),
                Err(Error::Rejected(Rejection::MembershipRequired))
                    if self.is_fresh(&conversation) =>
                {
                    tokio::time::sleep(FRESH_RETRY_PAUSE).await;
                }
                Err(error) => match self
                    .authorization
                    .explain_read_refusal(channel, &error)
                    .await
                {
                    None => return Ok(Excerpt::default()),
                    Some(Denial::Upstream(error)) => return Err(ReadError::Upstream(error)),
                    Some(denial) => return Err(denial.into()),
                },
            }
        }
    }

    fn is_fresh(&self, conversation: &ConversationKey) -> bool {
        self.messages
            .acknowledged_ago(conversation)
            .is_some_and(|ago| ago < FRESH_WINDOW)
    }

    /// As many messages as certainly fit if all have the maximum size.
    fn initial_page_size(&self, limit: usize) -> usize {
        (self.budget / self.payload_limit).clamp(1, limit + 1)
    }
}

/// One read in progress.
struct HistoryRead<'a> {
    history: &'a History,
    reader: &'a Uid,
    channel: &'a Channel,
    /// Upstream pages that may still be read.
    pages_left: usize,
    /// Consecutive pages without a message of this channel.
    foreign_pages: usize,
    /// Messages to request next.
    page_size: usize,
}

/// Collects messages up to the limits; one further message shows that more remain.
struct ExcerptBuilder {
    messages: VecDeque<Message>,
    bytes: usize,
    limit: usize,
    budget: usize,
    has_more: bool,
}

impl ExcerptBuilder {
    fn new(limit: usize, budget: usize) -> Self {
        Self {
            messages: VecDeque::new(),
            bytes: 0,
            limit,
            budget,
            has_more: false,
        }
    }

    /// Adds one message at the far end; false when it does not fit.
    fn push(&mut self, message: Message, at_front: bool) -> bool {
        let bytes = message.payload_bytes();
        let full = self.messages.len() >= self.limit;
        if full || (!self.messages.is_empty() && self.bytes + bytes > self.budget) {
            self.has_more = true;
            return false;
        }
        self.bytes += bytes;
        if at_front {
            self.messages.push_front(message);
        } else {
            self.messages.push_back(message);
        }
        true
    }

    /// Reading ends before the end of the log. The client can continue from the last message, if there is one.
    fn stop_early(&mut self) {
        self.has_more = !self.messages.is_empty();
    }

    fn into_excerpt(self) -> Excerpt {
        Excerpt {
            messages: self.messages.into(),
            has_more: self.has_more,
        }
    }
}

impl HistoryRead<'_> {
    async fn newest(&mut self, limit: usize) -> Result<Excerpt, Error> {
        let mut excerpt = ExcerptBuilder::new(limit, self.history.budget);
        let page = self.newest_page(&excerpt).await?;
        let Some((low, _)) = page.seq_range else {
            return Ok(Excerpt::default());
        };
        if self.push_older(&mut excerpt, page) {
            self.read_down(&mut excerpt, low).await?;
        }
        Ok(excerpt.into_excerpt())
    }

    async fn downwards(&mut self, before: u64, limit: usize) -> Result<Excerpt, Error> {
        let mut excerpt = ExcerptBuilder::new(limit, self.history.budget);
        if !self.read_down(&mut excerpt, before).await? {
            // Nothing just below: the position is above the newest message, or below all that this reader may see.
            let page = self.newest_page(&excerpt).await?;
            let Some((low, high)) = page.seq_range else {
                return Ok(Excerpt::default());
            };
            if high < before && self.push_older(&mut excerpt, page) {
                self.read_down(&mut excerpt, low).await?;
            }
        }
        Ok(excerpt.into_excerpt())
    }

    /// Reads downwards from just below `low` until the limits are reached; false when the first page was empty.
    ///
    /// Uses upward pages that end where the last one began: on v2, downward pages from above the newest message are empty.
    async fn read_down(
        &mut self,
        excerpt: &mut ExcerptBuilder,
        mut low: u64,
    ) -> Result<bool, Error> {
        let mut first = true;
        while low > 1 {
            if self.is_exhausted() {
                excerpt.stop_early();
                break;
            }
            let from = low.saturating_sub(self.page_size as u64).max(1);
            let Some(page) = self
                .page(
                    Window::Up {
                        from,
                        until: Some(low),
                    },
                    excerpt,
                )
                .await?
            else {
                continue;
            };
            if page.received == 0 {
                // Seqs have no gaps, except before the first message that v3 shows to a member.
                return Ok(!first);
            }
            first = false;
            low = from;
            if !self.push_older(excerpt, page) {
                break;
            }
        }
        Ok(true)
    }

    fn push_older(&mut self, excerpt: &mut ExcerptBuilder, page: Page) -> bool {
        excerpt.messages.reserve(page.messages.len());
        for message in page.messages.into_iter().rev() {
            if !excerpt.push(message, true) {
                return false;
            }
        }
        self.adapt_page_size(excerpt);
        true
    }

    async fn upwards(&mut self, after: u64, limit: usize) -> Result<Excerpt, Error> {
        let mut excerpt = ExcerptBuilder::new(limit, self.history.budget);
        let mut from = after.saturating_add(1);
        loop {
            if self.is_exhausted() {
                excerpt.stop_early();
                break;
            }
            let asked = self.page_size;
            let Some(page) = self
                .page(Window::Up { from, until: None }, &excerpt)
                .await?
            else {
                continue;
            };
            let Some((_, high)) = page.seq_range else {
                break;
            };
            let last = page.received < asked;
            excerpt.messages.reserve(page.messages.len());
            for message in page.messages {
                if !excerpt.push(message, false) {
                    return Ok(excerpt.into_excerpt());
                }
            }
            if last {
                break;
            }
            from = high.saturating_add(1);
            self.adapt_page_size(&excerpt);
        }
        Ok(excerpt.into_excerpt())
    }

    /// One upstream page; `None` where it was too large, after the page size was reduced.
    async fn page(
        &mut self,
        window: Window,
        excerpt: &ExcerptBuilder,
    ) -> Result<Option<Page>, Error> {
        self.pages_left = self.pages_left.saturating_sub(1);
        let rest = excerpt.budget.saturating_sub(excerpt.bytes);
        let max_bytes = (rest / 3 * 4 + self.page_size * MESSAGE_OVERHEAD).max(MIN_PAGE_BYTES);
        match self
            .history
            .client
            .page(self.reader, self.channel, window, self.page_size, max_bytes)
            .await
        {
            Err(Error::TooLarge { .. }) if self.page_size > 1 && self.pages_left > 0 => {
                self.page_size = (self.page_size / 4).max(1);
                Ok(None)
            }
            page => {
                let page = page?;
                if page.received > 0 && page.messages.is_empty() {
                    self.foreign_pages += 1;
                    self.page_size = (self.page_size * 2).min(MAX_PAGE_SIZE);
                } else {
                    self.foreign_pages = 0;
                }
                Ok(Some(page))
            }
        }
    }

    fn is_exhausted(&self) -> bool {
        self.pages_left == 0 || self.foreign_pages >= MAX_FOREIGN_PAGES
    }

    async fn newest_page(&mut self, excerpt: &ExcerptBuilder) -> Result<Page, Error> {
        loop {
            if let Some(page) = self.page(Window::Newest, excerpt).await? {
                return Ok(page);
            }
        }
    }

    /// Sets the page size to what is still needed and will fit, by the average size so far.
    fn adapt_page_size(&mut self, excerpt: &ExcerptBuilder) {
        let seen = excerpt.messages.len();
        let wanted = (excerpt.limit + 1).saturating_sub(seen).max(1);
        if let Some(average) = excerpt.bytes.checked_div(seen) {
            let average = average.max(64);
            let fitting = excerpt.budget.saturating_sub(excerpt.bytes) / average + 1;
            self.page_size = wanted.min(fitting).max(1);
        }
    }
}
