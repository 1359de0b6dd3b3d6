//! Seeing a message stored (v2): the answer to a send proves nothing, only the message in its channel's log does.
//!
//! One look-up loop per channel serves all who wait on it. It reads upwards from the highest seq known, so no payload is read
//! twice; where nothing is known it begins with the newest page and works back until it has passed the time of the send. The
//! loop learns how long this WuKongIM takes to show a message (0.5 ms on a single node, 100–400 ms in a cluster; seen on running
//! servers) and times its looks by it. Not `/message/byclientmsgno` nor `/message`: they read elsewhere in a cluster and match
//! other people's messages.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::pace::{Delay, Pace};
use super::safe::keep_safe;
use super::walk::{self, Step, Walk};
use super::watch::{Enlisted, Floor, Next, Sought, Waiter, Watch};
use super::{Job, Stored, spawn};
use crate::domain::ConversationKey;
use crate::telemetry::Metrics;
use crate::wukongim::{Client, Error, Page, Window};

/// Channels whose highest seq is remembered, some 200 bytes each.
const CHANNELS: usize = 50_000;
/// Messages read in one look.
const LOOK: usize = 64;
/// Pages read backwards at the most when a channel is looked at for the first time.
const BACK_PAGES: usize = 16;

/// See the module.
pub(super) struct Confirmer {
    client: Arc<Client>,
    watches: quick_cache::sync::Cache<ConversationKey, Arc<Watch>>,
    delay: Delay,
    timeout: Duration,
    metrics: Arc<Metrics>,
}

/// A send under way, registered before it left so that no look can pass over its message unnoticed.
pub(super) struct Pending {
    confirmer: Arc<Confirmer>,
    watch: Arc<Watch>,
    floor: Floor,
}

impl Pending {
    /// The highest seq known in the channel before the send.
    pub(super) fn floor(&self) -> Option<u64> {
        self.floor.seq
    }

    /// Waits until the message is seen stored; `None` when that did not happen within `confirm_timeout`.
    pub(super) async fn stored(&self, sought: Sought, job: &Job) -> Option<Stored> {
        let until = Instant::now() + self.confirmer.timeout;
        self.stored_by(until, sought, job).await
    }

    /// Waits for it until then.
    pub(super) async fn stored_by(
        &self,
        until: Instant,
        sought: Sought,
        job: &Job,
    ) -> Option<Stored> {
        let since = Instant::now();
        let (waiter, receiver) = Waiter::new(sought, job);
        match self.watch.enlist(waiter, self.floor) {
            Enlisted::Found(stored) => return Some(stored),
            Enlisted::Served => {}
            // One look serves many requests; WuKongIM's log has the id of the one that began it.
            Enlisted::First => {
                drop(spawn(self.confirmer.clone().look(self.watch.clone())));
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
        self.watch.release(self.floor);
    }
}

/// Frees a channel whose look panicked; a look that ends has freed it already.
struct Looking(Arc<Watch>);

impl Drop for Looking {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.break_off();
        }
    }
}

impl Confirmer {
    pub(super) fn new(client: Arc<Client>, timeout: Duration, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            client,
            watches: quick_cache::sync::Cache::new(CHANNELS),
            delay: Delay::default(),
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
        Pending {
            floor: watch.expect(),
            confirmer: self.clone(),
            watch,
        }
    }

    /// Looks until nobody waits any more. Everything it holds is dropped with the last waiter.
    async fn look(self: Arc<Self>, watch: Arc<Watch>) {
        let _looking = Looking(watch.clone());
        let mut pace = Pace::new(self.delay.get(), self.timeout);
        let mut step = Step::of(LOOK);
        // When the last look began that read all there was.
        let mut earlier = None;
        let mut doubted = Instant::now();
        while let Some(next) = watch.next() {
            pace.pause(next.newest).await;
            if self.is_doubtful(&next, doubted) {
                doubted = Instant::now();
                if self.is_below_top(&next).await {
                    watch.begin_from_nothing();
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
            let limit = step.size();
            let mut page = match self.page(&next, window, limit).await {
                Ok(page) => page,
                Err(Error::TooLarge { .. }) if step.shrink() => continue,
                Err(_) => {
                    pace.missed();
                    continue;
                }
            };
            step.grow();
            let full = page.received >= limit;
            let is_cut = keep_safe(&self.client, &mut page).await;
            let told = watch.note(&page);
            for since in &told {
                self.delay.learn(*since, earlier, started);
            }
            if !full {
                earlier = Some(started);
            }
            // Nothing of it is safe: what lies below may yet be written anew as well.
            if page.span.is_some() {
                self.catch_up(&watch, &next, &page, full).await;
            }
            if !told.is_empty() {
                pace = Pace::new(self.delay.get(), self.timeout);
            } else if !full || is_cut {
                pace.missed();
            }
        }
    }

    /// Whether it is time to ask if WuKongIM lost the channel and counts from 1 again: half-way to being too late, and while that
    /// goes on from time to time.
    fn is_doubtful(&self, next: &Next, doubted: Instant) -> bool {
        next.top.is_some()
            && next.oldest.elapsed() > self.timeout / 2
            && doubted.elapsed() > self.timeout / 4
    }

    /// Whether the channel's newest message lies below what was seen of it before.
    async fn is_below_top(&self, next: &Next) -> bool {
        let newest = self.page(next, Window::Newest, 1).await;
        newest.is_ok_and(|page| page.span.map(|(_, high)| high) < next.top)
    }

    /// After a full page: is what is sought on another one?
    async fn catch_up(&self, watch: &Watch, next: &Next, page: &Page, full: bool) {
        if !full {
            return;
        }
        let mut ids_ms = page.messages.iter().map(|message| message.id.unix_ms());
        if next.top.is_none() {
            // A busy channel, looked at for the first time: the message may lie below the newest page.
            let reached_ms = ids_ms.next();
            if reached_ms.is_none_or(|ms| ms >= next.earliest_ms) {
                let below = page.span.map_or(0, |(low, _)| low);
                self.look_back(watch, next, below).await;
            }
        } else if ids_ms.next_back().is_some_and(|ms| ms < next.earliest_ms) {
            // Much was written since this channel was last looked at: not worth reading, begin with the newest.
            watch.begin_anew();
        }
    }

    async fn look_back(&self, watch: &Watch, next: &Next, below: u64) {
        let mut walk = Walk::down(&self.client, &next.reader, &next.channel, Some(below));
        for _ in 0..BACK_PAGES {
            self.metrics.confirm_looks.inc();
            let page = match walk.next().await {
                Ok(Some(page)) => page,
                Ok(None) => return,
                Err(_) => {
                    // What lies below was not read: the next look begins with the newest page again.
                    watch.begin_anew();
                    return;
                }
            };
            let oldest = page.messages.first();
            let passed = oldest.is_none_or(|message| message.id.unix_ms() < next.earliest_ms);
            // Found here, it says nothing of how long it took to appear.
            watch.note(&page);
            if passed {
                return;
            }
        }
    }

    async fn page(&self, next: &Next, window: Window, limit: usize) -> Result<Page, Error> {
        self.metrics.confirm_looks.inc();
        walk::page(&self.client, &next.reader, &next.channel, window, limit).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_that_panics_frees_its_channel() {
        let watch = Arc::new(Watch::default());
        let looks = watch.clone();
        let panicked = std::thread::spawn(move || {
            let _looking = Looking(looks);
            panic!("a look broke");
        });
        assert!(panicked.join().is_err());
        assert!(watch.next().is_none());
    }
}
