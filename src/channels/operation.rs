//! One operation on a channel: in its turn, in a task of its own, counted and audited.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use tokio::sync::watch;

use super::{Actor, Channels, Error, Groups};
use crate::authorization::Audit;
use crate::authorization::callback::Action;
use crate::domain::{Channel, ChannelId, ChannelType, Uid};
use crate::wukongim;

impl Channels {
    /// Waits until no operation is under way, those that nobody waits for included.
    pub async fn idle(&self) {
        // The sender lives as long as this.
        let _ = self.under_way.subscribe().wait_for(|all| *all == 0).await;
    }

    /// Runs `work` when it is this channel's turn, in a task that outlives the caller. Who hangs up while he waits for his turn has
    /// asked for nothing, so the tasks that nobody waits for are at most one a channel.
    ///
    /// Where an admin's right alone let `work` change somebody else's group, the audit gets its line.
    pub(super) async fn run<T, W, F>(
        &self,
        actor: Actor<'_>,
        action: Action,
        id: &ChannelId,
        targets: &[Uid],
        work: W,
    ) -> Result<T, Error>
    where
        T: Send + 'static,
        W: FnOnce(Arc<Groups>, Who, ChannelId) -> F,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let who = Who {
            uid: actor.uid.clone(),
            is_admin: actor.is_admin,
            uses_it: Arc::default(),
            deadline: wukongim::current_deadline(),
        };
        let channel = Channel::Group(id.clone());
        let uses_it = Arc::clone(&who.uses_it);
        let mut audit = Audit::new(actor.uid, None, action, Some(&channel), uses_it);
        let permitted = Box::pin(self.groups.ask_callback(&who, action, id, targets)).await;
        if let Err(error) = permitted {
            let refused = Err(error);
            audit.ended(&refused);
            return refused;
        }
        let key = wukongim::storage_key(id.as_str(), ChannelType::Group);
        let turn = self.locks.lock(&key).await;
        let turn = turn.ok_or(Error::Upstream(wukongim::Error::Busy))?;
        let under_way = UnderWay::begin(&self.under_way);
        // In a box: it asks much, and is moved into its task.
        let work = Box::pin(work(self.groups.clone(), who, id.clone()));
        let task = async move {
            let result = work.await;
            drop(turn);
            audit.ended(&result);
            drop(under_way);
            result
        };
        match tokio::spawn(wukongim::begun_by_this_request(task)).await {
            Ok(result) => result,
            Err(error) => match error.try_into_panic() {
                // One request's panic stays that request's: the layer around the router answers it.
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(Error::Interrupted),
            },
        }
    }
}

/// One operation, counted until this is dropped.
struct UnderWay(Arc<watch::Sender<usize>>);

impl UnderWay {
    fn begin(all: &Arc<watch::Sender<usize>>) -> Self {
        all.send_modify(|all| *all += 1);
        Self(Arc::clone(all))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.send_modify(|all| *all -= 1);
    }
}

/// An [`Actor`] in a task of its own.
pub(super) struct Who {
    pub(super) uid: Uid,
    pub(super) is_admin: bool,
    /// Whether his being one is what let him do it, or it could not be undone: the audit has a line of that.
    pub(super) uses_it: Arc<AtomicBool>,
    /// When his request must have been answered.
    pub(super) deadline: Option<Instant>,
}

impl Who {
    /// `error`, with a line in the audit where what was done before could not be `taken_back`.
    pub(super) fn denied(&self, error: Error, taken_back: bool) -> Error {
        if taken_back {
            return error;
        }
        self.uses_it.store(true, Ordering::SeqCst);
        Error::NotTakenBack(Box::new(error))
    }
}
