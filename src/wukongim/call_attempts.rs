//! The attempts of one call: which node is tried, when another one is, and what each attempt says about its node's health. Knows nothing of
//! what is called.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::call_policy::{CallPolicy, NodeAffinity, Retry};
use super::load::now_us;
use super::node::{Node, Standing};
use super::nodes::Choice;
use super::{Client, Error, Generation, Rejection, maintenance};
use crate::context::current_deadline;

/// Maximum retries where another node is available. A single node is retried once.
const MAX_RETRIES: usize = 2;
/// The longest pause before a retry, so that calls that failed together are not repeated together.
const RETRY_JITTER: Duration = Duration::from_millis(25);
/// How long detecting a node's generation may take where other nodes are configured.
const DETECTION_TIMEOUT: Duration = Duration::from_millis(900);
/// A read is retried on another node when it takes this many times the node's average latency, and at least this long.
const HEDGE_THRESHOLD: (u32, Duration) = (8, Duration::from_millis(250));

/// The state of one call over its attempts.
pub(super) struct CallAttempts<'a> {
    client: &'a Client,
    policy: CallPolicy<'a>,
    began: Instant,
    tried: Vec<usize>,
    current: Choice,
    generation: Generation,
    sent_us: u64,
    /// The attempt is repeated on the same node after its generation was detected again.
    redetected: bool,
    retries: usize,
    /// A connection broke, so all pooled connections may be dead.
    new_connection: bool,
    /// The token of the next retry is taken already.
    token_taken: bool,
    /// The error of the last attempt.
    last_error: Option<Error>,
    /// The first error after which the call may have been carried out.
    ambiguous_error: Option<Error>,
}

/// Carries out a call on the nodes that `policy` allows, until one has answered it.
macro_rules! on_node {
    ($client:expr, $policy:expr, |$node:ident, $generation:ident| $call:expr) => {{
        let mut attempts = $crate::wukongim::call_attempts::CallAttempts::begin($client, $policy);
        loop {
            let ($node, $generation) = match attempts.next().await {
                Ok(next) => next,
                Err(error) => break Err(error),
            };
            let hedge_delay = attempts.hedge_delay();
            let mut call = std::pin::pin!($crate::wukongim::transport::on_new_connection(
                attempts.is_on_new_connection(),
                $call
            ));
            let outcome = match hedge_delay {
                None => call.await,
                Some(hedge_delay) => match tokio::time::timeout(hedge_delay, call.as_mut()).await {
                    Ok(outcome) => outcome,
                    Err(_) if attempts.should_hedge() => Err($crate::wukongim::Error::Timeout),
                    Err(_) => call.await,
                },
            };
            if let Some(outcome) = attempts.finish_attempt(outcome).await {
                break outcome;
            }
        }
    }};
}
pub(super) use on_node;

impl<'a> CallAttempts<'a> {
    pub(super) fn begin(client: &'a Client, policy: CallPolicy<'a>) -> Self {
        Self {
            client,
            policy,
            began: Instant::now(),
            tried: Vec::new(),
            current: Choice::available(0),
            generation: Generation::V2,
            sent_us: 0,
            redetected: false,
            retries: 0,
            new_connection: false,
            token_taken: false,
            last_error: None,
            ambiguous_error: None,
        }
    }

