//! One call to WuKongIM: which node gets it, when it is tried again, and when a node is ejected.
//!
//! **Which node is chosen** ([`nodes`]): of two random nodes of the generation in use the one with the lower cost, which is its calls in
//! flight times its usual time to answer, or times its silence while calls are in flight ([`load`]). A node with 2,048 calls in flight
//! gets no more. A node whose generation is not known is probed first. What one batch sends to one channel goes to one node ([`NodeAffinity`]).
//!
//! **When it is tried again**: what never left the gateway goes to the next node at once, until none is left. Whatever may have arrived is
//! repeated only as [`Retry`] allows: on another node at most twice, on the only node once. A read is also repeated on another node when it
//! takes eight times as long as usual. A repetition waits for a jitter of up to 25 ms, begins before the request's deadline and takes a
//! token ([`retry_budget`]). A v2 send that may have arrived is never repeated here: `messages` searches for it first. After status 404 or
//! 405 every call is repeated once: its path is unknown there, so nothing was done.
//!
//! **When a node is ejected** ([`ejection`]): one of several after a refused connection, a failed probe, silence for a whole timeout, or
//! three failures in a row; for 0.5 s, twice as long each time up to 4 s, until a probe succeeds. Where all are, the one with the fewest
//! backoffs is called. Failures are broken connections, timeouts, statuses from 500, undecodable answers, and calls dropped after 250 ms
//! of the node's silence. Any other answer but 404 and 405 shows a healthy node, be it a refusal or 401. A node of the other generation
//! gets no calls at all.
//!
//! Knows nothing of what the calls mean.

mod ejection;
mod load;
mod node;
mod nodes;
mod retry_budget;
mod transport;

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};

use super::{Client, Error, Generation, Rejection};
use crate::context::current_deadline;
use load::now_us;
pub(super) use node::{Eligibility, Node, as_directory};
pub(super) use nodes::Nodes;
#[cfg(test)]
pub(super) use nodes::tests::nodes_at;
use transport::new_connection_if;
pub(super) use transport::{Answer, Call, Transport, retry_once};

/// Maximum retries where another node is available. A single node is retried once.
const MAX_RETRIES: usize = 2;
/// The longest pause before a retry, so that calls that failed together are not repeated together.
const RETRY_JITTER: Duration = Duration::from_millis(25);
/// How long detecting a node's generation may take where other nodes are configured.
const DETECTION_TIMEOUT: Duration = Duration::from_millis(900);
/// A read is abandoned for another node when it takes this many times the node's average latency, and at least this long.
const SLOW_THRESHOLD: (u32, Duration) = (8, Duration::from_millis(250));

/// When a call may be repeated that may have arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Retry {
    /// Never, but on another node after v3's `retry required`, with which nothing was done.
    Never,
    /// After any failure, on another node; after a broken connection, on the same node if there is no other. The call changes nothing.
    Read,
    /// After a broken connection, in the same way: executing it twice in a row has the same effect as once.
    IfLost,
    /// After any failure, on another node or once more on the same one: v3 recognises a message by sender and client_msg_no. That index is
    /// part of the channel's log, to which only the channel's leader appends, whichever node gets the call (source).
    IdempotencyKey,
}

/// The node that takes one batch's messages to one channel: v2 keeps their order only if one node receives all of them.
#[derive(Debug, Default)]
pub struct NodeAffinity(AtomicUsize);

impl NodeAffinity {
    /// Whether there is such a node.
    pub fn is_set(&self) -> bool {
        self.node().is_some()
    }

    /// Lets another node take the next message. Allowed once the outcome of all messages sent is known.
    pub fn clear(&self) {
        self.0.store(0, Relaxed);
    }

    fn node(&self) -> Option<usize> {
        self.0.load(Relaxed).checked_sub(1)
    }

    fn set(&self, index: usize) {
        self.0.store(index + 1, Relaxed);
    }
}

/// How one call is routed and repeated.
pub(super) struct Policy<'a> {
    /// The call's label in metrics.
    pub(super) call: &'static str,
    pub(super) retry: Retry,
    pub(super) affinity: Option<&'a NodeAffinity>,
}

impl Policy<'_> {
    pub(super) fn of(call: &'static str, retry: Retry) -> Self {
        Self {
            call,
            retry,
            affinity: None,
        }
    }

    pub(super) fn read(call: &'static str) -> Self {
        Self::of(call, Retry::Read)
    }

    pub(super) fn write(call: &'static str) -> Self {
        Self::of(call, Retry::Never)
    }
}

