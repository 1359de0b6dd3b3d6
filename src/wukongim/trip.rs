//! One call's way over the nodes: which is tried, when the call may go to another one, and what each attempt says of its node. Knows
//! nothing of what is called.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::detect::generation_of;
use super::load::now_us;
use super::nodes::{Choice, Node};
use super::plan::{Plan, Repeat, Route};
use super::transport::{current_deadline, on_new_connection};
use super::{Client, Error, Generation, Rejection, background};

/// How often a call is made once more at the most where another node can take it; one node alone is asked once more.
const MOST_RETRIES: usize = 2;
/// The longest pause before a call is made once more: not all that failed together come back together.
const JITTER: Duration = Duration::from_millis(25);
/// How long a node may take to say what it is, where others could be asked.
const DETECTION: Duration = Duration::from_millis(900);
/// A read is looked for elsewhere when it takes that many times as long as usual, and this long at least.
const IMPATIENT: (u32, Duration) = (8, Duration::from_millis(250));

/// See the module.
pub(super) struct Trip<'a> {
    client: &'a Client,
    plan: Plan<'a>,
    began: Instant,
    tried: Vec<usize>,
    at: Choice,
    generation: Generation,
    left_us: u64,
    /// The same node once more, since another generation seems to answer there.
    again: bool,
    retries: usize,
    /// A connection broke, and all that are kept with it may be dead.
    new_connection: bool,
    /// The next retry is paid for.
    paid: bool,
    /// What came of the last attempt.
    last: Option<Error>,
    /// What came of the first one that may have done something.
    doubt: Option<Error>,
}

/// Carries out a call on the nodes that `plan` allows, until one has answered it.
macro_rules! on_node {
    ($client:expr, $plan:expr, |$node:ident, $generation:ident| $call:expr) => {{
        let mut trip = $crate::wukongim::trip::Trip::begin($client, $plan);
        loop {
            let ($node, $generation) = match trip.next().await {
                Ok(next) => next,
                Err(error) => break Err(error),
            };
            let patience = trip.patience();
            let mut call = std::pin::pin!($crate::wukongim::transport::on_new_connection(
                trip.is_on_new_connection(),
                $call
            ));
            let outcome = match patience {
                None => call.await,
                Some(patience) => match tokio::time::timeout(patience, call.as_mut()).await {
                    Ok(outcome) => outcome,
                    Err(_) if trip.loses_patience() => Err($crate::wukongim::Error::Timeout),
                    Err(_) => call.await,
                },
            };
            if let Some(outcome) = trip.settle(outcome).await {
                break outcome;
            }
        }
    }};
}
pub(super) use on_node;

impl<'a> Trip<'a> {
    pub(super) fn begin(client: &'a Client, plan: Plan<'a>) -> Self {
        Self {
            client,
            plan,
            began: Instant::now(),
            tried: Vec::new(),
            at: Choice::awake(0),
            generation: Generation::V2,
            left_us: 0,
            again: false,
            retries: 0,
            new_connection: false,
            paid: false,
            last: None,
            doubt: None,
        }
    }

