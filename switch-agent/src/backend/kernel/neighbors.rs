//! The neighbour table as events tell it, bounded per link: machines choose their addresses freely.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;

use switch_agent_core::name::MacAddr;

/// Neighbours that are remembered per link. A boot port has one machine with a handful of addresses.
pub(super) const NEIGHBORS_PER_LINK_MAX: usize = 64;

#[derive(Debug, Clone, Copy)]
struct Entry {
    mac: MacAddr,
    /// When it was last written, as a count of writes.
    written: u64,
}

/// IPv6 neighbours by link.
#[derive(Debug, Default)]
pub(super) struct NeighborCache {
    links: BTreeMap<u32, BTreeMap<Ipv6Addr, Entry>>,
    writes: u64,
}

/// What [`NeighborCache::insert`] did.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Inserted {
    /// The same entry was there.
    Same,
    /// It is new or has another MAC; to make room for it, another address was forgotten.
    Changed { evicted: Option<Ipv6Addr> },
}

impl NeighborCache {
    pub(super) fn mac(&self, ifindex: u32, address: Ipv6Addr) -> Option<MacAddr> {
        Some(self.links.get(&ifindex)?.get(&address)?.mac)
    }

    pub(super) fn insert(&mut self, ifindex: u32, address: Ipv6Addr, mac: MacAddr) -> Inserted {
        self.writes += 1;
        let entry = Entry { mac, written: self.writes };
        let link = self.links.entry(ifindex).or_default();
        if let Some(before) = link.insert(address, entry) {
            return if before.mac == mac { Inserted::Same } else { Inserted::Changed { evicted: None } };
        }
        let oldest = (link.len() > NEIGHBORS_PER_LINK_MAX)
            .then(|| link.iter().min_by_key(|(_, entry)| entry.written).map(|(address, _)| *address))
            .flatten();
        if let Some(oldest) = oldest {
            link.remove(&oldest);
        }
        Inserted::Changed { evicted: oldest }
    }

    /// Whether the entry was there.
    pub(super) fn remove(&mut self, ifindex: u32, address: Ipv6Addr) -> bool {
        let Some(link) = self.links.get_mut(&ifindex) else {
            return false;
        };
        let removed = link.remove(&address).is_some();
        if link.is_empty() {
            self.links.remove(&ifindex);
        }
        removed
    }

    pub(super) fn remove_link(&mut self, ifindex: u32) -> Vec<Ipv6Addr> {
        self.links.remove(&ifindex).map(|link| link.into_keys().collect()).unwrap_or_default()
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = (u32, Ipv6Addr)> {
        self.links.iter().flat_map(|(ifindex, link)| link.keys().map(|address| (*ifindex, *address)))
    }
}
