//! Machines.

use prometheus_client::registry::Registry;

#[derive(Debug)]
pub struct MachineMetrics {}

impl MachineMetrics {
    pub(super) fn register(_registry: &mut Registry) -> Self {
        MachineMetrics {}
    }
}
