//! What the table keeps of one port and of one machine.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;
use std::time::Duration;

use super::{LldpNeighbor, SightingSource};
use crate::name::MacAddr;

/// One machine, or rather one network interface of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// Address to the time it was last seen.
    pub(super) addresses: BTreeMap<Ipv6Addr, Duration>,
    /// As claimed with the last token request.
    pub machine_id: Option<String>,
    /// Everything that told of it on this port.
    pub sources: BTreeSet<SightingSource>,
    /// Unix time in milliseconds, as is `last_seen_ms`.
    pub first_seen_ms: i64,
    pub last_seen_ms: i64,
    pub(super) seen_at: Duration,
}

impl Machine {
    pub(super) fn new(now: Duration, unix_ms: i64) -> Machine {
        Machine {
            addresses: BTreeMap::new(),
            machine_id: None,
            sources: BTreeSet::new(),
            first_seen_ms: unix_ms,
            last_seen_ms: unix_ms,
            seen_at: now,
        }
    }

    pub fn addresses(&self) -> impl Iterator<Item = Ipv6Addr> + '_ {
        self.addresses.keys().copied()
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Carrier {
    #[default]
    Unknown,
    Up,
    Down {
        since: Duration,
    },
}

#[derive(Debug, Clone, Default)]
pub(super) struct Port {
    pub(super) carrier: Carrier,
    pub(super) machines: BTreeMap<MacAddr, Machine>,
    /// Behind a pointer: most machines tell nothing by LLDP.
    pub(super) lldp: Option<Box<LldpNeighbor>>,
    /// Machines that moved to another port, with the neighbour entries they left behind here.
    pub(super) departed: BTreeMap<MacAddr, Departed>,
}

#[derive(Debug, Clone)]
pub(super) struct Departed {
    pub(super) at: Duration,
    pub(super) addresses: BTreeSet<Ipv6Addr>,
}

impl Port {
    pub(super) fn is_down(&self) -> bool {
        matches!(self.carrier, Carrier::Down { .. })
    }
}

/// Removes the oldest entries beyond `max`, and says how many.
pub(super) fn drop_oldest<K: Ord + Clone, V>(
    map: &mut BTreeMap<K, V>,
    max: usize,
    at: impl Fn(&V) -> Duration,
) -> u64 {
    let mut dropped = 0;
    while map.len() > max {
        let Some(oldest) = map.iter().min_by_key(|(_, value)| at(value)).map(|(key, _)| key.clone()) else {
            break;
        };
        map.remove(&oldest);
        dropped += 1;
    }
    dropped
}
