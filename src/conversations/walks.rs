//! Walks over users' conversations, each shared for two seconds. Knows nothing of pages and permissions.

use std::collections::{HashMap, HashSet, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use parking_lot::Mutex;
use quick_cache::DefaultHashBuilder;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use super::position::{Position, key, rank};
use crate::context::inherit_identity;
use crate::domain::{ChannelId, ChannelRef, ChannelType, Slice, Uid};
use crate::telemetry::Metrics;
use crate::wukongim::{Client, ConversationPage, Error};

/// How long a walk is used, from its start.
const SHARED_FOR: Duration = Duration::from_secs(2);
/// A walk may take no longer.
const WALK_TIMEOUT: Duration = Duration::from_secs(15);

/// What a walk keeps of a conversation.
#[derive(Debug)]
pub(super) struct Row {
    /// See [`key()`].
    pub(super) key: u64,
    pub(super) unread: u32,
    /// Its index in WuKongIM's order.
    pub(super) index: u32,
    channel_type: ChannelType,
    id: Slice,
}

/// Far less than the 64 bytes a row beside its id that docs/PERFORMANCE.md allows.
const _: () = assert!(size_of::<Row>() <= 32, "a walk keeps little");

/// All of a user's conversations.
#[derive(Debug)]
pub(super) struct Walk {
    /// In the order of the list.
    pub(super) rows: Vec<Row>,
    /// The channels' ids, one after the other.
    ids: String,
    /// The conversations themselves, where they were all on one page.
    pub(super) page: Option<Arc<ConversationPage>>,
    pub(super) complete: bool,
}

impl Walk {
    /// Walks over the user's conversations, on pages with payloads of about `payload_bytes`.
    pub(super) async fn of(
        client: &Client,
        user: &Uid,
        payload_bytes: usize,
    ) -> Result<Self, Error> {
        let (mut rows, mut ids) = (Vec::new(), String::new());
        let (mut only_page, mut pages) = (None, 0);
        let take = |page: ConversationPage| {
            rows.reserve_exact(page.count());
            for row in page.iter() {
                ids.push_str(row.channel.id);
                rows.push(Row {
                    key: key(&row),
                    unread: u32::try_from(row.unread).unwrap_or(u32::MAX),
                    index: u32::try_from(rows.len()).unwrap_or(u32::MAX),
                    channel_type: row.channel.channel_type,
                    id: Slice::last(row.channel.id.len(), ids.len()),
                });
            }
            pages += 1;
            only_page = (pages == 1).then_some(page);
        };
        let complete = client.walk_conversations(user, payload_bytes, take).await?;
        // Of a conversation that came twice the later row is the newer one.
        rows.reverse();
        let mut seen = HashSet::with_capacity_and_hasher(rows.len(), DefaultHashBuilder::default());
        rows.retain(|row| seen.insert(row.channel(&ids)));
        let rank = |row: &Row| rank(row.key, row.channel(&ids));
        rows.sort_unstable_by(|a, b| rank(a).cmp(&rank(b)));
        rows.shrink_to_fit();
        ids.shrink_to_fit();
        let page = only_page.map(|page| Arc::new(page.compacted()));
        Ok(Self {
            rows,
            ids,
            page,
            complete,
        })
    }

    /// The row's channel.
    pub(super) fn channel(&self, row: &Row) -> ChannelRef<'_> {
        row.channel(&self.ids)
    }

    pub(super) fn position(&self, row: &Row) -> Position {
        Position::new(row.key, self.channel(row))
    }

    fn has_group(&self, group: &ChannelId) -> bool {
        let group = ChannelRef {
            channel_type: ChannelType::Group,
            id: group.as_str(),
        };
        self.rows.iter().any(|row| self.channel(row) == group)
    }
}

impl Row {
    fn channel<'a>(&self, ids: &'a str) -> ChannelRef<'a> {
        ChannelRef {
            channel_type: self.channel_type,
            id: ids.get(self.id.range()).unwrap_or_default(),
        }
    }
}

type Outcome = Option<Result<Arc<Walk>, Error>>;

/// A walk that can be shared: in progress, or not older than [`SHARED_FOR`].
struct Flight {
    id: u64,
    began: Instant,
    outcome: watch::Receiver<Outcome>,
}

#[derive(Default)]
struct State {
    last_id: u64,
    flights: HashMap<Uid, Flight>,
    /// Groups whose members the gateway has changed lately.
    changed: VecDeque<(Instant, ChannelId)>,
}

/// The walks of this replica.
pub(super) struct Walks {
    state: Mutex<State>,
    metrics: Arc<Metrics>,
}

