//! Which group ids were deleted, as the store says. Knows no upstream; a store that cannot be asked decides nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use parking_lot::Mutex;

use super::lookups::{Fact, Lookups, Subject};
use crate::domain::ChannelId;
use crate::store::{Store, StoreError};
use crate::telemetry::Metrics;

/// How long somebody waits for the store: it is to close deleted ids, not to hold up messages. The look-up itself goes on.
const PATIENCE: Duration = Duration::from_millis(500);
/// After a failure the store is left alone for so long, and then asked by one at a time until it answers.
const RESTS: Duration = Duration::from_secs(1);
/// While it stays down, the log says so this often.
const SAYS_AGAIN: Duration = Duration::from_secs(30);

impl Subject for ChannelId {
    fn changes_with(&self) -> &str {
        self.as_str()
    }
}

/// Whether an id was deleted. An id is never used again, so a "yes" holds for ever, a "no" as long as any other answer.
#[derive(Debug, Clone, Copy)]
struct Deleted(bool);

impl Fact for Deleted {
    fn memberships(&self) -> usize {
        0
    }

    fn is_final(&self) -> bool {
        self.0
    }
}

/// The store could not be asked.
#[derive(Debug, Clone, Copy)]
struct Unknown;

type Ask = dyn Fn(ChannelId) -> BoxFuture<'static, Result<bool, StoreError>> + Send + Sync;

/// The store's tombstones.
pub(super) struct Tombstones {
    /// Whether the store has this id as a deleted one.
    ask: Arc<Ask>,
    known: Arc<Lookups<ChannelId, Deleted, Unknown>>,
    outage: Arc<Outage>,
}

impl Tombstones {
    pub(super) fn new(
        store: Arc<Store>,
        ttl: Duration,
        entries: usize,
        metrics: Arc<Metrics>,
    ) -> Self {
        let ask = move |group: ChannelId| -> BoxFuture<'static, _> {
            let store = Arc::clone(&store);
            Box::pin(async move {
                let record = store.channel(&group).await?;
                Ok(record.is_some_and(|record| record.is_deleted()))
            })
        };
        Self::over(Arc::new(ask), ttl, entries, metrics)
    }

    fn over(ask: Arc<Ask>, ttl: Duration, entries: usize, metrics: Arc<Metrics>) -> Self {
        Self {
            ask,
            known: Lookups::new("tombstones", ttl, entries, Unknown, metrics),
            outage: Arc::default(),
        }
    }

    /// As [`Lookups::size`].
    pub(super) fn size(&self) -> (&'static str, usize) {
        self.known.size()
    }

    /// Whether the group is known to be deleted; `false` also where the store cannot be asked, which leaves the decision to
    /// membership alone.
    pub(super) async fn is_deleted(&self, group: &ChannelId) -> bool {
        let mut _probe = None;
        if self.known.kept(group).is_none() {
            match self.outage.turn() {
                Turn::Free => {}
                Turn::Probe(probe) => _probe = Some(probe),
                Turn::None => return false,
            }
        }
        let deleted = self.known.get(group, || {
            let (asked, outage) = ((self.ask)(group.clone()), Arc::clone(&self.outage));
            async move {
                match asked.await {
                    Ok(deleted) => {
                        outage.is_over();
                        Ok(Deleted(deleted))
                    }
                    Err(error) => {
                        outage.goes_on(&error);
                        Err(Unknown)
                    }
                }
            }
        });
        match tokio::time::timeout(PATIENCE, deleted).await {
            Ok(deleted) => matches!(deleted, Ok(Deleted(true))),
            Err(late) => {
                self.outage.goes_on(&late);
                false
            }
        }
    }

    /// Whether the group is known to be deleted without asking anybody.
    pub(super) fn has(&self, group: &ChannelId) -> bool {
        matches!(self.known.kept(group), Some(Deleted(true)))
    }

    /// The group has just been deleted.
    pub(super) fn add(&self, group: &ChannelId) {
        self.known.set(group, Deleted(true));
    }

    /// The group may have been deleted just now: that it was not is believed no longer.
    pub(super) fn doubt(&self, group: &ChannelId) {
        self.known.changed(group);
    }
}

/// Whether the store answers at present.
#[derive(Default)]
struct Outage(Mutex<Trouble>);

#[derive(Default)]
struct Trouble {
    /// The last failure; `None` while all is well.
    failed: Option<Instant>,
    said: Option<Instant>,
    probing: bool,
}

