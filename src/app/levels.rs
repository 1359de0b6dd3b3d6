//! What is measured only when somebody looks at the metrics: asked of each room that holds or keeps something.

use super::App;
use crate::telemetry::Measured;

impl App {
    /// Everything, measured now, as OpenMetrics text.
    pub fn metrics_text(&self) -> String {
        self.measure();
        self.metrics().render()
    }

    /// [`App::metrics_text`] in Prometheus's text format 0.0.4.
    pub fn prometheus_text(&self) -> String {
        self.measure();
        self.metrics().render_prometheus()
    }

    fn measure(&self) {
        let rooms = &*self.0;
        let mut caches = rooms.authorization.sizes();
        caches.push(("tokens", rooms.verifier.remembered()));
        rooms.client.show_generations();
        rooms.metrics.levels.set(&Measured {
            in_flight: self.requests_in_flight(),
            buffered: rooms.memory.held(),
            numbers: rooms.messages.remembered(),
            limited: rooms.limits.entries(),
            caches,
            store: rooms.store.connections(),
        });
    }
}