impl Client {
    /// Carries out a call on the nodes that `policy` allows, until one has answered it.
    pub(super) async fn on_node<'a, T, F>(
        &'a self,
        policy: Policy<'a>,
        call: impl Fn(&'a Arc<Node>) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let mut attempts = Attempts::new(self, policy, self.generation().await?);
        self.nodes.budget.deposit();
        loop {
            let node = attempts.next_node().await?;
            let mut call = pin!(new_connection_if(attempts.new_connection, call(node)));
            let mut is_abandoned = false;
            let outcome = match attempts.slow_after() {
                None => call.await,
                Some(delay) => match timeout(delay, call.as_mut()).await {
                    Ok(outcome) => outcome,
                    Err(_) if attempts.take_retry_token() => {
                        is_abandoned = true;
                        Err(Error::Timeout)
                    }
                    Err(_) => call.await,
                },
            };
            match outcome {
                Ok(value) => {
                    attempts.record_success();
                    return Ok(value);
                }
                Err(error) => attempts.end_or_repeat(error, is_abandoned).await?,
            }
        }
    }
}

/// The state of one call over its attempts.
struct Attempts<'a> {
    client: &'a Client,
    policy: Policy<'a>,
    generation: Generation,
    began: Instant,
    /// Nodes that are not tried again.
    tried: Vec<usize>,
    /// The current attempt's node; like the next two, [`Self::next_node`] sets it first.
    current: usize,
    /// Whether that node was ejected when it was chosen.
    is_ejected: bool,
    began_us: u64,
    /// The call was repeated once, after a node did not know its path and that node's generation was forgotten.
    is_reprobed: bool,
    retries: usize,
    /// A connection broke, so all pooled connections may be dead.
    new_connection: bool,
    /// The error of the last attempt.
    last_error: Option<Error>,
    /// The first error after which the call may have been carried out.
    ambiguous_error: Option<Error>,
}

impl<'a> Attempts<'a> {
    fn new(client: &'a Client, policy: Policy<'a>, generation: Generation) -> Self {
        Self {
            client,
            policy,
            generation,
            began: Instant::now(),
            tried: Vec::new(),
            current: 0,
            is_ejected: false,
            began_us: 0,
            is_reprobed: false,
            retries: 0,
            new_connection: false,
            last_error: None,
            ambiguous_error: None,
        }
    }

