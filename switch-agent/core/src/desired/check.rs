//! What a configuration would do, without a switch: the answer of `switch-agent check`.

use std::net::Ipv6Addr;

use ipnet::Ipv6Net;
use serde::Serialize;

use super::control_plane::{ControlPlane, control_plane};
use super::fields::{quoted, row_name};
use super::{Desired, Global, Partition, Rejected, membership};
use crate::name::{PartitionId, PortName, VrfName, router_interface_address};
use crate::row::ConfigDb;

/// The verdict on a configuration, and what the agent would make of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CheckReport {
    /// Whether every row holds.
    pub ok: bool,
    pub global: Global,
    pub partitions: Vec<CheckedPartition>,
    /// Ports that hold, in natural order.
    pub ports: Vec<CheckedPort>,
    pub rejected: Vec<Rejected>,
    pub warnings: Vec<Rejected>,
    /// What control-plane ACLs mean for the proxy; `None` where there are none.
    pub control_plane: Option<ControlPlane>,
}

/// A partition that holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CheckedPartition {
    pub partition: PartitionId,
    pub vrf: VrfName,
    /// `false`: somebody else creates the VRF and binds its ports.
    pub manage_vrf: bool,
    pub prefix: Ipv6Net,
    /// The roles that are on: `advertise`, `proxy`, `leak`, `isolate`, `dhcp6`.
    pub roles: Vec<&'static str>,
    pub leak_vrf: String,
    pub leak_prefixes: Vec<Ipv6Net>,
    pub service_addresses: Vec<Ipv6Addr>,
}

/// A port that holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CheckedPort {
    pub port: PortName,
    pub alias: String,
    pub partition: PartitionId,
    pub admin_up: bool,
    pub prefix: Ipv6Net,
    /// The router's address on the port.
    pub router: Ipv6Addr,
    /// The row of somebody else that keeps the agent away from the port, and what it means.
    pub foreign: Option<String>,
}

/// Judges a configuration as the daemon would.
pub fn check(config: &ConfigDb) -> CheckReport {
    let desired = Desired::from_config(config);
    let ports = desired.ports.values().map(|port| CheckedPort {
        port: port.name.clone(),
        alias: port.alias.to_string(),
        partition: port.partition.clone(),
        admin_up: port.admin_up,
        prefix: port.prefix,
        router: router_interface_address(port.prefix).addr(),
        foreign: membership(config, &port.name).or_else(|| {
            let vrf = &desired.partition_of(port)?.vrf;
            foreign_binding(config, &port.name, vrf)
        }),
    });
    CheckReport {
        ok: desired.rejected.is_empty(),
        control_plane: control_plane(config, &desired),
        ports: ports.collect(),
        partitions: desired.partitions.values().map(|partition| checked_partition(partition)).collect(),
        global: desired.global,
        rejected: desired.rejected,
        warnings: desired.warnings,
    }
}

fn checked_partition(partition: &Partition) -> CheckedPartition {
    let roles = [
        ("advertise", partition.advertise),
        ("proxy", partition.proxy),
        ("leak", partition.leak),
        ("isolate", partition.isolate),
        ("dhcp6", partition.dhcp6.is_some()),
    ];
    CheckedPartition {
        partition: partition.id.clone(),
        vrf: partition.vrf.clone(),
        manage_vrf: partition.manage_vrf,
        prefix: partition.prefix,
        roles: roles.into_iter().filter_map(|(role, on)| on.then_some(role)).collect(),
        leak_vrf: partition.leak_vrf.clone(),
        leak_prefixes: partition.leak_prefixes.clone(),
        service_addresses: partition.service_addresses.clone(),
    }
}

/// The base row that binds `port` elsewhere than to `vrf`.
fn foreign_binding(config: &ConfigDb, port: &PortName, vrf: &VrfName) -> Option<String> {
    let table = port.kind().interface_table();
    let base = config.row(table, port.as_str())?;
    let row = row_name(table, port.as_str());
    if let Some(vnet) = base.get("vnet_name") {
        return Some(format!("{row}: the port is bound to VNET {}", quoted(vnet)));
    }
    let other = base.get("vrf_name").filter(|name| name.as_str() != vrf.as_str())?;
    Some(format!("{row}: the port is bound to {}", quoted(other)))
}

impl CheckedPort {
    /// The alias where it says more than the name.
    pub fn alias_if_different(&self) -> Option<&str> {
        (self.alias != self.port.as_str()).then_some(self.alias.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::fields;

    fn config() -> ConfigDb {
        let mut config = ConfigDb::default();
        config.insert(
            "BOOT_NETWORK_PARTITION",
            "p1",
            fields([("prefix", "2001:db8::/56"), ("leak", "disabled")]),
        );
        for (port, index) in [("Ethernet0", "1"), ("Ethernet4", "2"), ("Ethernet8", "3"), ("Ethernet12", "4")]
        {
            config.insert("PORT", port, fields([("index", index), ("alias", "Eth")]));
            config.insert("BOOT_NETWORK_PORT", port, fields([("partition", "p1")]));
        }
        config.insert("INTERFACE", "Ethernet0", fields([("vrf_name", "VrfBoot-p1")]));
        config.insert("INTERFACE", "Ethernet4", fields([("vrf_name", "VrfTenant")]));
        config.insert("INTERFACE", "Ethernet4|10.0.0.0/31", fields([]));
        config.insert("VLAN_MEMBER", "Vlan100|Ethernet8", fields([("tagging_mode", "untagged")]));
        config.insert("INTERFACE", "Ethernet12", fields([("vnet_name", "Vnet7")]));
        config
    }

    #[test]
    fn foreign_ports_name_the_row_in_the_way() {
        let report = check(&config());
        assert!(report.ok, "{:?}", report.rejected);
        let foreign: Vec<_> = report.ports.iter().map(|port| port.foreign.as_deref()).collect();
        assert_eq!(
            foreign,
            [
                None,
                Some("INTERFACE|Ethernet4: the port is bound to VrfTenant"),
                Some("VLAN_MEMBER|Vlan100|Ethernet8: the port is a VLAN member"),
                Some("INTERFACE|Ethernet12: the port is bound to VNET Vnet7"),
            ]
        );
        assert_eq!(report.ports[0].router.to_string(), "2001:db8:0:1::1");
        assert_eq!(report.partitions[0].roles, ["advertise", "proxy", "isolate"]);
    }

    #[test]
    fn one_bad_row_makes_the_configuration_bad() {
        let mut config = config();
        config.insert("BOOT_NETWORK_PORT", "Ethernet16", fields([("partition", "p1")]));
        let report = check(&config);
        assert!(!report.ok);
        assert_eq!(report.ports.len(), 4);
        assert_eq!(report.rejected.len(), 1);
    }
}
