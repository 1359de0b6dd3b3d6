//! Which group ids were deleted, as the store says. Knows no upstream; a store that cannot be asked decides nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::lookups::{Fact, Lookups, Subject};
use crate::domain::ChannelId;
use crate::store::Store;
use crate::telemetry::Metrics;

/// After a failure the store is left alone for so long: while it is down, messages do not queue up behind its timeouts.
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

/// The store's tombstones.
pub(super) struct Tombstones {
    store: Arc<Store>,
    known: Arc<Lookups<ChannelId, Deleted, Unknown>>,
    trouble: Arc<Mutex<Trouble>>,
}

#[derive(Default)]
struct Trouble {
    failed: Option<Instant>,
    said: Option<Instant>,
}

impl Tombstones {
    pub(super) fn new(
        store: Arc<Store>,
        ttl: Duration,
        entries: usize,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            store,
            known: Lookups::new("tombstones", ttl, entries, Unknown, metrics),
            trouble: Arc::default(),
        }
    }

    /// Whether the group is known to be deleted; `false` also where the store cannot be asked, which leaves the decision to
    /// membership alone.
    pub(super) async fn is_deleted(&self, group: &ChannelId) -> bool {
        let deleted = self.known.get(group, || {
            let (store, trouble, group) = (
                Arc::clone(&self.store),
                Arc::clone(&self.trouble),
                group.clone(),
            );
            async move { look_up(&store, &trouble, &group).await }
        });
        matches!(deleted.await, Ok(Deleted(true)))
    }

    /// Whether the group is known to be deleted without asking anybody.
    pub(super) fn has(&self, group: &ChannelId) -> bool {
        matches!(self.known.kept(group), Some(Deleted(true)))
    }

    /// The group has just been deleted.
    pub(super) fn add(&self, group: &ChannelId) {
        self.known.set(group, Deleted(true));
    }
}

async fn look_up(
    store: &Store,
    trouble: &Mutex<Trouble>,
    group: &ChannelId,
) -> Result<Deleted, Unknown> {
    if trouble
        .lock()
        .failed
        .is_some_and(|failed| failed.elapsed() < RESTS)
    {
        return Err(Unknown);
    }
    match store.channel(group).await {
        Ok(record) => Ok(Deleted(record.is_some_and(|record| record.is_deleted()))),
        Err(error) => {
            let mut trouble = trouble.lock();
            trouble.failed = Some(Instant::now());
            if trouble.said.is_none_or(|said| said.elapsed() >= SAYS_AGAIN) {
                trouble.said = trouble.failed;
                drop(trouble);
                tracing::warn!(%error, "deleted channels cannot be looked up, membership alone decides");
            }
            Err(Unknown)
        }
    }
}
