//! Confirms that a message is stored (v2). v2's answer to a send does not prove it, only the message in its channel's log does.
//!
//! One polling loop per channel serves all its waiters. It reads upwards from the highest seq seen, so no message is read twice. Without
//! one it starts with the newest page and reads back to the time of the send. It learns how long this WuKongIM takes to show a message (0.5
//! ms on a single node, 100–400 ms in a cluster; seen on running servers) and polls accordingly. `/message/byclientmsgno` and `/message`
//! are not used: in a cluster they may read from another node, and they match other senders' messages.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::channel_waiters::{
    Baseline, ChannelWaiters, MessageMatch, PollRequest, Subscription, Waiter,
};
use super::log_pager::{self, LogPager, PageSize};
use super::poll_schedule::{PollSchedule, VisibilityDelay};
use super::replicated::truncate_unreplicated;
use super::{SendTask, Stored, spawn_shared};
use crate::domain::ConversationKey;
use crate::telemetry::Metrics;
use crate::wukongim::{Client, Error, Page, Window};

/// Channels whose highest seq is remembered, about 200 bytes each.
const MAX_CHANNELS: usize = 50_000;
/// Messages read by one poll.
const POLL_LIMIT: usize = 64;
/// Maximum pages read backwards when a channel is polled for the first time.
const MAX_BACKWARD_PAGES: usize = 16;

/// Confirms messages; has one [`ChannelWaiters`] per channel.
pub(super) struct Confirmer {
    client: Arc<Client>,
    channels: quick_cache::sync::Cache<ConversationKey, Arc<ChannelWaiters>>,
    delay: VisibilityDelay,
    timeout: Duration,
    metrics: Arc<Metrics>,
}

/// A send in progress, registered before it is sent so that no poll can pass its message unnoticed.
pub(super) struct Pending {
    confirmer: Arc<Confirmer>,
    waiters: Arc<ChannelWaiters>,
    baseline: Baseline,
}

impl Pending {
    /// The channel's highest seq seen before the send.
    pub(super) fn baseline_seq(&self) -> Option<u64> {
        self.baseline.seq
    }

    /// Waits until the message is confirmed; `None` if that does not happen within `confirm_timeout`.
    pub(super) async fn stored(&self, target: MessageMatch, task: &SendTask) -> Option<Stored> {
        let until = Instant::now() + self.confirmer.timeout;
        self.stored_by(until, target, task).await
    }

    /// Waits until the message is confirmed or `until` has passed.
    pub(super) async fn stored_by(
        &self,
        until: Instant,
        target: MessageMatch,
        task: &SendTask,
    ) -> Option<Stored> {
        let since = Instant::now();
        let (waiter, receiver) = Waiter::new(target, task);
        match self.waiters.subscribe(waiter, self.baseline) {
            Subscription::Found(stored) => return Some(stored),
            Subscription::Joined => {}
            // One poll serves many requests; WuKongIM's log shows the id of the request that started it.
            Subscription::StartPolling => {
                drop(spawn_shared(
                    self.confirmer.clone().poll(self.waiters.clone()),
                ));
            }
        }
        let stored = tokio::time::timeout_at(until.into(), receiver)
            .await
            .ok()?
            .ok()?;
        self.confirmer
            .metrics
            .confirm_seconds
            .observe(since.elapsed().as_secs_f64());
        Some(stored)
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.waiters.unregister(self.baseline);
    }
}

/// Resets a channel whose polling panicked; a loop that ends normally has done so already.
struct PollGuard(Arc<ChannelWaiters>);

impl Drop for PollGuard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.abort();
        }
    }
}

