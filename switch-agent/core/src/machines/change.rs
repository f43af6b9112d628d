//! What goes into and comes out of the table: bounds, changes, counters.

use std::ops::{Index, IndexMut};
use std::time::Duration;

use serde::Serialize;

use super::SightingSource;
use crate::name::{MacAddr, PortName};

/// Bounds and times of a [`MachineTable`](super::MachineTable).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub machines_per_port_max: usize,
    pub addresses_per_machine_max: usize,
    /// A machine (or an address of it) that was not seen for this long is forgotten.
    pub machine_age: Duration,
    /// Carrier has to be lost for this long before it counts as an unplug: a bind flaps it within a
    /// millisecond, a driver reset within seconds.
    pub carrier_debounce: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            machines_per_port_max: 16,
            addresses_per_machine_max: 8,
            machine_age: Duration::from_secs(30 * 60),
            carrier_debounce: Duration::from_secs(10),
        }
    }
}

/// Why a machine left the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Removal {
    /// Not seen for [`Limits::machine_age`].
    Aged,
    /// The port lost carrier for [`Limits::carrier_debounce`].
    Unplugged,
    /// The port left the boot network.
    Released,
    /// The port has more machines than it may; this one was seen least recently.
    Evicted,
    /// It turned out to be an address of the switch itself.
    OwnMac,
}

/// A change of the table, for those who follow it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "change", rename_all = "kebab-case")]
pub enum MachineChange {
    Appeared {
        port: PortName,
        mac: MacAddr,
        source: SightingSource,
    },
    /// A new address, source or machine id, or an address that went away.
    Updated {
        port: PortName,
        mac: MacAddr,
    },
    Moved {
        mac: MacAddr,
        from: PortName,
        port: PortName,
        source: SightingSource,
    },
    Removed {
        port: PortName,
        mac: MacAddr,
        reason: Removal,
    },
}

impl MachineChange {
    pub fn port(&self) -> &PortName {
        match self {
            MachineChange::Appeared { port, .. }
            | MachineChange::Updated { port, .. }
            | MachineChange::Moved { port, .. }
            | MachineChange::Removed { port, .. } => port,
        }
    }
}

/// A count for each source.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BySource([u64; SightingSource::ALL.len()]);

impl Index<SightingSource> for BySource {
    type Output = u64;

    fn index(&self, source: SightingSource) -> &u64 {
        &self.0[source as usize]
    }
}

impl IndexMut<SightingSource> for BySource {
    fn index_mut(&mut self, source: SightingSource) -> &mut u64 {
        &mut self.0[source as usize]
    }
}

/// What happened since the start; never reset.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    pub sightings: BySource,
    pub moves: u64,
    pub evicted_machines: u64,
    pub evicted_addresses: u64,
}
