//! What reading means: pages of a channel's history that skip nothing, repeat nothing and hold a bounded number of bytes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::authorization::{Authorization, Denial};
use crate::config;
use crate::crowd::Crowd;
use crate::domain::{Channel, ConversationKey, Message, Uid, caps};
use crate::messages::Messages;
use crate::wukongim::{Client, Error, Generation, Page, Rejection, Window};

/// What one message may need besides its payload in an upstream answer.
const MESSAGE_OVERHEAD: usize = 2 * 1024;
/// The least an answer may have: v2 stores payloads of up to 1,024,000 bytes that came over its sockets.
const LEAST_BYTES: usize = 2 * 1024 * 1024;
/// Upstream pages read for one answer at the most.
const MOST_STEPS: usize = 256;
/// Pages in a row that hold nothing of this channel, after which the log is another channel's with the same hash. v2 stores the
/// messages of one of the two alone (seen), so nothing is missed that could be reached by reading on.
const MOST_FOREIGN: usize = 16;
/// The largest step, to which it grows over pages that hold nothing of this channel.
const LONGEST_STEP: usize = 1000;
/// For how long after an acknowledged send v3 may not know the pair (0.3–0.5 s; seen on a running server).
const FRESH: Duration = Duration::from_secs(1);
const FRESH_PAUSE: Duration = Duration::from_millis(100);

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