impl Confirmer {
    pub(super) fn new(client: Arc<Client>, timeout: Duration, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            client,
            channels: quick_cache::sync::Cache::new(MAX_CHANNELS),
            delay: VisibilityDelay::default(),
            timeout,
            metrics,
        })
    }

    /// Registers a send that is about to start.
    pub(super) fn expect(self: &Arc<Self>, conversation: &ConversationKey) -> Pending {
        let waiters = match self.channels.get(conversation) {
            Some(waiters) => waiters,
            None => self
                .channels
                .get_or_insert_with(conversation, || {
                    Ok::<_, std::convert::Infallible>(Arc::default())
                })
                .unwrap_or_default(),
        };
        Pending {
            baseline: waiters.register(),
            confirmer: self.clone(),
            waiters,
        }
    }

    /// Polls until no waiter is left.
    async fn poll(self: Arc<Self>, waiters: Arc<ChannelWaiters>) {
        let _guard = PollGuard(waiters.clone());
        let mut schedule = PollSchedule::new(self.delay.get(), self.timeout);
        let mut page_size = PageSize::of(POLL_LIMIT);
        // When the last poll began that reached the end of the log.
        let mut earlier = None;
        let mut reset_checked = Instant::now();
        while let Some(next) = waiters.next_poll() {
            schedule.pause(next.newest).await;
            if self.should_check_reset(&next, reset_checked) {
                reset_checked = Instant::now();
                if self.was_reset(&next).await {
                    waiters.reset_epoch();
                    continue;
                }
            }
            let started = Instant::now();
            let window = match next.highest_seq {
                Some(seq) => Window::Up {
                    from: seq + 1,
                    until: None,
                },
                None => Window::Newest,
            };
            let limit = page_size.size();
            let mut page = match self.page(&next, window, limit).await {
                Ok(page) => page,
                Err(Error::TooLarge { .. }) if page_size.shrink() => continue,
                Err(_) => {
                    schedule.record_miss();
                    continue;
                }
            };
            page_size.grow();
            let full = page.received >= limit;
            let was_truncated = truncate_unreplicated(&self.client, &mut page).await;
            let waiting_since = waiters.observe_page(&page);
            for since in &waiting_since {
                self.delay.observe(*since, earlier, started);
            }
            if !full {
                earlier = Some(started);
            }
            // Without a replicated message on the page, the log below it may still be rewritten too.
            if page.seq_range.is_some() {
                self.catch_up(&waiters, &next, &page, full).await;
            }
            if !waiting_since.is_empty() {
                schedule = PollSchedule::new(self.delay.get(), self.timeout);
            } else if !full || was_truncated {
                schedule.record_miss();
            }
        }
    }

    /// Whether to check if WuKongIM lost the channel and counts from 1 again: after half the timeout, then at intervals.
    fn should_check_reset(&self, next: &PollRequest, reset_checked: Instant) -> bool {
        next.highest_seq.is_some()
            && next.oldest.elapsed() > self.timeout / 2
            && reset_checked.elapsed() > self.timeout / 4
    }

    /// Whether the channel's newest seq is below the highest one seen before.
    async fn was_reset(&self, next: &PollRequest) -> bool {
        let newest = self.page(next, Window::Newest, 1).await;
        newest.is_ok_and(|page| page.seq_range.map(|(_, high)| high) < next.highest_seq)
    }

    /// After a full page, decides whether the message may be on another page.
    async fn catch_up(
        &self,
        waiters: &ChannelWaiters,
        next: &PollRequest,
        page: &Page,
        full: bool,
    ) {
        if !full {
            return;
        }
        let mut ids_ms = page.messages.iter().map(|message| message.id.unix_ms());
        if next.highest_seq.is_none() {
            // The first poll of a busy channel: the message may be below the newest page.
            let reached_ms = ids_ms.next();
            if reached_ms.is_none_or(|ms| ms >= next.earliest_ms) {
                let below = page.seq_range.map_or(0, |(low, _)| low);
                self.scan_back(waiters, next, below).await;
            }
        } else if ids_ms.next_back().is_some_and(|ms| ms < next.earliest_ms) {
            // Too much was written since the last poll: skip it and start again from the newest page.
            waiters.reset_cursor();
        }
    }

    async fn scan_back(&self, waiters: &ChannelWaiters, next: &PollRequest, below: u64) {
        let mut pager = LogPager::down(&self.client, &next.reader, &next.channel, Some(below));
        for _ in 0..MAX_BACKWARD_PAGES {
            self.metrics.confirm_polls.inc();
            let page = match pager.next().await {
                Ok(Some(page)) => page,
                Ok(None) => return,
                Err(_) => {
                    // The pages below were not read: the next poll starts again from the newest page.
                    waiters.reset_cursor();
                    return;
                }
            };
            let oldest = page.messages.first();
            let passed = oldest.is_none_or(|message| message.id.unix_ms() < next.earliest_ms);
            // The delay of a message found here is not known, so nothing is learned from it.
            waiters.observe_page(&page);
            if passed {
                return;
            }
        }
    }

    async fn page(&self, next: &PollRequest, window: Window, limit: usize) -> Result<Page, Error> {
        self.metrics.confirm_polls.inc();
        log_pager::page(&self.client, &next.reader, &next.channel, window, limit).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_poll_that_panics_frees_its_channel() {
        let waiters = Arc::new(ChannelWaiters::default());
        let looks = waiters.clone();
        let panicked = std::thread::spawn(move || {
            let _guard = PollGuard(looks);
            panic!("a look broke");
        });
        assert!(panicked.join().is_err());
        assert!(waiters.next_poll().is_none());
    }
}
