//! The fold from sightings to "which machine is on which port".
//!
//! Invariants: a MAC is on at most one port; a port holds at most [`Limits::machines_per_port_max`] of them,
//! each with at most [`Limits::addresses_per_machine_max`] addresses, whatever a machine sends.
//!
//! How far a source is believed:
//! - A packet that came in through the port (solicitation, probe, proxy connection) always counts; the newest port
//!   wins.
//! - A neighbour entry counts unless the port has no carrier, or it is the entry that a machine left behind
//!   when it moved on ([`Port::departed`]): the kernel keeps such entries for hours.
//! - An LLDP row counts when it changed, or when the machine is known nowhere else. lldp_syncd rewrites
//!   every row each 10 s and drops it up to 10 s after the link, so a row that merely stands proves little.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;
use std::time::Duration;

use super::port::{Carrier, Departed, Machine, Port, drop_oldest};
use super::{
    Counters, Limits, LldpNeighbor, MachineChange, MachineEvent, ProxyStep, Removal, SightingSource,
};
use crate::map::IntoMap;
use crate::name::{MacAddr, PortName};

/// Longest machine id that is kept, in bytes; a UUID has 36.
const MACHINE_ID_LEN_MAX: usize = 64;

/// Evidence of one machine on one port.
struct Sighting<'a> {
    port: &'a PortName,
    mac: MacAddr,
    address: Option<Ipv6Addr>,
    source: SightingSource,
    machine_id: Option<&'a str>,
}

/// The port-to-MAC table. Time comes in with every call: `now` since an arbitrary origin, `unix_ms` for
/// `first_seen` and `last_seen` only.
#[derive(Debug, Clone, Default)]
pub struct MachineTable {
    limits: Limits,
    own_macs: BTreeSet<MacAddr>,
    ports: BTreeMap<PortName, Port>,
    /// The one port each machine is on.
    homes: BTreeMap<MacAddr, PortName>,
    counters: Counters,
    /// No entry is due before this time; `None` while nothing can become due.
    due: Option<Duration>,
}

impl MachineTable {
    pub fn new(limits: Limits) -> MachineTable {
        MachineTable { limits, ..MachineTable::default() }
    }

    /// The switch's own MACs (chassis, ports, VRFs): never machines, whoever reports them.
    pub fn set_own_macs(&mut self, macs: BTreeSet<MacAddr>) -> Vec<MachineChange> {
        self.own_macs = macs;
        let known: Vec<MacAddr> =
            self.homes.keys().filter(|mac| self.own_macs.contains(mac)).copied().collect();
        known.into_iter().filter_map(|mac| self.remove(mac, Removal::OwnMac)).collect()
    }

    /// Folds one event, after whatever had become due before it.
    pub fn fold(&mut self, event: &MachineEvent, now: Duration, unix_ms: i64) -> Vec<MachineChange> {
        let mut changes = self.age(now);
        match event {
            MachineEvent::Carrier { port, up } => self.carrier(port, *up, now),
            MachineEvent::Solicit { port, mac, address } => {
                let source = SightingSource::Rs;
                let sighting = Sighting { port, mac: *mac, address: *address, source, machine_id: None };
                self.sight(&sighting, now, unix_ms, &mut changes);
            }
            MachineEvent::Dhcp6 { port, mac, address, .. } => {
                let source = SightingSource::Dhcp6;
                let sighting =
                    Sighting { port, mac: *mac, address: Some(*address), source, machine_id: None };
                self.sight(&sighting, now, unix_ms, &mut changes);
            }
            MachineEvent::Probe { port, mac } => {
                let source = SightingSource::Neighbor;
                let sighting = Sighting { port, mac: *mac, address: None, source, machine_id: None };
                self.sight(&sighting, now, unix_ms, &mut changes);
            }
            MachineEvent::Neighbor { port, mac, address } => {
                let source = SightingSource::Neighbor;
                let sighting =
                    Sighting { port, mac: *mac, address: Some(*address), source, machine_id: None };
                if !self.is_left_behind(port, *mac, *address) {
                    self.sight(&sighting, now, unix_ms, &mut changes);
                }
            }
            MachineEvent::NeighborGone { port, address } => {
                changes.extend(self.neighbor_gone(port, *address))
            }
            MachineEvent::Lldp { neighbors } => self.lldp_rows(neighbors, now, unix_ms, &mut changes),
            MachineEvent::Proxy { port, mac, address, step } => {
                let known =
                    || self.ports.get(port)?.machines.iter().find(|(_, m)| m.addresses.contains_key(address));
                if let Some(mac) = mac.or_else(|| known().map(|(mac, _)| *mac)) {
                    let machine_id = match step {
                        ProxyStep::Token { machine_id } => machine_id.as_deref(),
                        _ => None,
                    };
                    let source = SightingSource::Proxy;
                    let sighting = Sighting { port, mac, address: Some(*address), source, machine_id };
                    self.sight(&sighting, now, unix_ms, &mut changes);
                }
            }
            MachineEvent::Released { port } => changes.extend(self.clear(port, Removal::Released)),
            MachineEvent::Advertised { .. } => {}
        }
        changes
    }

