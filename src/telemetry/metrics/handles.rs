//! Metrics that were looked up by their labels before.

use parking_lot::RwLock;

/// Comparing a few dozen is cheaper than hashing for each look-up, as a family does.
pub(super) struct Handles<L, M>(RwLock<Vec<(L, M)>>);

impl<L, M> Handles<L, M> {
    pub(super) fn new() -> Self {
        Self(RwLock::new(Vec::new()))
    }

    /// Does `act` to the metric whose labels `is` says are meant; `make` gives it with its labels the first time.
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
        let mut handles = self.0.write();
        if !handles.iter().any(|(labels, _)| is(labels)) {
            handles.push((labels, metric));
        }
    }
}