    fn node(&self) -> &'a Arc<Node> {
        &self.client.nodes.all()[self.current]
    }

    /// The next node to try, which is of the generation in use.
    async fn next_node(&mut self) -> Result<&'a Arc<Node>, Error> {
        loop {
            ejection::spawn_probes(&self.client.nodes);
            self.current = match self.choose() {
                Some(index) => index,
                None => return Err(self.final_error()),
            };
            self.is_ejected = self.node().ejection.is_ejected();
            match self.check_generation().await {
                Ok(()) => {
                    self.began_us = now_us();
                    return Ok(self.node());
                }
                Err(error) => {
                    if error != Error::OtherGeneration {
                        self.node().ejection.record_failure(true);
                    }
                    self.last_error = Some(error);
                    self.tried.push(self.current);
                }
            }
        }
    }

    fn choose(&self) -> Option<usize> {
        let nodes = &self.client.nodes;
        if let Some(index) = self.policy.affinity.and_then(NodeAffinity::node) {
            let is_untried = !self.tried.contains(&index);
            if self.generation == Generation::V2 {
                // An earlier message may still be in flight to this node; through another node, this one would overtake it.
                return (is_untried && !nodes.all()[index].load.is_full()).then_some(index);
            }
            if is_untried && nodes.is_available(index) {
                return Some(index);
            }
        }
        nodes.choose(&self.tried)
    }

    async fn check_generation(&self) -> Result<(), Error> {
        if self.node().eligibility() == Eligibility::Usable {
            return Ok(());
        }
        // Boxed because a probe is rare and would enlarge every call's future.
        let check = Box::pin(self.node().check_generation());
        let found = if self.client.nodes.is_single() {
            check.await
        } else {
            let found = timeout(DETECTION_TIMEOUT, check).await;
            found.unwrap_or(Err(Error::Timeout))
        };
        found.map(drop)
    }

    /// The call's error when no node is left.
    fn final_error(&mut self) -> Error {
        let error = self.ambiguous_error.take().or(self.last_error.take());
        error.unwrap_or_else(|| {
            if self.client.nodes.is_full(&self.tried) {
                Error::Busy
            } else {
                Error::OtherGeneration
            }
        })
    }

    /// How long to wait for this node before the call is retried on another; `None` to wait for the call's own timeout.
    fn slow_after(&self) -> Option<Duration> {
        if self.policy.retry != Retry::Read || !self.has_alternative() {
            return None;
        }
        let (factor, minimum) = SLOW_THRESHOLD;
        Some((self.node().load.latency() * factor).max(minimum))
    }

    fn has_alternative(&self) -> bool {
        let nodes = &self.client.nodes;
        self.retries < MAX_RETRIES && nodes.has_another(self.current, &self.tried)
    }

    fn take_retry_token(&self) -> bool {
        let is_taken = self.client.nodes.budget.try_withdraw(now_us());
        let metrics = &self.client.transport.metrics;
        metrics.upstream_retried(self.policy.call, !is_taken);
        is_taken
    }

    fn record_success(&self) {
        self.node().ejection.record_success(self.is_ejected);
        self.pin_node();
    }

    /// What follows a failed attempt: the next one, or the call's error. Of an abandoned attempt the next one's token is taken already.
    async fn end_or_repeat(&mut self, error: Error, is_abandoned: bool) -> Result<(), Error> {
        self.record_health(&error, is_abandoned);
        if error.can_go_to_next_node() {
            // Another node is no retry.
            self.tried.push(self.current);
            self.last_error = Some(error);
            return Ok(());
        }
        self.pin_node();
        if matches!(error, Error::Status(404 | 405)) && !self.is_reprobed {
            // The path is unknown there, so nothing was done: another generation may answer.
            self.is_reprobed = true;
            return Ok(());
        }
        if error.may_have_arrived() {
            self.ambiguous_error.get_or_insert_with(|| error.clone());
        }
        if self.should_retry(&error, is_abandoned).await {
            self.last_error = Some(error);
            return Ok(());
        }
        // A refusal or conflict also tells the outcome of an ambiguous first attempt.
        let is_definite = matches!(
            error,
            Error::Refused(_) | Error::Rejected(Rejection::Conflict)
        );
        Err(match self.ambiguous_error.take() {
            Some(ambiguous) if !is_definite && !error.may_have_arrived() => ambiguous,
            _ => error,
        })
    }

    /// The node has taken the call, or would have, had it been permitted: later calls with this affinity go there too.
    fn pin_node(&self) {
        if let Some(affinity) = self.policy.affinity {
            affinity.set(self.current);
        }
    }

    fn record_health(&self, error: &Error, is_abandoned: bool) {
        let node = self.node();
        match error {
            Error::Connect => node.ejection.record_failure(true),
            // `Measured` counts it when it is dropped, where the node answered no other call either.
            Error::Timeout if is_abandoned => {}
            Error::Timeout => {
                let is_silent = node.load.is_silent_since(self.began_us);
                node.ejection.record_failure(is_silent);
            }
            Error::Lost => node.ejection.record_failure(false),
            Error::Status(500..) => {
                // The connection may be a proxy's, behind which another WuKongIM has started.
                node.forget_payload_support();
                node.ejection.record_failure(false);
            }
            Error::Decode(_) => {
                node.ejection.record_failure(false);
                node.forget_generation();
            }
            Error::OtherGeneration | Error::Status(404 | 405) => node.forget_generation(),
            Error::Busy | Error::Withdrawn | Error::PayloadTooLarge { .. } => {}
            _ => node.ejection.record_success(self.is_ejected),
        }
    }

    /// Whether to retry the call; waits for the jitter first.
    async fn should_retry(&mut self, error: &Error, is_abandoned: bool) -> bool {
        let retry_required = *error == Error::Rejected(Rejection::RetryRequired);
        let is_lost = *error == Error::Lost;
        let could_help = retry_required
            || matches!(
                error,
                Error::Lost | Error::Timeout | Error::Decode(_) | Error::Status(500..)
            );
        let (on_another_node, on_same_node) = match self.policy.retry {
            Retry::Never => (retry_required, false),
            Retry::IfLost => (is_lost, is_lost),
            Retry::Read => (could_help, is_lost),
            Retry::IdempotencyKey => (could_help, retry_required || is_lost),
        };
        let on_another_node = on_another_node && self.has_alternative();
        let on_same_node = on_same_node && self.retries == 0;
        let jitter = RETRY_JITTER.mul_f64(fastrand::f64());
        let deadline = current_deadline();
        let deadline = deadline.unwrap_or(self.began + self.client.transport.timeout);
        if !(on_another_node || on_same_node) || Instant::now() + jitter >= deadline {
            return false;
        }
        self.new_connection = is_lost && !on_another_node;
        // All pooled connections may have died together, and few of the calls on them have arrived.
        let needs_token = !self.new_connection || self.policy.retry == Retry::IdempotencyKey;
        if needs_token && !is_abandoned && !self.take_retry_token() {
            return false;
        }
        self.retries += 1;
        if on_another_node {
            self.tried.push(self.current);
        }
        sleep(jitter).await;
        true
    }
}

#[cfg(test)]
mod tests;
