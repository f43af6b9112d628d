//! What the events of the kernel amount to: a mirror of links and neighbours, and reports of its changes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use switch_agent_core::machines::MachineEvent;
use switch_agent_core::name::{MacAddr, PortKind, PortName};
use switch_agent_core::ra::{LinkEvent, TokenBucket};

use super::decode::{Event, NeighborState, RawAddress, RawLink, RawNeighbor};
use super::neighbors::{Inserted, NeighborCache};
use super::snapshot::Neighbor;

/// New neighbours of one link that events may add at once, and one per this time after that. A boot port has
/// one machine with a handful of addresses.
const NEW_NEIGHBORS: TokenBucket = TokenBucket::new(128, Duration::from_millis(100));

/// Something to pass on at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Report {
    Link(LinkEvent),
    Machine(MachineEvent),
}

/// Mirror of links; the neighbours are shared with [`super::KernelHandle`].
#[derive(Debug)]
pub(super) struct Tracker {
    links: BTreeMap<u32, RawLink>,
    neighbors: Arc<Mutex<NeighborCache>>,
    reports: Vec<Report>,
    /// A link, address or deny route changed since [`Tracker::take`].
    changed: bool,
    /// Neighbours that each link may still add to what is known.
    budgets: BTreeMap<u32, TokenBucket>,
    started: Instant,
}

impl Tracker {
    pub(super) fn new(neighbors: Arc<Mutex<NeighborCache>>) -> Tracker {
        Tracker {
            links: BTreeMap::new(),
            neighbors,
            reports: Vec::new(),
            changed: false,
            budgets: BTreeMap::new(),
            started: Instant::now(),
        }
    }

    /// The reports since the last call, and whether the reconciler should look.
    pub(super) fn take(&mut self) -> (Vec<Report>, bool) {
        (std::mem::take(&mut self.reports), std::mem::take(&mut self.changed))
    }

    /// Replaces everything by what dumps show, reporting the differences. Lost events are made up for so.
    pub(super) fn replace(&mut self, links: BTreeMap<u32, RawLink>, neighbors: Vec<Neighbor>) {
        let gone: Vec<u32> =
            self.links.keys().filter(|ifindex| !links.contains_key(ifindex)).copied().collect();
        for ifindex in gone {
            self.set_link(ifindex, None);
        }
        for (ifindex, raw) in links {
            self.set_link(ifindex, Some(raw));
        }
        let present: BTreeSet<(u32, Ipv6Addr)> =
            neighbors.iter().map(|neighbor| (neighbor.ifindex, neighbor.address)).collect();
        let gone: Vec<(u32, Ipv6Addr)> =
            self.cache(|cache| cache.entries().filter(|entry| !present.contains(entry)).collect());
        for (ifindex, address) in gone {
            self.neighbor_gone(ifindex, address);
        }
        for neighbor in neighbors {
            self.neighbor_present(neighbor.ifindex, neighbor.address, neighbor.mac, false);
        }
        self.changed = true;
    }

    pub(super) fn apply(&mut self, event: Event) {
        match event {
            Event::Link(mut raw) => {
                if let Some(before) = self.links.get(&raw.link.ifindex) {
                    raw.link.addresses = before.link.addresses.clone();
                    raw.link.tentative = before.link.tentative.clone();
                }
                raw.link.master = raw.master.and_then(|master| Some(self.links.get(&master)?.name.clone()));
                self.set_link(raw.link.ifindex, Some(raw));
            }
            Event::LinkGone { ifindex } => self.set_link(ifindex, None),
            Event::Address(address) => self.address(address, true),
            Event::AddressGone(address) => self.address(address, false),
            Event::Neighbor(raw) => self.neighbor(raw),
            Event::NeighborGone(raw) => self.neighbor_gone(raw.ifindex, raw.address),
            Event::Forwarding { ifindex, on } => {
                if let Some(mut raw) = self.links.get(&ifindex).cloned() {
                    raw.link.forwarding = Some(on);
                    self.set_link(ifindex, Some(raw));
                }
            }
            Event::Route(_) => {}
        }
    }

    fn address(&mut self, address: RawAddress, present: bool) {
        let Some(mut raw) = self.links.get(&address.ifindex).cloned() else {
            return;
        };
        raw.link.tentative.remove(&address.net);
        if present {
            raw.link.addresses.insert(address.net);
        } else {
            raw.link.addresses.remove(&address.net);
        }
        if present && address.tentative {
            raw.link.tentative.insert(address.net);
        }
        self.set_link(address.ifindex, Some(raw));
    }