/// Whether somebody may ask the store.
enum Turn<'a> {
    /// As all may.
    Free,
    /// He alone: whether it answers again.
    Probe(Probe<'a>),
    /// He may not.
    None,
}

struct Probe<'a>(&'a Outage);

impl Drop for Probe<'_> {
    fn drop(&mut self) {
        self.0.0.lock().probing = false;
    }
}

impl Outage {
    fn turn(&self) -> Turn<'_> {
        let mut trouble = self.0.lock();
        match trouble.failed {
            None => Turn::Free,
            Some(failed) if trouble.probing || failed.elapsed() < RESTS => Turn::None,
            Some(_) => {
                trouble.probing = true;
                Turn::Probe(Probe(self))
            }
        }
    }

    fn is_over(&self) {
        self.0.lock().failed = None;
    }

    fn goes_on(&self, error: &dyn std::error::Error) {
        let now = Instant::now();
        let mut trouble = self.0.lock();
        trouble.failed = Some(now);
        if trouble.said.is_none_or(|said| said.elapsed() >= SAYS_AGAIN) {
            trouble.said = Some(now);
            drop(trouble);
            tracing::warn!(%error, "deleted channels cannot be looked up, membership alone decides");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    const TTL: Duration = Duration::from_mins(5);

    fn group(id: usize) -> ChannelId {
        ChannelId::parse(&format!("g{id}"), 99).unwrap()
    }

    /// Tombstones over a store that hangs while told to, and how often it was asked.
    fn over_a_store() -> (Tombstones, Arc<Mutex<bool>>, Arc<AtomicUsize>) {
        let (hangs, asked) = (Arc::new(Mutex::new(true)), Arc::new(AtomicUsize::new(0)));
        let ask = {
            let (hangs, asked) = (hangs.clone(), asked.clone());
            move |_: ChannelId| -> BoxFuture<'static, _> {
                asked.fetch_add(1, Ordering::SeqCst);
                let hangs = *hangs.lock();
                Box::pin(async move {
                    if hangs {
                        // The store's own deadline.
                        tokio::time::sleep(Duration::from_secs(2)).await;
                        return Err(StoreError::Unavailable("no answer in time".into()));
                    }
                    Ok(true)
                })
            }
        };
        let tombstones = Tombstones::over(Arc::new(ask), TTL, 1000, Arc::new(Metrics::new()));
        (tombstones, hangs, asked)
    }

    #[tokio::test]
    async fn a_store_that_hangs_holds_up_one_at_a_time_and_nobody_for_long() {
        let (tombstones, hangs, asked) = over_a_store();
        // Nobody knows yet: this one waits, but not for the store's own deadline.
        let began = Instant::now();
        assert!(!tombstones.is_deleted(&group(0)).await);
        assert!(began.elapsed() < Duration::from_secs(2));
        for id in 0..100 {
            assert!(!tombstones.is_deleted(&group(id)).await);
        }
        assert_eq!(
            asked.load(Ordering::SeqCst),
            1,
            "the others are told at once"
        );
        tokio::time::sleep(RESTS).await;
        // One tries it, whoever comes meanwhile does not, not even for the same group.
        let ids: Vec<ChannelId> = (0..100).map(|id| group(1 + id % 2)).collect();
        let all = ids.iter().map(|id| tombstones.is_deleted(id));
        let told = futures_util::future::join_all(all).await;
        assert!(told.iter().all(|deleted| !deleted));
        assert_eq!(asked.load(Ordering::SeqCst), 2);
        // It recovers by itself.
        *hangs.lock() = false;
        tokio::time::sleep(RESTS).await;
        assert!(tombstones.is_deleted(&group(7)).await);
        assert!(tombstones.is_deleted(&group(8)).await);
    }

    #[tokio::test]
    async fn a_prober_who_goes_away_leaves_the_turn_to_the_next() {
        let outage = Outage::default();
        outage.goes_on(&StoreError::Unavailable("down".into()));
        assert!(matches!(outage.turn(), Turn::None));
        tokio::time::sleep(RESTS).await;
        let prober = outage.turn();
        assert!(matches!(prober, Turn::Probe(_)));
        assert!(matches!(outage.turn(), Turn::None));
        drop(prober);
        assert!(matches!(outage.turn(), Turn::Probe(_)));
        outage.is_over();
        assert!(matches!(outage.turn(), Turn::Free));
    }
}
