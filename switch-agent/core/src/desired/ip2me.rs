//! Addresses that caclmgrd makes unreachable.
//!
//! For each address row of `LOOPBACK_INTERFACE`, `VLAN_INTERFACE`, `PORTCHANNEL_INTERFACE` and `INTERFACE`,
//! whatever its VRF, caclmgrd drops what is sent to the network address of its prefix (of a VLAN: to the first
//! address after it). It does so on every switch, with control-plane ACLs or without; it looks at the rows when
//! it starts, and at each change of `ACL_TABLE`. ICMPv6, DHCPv6, BGP and what a control-plane ACL accepts come
//! before. The network address of a /128 is the address itself.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;

use ipnet::Ipv6Net;

use super::control_plane::control_plane;
use super::fields::row_name;
use super::{Desired, Rejected};
use crate::name::router_interface_address;
use crate::row::ConfigDb;

const VLAN: &str = "VLAN_INTERFACE";
const TABLES: [&str; 4] = ["LOOPBACK_INTERFACE", VLAN, "PORTCHANNEL_INTERFACE", "INTERFACE"];

/// Addresses at which the proxy is to answer, and does not.
pub(super) fn warnings(config: &ConfigDb, desired: &Desired) -> Vec<Rejected> {
    let served = || desired.partitions.values().filter(|partition| partition.proxy);
    if !desired.global.admin_up || served().next().is_none() {
        return Vec::new();
    }
    let acls = control_plane(config, desired);
    let accepted = |prefix: &Ipv6Net| acls.as_ref().is_some_and(|acls| !acls.denied.contains(prefix));
    let dropped = dropped(config);
    let port = desired.global.proxy_port;
    let rule = |row: &str, prefix: &Ipv6Net| {
        format!(
            "is the network address of {row}: caclmgrd drops packets to it, \
             unless a control-plane ACL accepts TCP port {port} from {prefix}"
        )
    };
    let mut warnings = Vec::new();
    for partition in served().filter(|partition| !accepted(&partition.prefix)) {
        let of = row_name("BOOT_NETWORK_PARTITION", partition.id.as_str());
        for address in &partition.service_addresses {
            let own = || "its own /128".to_owned();
            let rule = rule(&dropped.get(address).cloned().unwrap_or_else(own), &partition.prefix);
            warnings.push(Rejected::of_field(&of, "service_address@", Some(&address.to_string()), rule));
        }
    }
    for wanted in desired.ports.values().filter(|port| port.admin_up) {
        let Some(partition) = desired.partition_of(wanted).filter(|partition| partition.proxy) else {
            continue;
        };
        let router = router_interface_address(wanted.prefix).addr();
        if let Some(row) = dropped.get(&router).filter(|_| !accepted(&partition.prefix)) {
            let of = row_name("BOOT_NETWORK_PORT", wanted.name.as_str());
            let rule = format!("the router's address {router} {}", rule(row, &partition.prefix));
            warnings.push(Rejected::of_row(&of, rule));
        }
    }
    warnings
}