    /// Forgets what is due: machines and addresses not seen for long, ports without carrier.
    pub fn age(&mut self, now: Duration) -> Vec<MachineChange> {
        if self.due.is_none_or(|due| now < due) {
            return Vec::new();
        }
        let Limits { machine_age, carrier_debounce, .. } = self.limits;
        let old = |seen: Duration| now.saturating_sub(seen) >= machine_age;
        let (mut unplugged, mut aged, mut changes) = (Vec::new(), Vec::new(), Vec::new());
        self.due = None;
        for (name, port) in &mut self.ports {
            if let Carrier::Down { since } = port.carrier {
                if now.saturating_sub(since) >= carrier_debounce {
                    unplugged.push(name.clone());
                    continue;
                }
                soonest(&mut self.due, since + carrier_debounce);
            }
            let standing = port.lldp.as_ref().and_then(|row| row.mac);
            for (mac, machine) in &mut port.machines {
                let before = machine.addresses.len();
                machine.addresses.retain(|_, seen| !old(*seen));
                if old(machine.seen_at) && standing != Some(*mac) {
                    aged.push(*mac);
                    continue;
                }
                if machine.addresses.len() < before {
                    changes.push(MachineChange::Updated { port: name.clone(), mac: *mac });
                }
                let held = if old(machine.seen_at) { now } else { machine.seen_at };
                let oldest = machine.addresses.values().copied().fold(held, Duration::min);
                soonest(&mut self.due, oldest + machine_age);
            }
        }
        changes.extend(aged.into_iter().filter_map(|mac| self.remove(mac, Removal::Aged)));
        for port in unplugged {
            changes.extend(self.clear(&port, Removal::Unplugged));
        }
        changes
    }

    /// When [`MachineTable::age`] has something to do, at the earliest.
    pub fn next_deadline(&self) -> Option<Duration> {
        self.due
    }

    /// The port a machine is on.
    pub fn lookup(&self, mac: MacAddr) -> Option<&PortName> {
        self.homes.get(&mac)
    }

    /// The machines of a port, by MAC.
    pub fn machines(&self, port: &PortName) -> impl Iterator<Item = (MacAddr, &Machine)> {
        self.ports.get(port).into_iter().flat_map(|port| port.machines.iter().map(|(mac, m)| (*mac, m)))
    }

    /// The LLDP row of a port, as last read.
    pub fn lldp(&self, port: &PortName) -> Option<&LldpNeighbor> {
        self.ports.get(port)?.lldp.as_deref()
    }

    /// Every known machine with its port.
    pub fn homes(&self) -> &BTreeMap<MacAddr, PortName> {
        &self.homes
    }

    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    fn carrier(&mut self, name: &PortName, up: bool, now: Duration) {
        let port = self.ports.entry(name.clone()).or_default();
        port.carrier = match (up, port.carrier) {
            (true, _) => Carrier::Up,
            (false, down @ Carrier::Down { .. }) => down,
            (false, _) => {
                soonest(&mut self.due, now + self.limits.carrier_debounce);
                Carrier::Down { since: now }
            }
        };
    }

    /// Whether a neighbour entry is no evidence: the port has no carrier, or the machine moved on.
    fn is_left_behind(&self, name: &PortName, mac: MacAddr, address: Ipv6Addr) -> bool {
        self.ports.get(name).is_some_and(|port| {
            port.is_down() || port.departed.get(&mac).is_some_and(|d| d.addresses.contains(&address))
        })
    }

    fn neighbor_gone(&mut self, name: &PortName, address: Ipv6Addr) -> Option<MachineChange> {
        let port = self.ports.get_mut(name)?;
        for departed in port.departed.values_mut() {
            departed.addresses.remove(&address);
        }
        let holder = |machine: &mut Machine| machine.addresses.remove(&address).is_some();
        let mac = port.machines.iter_mut().find_map(|(mac, machine)| holder(machine).then_some(*mac))?;
        Some(MachineChange::Updated { port: name.clone(), mac })
    }

    fn lldp_rows(
        &mut self,
        neighbors: &[(PortName, LldpNeighbor)],
        now: Duration,
        unix_ms: i64,
        changes: &mut Vec<MachineChange>,
    ) {
        let rows: BTreeMap<&PortName, &LldpNeighbor> =
            neighbors.iter().map(|(port, row)| (port, row)).into_map();
        for (name, port) in &mut self.ports {
            if !rows.contains_key(name) {
                port.lldp = None;
            }
        }
        for (name, row) in rows {
            let port = self.ports.entry(name.clone()).or_default();
            let changed = port.lldp.as_deref() != Some(row);
            if changed {
                port.lldp = Some(Box::new(row.clone()));
            }
            if let Some(mac) = row.mac
                && self.believes_lldp(name, mac, changed)
            {
                let source = SightingSource::Lldp;
                let sighting = Sighting { port: name, mac, address: None, source, machine_id: None };
                self.sight(&sighting, now, unix_ms, changes);
            }
        }
    }

