//! Seeing a message stored (v2): the answer to a send proves nothing, only the message in its channel's log does.
//!
//! One look-up loop per channel serves all who wait on it. It reads upwards from the highest seq known, so no payload is read
//! twice; where nothing is known it begins with the newest page and works back until it has passed the time of the send. The
//! loop learns how long this WuKongIM takes to show a message (0.5 ms on a single node, 100–400 ms in a cluster; seen on running
//! servers) and times its looks by it. Not `/message/byclientmsgno` nor `/message`: they read elsewhere in a cluster and match
//! other people's messages.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::pace::{Look, Pace};
use super::unix_ms;
use crate::domain::{Channel, ClientMsgNo, ConversationKey, Message, MessageId, Uid};
use crate::telemetry::Metrics;
use crate::wukongim::{Client, Error, Page, Window, current_request_id, with_request_id};

/// Channels whose highest seq is remembered, some 200 bytes each.
const CHANNELS: usize = 50_000;
/// Messages read in one look.
const LOOK: usize = 64;
/// The largest answer to a look; a channel of larger messages is read in smaller steps.
const LOOK_BYTES: usize = 2 * 1024 * 1024;
/// How far two nodes' clocks may differ when a message's age is judged by its id.
pub(super) const CLOCK_SKEW_MS: u64 = 2000;
/// Pages read backwards at the most when a channel is looked at for the first time.
const BACK_PAGES: usize = 16;

/// What a waiter knows of its message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sought {
    /// WuKongIM's answer came: its id.
    Id(MessageId),
    /// The answer was lost: by sender and number, sent at this time (Unix milliseconds).
    Number {
        /// When it was sent.
        sent_ms: u64,
    },
}

/// See the module.
pub(super) struct Confirmer {
    client: Arc<Client>,
    watches: quick_cache::sync::Cache<ConversationKey, Arc<Watch>>,
    /// How long the upstream takes to show a message, in microseconds.
    delay_us: AtomicU64,
    timeout: Duration,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct Watch {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The highest seq seen, whatever it was.
    top: Option<u64>,
    /// How many sends are under way by their floor (0 for none): what looks pass over above the lowest is kept in `seen`.
    pending: BTreeMap<u64, usize>,
    seen: VecDeque<Seen>,
    waiters: Vec<Waiter>,
    looking: bool,
}

struct Seen {
    id: MessageId,
    seq: u64,
    from: Box<str>,
    number: Box<str>,
}

struct Waiter {
    sought: Sought,
    sender: Uid,
    number: ClientMsgNo,
    channel: Channel,
    since: Instant,
    found: oneshot::Sender<(MessageId, u64)>,
}

impl Waiter {
    /// Sender and number must be the very ones, byte for byte, in either case; the page has checked the channel. By number
    /// alone only what is as new as the send counts: a number may come back when its window has passed.
    fn is(&self, id: MessageId, from: &str, number: &str) -> bool {
        let own = from == self.sender.as_str() && number == self.number.as_str();
        own && match self.sought {
            Sought::Id(sought) => id == sought,
            Sought::Number { .. } => id.unix_ms() >= self.sent_ms(),
        }
    }

    /// The earliest time the message's id can have, in Unix milliseconds.
    fn sent_ms(&self) -> u64 {
        let ms = match self.sought {
            Sought::Id(id) => id.unix_ms(),
            Sought::Number { sent_ms } => sent_ms,
        };
        ms.saturating_sub(CLOCK_SKEW_MS)
    }
}

/// A send under way, registered before it left so that no look can pass over its message unnoticed.
pub(super) struct Pending {
    confirmer: Arc<Confirmer>,
    watch: Arc<Watch>,
    floor: Option<u64>,
}

impl Pending {
    /// The highest seq known in the channel before the send.
    pub(super) fn floor(&self) -> Option<u64> {
        self.floor
    }

