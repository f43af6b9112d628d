//! Which rows are at work already. Where two rows cannot both hold, the one that machines depend on stays,
//! whatever the order of their keys.

use ipnet::Ipv6Net;

use crate::desired::{DesiredPort, Partition};
use crate::name::{PortKind, VrfName, router_interface_address};
use crate::row::ConfigDb;

/// Whether a port of the partition's VRF has a router address of the partition's prefix.
pub(super) fn partition(config: &ConfigDb, partition: &Partition) -> bool {
    [PortKind::Ethernet, PortKind::PortChannel].into_iter().any(|kind| {
        config.table(kind.interface_table()).any(|(key, _)| {
            let Some((port, address)) = key.split_once('|') else {
                return false;
            };
            let ours = |address: &Ipv6Net| {
                partition.prefix.contains(&address.addr())
                    && *address == router_interface_address(address.trunc())
            };
            address.parse().is_ok_and(|address| ours(&address)) && bound(config, kind, port, &partition.vrf)
        })
    })
}

/// Whether the port is bound to its partition's VRF and has its router address.
pub(super) fn port(config: &ConfigDb, port: &DesiredPort, vrf: &VrfName) -> bool {
    let kind = port.name.kind();
    let key = format!("{}|{}", port.name, router_interface_address(port.prefix));
    config.row(kind.interface_table(), &key).is_some() && bound(config, kind, port.name.as_str(), vrf)
}

fn bound(config: &ConfigDb, kind: PortKind, port: &str, vrf: &VrfName) -> bool {
    let base = config.row(kind.interface_table(), port);
    base.and_then(|base| base.get("vrf_name")).is_some_and(|name| name == vrf.as_str())
}
