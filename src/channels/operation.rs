//! One operation on a channel: in its turn, in a task of its own, counted and audited.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use tokio::sync::watch;

use super::{Actor, Channels, Error, Groups};
use crate::authorization::Audit;
use crate::authorization::callback::Action;
use crate::context;
use crate::domain::{Channel, ChannelId, ChannelType, ConversationKey, Uid};
use crate::wukongim;

impl Channels {
    /// Waits until no operation is running, including those whose clients have gone.
    pub async fn wait_idle(&self) {
        // The sender lives as long as `self`.
        let _ = self.active.subscribe().wait_for(|all| *all == 0).await;
    }

    /// Runs `work` with the channel locked, in a task that outlives the caller. A caller that disconnects while it waits for the lock
    /// starts nothing, so each channel has at most one task without a caller.
    ///
    /// Writes an audit line where only the admin right permitted `work`.
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
        W: FnOnce(Arc<Groups>, GroupCaller, ChannelId) -> F,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let caller = GroupCaller {
            uid: actor.uid.clone(),
            is_admin: actor.is_admin,
            used_admin_right: Arc::default(),
            deadline: context::current_deadline(),
        };
        let channel = Channel::Group(id.clone());
        let conversation = ConversationKey::of(actor.uid, &channel);
        let Some(channel_permit) = self.channel_limiter.try_acquire(&conversation) else {
            return Err(Error::Upstream(wukongim::Error::Busy));
        };
        let used_admin_right = Arc::clone(&caller.used_admin_right);
        let mut audit = Audit::new(actor.uid, None, action, Some(&channel), used_admin_right);
        let permitted = Box::pin(self.groups.ask_callback(&caller, action, id, targets)).await;
        if let Err(error) = permitted {
            let refused = Err(error);
            audit.record_outcome(&refused);
            return refused;
        }
        let key = wukongim::storage_key(id.as_str(), ChannelType::Group);
        let guard = self.locks.lock(&key).await;
        let active = ActiveOperation::begin(&self.active);
        // Boxed because the future is large and is moved into its task.
        let work = Box::pin(work(self.groups.clone(), caller, id.clone()));
        let task = async move {
            let result = work.await;
            drop(guard);
            audit.record_outcome(&result);
            drop((channel_permit, active));
            result
        };
        match tokio::spawn(context::inherit_identity(task)).await {
            Ok(result) => result,
            Err(error) => match error.try_into_panic() {
                // The panic continues in the request's own task, where the layer around the router answers it.
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(Error::Interrupted),
            },
        }
    }
}

/// Counts an operation until it is dropped.
struct ActiveOperation(Arc<watch::Sender<usize>>);

impl ActiveOperation {
    fn begin(all: &Arc<watch::Sender<usize>>) -> Self {
        all.send_modify(|all| *all += 1);
        Self(Arc::clone(all))
    }
}

impl Drop for ActiveOperation {
    fn drop(&mut self) {
        self.0.send_modify(|all| *all -= 1);
    }
}

/// An owned [`Actor`], for a spawned task.
pub(super) struct GroupCaller {
    pub(super) uid: Uid,
    pub(super) is_admin: bool,
    /// Set when only the admin right permitted the operation, or when it could not be undone; the audit log then has an entry.
    pub(super) used_admin_right: Arc<AtomicBool>,
    /// The deadline of the request.
    pub(super) deadline: Option<Instant>,
}

impl GroupCaller {
    /// Returns `error`; adds an audit entry if the change before it was not `undone`.
    pub(super) fn denied(&self, error: Error, undone: bool) -> Error {
        if undone {
            return error;
        }
        self.used_admin_right.store(true, Ordering::SeqCst);
        Error::NotUndone(Box::new(error))
    }
}