/// An answer: oldest first.
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
    /// The reader may not.
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
    crowd: Arc<Crowd>,
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
        crowd: Arc<Crowd>,
        limits: &config::Limits,
    ) -> Self {
        let payload_limit = limits.payload.min(caps::PAYLOAD_BYTES);
        Self {
            client,
            authorization,
            messages,
            crowd,
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
        let Some(_place) = self.crowd.enter(&conversation) else {
            return Err(ReadError::Upstream(Error::Busy));
        };
        let permitted_by = self.authorization.may_read(reader, channel).await?;
        loop {
            let mut walk = Walk {
                history: self,
                permitted_by,
                reader,
                channel,
                left: MOST_STEPS,
                foreign: 0,
                step: self.first_step(limit),
            };
            let result = match position {
                Position::Newest => walk.newest(limit).await,
                Position::After(seq) => walk.upwards(seq, limit).await,
                Position::Before(seq) => walk.downwards(seq, limit).await,
            };
            match result {
                Ok(excerpt) => return Ok(excerpt),
                Err(Error::Rejected(Rejection::MembershipRequired))
                    if self.is_fresh(&conversation) =>
                {
                    tokio::time::sleep(FRESH_PAUSE).await;
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
            .is_some_and(|ago| ago < FRESH)
    }

    /// As many messages as are sure to fit if all of them are as large as the gateway allows.
    fn first_step(&self, limit: usize) -> usize {
        (self.budget / self.payload_limit).clamp(1, limit + 1)
    }
}

/// One answer in the making.
struct Walk<'a> {
    history: &'a History,
    /// The generation that may be asked.
    permitted_by: Generation,
    reader: &'a Uid,
    channel: &'a Channel,
    /// Upstream pages that may still be read.
    left: usize,
    /// The last pages in a row that held nothing of this channel.
    foreign: usize,
    /// Messages to ask for next.
    step: usize,
}

/// What is gathered, and when it is enough: one message more than wanted shows that more remain.
struct Gathered {
    messages: VecDeque<Message>,
    bytes: usize,
    limit: usize,
    budget: usize,
    has_more: bool,
}

impl Gathered {
    fn new(limit: usize, budget: usize) -> Self {
        Self {
            messages: VecDeque::new(),
            bytes: 0,
            limit,
            budget,
            has_more: false,
        }
    }

    /// Takes one message at the far end; false when it does not fit any more.
    fn take(&mut self, message: Message, at_front: bool) -> bool {
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

    /// Reading ends before the log does. Who has something to go on from can go on.
    fn break_off(&mut self) {
        self.has_more = !self.messages.is_empty();
    }

    fn into_excerpt(self) -> Excerpt {
        Excerpt {
            messages: self.messages.into(),
            has_more: self.has_more,
        }
    }
}

impl Walk<'_> {
    async fn newest(&mut self, limit: usize) -> Result<Excerpt, Error> {
        let mut gathered = Gathered::new(limit, self.history.budget);
        let page = self.newest_page(&gathered).await?;
        let Some((low, _)) = page.span else {
            return Ok(Excerpt::default());
        };
        if self.take_down(&mut gathered, page) {
            self.descend(&mut gathered, low).await?;
        }
        Ok(gathered.into_excerpt())
    }

    async fn downwards(&mut self, before: u64, limit: usize) -> Result<Excerpt, Error> {
        let mut gathered = Gathered::new(limit, self.history.budget);
        if !self.descend(&mut gathered, before).await? {
            // Nothing just below: it lies beyond the newest message, or below all that this reader may see.
            let page = self.newest_page(&gathered).await?;
            let Some((low, high)) = page.span else {
                return Ok(Excerpt::default());
            };
            if high < before && self.take_down(&mut gathered, page) {
                self.descend(&mut gathered, low).await?;
            }
        }
        Ok(gathered.into_excerpt())
    }

    /// Reads downwards from just below `low` until it is enough; false when the very first page was empty.
    ///
    /// By upward pages that end where the last one began: downward pages give nothing on v2 from beyond the newest message.
    async fn descend(&mut self, gathered: &mut Gathered, mut low: u64) -> Result<bool, Error> {
        let mut first = true;
        while low > 1 {
            if self.is_exhausted() {
                gathered.break_off();
                break;
            }
            let from = low.saturating_sub(self.step as u64).max(1);
            let Some(page) = self
                .page(
                    Window::Up {
                        from,
                        until: Some(low),
                    },
                    gathered,
                )
                .await?
            else {
                continue;
            };
            if page.received == 0 {
                // Seqs have no gaps but at the beginning of what v3 shows a member.
                return Ok(!first);
            }
            first = false;
            low = from;
            if !self.take_down(gathered, page) {
                break;
            }
        }
        Ok(true)
    }

    fn take_down(&mut self, gathered: &mut Gathered, page: Page) -> bool {
        gathered.messages.reserve(page.messages.len());
        for message in page.messages.into_iter().rev() {
            if !gathered.take(message, true) {
                return false;
            }
        }
        self.adapt(gathered);
        true
    }

    async fn upwards(&mut self, after: u64, limit: usize) -> Result<Excerpt, Error> {
        let mut gathered = Gathered::new(limit, self.history.budget);
        let mut from = after.saturating_add(1);
        loop {
            if self.is_exhausted() {
                gathered.break_off();
                break;
            }
            let asked = self.step;
            let Some(page) = self
                .page(Window::Up { from, until: None }, &gathered)
                .await?
            else {
                continue;
            };
            let Some((_, high)) = page.span else { break };
            let last = page.received < asked;
            gathered.messages.reserve(page.messages.len());
            for message in page.messages {
                if !gathered.take(message, false) {
                    return Ok(gathered.into_excerpt());
                }
            }
            if last {
                break;
            }
            from = high.saturating_add(1);
            self.adapt(&gathered);
        }
        Ok(gathered.into_excerpt())
    }

    /// One upstream page; `None` where it was too large and the step is smaller now: ask again.
    async fn page(&mut self, window: Window, gathered: &Gathered) -> Result<Option<Page>, Error> {
        self.left = self.left.saturating_sub(1);
        let rest = gathered.budget.saturating_sub(gathered.bytes);
        let max_bytes = (rest / 3 * 4 + self.step * MESSAGE_OVERHEAD).max(LEAST_BYTES);
        match self
            .history
            .client
            .permitted_page(
                self.permitted_by,
                self.reader,
                self.channel,
                window,
                self.step,
                max_bytes,
            )
            .await
        {
            Err(Error::TooLarge { .. }) if self.step > 1 && self.left > 0 => {
                self.step = (self.step / 4).max(1);
                Ok(None)
            }
            page => {
                let page = page?;
                if page.received > 0 && page.messages.is_empty() {
                    self.foreign += 1;
                    self.step = (self.step * 2).min(LONGEST_STEP);
                } else {
                    self.foreign = 0;
                }
                Ok(Some(page))
            }
        }
    }

    fn is_exhausted(&self) -> bool {
        self.left == 0 || self.foreign >= MOST_FOREIGN
    }

    async fn newest_page(&mut self, gathered: &Gathered) -> Result<Page, Error> {
        loop {
            if let Some(page) = self.page(Window::Newest, gathered).await? {
                return Ok(page);
            }
        }
    }

    /// Asks for as many messages next as are wanted and, going by those seen so far, will fit.
    fn adapt(&mut self, gathered: &Gathered) {
        let seen = gathered.messages.len();
        let wanted = (gathered.limit + 1).saturating_sub(seen).max(1);
        if let Some(average) = gathered.bytes.checked_div(seen) {
            let average = average.max(64);
            let fitting = gathered.budget.saturating_sub(gathered.bytes) / average + 1;
            self.step = wanted.min(fitting).max(1);
        }
    }
}
