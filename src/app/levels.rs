//! What is measured only when somebody looks at the metrics: asked of each room that holds or keeps something.

use super::App;
use crate::telemetry::Measured;

impl App {
    /// The Prometheus text exposition of everything, measured now.
    pub fn metrics_text(&self) -> String {
        let rooms = &*self.0;
        let mut caches = rooms.authorization.sizes();
        caches.push(("tokens", rooms.verifier.remembered()));
        rooms.client.show_generations();
        rooms.metrics.levels.set(&Measured {
            buffered: rooms.memory.held(),
            numbers: rooms.messages.remembered(),
            limited: rooms.limits.entries(),
            caches,
            store: rooms.store.connections(),
        });
        rooms.metrics.render()
    }
}