    /// Waits until the message is seen stored; `None` when that did not happen in time.
    pub(super) async fn stored(
        &self,
        sought: Sought,
        sender: &Uid,
        channel: &Channel,
        number: &ClientMsgNo,
    ) -> Option<(MessageId, u64)> {
        let since = Instant::now();
        let (found, receiver) = oneshot::channel();
        let waiter = Waiter {
            sought,
            sender: sender.clone(),
            number: number.clone(),
            channel: channel.clone(),
            since,
            found,
        };
        let start = {
            let mut state = self.watch.state.lock();
            // Somebody else's look may have come by while the answer was on its way.
            if let Some(seen) = state
                .seen
                .iter()
                .find(|seen| waiter.is(seen.id, &seen.from, &seen.number))
            {
                return Some((seen.id, seen.seq));
            }
            state.waiters.push(waiter);
            !std::mem::replace(&mut state.looking, true)
        };
        if start {
            let work = self.confirmer.clone().look(self.watch.clone());
            // One look serves many requests; WuKongIM's log has the id of the one that began it.
            match current_request_id() {
                Some(id) => tokio::spawn(with_request_id(id, work)),
                None => tokio::spawn(work),
            };
        }
        let found = tokio::time::timeout(self.confirmer.timeout, receiver)
            .await
            .ok()?
            .ok()?;
        self.confirmer
            .metrics
            .confirm_seconds
            .observe(since.elapsed().as_secs_f64());
        Some(found)
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        let mut state = self.watch.state.lock();
        let floor = self.floor.unwrap_or(0);
        if let Some(count) = state.pending.get_mut(&floor) {
            *count -= 1;
            if *count == 0 {
                state.pending.remove(&floor);
            }
        }
        match state.pending.first_key_value().map(|(lowest, _)| *lowest) {
            None => state.seen = VecDeque::new(),
            Some(lowest) => {
                while state.seen.front().is_some_and(|seen| seen.seq <= lowest) {
                    state.seen.pop_front();
                }
            }
        }
    }
}

impl Confirmer {
    pub(super) fn new(client: Arc<Client>, timeout: Duration, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            client,
            watches: quick_cache::sync::Cache::new(CHANNELS),
            delay_us: AtomicU64::new(0),
            timeout,
            metrics,
        })
    }

    /// Registers a send that is about to leave.
    pub(super) fn expect(self: &Arc<Self>, conversation: &ConversationKey) -> Pending {
        let watch = match self.watches.get(conversation) {
            Some(watch) => watch,
            None => self
                .watches
                .get_or_insert_with(conversation, || {
                    Ok::<_, std::convert::Infallible>(Arc::default())
                })
                .unwrap_or_default(),
        };
        let floor = {
            let mut state = watch.state.lock();
            let top = state.top;
            *state.pending.entry(top.unwrap_or(0)).or_default() += 1;
            top
        };
        Pending {
            confirmer: self.clone(),
            watch,
            floor,
        }
    }

    /// Looks until nobody waits any more. Everything it holds is dropped with the last waiter.
    async fn look(self: Arc<Self>, watch: Arc<Watch>) {
        let mut pace = Pace::new(self.delay());
        let mut step = LOOK;
        // When the last look began that read all there was.
        let mut earlier = None;
        let mut doubted = false;
        loop {
            let Some(next) = Next::of(&watch) else { return };
            pace.pause(next.newest).await;
            if !doubted && next.top.is_some() && next.oldest.elapsed() > self.timeout / 2 {
                // Nearly too late: WuKongIM may have lost the channel and count from 1 again.
                doubted = true;
                if self.is_below_top(&next).await {
                    watch.state.lock().top = None;
                    continue;
                }
            }
            let started = Instant::now();
            let window = match next.top {
                Some(top) => Window::Up {
                    from: top + 1,
                    until: None,
                },
                None => Window::Newest,
            };
            let page = match self.page(&next, window, step).await {
                Ok(page) => page,
                Err(Error::TooLarge { .. }) if step > 1 => {
                    step = (step / 4).max(1);
                    continue;
                }
                Err(_) => {
                    pace.missed();
                    continue;
                }
            };
            let full = page.received >= step;
            let lowest = page.span.map_or(0, |(low, _)| low);
            let newest_ms = page.messages.last().map(|message| message.id.unix_ms());
            let oldest_ms = page.messages.first().map(|message| message.id.unix_ms());
            let found = self.note(&watch, &page, Some(Look { earlier, started }));
            if !full {
                earlier = Some(started);
            }
            if next.top.is_none() && full && oldest_ms.is_none_or(|ms| ms >= next.earliest_ms) {
                // A busy channel, looked at for the first time: the message may lie below the newest page.
                self.look_back(&watch, &next, lowest, step).await;
            } else if next.top.is_some()
                && full
                && newest_ms.is_some_and(|ms| ms < next.earliest_ms)
            {
                // Much was written since this channel was last looked at: not worth reading, begin with the newest.
                watch.state.lock().top = None;
            }
            if found {
                doubted = false;
                pace = Pace::new(self.delay());
            } else if !full {
                pace.missed();
            }
        }
    }

    /// Whether the channel's newest message lies below what was seen of it before.
    async fn is_below_top(&self, next: &Next) -> bool {
        let newest = self.page(next, Window::Newest, 1).await;
        newest.is_ok_and(|page| page.span.map(|(_, high)| high) < next.top)
    }

    async fn look_back(&self, watch: &Watch, next: &Next, mut low: u64, mut step: usize) {
        for _ in 0..BACK_PAGES {
            if low <= 1 {
                return;
            }
            let from = low.saturating_sub(step as u64).max(1);
            let window = Window::Up {
                from,
                until: Some(low),
            };
            let page = match self.page(next, window, step).await {
                Ok(page) => page,
                Err(Error::TooLarge { .. }) if step > 1 => {
                    step = (step / 4).max(1);
                    continue;
                }
                Err(_) => {
                    // What lies below was not read: the next look begins with the newest page again.
                    watch.state.lock().top = None;
                    return;
                }
            };
            let passed = page
                .messages
                .first()
                .is_none_or(|message| message.id.unix_ms() < next.earliest_ms);
            // Found here, it says nothing of how long it took to appear.
            self.note(watch, &page, None);
            if passed {
                return;
            }
            low = from;
        }
    }

    async fn page(&self, next: &Next, window: Window, limit: usize) -> Result<Page, Error> {
        self.metrics.confirm_looks.inc();
        // A single message may be larger than the budget of a page of many.
        let max_bytes = if limit == 1 {
            2 * LOOK_BYTES
        } else {
            LOOK_BYTES
        };
        self.client
            .page(&next.reader, &next.channel, window, limit, max_bytes)
            .await
    }

    /// Tells the waiters whose messages are in the page, and remembers what may be somebody's who does not wait yet.
    fn note(&self, watch: &Watch, page: &Page, look: Option<Look>) -> bool {
        let mut state = watch.state.lock();
        let mut found = false;
        for message in &page.messages {
            let Message {
                id,
                seq,
                from_uid,
                client_msg_no,
                ..
            } = message;
            let mut taken = false;
            // A waiter who has given up may stand before the one who sent the same number again.
            while !taken
                && let Some(place) = state
                    .waiters
                    .iter()
                    .position(|waiter| waiter.is(*id, from_uid, client_msg_no))
            {
                let waiter = state.waiters.swap_remove(place);
                taken = waiter.found.send((*id, *seq)).is_ok();
                if taken && let Some(look) = look {
                    self.learn(look.delay_of(waiter.since));
                }
            }
            found |= taken;
            if !taken && !state.pending.is_empty() {
                let seen = Seen {
                    id: *id,
                    seq: *seq,
                    from: from_uid.clone(),
                    number: client_msg_no.clone(),
                };
                state.seen.push_back(seen);
            }
        }
        if let Some((_, high)) = page.span {
            state.top = Some(state.top.map_or(high, |top| top.max(high)));
        }
        found
    }

    fn delay(&self) -> Duration {
        Duration::from_micros(self.delay_us.load(Ordering::Relaxed))
    }

    /// An average that forgets: a quarter of it is the newest sample. Lost updates between threads do no harm.
    fn learn(&self, sample: Duration) {
        let sample = u64::try_from(sample.as_micros())
            .unwrap_or(u64::MAX)
            .min(10_000_000);
        let known = self.delay_us.load(Ordering::Relaxed);
        self.delay_us
            .store(known - known / 4 + sample / 4, Ordering::Relaxed);
    }
}

/// What the next look is for.
struct Next {
    reader: Uid,
    channel: Channel,
    top: Option<u64>,
    /// Since when the newest waiter has waited.
    newest: Instant,
    /// Since when the oldest one has.
    oldest: Instant,
    /// The earliest time any sought message can have been given its id.
    earliest_ms: u64,
}

impl Next {
    /// `None` where nobody waits: the loop ends, and the next waiter starts another.
    fn of(watch: &Watch) -> Option<Self> {
        let mut state = watch.state.lock();
        state.waiters.retain(|waiter| !waiter.found.is_closed());
        let Some(first) = state.waiters.first() else {
            state.looking = false;
            return None;
        };
        Some(Self {
            reader: first.sender.clone(),
            channel: first.channel.clone(),
            top: state.top,
            newest: state
                .waiters
                .iter()
                .map(|waiter| waiter.since)
                .max()
                .unwrap_or_else(Instant::now),
            oldest: state
                .waiters
                .iter()
                .map(|waiter| waiter.since)
                .min()
                .unwrap_or_else(Instant::now),
            earliest_ms: state
                .waiters
                .iter()
                .map(Waiter::sent_ms)
                .min()
                .unwrap_or_else(unix_ms),
        })
    }
}