    fn set_link(&mut self, ifindex: u32, after: Option<RawLink>) {
        let before = match after.clone() {
            Some(raw) => self.links.insert(ifindex, raw),
            None => self.links.remove(&ifindex),
        };
        if before == after {
            return;
        }
        self.changed = true;
        // A renamed link is another link to everybody who goes by name.
        let renamed = matches!((&before, &after), (Some(old), Some(new)) if old.name != new.name);
        let (before_seen, after_seen) = (before.as_ref().map(link_event), after.as_ref().map(link_event));
        if let Some(seen) = &before_seen
            && (after_seen.is_none() || renamed)
        {
            let gone = LinkEvent { carrier: false, link_local: None, gone: true, ..seen.clone() };
            self.report_carrier(&gone);
            self.reports.push(Report::Link(gone));
            self.budgets.remove(&ifindex);
            let addresses = self.cache(|cache| cache.remove_link(ifindex));
            for address in addresses {
                self.report_neighbor_gone(&seen.name, address);
            }
        }
        let Some(seen) = after_seen else { return };
        if before_seen.as_ref() == Some(&seen) {
            return;
        }
        if renamed || before_seen.is_none_or(|before| before.carrier != seen.carrier) {
            self.report_carrier(&seen);
        }
        self.reports.push(Report::Link(seen));
    }

    fn report_carrier(&mut self, link: &LinkEvent) {
        if let Some(port) = front_panel_port(&link.name) {
            self.reports.push(Report::Machine(MachineEvent::Carrier { port, up: link.carrier }));
        }
    }

    fn neighbor(&mut self, raw: RawNeighbor) {
        if matches!(raw.state, NeighborState::Confirmed(_) | NeighborState::Known(_))
            && self.cache(|cache| cache.mac(raw.ifindex, raw.address)).is_none()
            && !self.may_add(raw.ifindex)
        {
            return;
        }
        match raw.state {
            NeighborState::Confirmed(mac) => self.neighbor_present(raw.ifindex, raw.address, mac, true),
            NeighborState::Known(mac) => self.neighbor_present(raw.ifindex, raw.address, mac, false),
            NeighborState::Unresolved => self.neighbor_gone(raw.ifindex, raw.address),
            NeighborState::Irrelevant => {}
        }
    }

    /// Whoever invents addresses makes the kernel tell of each: one link's share of that is bounded.
    fn may_add(&mut self, ifindex: u32) -> bool {
        let now = self.started.elapsed();
        self.budgets.entry(ifindex).or_insert(NEW_NEIGHBORS).try_take(now)
    }

    /// `confirmed`: reported even when it was known, for the neighbour was seen alive.
    fn neighbor_present(&mut self, ifindex: u32, address: Ipv6Addr, mac: MacAddr, confirmed: bool) {
        let Some(name) = self.links.get(&ifindex).map(|raw| raw.name.clone()) else {
            return;
        };
        let Some(port) = front_panel_port(&name) else {
            return;
        };
        match self.cache(|cache| cache.insert(ifindex, address, mac)) {
            Inserted::Same if !confirmed => return,
            Inserted::Changed { evicted: Some(evicted) } => self.report_neighbor_gone(&name, evicted),
            Inserted::Same | Inserted::Changed { evicted: None } => {}
        }
        self.reports.push(Report::Machine(MachineEvent::Neighbor { port, mac, address }));
    }

    fn neighbor_gone(&mut self, ifindex: u32, address: Ipv6Addr) {
        if self.cache(|cache| cache.remove(ifindex, address))
            && let Some(name) = self.links.get(&ifindex).map(|raw| raw.name.clone())
        {
            self.report_neighbor_gone(&name, address);
        }
    }

    fn report_neighbor_gone(&mut self, name: &str, address: Ipv6Addr) {
        if let Some(port) = front_panel_port(name) {
            self.reports.push(Report::Machine(MachineEvent::NeighborGone { port, address }));
        }
    }

    fn cache<T>(&self, action: impl FnOnce(&mut NeighborCache) -> T) -> T {
        action(&mut self.neighbors.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn link_event(raw: &RawLink) -> LinkEvent {
    LinkEvent {
        ifindex: raw.link.ifindex,
        name: raw.name.clone(),
        carrier: raw.link.admin_up && raw.link.carrier,
        master: raw.master,
        link_local: raw.link.link_local(),
        gone: false,
    }
}

/// The port that machines can be behind, if the link is one.
fn front_panel_port(name: &str) -> Option<PortName> {
    name.parse::<PortName>().ok().filter(|port| port.kind() != PortKind::Loopback)
}