    fn node(&self) -> &'a Arc<Node> {
        &self.client.nodes.all()[self.at.place]
    }

    /// The node to be asked next, and what it is.
    pub(super) async fn next(&mut self) -> Result<(&'a Arc<Node>, Generation), Error> {
        let nodes = &self.client.nodes;
        let mut other = None;
        loop {
            background::tend(self.client);
            let choice = match other {
                None => self.choose(),
                // Only when no node is left of the generation that is spoken to.
                Some(_) => nodes.choose(nodes.spoken(), &self.tried),
            };
            let choice = match (choice, other) {
                (Some(choice), _) => choice,
                (None, Some((at, generation))) => return Ok(self.arrive(at, generation)),
                (None, None) => return Err(self.verdict()),
            };
            let node = &nodes.all()[choice.place];
            let detection = match node.generation() {
                Some(generation) => Ok(generation),
                None => self.detect(node).await,
            };
            match detection {
                Ok(generation) if self.plan.wanted.is_some_and(|wanted| wanted != generation) => {
                    self.last = Some(Error::OtherGeneration);
                    self.tried.push(choice.place);
                }
                Ok(generation)
                    if self.plan.wanted.is_none()
                        && nodes.spoken().is_some_and(|spoken| spoken != generation) =>
                {
                    other.get_or_insert((choice, generation));
                    self.tried.push(choice.place);
                }
                Ok(generation) => return Ok(self.arrive(choice, generation)),
                Err(error) => {
                    node.rest.failed(true);
                    self.last = Some(error);
                    self.tried.push(choice.place);
                }
            }
        }
    }

    /// Asks a node what it is: seldom, so the calls' futures are not made larger by it.
    async fn detect(&self, node: &Node) -> Result<Generation, Error> {
        let transport = &self.client.transport;
        let detection = on_new_connection(self.new_connection, generation_of(transport, node));
        let detection = Box::pin(detection);
        if self.client.nodes.is_one() {
            return detection.await;
        }
        let detection = tokio::time::timeout(DETECTION, detection).await;
        detection.unwrap_or(Err(Error::Timeout))
    }

    fn arrive(&mut self, at: Choice, generation: Generation) -> (&'a Arc<Node>, Generation) {
        if self.plan.wanted.is_none() && self.client.nodes.speak(generation) {
            tracing::info!(?generation, "wukongim of another generation is spoken to");
        }
        self.at = at;
        self.generation = generation;
        self.left_us = now_us();
        (self.node(), generation)
    }

    fn choose(&self) -> Option<Choice> {
        let nodes = &self.client.nodes;
        if let Some(place) = self.plan.route.and_then(Route::place) {
            let is_free = !self.tried.contains(&place);
            let resting = nodes.all()[place].rest.is_resting();
            if self.plan.wanted == Some(Generation::V2) {
                // What was sent before may be on its way there still: another node would overtake it.
                return is_free.then_some(Choice { place, resting });
            }
            if is_free && nodes.is_awake(place) {
                return Some(Choice { place, resting });
            }
        }
        nodes.choose(self.plan.wanted, &self.tried)
    }

    /// What is told when no node is left.
    fn verdict(&mut self) -> Error {
        if let Some(doubt) = self.doubt.take() {
            return doubt;
        }
        let nodes = &self.client.nodes;
        self.last.take().unwrap_or_else(|| {
            if nodes.is_full(&self.tried) {
                Error::Busy
            } else {
                Error::OtherGeneration
            }
        })
    }

    /// How long this node is waited for before another one is asked as well; `None` to wait as long as the call may take.
    pub(super) fn patience(&self) -> Option<Duration> {
        if self.plan.repeat != Repeat::Read || !self.may_go_elsewhere() {
            return None;
        }
        let (times, least) = IMPATIENT;
        Some((self.node().load.latency() * times).max(least))
    }

    /// Whether the call is given up here and made elsewhere.
    pub(super) fn loses_patience(&mut self) -> bool {
        self.paid = self.pay();
        self.paid
    }

    /// Whether this attempt goes out on a new connection.
    pub(super) fn is_on_new_connection(&self) -> bool {
        self.new_connection
    }

    fn may_go_elsewhere(&self) -> bool {
        let nodes = &self.client.nodes;
        if nodes.is_one() || self.retries >= MOST_RETRIES {
            return false;
        }
        nodes.has_another(self.at.place, self.generation, &self.tried)
    }

    fn pay(&self) -> bool {
        let paid = self.client.nodes.budget.take(now_us());
        self.client
            .transport
            .metrics
            .upstream_retried(self.plan.call, !paid);
        paid
    }

    /// What an attempt says of its node, and the call's outcome, or `None` where it is to be made once more.
    pub(super) async fn settle<T>(
        &mut self,
        outcome: Result<T, Error>,
    ) -> Option<Result<T, Error>> {
        if self.retries == 0 && !self.again {
            self.client.nodes.budget.call();
        }
        let error = match outcome {
            Ok(value) => {
                self.node().rest.succeeded(self.at.resting);
                self.found();
                return Some(Ok(value));
            }
            Err(error) => error,
        };
        self.judge(&error);
        if !error.never_left() {
            self.found();
        }
        if let Error::Status(404 | 405) = error
            && !self.again
        {
            // An unknown path: nothing was done.
            self.again = true;
            return None;
        }
        if error.may_have_arrived() {
            self.doubt.get_or_insert_with(|| error.clone());
        }
        if error.never_left() {
            // Nothing was done, so it is no repetition.
            self.tried.push(self.at.place);
            self.last = Some(error);
            return None;
        }
        if self.is_worth_a_retry(&error).await {
            self.last = Some(error);
            return None;
        }
        Some(Err(match self.doubt.take() {
            // What it says of the message is true of the first attempt as well.
            Some(_)
                if matches!(
                    error,
                    Error::Refused(_) | Error::Rejected(Rejection::Conflict)
                ) =>
            {
                error
            }
            Some(doubt) if !error.may_have_arrived() => doubt,
            _ => error,
        }))
    }

    /// The node has taken the call: what follows on this route goes there too.
    fn found(&self) {
        if let Some(route) = self.plan.route {
            route.take(self.at.place);
        }
    }

    fn judge(&self, error: &Error) {
        let node = self.node();
        match error {
            Error::Connect => node.rest.failed(true),
            // One that answers others is not dead, nor one that was only not waited for any longer.
            Error::Timeout => {
                let is_silent = node.load.is_silent_since(self.left_us);
                if is_silent || !self.paid {
                    node.rest.failed(is_silent && !self.paid);
                }
            }
            Error::Lost => node.rest.failed(false),
            Error::Status(500..) => {
                // It may be a proxy's, behind which another WuKongIM comes up.
                node.forget_release();
                node.rest.failed(false);
            }
            Error::Decode(_) => {
                node.rest.failed(false);
                node.forget_generation();
            }
            Error::OtherGeneration | Error::Status(404 | 405) => node.forget_generation(),
            Error::Busy | Error::Withdrawn | Error::PayloadTooLarge { .. } => {}
            _ => node.rest.succeeded(self.at.resting),
        }
    }

    /// Whether the call is made once more; pauses first and chooses where.
    async fn is_worth_a_retry(&mut self, error: &Error) -> bool {
        let retry_required = *error == Error::Rejected(Rejection::RetryRequired);
        let is_safe = match self.plan.repeat {
            Repeat::Never => retry_required && self.generation == Generation::V3,
            Repeat::IfLost => *error == Error::Lost,
            Repeat::Read | Repeat::Numbered => true,
        };
        let could_help = retry_required
            || matches!(
                error,
                Error::Lost | Error::Timeout | Error::Decode(_) | Error::Status(500..)
            );
        if !is_safe || !could_help {
            return false;
        }
        let elsewhere = self.may_go_elsewhere();
        let is_lost = *error == Error::Lost;
        let here = self.retries == 0
            && match self.plan.repeat {
                Repeat::Never => false,
                Repeat::Read | Repeat::IfLost => is_lost,
                Repeat::Numbered => retry_required || is_lost,
            };
        let pause = JITTER.mul_f64(fastrand::f64());
        let deadline = current_deadline();
        let deadline = deadline.unwrap_or(self.began + self.client.transport.timeout);
        if !(elsewhere || here) || Instant::now() + pause >= deadline {
            return false;
        }
        self.new_connection = is_lost && !elsewhere;
        // All kept connections may have died at once, and few of the calls that met them have arrived: those are not counted.
        let is_free = self.new_connection && self.plan.repeat != Repeat::Numbered;
        if !is_free && !std::mem::take(&mut self.paid) && !self.pay() {
            return false;
        }
        self.retries += 1;
        if elsewhere {
            self.tried.push(self.at.place);
        }
        tokio::time::sleep(pause).await;
        true
    }
}
