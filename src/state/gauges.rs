//! Gauges that are computed only when metrics are scraped, from the state of all modules.

use super::App;
use crate::telemetry::GaugeSnapshot;

impl App {
    /// All metrics as OpenMetrics text, with current gauges.
    pub fn metrics_text(&self) -> String {
        self.measure();
        self.metrics.render()
    }

    /// [`App::metrics_text`] in Prometheus's text format 0.0.4.
    pub fn prometheus_text(&self) -> String {
        self.measure();
        self.metrics.render_prometheus()
    }

    fn measure(&self) {
        let state = &*self.0;
        let mut caches = state.authorization.sizes();
        caches.push(("tokens", state.verifier.cached_tokens()));
        caches.extend([state.conversations.size(), state.subscribers.size()]);
        state.metrics.gauges.set(&GaugeSnapshot {
            in_flight: self.requests_in_flight(),
            buffered: self.byte_budget.held(),
            remembered_sends: self.messages.remembered_sends(),
            limiter_entries: self.limits.entries(),
            caches,
            store: self.store.connections(),
        });
    }
}