    fn node(&self) -> &'a Arc<Node> {
        &self.client.nodes.all()[self.current.index]
    }

    /// The next node to try, and the generation in use.
    pub(super) async fn next(&mut self) -> Result<(&'a Arc<Node>, Generation), Error> {
        let nodes = &self.client.nodes;
        self.generation = nodes.generation().await?;
        loop {
            maintenance::spawn_maintenance(self.client);
            let Some(choice) = self.choose() else {
                return Err(self.final_error());
            };
            let node = &nodes.all()[choice.index];
            match self.check(node).await {
                Ok(()) => {
                    self.current = choice;
                    self.sent_us = now_us();
                    return Ok((node, self.generation));
                }
                Err(error) => {
                    if error != Error::OtherGeneration {
                        node.ejection.record_failure(true);
                    }
                    self.last_error = Some(error);
                    self.tried.push(choice.index);
                }
            }
        }
    }

    /// Checks that the node is of the generation in use.
    async fn check(&self, node: &Arc<Node>) -> Result<(), Error> {
        if node.standing() == Standing::Usable {
            return Ok(());
        }
        // Boxed because a probe is rare and would enlarge every call's future.
        let check = Box::pin(node.check_generation());
        let found = if self.client.nodes.is_single() {
            check.await
        } else {
            let found = tokio::time::timeout(DETECTION_TIMEOUT, check).await;
            found.unwrap_or(Err(Error::Timeout))
        };
        found.map(drop)
    }

    fn choose(&self) -> Option<Choice> {
        let nodes = &self.client.nodes;
        if let Some(index) = self.policy.affinity.and_then(NodeAffinity::node) {
            let is_free = !self.tried.contains(&index);
            let ejected = nodes.all()[index].ejection.is_ejected();
            if self.generation == Generation::V2 {
                // An earlier message may still be in flight to this node; through another node, this one would overtake it.
                return is_free.then_some(Choice { index, ejected });
            }
            if is_free && nodes.is_available(index) {
                return Some(Choice { index, ejected });
            }
        }
        nodes.choose(&self.tried)
    }

    /// The call's error when no node is left.
    fn final_error(&mut self) -> Error {
        if let Some(ambiguous_error) = self.ambiguous_error.take() {
            return ambiguous_error;
        }
        let nodes = &self.client.nodes;
        self.last_error.take().unwrap_or_else(|| {
            if nodes.is_full(&self.tried) {
                Error::Busy
            } else {
                Error::OtherGeneration
            }
        })
    }

    /// How long to wait for this node before the call is retried on another; `None` to wait for the call's own timeout.
    pub(super) fn hedge_delay(&self) -> Option<Duration> {
        if self.policy.retry != Retry::Read || !self.has_alternative() {
            return None;
        }
        let (factor, minimum) = HEDGE_THRESHOLD;
        Some((self.node().load.latency() * factor).max(minimum))
    }

    /// Whether to drop this attempt and try another node; takes the retry's token.
    pub(super) fn should_hedge(&mut self) -> bool {
        self.token_taken = self.take_retry_token();
        self.token_taken
    }

    /// Whether this attempt uses a new connection.
    pub(super) fn is_on_new_connection(&self) -> bool {
        self.new_connection
    }

    fn has_alternative(&self) -> bool {
        let nodes = &self.client.nodes;
        if nodes.is_single() || self.retries >= MAX_RETRIES {
            return false;
        }
        nodes.has_another(self.current.index, &self.tried)
    }

    fn take_retry_token(&self) -> bool {
        let token_taken = self.client.nodes.budget.try_withdraw(now_us());
        self.client
            .transport
            .metrics
            .upstream_retried(self.policy.call, !token_taken);
        token_taken
    }

    /// Records an attempt's result for its node, and returns the call's outcome, or `None` for another attempt.
    pub(super) async fn finish_attempt<T>(
        &mut self,
        outcome: Result<T, Error>,
    ) -> Option<Result<T, Error>> {
        if self.retries == 0 && !self.redetected {
            self.client.nodes.budget.deposit();
        }
        let error = match outcome {
            Ok(value) => {
                self.node().ejection.record_success(self.current.ejected);
                self.pin_node();
                return Some(Ok(value));
            }
            Err(error) => error,
        };
        self.record_health(&error);
        if !error.was_not_sent() {
            self.pin_node();
        }
        if let Error::Status(404 | 405) = error
            && !self.redetected
        {
            // The path is unknown there: nothing was done.
            self.redetected = true;
            return None;
        }
        if error.may_have_arrived() {
            self.ambiguous_error.get_or_insert_with(|| error.clone());
        }
        if error.was_not_sent() {
            // Nothing was sent, so another node is not a retry.
            self.tried.push(self.current.index);
            self.last_error = Some(error);
            return None;
        }
        if self.should_retry(&error).await {
            self.last_error = Some(error);
            return None;
        }
        Some(Err(match self.ambiguous_error.take() {
            // A refusal or conflict also settles the ambiguous first attempt.
            Some(_)
                if matches!(
                    error,
                    Error::Refused(_) | Error::Rejected(Rejection::Conflict)
                ) =>
            {
                error
            }
            Some(ambiguous_error) if !error.may_have_arrived() => ambiguous_error,
            _ => error,
        }))
    }

    /// The node has taken the call: later calls with this affinity go there too.
    fn pin_node(&self) {
        if let Some(affinity) = self.policy.affinity {
            affinity.set(self.current.index);
        }
    }

    fn record_health(&self, error: &Error) {
        let node = self.node();
        match error {
            Error::Connect => node.ejection.record_failure(true),
            // A node that answers other calls is alive, and a hedged call says nothing of its node.
            Error::Timeout => {
                let is_silent = node.load.is_silent_since(self.sent_us);
                if is_silent || !self.token_taken {
                    node.ejection.record_failure(is_silent && !self.token_taken);
                }
            }
            Error::Lost => node.ejection.record_failure(false),
            Error::Status(500..) => {
                // The connection may be a proxy's, behind which another WuKongIM has started.
                node.forget_release();
                node.ejection.record_failure(false);
            }
            Error::Decode(_) => {
                node.ejection.record_failure(false);
                node.forget_generation();
            }
            Error::OtherGeneration | Error::Status(404 | 405) => node.forget_generation(),
            Error::Busy | Error::Withdrawn | Error::PayloadTooLarge { .. } => {}
            _ => node.ejection.record_success(self.current.ejected),
        }
    }

    /// Whether to retry the call; waits for the jitter first.
    async fn should_retry(&mut self, error: &Error) -> bool {
        let retry_required = *error == Error::Rejected(Rejection::RetryRequired);
        let is_safe = match self.policy.retry {
            Retry::Never => retry_required && self.generation == Generation::V3,
            Retry::IfLost => *error == Error::Lost,
            Retry::Read | Retry::IdempotencyKey => true,
        };
        let could_help = retry_required
            || matches!(
                error,
                Error::Lost | Error::Timeout | Error::Decode(_) | Error::Status(500..)
            );
        if !is_safe || !could_help {
            return false;
        }
        let on_another_node = self.has_alternative();
        let is_lost = *error == Error::Lost;
        let on_same_node = self.retries == 0
            && match self.policy.retry {
                Retry::Never => false,
                Retry::Read | Retry::IfLost => is_lost,
                Retry::IdempotencyKey => retry_required || is_lost,
            };
        let jitter = RETRY_JITTER.mul_f64(fastrand::f64());
        let deadline = current_deadline();
        let deadline = deadline.unwrap_or(self.began + self.client.transport.timeout);
        if !(on_another_node || on_same_node) || Instant::now() + jitter >= deadline {
            return false;
        }
        self.new_connection = is_lost && !on_another_node;
        // All pooled connections may have died together, and few of the calls on them have arrived, so these retries are free.
        let is_free = self.new_connection && self.policy.retry != Retry::IdempotencyKey;
        if !is_free && !std::mem::take(&mut self.token_taken) && !self.take_retry_token() {
            return false;
        }
        self.retries += 1;
        if on_another_node {
            self.tried.push(self.current.index);
        }
        tokio::time::sleep(jitter).await;
        true
    }
}
