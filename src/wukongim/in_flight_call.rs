//! One call in flight to one node: its share of the node's load, and its metrics when it ends.

use std::time::Duration;

use super::Error;
use super::load::now_us;
use super::node::Node;
use super::transport::{Answer, Transport, outcome, start_span};
use crate::telemetry::CallSpan;

/// A call cancelled after this time counts as the node's failure if the node answered nothing meanwhile.
const UNRESPONSIVE_AFTER: Duration = Duration::from_millis(250);

/// A call in flight to a node; a cancelled one is counted too.
pub(super) struct InFlightCall<'a> {
    transport: &'a Transport,
    node: &'a Node,
    call: &'static str,
    began_us: u64,
    outcome: &'static str,
    answered: bool,
    pub(super) span: CallSpan,
}

impl<'a> InFlightCall<'a> {
    pub(super) fn begin(transport: &'a Transport, node: &'a Node, call: &'static str) -> Self {
        let began_us = now_us();
        node.load.begin(began_us);
        node.meters.in_flight.inc();
        Self {
            transport,
            node,
            call,
            began_us,
            outcome: "cancelled",
            answered: false,
            span: start_span(call, &node.name),
        }
    }

    pub(super) fn end(mut self, result: &Result<Answer, Error>) {
        self.outcome = outcome(result);
        self.answered = !matches!(result, Err(Error::Connect | Error::Timeout | Error::Lost));
    }
}

impl Drop for InFlightCall<'_> {
    fn drop(&mut self) {
        let Self { node, began_us, .. } = *self;
        let now = now_us();
        let took = Duration::from_micros(now.saturating_sub(began_us));
        // The caller dropped the call, which is normal. That the node answered no call in all this time is a failure.
        if self.outcome == "cancelled"
            && took >= UNRESPONSIVE_AFTER
            && node.load.is_silent_since(began_us)
        {
            node.ejection.record_failure(false);
        }
        self.span.end(self.outcome);
        node.load.end(began_us, now, self.answered);
        node.meters.in_flight.dec();
        node.meters.latency.set(node.load.latency().as_secs_f64());
        self.transport
            .count(&node.name, self.call, self.outcome, took);
    }
}