    /// Whether an LLDP row is a new sighting.
    fn believes_lldp(&self, name: &PortName, mac: MacAddr, changed: bool) -> bool {
        let Some(port) = self.ports.get(name) else {
            return false;
        };
        if port.is_down() {
            return false;
        }
        match self.homes.get(&mac).map(|home| (home, self.ports.get(home))) {
            None => changed || !port.departed.contains_key(&mac),
            Some((home, _)) if home == name => changed,
            Some((_, None)) => changed,
            Some((_, Some(home))) => {
                let heard = |m: &Machine| m.sources.iter().any(|source| *source != SightingSource::Lldp);
                changed && (home.is_down() || !home.machines.get(&mac).is_some_and(heard))
            }
        }
    }

    fn sight(
        &mut self,
        sighting: &Sighting<'_>,
        now: Duration,
        unix_ms: i64,
        changes: &mut Vec<MachineChange>,
    ) {
        let Sighting { port: name, mac, source, .. } = *sighting;
        if !mac.is_unicast() || self.own_macs.contains(&mac) {
            return;
        }
        self.counters.sightings[source] += 1;
        let from = self.homes.get(&mac).filter(|home| *home != name).cloned();
        if let Some(from) = &from {
            self.depart(from, mac, now);
        }
        let known = self.homes.contains_key(&mac) && from.is_none();
        if !known {
            changes.extend(self.make_room(name));
            self.homes.insert(mac, name.clone());
            soonest(&mut self.due, now + self.limits.machine_age);
        }
        let port = self.ports.entry(name.clone()).or_default();
        port.departed.remove(&mac);
        if let Some(address) = sighting.address {
            // An address has one owner per link; the newest claim is the kernel's too.
            for (_, other) in port.machines.iter_mut().filter(|(other, _)| **other != mac) {
                other.addresses.remove(&address);
            }
        }
        let machine = port.machines.entry(mac).or_insert_with(|| Machine::new(now, unix_ms));
        machine.seen_at = now;
        machine.last_seen_ms = unix_ms;
        let mut news = machine.sources.insert(source);
        if let Some(address) = sighting.address.filter(|a| !a.is_unspecified() && !a.is_multicast()) {
            let max = self.limits.addresses_per_machine_max;
            news |= machine.addresses.insert(address, now).is_none();
            self.counters.evicted_addresses += drop_oldest(&mut machine.addresses, max, |seen| *seen);
        }
        if let Some(id) = sighting.machine_id.filter(|id| id.len() <= MACHINE_ID_LEN_MAX)
            && machine.machine_id.as_deref() != Some(id)
        {
            machine.machine_id = Some(id.to_owned());
            news = true;
        }
        let port = name.clone();
        match from {
            Some(from) => changes.push(MachineChange::Moved { mac, from, port, source }),
            None if !known => changes.push(MachineChange::Appeared { port, mac, source }),
            None if news => changes.push(MachineChange::Updated { port, mac }),
            None => {}
        }
    }

    /// Takes a machine off the port it left, and remembers the neighbour entries it left behind.
    fn depart(&mut self, from: &PortName, mac: MacAddr, now: Duration) {
        self.homes.remove(&mac);
        self.counters.moves += 1;
        if let Some(port) = self.ports.get_mut(from)
            && let Some(machine) = port.machines.remove(&mac)
        {
            let addresses = machine.addresses.into_keys().collect();
            port.departed.insert(mac, Departed { at: now, addresses });
            drop_oldest(&mut port.departed, self.limits.machines_per_port_max, |departed| departed.at);
        }
    }

    /// Evicts the machine seen least recently from a port that is full.
    fn make_room(&mut self, name: &PortName) -> Option<MachineChange> {
        let port = self.ports.get(name)?;
        if port.machines.len() < self.limits.machines_per_port_max {
            return None;
        }
        let mac = port.machines.iter().min_by_key(|(_, machine)| machine.seen_at).map(|(mac, _)| *mac)?;
        self.counters.evicted_machines += 1;
        self.remove(mac, Removal::Evicted)
    }

    fn clear(&mut self, name: &PortName, reason: Removal) -> Vec<MachineChange> {
        let Some(port) = self.ports.get_mut(name) else {
            return Vec::new();
        };
        port.departed.clear();
        let macs: Vec<MacAddr> = port.machines.keys().copied().collect();
        macs.into_iter().filter_map(|mac| self.remove(mac, reason)).collect()
    }

    fn remove(&mut self, mac: MacAddr, reason: Removal) -> Option<MachineChange> {
        let name = self.homes.remove(&mac)?;
        self.ports.get_mut(&name)?.machines.remove(&mac);
        Some(MachineChange::Removed { port: name, mac, reason })
    }
}

fn soonest(due: &mut Option<Duration>, at: Duration) {
    *due = Some(due.map_or(at, |due| due.min(at)));
}
