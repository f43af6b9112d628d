//! A gauge of every boot port.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use switch_agent_core::name::PortName;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct PortLabel {
    port: String,
}

#[derive(Debug, Default)]
pub(super) struct PortGauge {
    family: Family<PortLabel, Gauge>,
    /// Ports that `family` has.
    told: Mutex<BTreeSet<PortName>>,
}

impl PortGauge {
    /// What is registered.
    pub(super) fn family(&self) -> Family<PortLabel, Gauge> {
        self.family.clone()
    }

    /// Sets the gauge of each port, and drops the others. Gauges that stay are never away in between: two
    /// scrapes may run at once.
    pub(super) fn set<'a>(&self, values: impl Iterator<Item = (&'a PortName, i64)>) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let mut gone = std::mem::take(&mut *told);
        for (port, value) in values {
            self.family.get_or_create(&PortLabel { port: port.to_string() }).set(value);
            gone.remove(port);
            told.insert(port.clone());
        }
        for port in gone {
            self.family.remove(&PortLabel { port: port.to_string() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::registry::Registry;

    #[test]
    fn ports_leave_with_their_gauge() {
        let gauge = PortGauge::default();
        let mut registry = Registry::default();
        registry.register("machines", "Machines", gauge.family());
        let text = || {
            let mut text = String::new();
            prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
            text
        };
        let ports: [PortName; 2] = ["Ethernet0", "Ethernet4"].map(|port| port.parse().unwrap());
        gauge.set([(&ports[0], 1), (&ports[1], 2)].into_iter());
        assert!(text().contains("machines{port=\"Ethernet0\"} 1\n"));
        gauge.set([(&ports[1], 3)].into_iter());
        assert!(!text().contains("Ethernet0"));
        assert!(text().contains("machines{port=\"Ethernet4\"} 3\n"));
    }
}
