//! One operation on a group: within the channel's limit, in its turn, in a task of its own, counted and audited.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use tokio::sync::watch;

use super::{Actor, Channels, Error, Group, Groups};
use crate::authorization::Audit;
use crate::authorization::callback::Action;
use crate::context;
use crate::domain::{Channel, ChannelId, ChannelType, ConversationKey, Uid};
use crate::limits::channel_limiter::Permit;
use crate::store::ChannelRecord;
use crate::wukongim;

/// One operation, with all it needs in a task of its own.
pub(super) struct Operation {
    pub(super) groups: Arc<Groups>,
    pub(super) action: Action,
    pub(super) caller: Uid,
    pub(super) is_admin: bool,
    pub(super) id: ChannelId,
    /// The users that it adds, removes or gives another role; distinct.
    pub(super) targets: Vec<Uid>,
    /// The fields given by the owner; `None` keeps the stored value.
    pub(super) name: Option<String>,
    pub(super) avatar: Option<String>,
    /// Set when only the admin right permitted the operation, or when it could not be undone; the audit log then has an entry.
    pub(super) used_admin_right: Arc<AtomicBool>,
    /// The deadline of the request.
    pub(super) deadline: Option<Instant>,
    /// Held until the operation has ended.
    pub(super) _permit: Permit,
}

impl Operation {
    /// The store's record.
    pub(super) async fn record(&self) -> Result<Option<ChannelRecord>, Error> {
        Ok(self.groups.store.channel(&self.id).await?)
    }

    /// Whether the store has the group as deleted.
    pub(super) async fn is_deleted(&self) -> Result<bool, Error> {
        Ok(self
            .record()
            .await?
            .is_some_and(|record| record.is_deleted()))
    }

    /// As [`Groups::group`].
    pub(super) async fn group(&self) -> Result<Group, Error> {
        self.groups.group(&self.id).await
    }

    /// Returns `error`; adds an audit entry if the change before it was not `undone`.
    pub(super) fn denied(&self, error: Error, undone: bool) -> Error {
        if undone {
            return error;
        }
        self.used_admin_right.store(true, Ordering::SeqCst);
        Error::NotUndone(Box::new(error))
    }
}

impl Channels {
    /// Waits until no operation is running, including those whose clients have gone.
    pub async fn wait_idle(&self) {
        // The sender lives as long as `self`.
        let _ = self.active.subscribe().wait_for(|all| *all == 0).await;
    }

    /// An operation to run, unless too many requests about this group are in progress.
    pub(super) fn operation(
        &self,
        actor: Actor<'_>,
        action: Action,
        id: &ChannelId,
        targets: &[Uid],
    ) -> Result<Operation, Error> {
        let conversation = ConversationKey::Group(id.clone());
        let permit = self.channel_limiter.try_acquire(&conversation);
        Ok(Operation {
            groups: self.groups.clone(),
            action,
            caller: actor.uid.clone(),
            is_admin: actor.is_admin,
            id: id.clone(),
            targets: targets.to_vec(),
            name: None,
            avatar: None,
            used_admin_right: Arc::default(),
            deadline: context::current_deadline(),
            _permit: permit.ok_or(Error::Upstream(wukongim::Error::Busy))?,
        })
    }

    /// Runs `work` with the channel locked, in a task that outlives the caller. A caller that disconnects while it waits for the lock
    /// starts nothing, so each channel has at most one task without a caller.
    ///
    /// Writes an audit line where only the admin right permitted `work`.
    pub(super) async fn run<T, F>(
        &self,
        operation: Operation,
        work: impl FnOnce(Operation) -> F,
    ) -> Result<T, Error>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let Operation { action, caller, .. } = &operation;
        let channel = Channel::Group(operation.id.clone());
        let used_admin_right = Arc::clone(&operation.used_admin_right);
        let audit = Audit::new(caller, None, *action, Some(&channel), used_admin_right);
        if let Err(error) = Box::pin(operation.ask_callback()).await {
            let refused = Err(error);
            audit.record_outcome(&refused);
            return refused;
        }
        let key = wukongim::storage_key(operation.id.as_str(), ChannelType::Group);
        let guard = self.locks.lock(&key).await;
        let active = ActiveOperation::begin(&self.active);
        // Boxed because the future is large and is moved into its task.
        let work = Box::pin(work(operation));
        let task = async move {
            let result = work.await;
            drop(guard);
            audit.record_outcome(&result);
            drop(active);
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