/// Addresses that caclmgrd drops packets to, with the row that is the reason.
fn dropped(config: &ConfigDb) -> BTreeMap<Ipv6Addr, String> {
    let mut dropped = BTreeMap::new();
    for table in TABLES {
        for (key, _) in config.table(table) {
            let prefix = key.split_once('|').and_then(|(_, text)| text.parse::<Ipv6Net>().ok());
            let Some(prefix) = prefix else { continue };
            let network = prefix.network();
            let address = match table {
                VLAN if prefix.prefix_len() < 127 => Ipv6Addr::from(u128::from(network) + 1),
                _ => network,
            };
            dropped.entry(address).or_insert_with(|| row_name(table, key));
        }
    }
    dropped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::{Fields, fields};

    fn config(rows: &[(&str, &str, Fields)]) -> ConfigDb {
        let mut config = ConfigDb::default();
        config.insert("PORT", "Ethernet0", fields([("index", "1"), ("alias", "Eth1")]));
        config.insert("BOOT_NETWORK_PARTITION", "p1", fields([("prefix", "2001:db8::/56")]));
        config.insert("BOOT_NETWORK_PORT", "Ethernet0", fields([("partition", "p1")]));
        for (table, key, row) in rows {
            config.insert(table, key, row.clone());
        }
        config
    }

    fn said(rows: &[(&str, &str, Fields)]) -> Vec<String> {
        let desired = Desired::from_config(&config(rows));
        assert_eq!(desired.rejected, []);
        desired.warnings.iter().map(ToString::to_string).filter(|said| said.contains("caclmgrd")).collect()
    }

    fn with_service() -> Fields {
        fields([("prefix", "2001:db8::/56"), ("service_address@", "2001:db8:f::53")])
    }

    #[test]
    fn a_service_address_is_one_of_them() {
        assert_eq!(said(&[]), [""; 0]);
        let told = said(&[("BOOT_NETWORK_PARTITION", "p1", with_service())]);
        let rule = "is the network address of its own /128: caclmgrd drops packets to it, unless a control-plane \
                    ACL accepts TCP port 18090 from 2001:db8::/56";
        let row = "BOOT_NETWORK_PARTITION|p1: service_address@ = \"2001:db8:f::53\"";
        assert_eq!(told, [format!("{row}: {rule}")]);
        let present = ("LOOPBACK_INTERFACE", "Loopback900|2001:db8:f::53/128", fields([]));
        let told = said(&[("BOOT_NETWORK_PARTITION", "p1", with_service()), present]);
        assert!(told[0].contains("of LOOPBACK_INTERFACE|Loopback900|2001:db8:f::53/128:"), "{told:?}");
        let mut silent = with_service();
        silent.insert("proxy".to_owned(), "disabled".to_owned());
        assert_eq!(said(&[("BOOT_NETWORK_PARTITION", "p1", silent)]), [""; 0]);
        let down = ("BOOT_NETWORK", "global", fields([("admin_status", "down")]));
        assert_eq!(said(&[("BOOT_NETWORK_PARTITION", "p1", with_service()), down]), [""; 0]);
    }

    #[test]
    fn what_a_control_plane_acl_accepts_comes_first() {
        let accepts = |source: &str| {
            let rule = [
                ("PRIORITY", "9"),
                ("PACKET_ACTION", "ACCEPT"),
                ("SRC_IPV6", source),
                ("L4_DST_PORT", "18090"),
            ];
            said(&[
                ("BOOT_NETWORK_PARTITION", "p1", with_service()),
                ("ACL_TABLE", "T", fields([("type", "CTRLPLANE"), ("services@", "EXTERNAL_CLIENT")])),
                ("ACL_RULE", "T|R", fields(rule)),
            ])
        };
        assert_eq!(accepts("2001:db8::/56"), [""; 0]);
        assert_eq!(accepts("2001:db8:1::/56").len(), 1);
    }

    /// The port's /64 is `2001:db8:0:1::/64`; caclmgrd knows no VRF.
    #[test]
    fn somebody_elses_row_may_hit_the_router() {
        let hit = |table: &str, key: &str| {
            let told = said(&[(table, key, fields([]))]);
            assert!(told.iter().all(|told| told.contains(&format!("{table}|{key}"))), "{told:?}");
            assert!(told.iter().all(|told| told.starts_with("BOOT_NETWORK_PORT|Ethernet0: ")), "{told:?}");
            told.len()
        };
        for (table, key) in [
            ("LOOPBACK_INTERFACE", "Loopback1|2001:db8:0:1::1/128"),
            ("INTERFACE", "Ethernet48|2001:db8:0:1::1/128"),
            ("PORTCHANNEL_INTERFACE", "PortChannel1|2001:db8:0:1::1/128"),
            ("VLAN_INTERFACE", "Vlan9|2001:db8:0:1::99/64"),
        ] {
            assert_eq!(hit(table, key), 1, "{table}|{key}");
        }
        for (table, key) in [
            ("INTERFACE", "Ethernet0|2001:db8:0:1::1/64"),
            ("INTERFACE", "Ethernet0"),
            ("LOOPBACK_INTERFACE", "Loopback1|10.0.0.1/32"),
            ("VLAN_INTERFACE", "Vlan9|2001:db8:0:1::1/127"),
            ("VLAN_SUB_INTERFACE", "Ethernet48.10|2001:db8:0:1::1/128"),
        ] {
            assert_eq!(hit(table, key), 0, "{table}|{key}");
        }
    }
}
