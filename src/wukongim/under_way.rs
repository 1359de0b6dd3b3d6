//! One call to one node while it lasts: what it adds to the node's load, and how it is counted in the end.

use std::time::Duration;

use super::Error;
use super::load::now_us;
use super::nodes::Node;
use super::transport::{Answer, Transport, begin_span, outcome};
use crate::telemetry::CallSpan;

/// A call that was given up after this time, with not one answer of its node meanwhile, says something of the node.
const SILENCE: Duration = Duration::from_millis(250);

/// A call under way to a node; one that is given up is counted as well.
pub(super) struct UnderWay<'a> {
    transport: &'a Transport,
    node: &'a Node,
    call: &'static str,
    began_us: u64,
    outcome: &'static str,
    answered: bool,
    pub(super) span: CallSpan,
}

impl<'a> UnderWay<'a> {
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
            span: begin_span(call, &node.name),
        }
    }

    pub(super) fn end(mut self, result: &Result<Answer, Error>) {
        self.outcome = outcome(result);
        self.answered = !matches!(result, Err(Error::Connect | Error::Timeout | Error::Lost));
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let Self { node, began_us, .. } = *self;
        let now = now_us();
        let took = Duration::from_micros(now.saturating_sub(began_us));
        // Who asked is gone. That happens; but not one answer all the while is the node's fault.
        if self.outcome == "cancelled" && took >= SILENCE && node.load.is_silent_since(began_us) {
            node.rest.failed(false);
        }
        self.span.end(self.outcome);
        node.load.end(began_us, now, self.answered);
        node.meters.in_flight.dec();
        node.meters.latency.set(node.load.latency().as_secs_f64());
        self.transport
            .count(&node.name, self.call, self.outcome, took);
    }
}
