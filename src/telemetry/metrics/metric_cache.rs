//! A cache of metrics by their labels.

use parking_lot::RwLock;

/// A linear search over a few dozen entries is cheaper than a family's hashing.
pub(super) struct MetricCache<L, M>(RwLock<Vec<(L, M)>>);

impl<L, M> MetricCache<L, M> {
    pub(super) fn new() -> Self {
        Self(RwLock::new(Vec::new()))
    }

    /// Applies `act` to the metric whose labels match `is`; `make` creates it with its labels at first use.
    pub(super) fn with(
        &self,
        is: impl Fn(&L) -> bool,
        make: impl FnOnce() -> (L, M),
        act: impl FnOnce(&M),
    ) {
        if let Some((_, metric)) = self.0.read().iter().find(|(labels, _)| is(labels)) {
            return act(metric);
        }
        let (labels, metric) = make();
        act(&metric);
        let mut entries = self.0.write();
        if !entries.iter().any(|(labels, _)| is(labels)) {
            entries.push((labels, metric));
        }
    }
}