impl Walks {
    pub(super) fn new(metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            metrics,
        })
    }

    /// The label in metrics, and the number of walks.
    pub(super) fn size(&self) -> (&'static str, usize) {
        ("conversations", self.state.lock().flights.len())
    }

    /// The user's walk, or that of `walk`, which runs in its own task: a caller that disconnects does not cancel it for the others. A
    /// failed one is not used again.
    pub(super) async fn get<F>(
        self: &Arc<Self>,
        user: &Uid,
        walk: impl FnOnce() -> F,
    ) -> Result<Arc<Walk>, Error>
    where
        F: Future<Output = Result<Walk, Error>> + Send + 'static,
    {
        let mut outcome = {
            let mut state = self.state.lock();
            let shared = state.usable(user);
            self.metrics
                .cache_looked_up("conversations", shared.is_some());
            shared.unwrap_or_else(|| self.start(&mut state, user, walk()))
        };
        match outcome.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone().unwrap_or(Err(Error::Lost)),
            Err(_) => Err(Error::Lost),
        }
    }

    fn start(
        self: &Arc<Self>,
        state: &mut State,
        user: &Uid,
        walk: impl Future<Output = Result<Walk, Error>> + Send + 'static,
    ) -> watch::Receiver<Outcome> {
        let (sender, outcome) = watch::channel(None);
        let (began, waiting) = (Instant::now(), outcome.clone());
        state.last_id += 1;
        let id = state.last_id;
        let flight = Flight { id, began, outcome };
        state.flights.insert(user.clone(), flight);
        let (walks, user) = (Arc::clone(self), user.clone());
        tokio::spawn(inherit_identity(async move {
            let shared = async {
                let walk = AssertUnwindSafe(walk).catch_unwind();
                let result = match timeout(WALK_TIMEOUT, walk).await {
                    Ok(Ok(result)) => result.map(Arc::new),
                    Ok(Err(_panic)) => Err(Error::Lost),
                    Err(_) => Err(Error::Timeout),
                };
                let is_failed = result.is_err();
                if is_failed {
                    walks.remove(&user, id);
                }
                sender.send_replace(Some(result));
                if !is_failed {
                    sleep_until(began + SHARED_FOR).await;
                    walks.remove(&user, id);
                }
            };
            // One that is not used again ends with the last request that waits for it, so that a user keeps no more than one.
            tokio::select! {
                () = shared => {}
                () = sender.closed() => {}
            }
        }));
        waiting
    }

    fn remove(&self, user: &Uid, id: u64) {
        let mut state = self.state.lock();
        if state
            .flights
            .get(user)
            .is_some_and(|flight| flight.id == id)
        {
            state.flights.remove(user);
        }
    }

    /// The user's conversations have changed: the walk so far serves only those that wait for it.
    pub(super) fn end(&self, user: &Uid) {
        self.state.lock().flights.remove(user);
    }

    /// The group's members are about to change, or have.
    pub(super) fn group_changed(&self, group: &ChannelId) {
        let mut state = self.state.lock();
        let now = Instant::now();
        let is_old = |at: Instant| now.duration_since(at) > WALK_TIMEOUT + SHARED_FOR;
        while state.changed.pop_front_if(|(at, _)| is_old(*at)).is_some() {}
        state.changed.push_back((now, group.clone()));
    }
}

impl State {
    /// The user's walk, unless the gateway has changed one of its groups since it began.
    fn usable(&self, user: &Uid) -> Option<watch::Receiver<Outcome>> {
        let flight = self.flights.get(user)?;
        let changed = self.changed.iter().rev();
        let changed = changed.take_while(|(at, _)| *at >= flight.began);
        let outcome = flight.outcome.borrow();
        let has_changed = |group: &ChannelId| match &*outcome {
            Some(Ok(walk)) => walk.has_group(group),
            // Its rows are not known yet.
            _ => true,
        };
        let is_stale = changed.map(|(_, group)| group).any(has_changed);
        drop(outcome);
        (!is_stale).then(|| flight.outcome.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use futures_util::poll;
    use tokio::sync::mpsc;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_ended_walk_is_cancelled_with_the_last_request_that_waits_for_it() {
        let walks = Walks::new(Arc::new(Metrics::new()));
        let user = Uid::parse("alice", 99).unwrap();
        let (held, mut walking) = mpsc::channel::<()>(1);
        let walk = || async move {
            let _held = held;
            pending().await
        };
        let mut waiting = Box::pin(walks.get(&user, walk));
        assert!(poll!(waiting.as_mut()).is_pending());
        let began = Instant::now();
        walks.end(&user);
        tokio::task::yield_now().await;
        assert!(walking.try_recv() == Err(mpsc::error::TryRecvError::Empty));
        drop(waiting);
        assert_eq!(walking.recv().await, None);
        assert!(began.elapsed() < WALK_TIMEOUT);
    }
}
