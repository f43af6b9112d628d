//! Reconcile passes, objects, actions.

use prometheus_client::registry::Registry;

#[derive(Debug)]
pub struct ReconcileMetrics {}

impl ReconcileMetrics {
    pub(super) fn register(_registry: &mut Registry) -> Self {
        ReconcileMetrics {}
    }
}
