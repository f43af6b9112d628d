//! Machines.

use std::collections::BTreeMap;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use switch_agent_core::machines::{Counters, SightingSource};
use switch_agent_core::name::PortName;

use super::port_gauge::PortGauge;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SourceLabel {
    source: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

/// Kinds of what is evicted.
const MACHINE: &str = "machine";
const ADDRESS: &str = "address";

#[derive(Debug)]
pub struct MachineMetrics {
    machines: PortGauge,
    sightings: Family<SourceLabel, Counter>,
    moves: Counter,
    evictions: Family<KindLabel, Counter>,
    events_dropped: Counter,
}

impl MachineMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = MachineMetrics {
            machines: PortGauge::default(),
            sightings: Family::default(),
            moves: Counter::default(),
            evictions: Family::default(),
            events_dropped: Counter::default(),
        };
        // There from the start: a first eviction is a change then.
        for kind in [MACHINE, ADDRESS] {
            drop(metrics.evictions.get_or_create(&KindLabel { kind }));
        }
        registry.register("machines", "Machines known on each boot port", metrics.machines.family());
        registry.register(
            "machine_sightings",
            "Sightings of machines, by what told of them",
            metrics.sightings.clone(),
        );
        registry.register("machine_moves", "Machines that moved to another port", metrics.moves.clone());
        registry.register(
            "machine_evictions",
            "Machines and addresses forgotten because a port or a machine had too many",
            metrics.evictions.clone(),
        );
        registry.register(
            "admin_events_dropped",
            "Events that a follower of /v1/events was too slow for",
            metrics.events_dropped.clone(),
        );
        metrics
    }

    /// Sets the gauge of every boot port, and drops those that are none any more.
    pub fn set_machines(&self, by_port: &BTreeMap<PortName, usize>) {
        let count = |count: &usize| i64::try_from(*count).unwrap_or(i64::MAX);
        self.machines.set(by_port.iter().map(|(port, machines)| (port, count(machines))));
    }

    /// Adds what the table counted between two readings.
    pub fn counted(&self, before: &Counters, after: &Counters) {
        for source in SightingSource::ALL {
            let more = after.sightings[source].saturating_sub(before.sightings[source]);
            if more > 0 {
                let label = SourceLabel { source: source_name(source) };
                self.sightings.get_or_create(&label).inc_by(more);
            }
        }
        self.moves.inc_by(after.moves.saturating_sub(before.moves));
        let kinds = [
            (MACHINE, after.evicted_machines.saturating_sub(before.evicted_machines)),
            (ADDRESS, after.evicted_addresses.saturating_sub(before.evicted_addresses)),
        ];
        for (kind, count) in kinds.into_iter().filter(|(_, count)| *count > 0) {
            self.evictions.get_or_create(&KindLabel { kind }).inc_by(count);
        }
    }

    pub fn events_dropped(&self, count: u64) {
        self.events_dropped.inc_by(count);
    }
}

fn source_name(source: SightingSource) -> &'static str {
    match source {
        SightingSource::Rs => "rs",
        SightingSource::Neighbor => "neighbor",
        SightingSource::Lldp => "lldp",
        SightingSource::Proxy => "proxy",
        SightingSource::Dhcp6 => "dhcp6",
    }
}
