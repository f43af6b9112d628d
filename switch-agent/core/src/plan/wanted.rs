//! Which interfaces should be bound where, and which are held as they are because a row is broken.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ipnet::Ipv6Net;

use super::view::View;
use crate::desired::{DesiredPort, Partition};
use crate::map::IntoMap;
use crate::name::{PartitionId, PortName, VrfName, router_interface_address};
use crate::ownership::SERVICE_LOOPBACKS;

/// One interface that belongs into a boot VRF.
pub(super) struct Wanted<'a> {
    pub(super) partition: &'a Arc<Partition>,
    /// `None` for the loopback of service addresses.
    pub(super) port: Option<&'a DesiredPort>,
    pub(super) vrf: &'a VrfName,
    pub(super) addresses: Vec<Ipv6Net>,
}

pub(super) struct WantedSet<'a> {
    pub(super) interfaces: BTreeMap<PortName, Wanted<'a>>,
    pub(super) partitions: BTreeMap<&'a PartitionId, &'a Arc<Partition>>,
    /// Ports whose own row (or whose partition's row) is broken: left exactly as they are.
    pub(super) held: BTreeSet<PortName>,
    /// A partition row is broken: no VRF is removed meanwhile, it may be that partition's.
    pub(super) vrfs_held: bool,
}

pub(super) fn wanted<'a>(view: &View<'a>) -> WantedSet<'a> {
    let up = view.desired.global.admin_up;
    let partitions: BTreeMap<_, _> = view.desired.partitions.iter().filter(|_| up).into_map();
    let mut interfaces = BTreeMap::new();
    for (name, port) in view.desired.ports.iter().filter(|(_, port)| up && port.admin_up) {
        if let Some(partition) = partitions.get(&port.partition) {
            let addresses = vec![router_interface_address(port.prefix)];
            // Everything but router variables is the same in both.
            let partition = port.own.as_ref().unwrap_or(partition);
            let wanted = Wanted { partition, port: Some(port), vrf: &partition.vrf, addresses };
            interfaces.insert(name.clone(), wanted);
        }
    }
    let mut taken = BTreeSet::new();
    for partition in partitions.values().filter(|p| p.proxy && !p.service_addresses.is_empty()) {
        let addresses: Vec<Ipv6Net> =
            partition.service_addresses.iter().map(|address| Ipv6Net::from(*address)).collect();
        if let Some(name) = service_loopback(view, partition, &mut taken) {
            interfaces.insert(name, Wanted { partition, port: None, vrf: &partition.vrf, addresses });
        }
    }
    let (held, vrfs_held) = held(view);
    WantedSet { interfaces, partitions, held, vrfs_held }
}

/// The loopback of a partition's service addresses: the one the ledger or its row shows to be in the VRF,
/// else the lowest free number.
fn service_loopback(
    view: &View<'_>,
    partition: &Partition,
    taken: &mut BTreeSet<PortName>,
) -> Option<PortName> {
    let numbered = |number: u32| -> Option<PortName> { format!("Loopback{number}").parse::<PortName>().ok() };
    let candidates = || SERVICE_LOOPBACKS.filter_map(numbered);
    let kept = candidates().find(|name| {
        let ours = match view.ledger.ports.get(name) {
            Some(entry) => entry.vrf == partition.vrf,
            // A lost ledger: the row tells, in a VRF that is ours by its name.
            None => {
                let row = view.config.row("LOOPBACK_INTERFACE", name.as_str());
                let vrf = row.and_then(|row| row.get("vrf_name"));
                vrf.is_some_and(|vrf| *vrf == *partition.vrf.as_str())
                    && view.ledger.owned_vrf(&partition.vrf).is_some()
            }
        };
        ours && !taken.contains(name)
    });
    let chosen = kept.or_else(|| {
        candidates().find(|name| {
            !taken.contains(name)
                && !view.ledger.ports.contains_key(name)
                && view.config.row("LOOPBACK_INTERFACE", name.as_str()).is_none()
                && !view.kernel.links.contains_key(name.as_str())
        })
    })?;
    taken.insert(chosen.clone());
    Some(chosen)
}

/// A broken row is no order to tear anything down. A port is held when its row was rejected, unless the
/// reason is that its partition's row is gone, which is how an operator removes a partition.
fn held(view: &View<'_>) -> (BTreeSet<PortName>, bool) {
    let mut ports = BTreeSet::new();
    let mut vrfs = false;
    for rejected in &view.desired.rejected {
        if rejected.row.starts_with("BOOT_NETWORK_PARTITION|") {
            vrfs = true;
        }
        let Some(key) = rejected.row.strip_prefix("BOOT_NETWORK_PORT|") else {
            continue;
        };
        let Some(row) = view.config.row("BOOT_NETWORK_PORT", key) else {
            continue;
        };
        let partition_gone =
            row.get("partition").is_some_and(|id| view.config.row("BOOT_NETWORK_PARTITION", id).is_none());
        if let (Ok(port), false) = (key.parse(), partition_gone) {
            ports.insert(port);
        }
    }
    (ports, vrfs)
}
