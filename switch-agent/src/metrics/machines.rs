//! Machines.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use switch_agent_core::machines::{Counters, SightingSource};
use switch_agent_core::name::PortName;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PortLabel {
    port: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SourceLabel {
    source: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

#[derive(Debug)]
pub struct MachineMetrics {
    machines: Family<PortLabel, Gauge>,
    /// Ports that `machines` has.
    told: Mutex<BTreeSet<PortName>>,
    sightings: Family<SourceLabel, Counter>,
    moves: Counter,
    evictions: Family<KindLabel, Counter>,
    events_dropped: Counter,
}

impl MachineMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = MachineMetrics {
            machines: Family::default(),
            told: Mutex::default(),
            sightings: Family::default(),
            moves: Counter::default(),
            evictions: Family::default(),
            events_dropped: Counter::default(),
        };
        registry.register("machines", "Machines known on each boot port", metrics.machines.clone());
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

    /// Sets the gauge of every boot port, and drops those that are none any more. Gauges that stay are never
    /// away in between: two scrapes may run at once.
    pub fn set_machines(&self, by_port: &BTreeMap<PortName, usize>) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let gone = told.iter().filter(|port| !by_port.contains_key(port));
        for port in gone {
            self.machines.remove(&PortLabel { port: port.to_string() });
        }
        *told = by_port.keys().cloned().collect();
        for (port, count) in by_port {
            let label = PortLabel { port: port.to_string() };
            self.machines.get_or_create(&label).set(i64::try_from(*count).unwrap_or(i64::MAX));
        }
    }

    /// Adds what the table counted between two readings.
    pub fn counted(&self, before: &Counters, after: &Counters) {
        for (source, count) in &after.sightings {
            let label = SourceLabel { source: source_name(*source) };
            let known = before.sightings.get(source).copied().unwrap_or_default();
            self.sightings.get_or_create(&label).inc_by(count.saturating_sub(known));
        }
        self.moves.inc_by(after.moves.saturating_sub(before.moves));
        let kinds = [
            ("machine", after.evicted_machines.saturating_sub(before.evicted_machines)),
            ("address", after.evicted_addresses.saturating_sub(before.evicted_addresses)),
        ];
        for (kind, count) in kinds {
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
