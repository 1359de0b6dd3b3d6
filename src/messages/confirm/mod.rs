//! Confirms that a message is stored (v2). v2's answer to a send does not prove it, only the message in its channel's log does.
//!
//! One polling loop per channel serves all its waiters. It reads upwards from the highest seq seen, so a replicated message is read once.
//! Without a seq it starts with the newest page and reads back to the time of the send. It learns how long this WuKongIM takes to show a
//! message (0.5 ms on a single node, 100–400 ms in a cluster; seen on running servers) and polls accordingly. `/message/byclientmsgno` and
//! `/message` are not used: in a cluster they may read from another node, and they match other senders' messages.

mod channel_waiters;
mod log_pager;
mod poll_schedule;
mod replicated;

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{SendTask, Stored};
use crate::context::inherit_identity;
use crate::domain::ConversationKey;
use crate::telemetry::Metrics;
use crate::wukongim::{Client, Page, Window};
use channel_waiters::{ChannelWaiters, PollRequest, Subscription, Waiter};
use log_pager::PageSize;
use poll_schedule::{PollSchedule, VisibilityDelay};
use replicated::truncate_unreplicated;

pub(super) use channel_waiters::{MAX_CLOCK_SKEW_MS, MessageMatch};
pub(super) use log_pager::LogPager;
pub(super) use replicated::is_replicated;

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
    /// The channel's highest seq seen before the send.
    pub(super) baseline_seq: Option<u64>,
}

impl Pending {
    /// Waits until the message is confirmed or `until` has passed.
    pub(super) async fn stored_by(
        &self,
        until: Instant,
        target: MessageMatch,
        task: &Arc<SendTask>,
    ) -> Option<Stored> {
        let since = Instant::now();
        let (waiter, found) = Waiter::new(target, task.clone());
        match self.waiters.subscribe(waiter, self.baseline_seq) {
            Subscription::Found(stored) => return Some(stored),
            Subscription::Joined => {}
            Subscription::StartPolling => {
                // One poll serves many requests; WuKongIM's log shows the id of the request that started it. Boxed: a task moves its future
                // whenever its state changes.
                let poll = Box::pin(self.confirmer.clone().poll(self.waiters.clone()));
                tokio::spawn(inherit_identity(poll));
            }
        }
        let stored = tokio::time::timeout_at(until.into(), found).await;
        let stored = stored.ok()?.ok()?;
        let waited = since.elapsed().as_secs_f64();
        self.confirmer.metrics.confirm_seconds.observe(waited);
        Some(stored)
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.waiters.unregister();
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
        let new = || Ok::<_, std::convert::Infallible>(Arc::default());
        let waiters = self.channels.get_or_insert_with(conversation, new);
        let waiters = waiters.unwrap_or_default();
        Pending {
            baseline_seq: waiters.register(),
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
        let mut last_complete_poll = None;
        let mut reset_checked = Instant::now();
        while let Some(next) = waiters.next_poll() {
            schedule.pause(next.newest_since).await;
            // After half the timeout, then at intervals: WuKongIM may have lost the channel and count from 1 again.
            if next.highest_seq.is_some()
                && next.oldest_since.elapsed() > self.timeout / 2
                && reset_checked.elapsed() > self.timeout / 4
            {
                reset_checked = Instant::now();
                self.metrics.confirm_polls.inc();
                let newest_seq = self.pager(&next).newest_seq().await;
                if newest_seq.is_ok_and(|newest_seq| newest_seq < next.highest_seq) {
                    waiters.reset();
                    continue;
                }
            }
            let started = Instant::now();
            let window = |_| match next.highest_seq {
                Some(seq) => Window::Up {
                    from: seq + 1,
                    until: None,
                },
                None => Window::Newest,
            };
            self.metrics.confirm_polls.inc();
            let (sender, channel) = (&next.task.sender, &next.task.draft.channel);
            let page = page_size.read(&self.client, sender, channel, window).await;
            let Ok((mut page, is_full)) = page else {
                schedule.record_miss();
                continue;
            };
            let was_truncated = truncate_unreplicated(&self.client, &mut page).await;
            let waiting_since = waiters.observe_page(&page);
            for since in &waiting_since {
                self.delay.observe(*since, last_complete_poll, started);
            }
            if !is_full {
                last_complete_poll = Some(started);
            } else if page.seq_range.is_some() {
                // Without one replicated message on the page nothing below it counts either: the next poll reads all of it again.
                self.catch_up(&waiters, &next, &page).await;
            }
            if !waiting_since.is_empty() {
                schedule = PollSchedule::new(self.delay.get(), self.timeout);
            } else if !is_full || was_truncated {
                schedule.record_miss();
            }
        }
    }

    fn pager<'a>(&'a self, next: &'a PollRequest) -> LogPager<'a> {
        LogPager::newest(&self.client, &next.task.sender, &next.task.draft.channel)
    }

    /// After a full page, decides whether the message may be on another page.
    async fn catch_up(&self, waiters: &ChannelWaiters, next: &PollRequest, page: &Page) {
        let mut ids_ms = page.messages.iter().map(|message| message.id.unix_ms());
        if next.highest_seq.is_none() {
            // The first poll of a busy channel: the message may be below the newest page.
            let reached_ms = ids_ms.next();
            if reached_ms.is_none_or(|ms| ms >= next.earliest_ms) {
                let below = page.seq_range.map_or(0, |(low, _)| low);
                self.scan_back(waiters, next, below).await;
            }
        } else if ids_ms.next_back().is_some_and(|ms| ms < next.earliest_ms) {
            // Too much was written since the last poll: skip it.
            waiters.restart_from_newest();
        }
    }

    async fn scan_back(&self, waiters: &ChannelWaiters, next: &PollRequest, below: u64) {
        let mut pager = self.pager(next).down_from(below);
        for _ in 0..MAX_BACKWARD_PAGES {
            self.metrics.confirm_polls.inc();
            let page = match pager.next().await {
                Ok(Some(page)) => page,
                Ok(None) => return,
                // The pages below were not read.
                Err(_) => return waiters.restart_from_newest(),
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_poll_that_panics_frees_its_channel() {
        let waiters = Arc::new(ChannelWaiters::default());
        let polled = waiters.clone();
        let panicked = std::thread::spawn(move || {
            let _guard = PollGuard(polled);
            panic!("expected by the test");
        });
        assert!(panicked.join().is_err());
        assert!(waiters.next_poll().is_none());
    }
}
