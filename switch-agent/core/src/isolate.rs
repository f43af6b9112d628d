//! The isolation of boot ports: data-plane ACL rows that let a machine reach the proxy, the leak and its own
//! link, and nothing else.
//!
//! A VRF alone does not isolate: machines of one VRF reach each other, and with SONiC's
//! `net.ipv4.tcp_l3mdev_accept = 1` every wildcard listener of the switch answers in every VRF. One table of
//! type `L3V6` per boot VRF, bound to its ports at ingress, closes both. IPv4 has no place in a boot network,
//! and a boot VRF no routes for it: without CAP_NET_ADMIN nothing else keeps its packets from falling through to
//! the switch's own addresses. One table of type `L3` for all ports drops it. Tables are few, however many ports there are: an ASIC has room for a
//! handful. The rows have the form that SONiC's own acl-loader writes, and `aclorch` reads.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;

use ipnet::Ipv6Net;

use crate::desired::Partition;
use crate::map::IntoMap;
use crate::name::{PortName, VrfName, router_interface_address};
use crate::row::{Fields, fields};

/// Names of our ACL tables start so.
pub const ACL_TABLE_PREFIX: &str = "BOOTNET_";
/// Name of the table that drops IPv4; no VRF is called so.
pub const ACL_TABLE_IPV4: &str = "BOOTNET_IPV4";
/// Ethertype of IPv4, decimal as acl-loader writes it.
const ETHER_TYPE_IPV4: &str = "2048";
/// Priority of everything that is let through; the order among these rules does not matter.
const PRIORITY_FORWARD: &str = "9000";
/// Lowest priority that acl-loader uses, for the default rule.
const PRIORITY_DEFAULT: &str = "1";

const IPPROTO_TCP: &str = "6";
const IPPROTO_UDP: &str = "17";
const IPPROTO_ICMPV6: &str = "58";

/// ICMPv6 types that a machine needs towards its link: errors (RFC 4443), multicast listener reports (RFC
/// 2710, RFC 3810), Neighbor Discovery without Redirect, which machines never send.
const LINK_TYPES: [(&str, &str); 10] = [
    ("UNREACHABLE", "1"),
    ("TOO_BIG", "2"),
    ("TIME_EXCEEDED", "3"),
    ("PARAMETER", "4"),
    ("MLD_REPORT", "131"),
    ("MLD_DONE", "132"),
    ("ROUTER_SOLICITATION", "133"),
    ("NEIGHBOR_SOLICITATION", "135"),
    ("NEIGHBOR_ADVERTISEMENT", "136"),
    ("MLDV2_REPORT", "143"),
];

/// All nodes, and this link alone: no router forwards it.
const ALL_NODES: &str = "ff02::1/128";
/// RFC 4291 section 2.4.
const LINK_LOCAL: &str = "fe80::/10";

/// All_DHCP_Relay_Agents_and_Servers (RFC 8415 section 7.1).
const ALL_DHCP_SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);

/// Fields of one `ACL_RULE` row. Every pass compares those of a whole switch, thousands of them, so nothing
/// is copied that is always the same.
pub type AclRule = BTreeMap<&'static str, Cow<'static, str>>;

/// One ACL table with its rules, as rows of `ACL_TABLE` and `ACL_RULE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AclTable {
    pub name: String,
    pub row: Fields,
    /// By the rule's name, without the table's.
    pub rules: BTreeMap<String, AclRule>,
}

/// Name of a boot VRF's table.
pub fn acl_table_name(vrf: &VrfName) -> String {
    format!("{ACL_TABLE_PREFIX}{vrf}")
}

/// The VRF whose table this is, if the name is one of ours.
pub fn acl_table_vrf(name: &str) -> Option<VrfName> {
    name.strip_prefix(ACL_TABLE_PREFIX)?.parse().ok()
}

/// The table of a partition with these ports in its VRF.
pub fn acl_table(partition: &Partition, ports: &BTreeMap<PortName, Ipv6Net>, proxy_port: u16) -> AclTable {
    let mut rules = BTreeMap::new();
    let mut forward = |name: String, matches: [Option<(&'static str, Cow<'static, str>)>; 3]| {
        let permit = [("PRIORITY", PRIORITY_FORWARD), ("PACKET_ACTION", "FORWARD"), ("IP_TYPE", "IPV6ANY")];
        let permit = permit.map(|(field, value)| (field, value.into()));
        rules.insert(name, permit.into_iter().chain(matches.into_iter().flatten()).collect::<AclRule>());
    };
    let protocol = |protocol: &'static str| Some(("IP_PROTOCOL", protocol.into()));
    let icmp = |kind: &'static str| Some(("ICMPV6_TYPE", kind.into()));
    let destination = |prefix: Cow<'static, str>| Some(("DST_IPV6", prefix));
    for (name, kind) in LINK_TYPES {
        forward(format!("LINK_{name}"), [protocol(IPPROTO_ICMPV6), icmp(kind), None]);
    }
    // A machine that plays router harms nobody on a link of its own; dropped by the ASIC, it would never be
    // noticed (RFC 4861 section 6.2.7).
    let foreign = [protocol(IPPROTO_ICMPV6), icmp("134"), destination(ALL_NODES.into())];
    forward("LINK_ROUTER_ADVERTISEMENT".to_owned(), foreign);
    // "Is the switch there": answered by the port's link-local address, which only this link reaches.
    let ping = [protocol(IPPROTO_ICMPV6), icmp("128"), destination(LINK_LOCAL.into())];
    forward("LINK_PING".to_owned(), ping);
    if partition.proxy {
        let tcp_port = proxy_port.to_string();
        let mut proxy = |name: String, address: Cow<'static, str>| {
            let to = Some(("L4_DST_PORT", tcp_port.clone().into()));
            forward(name, [protocol(IPPROTO_TCP), to, destination(address)]);
        };
        proxy("PROXY_LINK_LOCAL".to_owned(), LINK_LOCAL.into());
        for (port, prefix) in ports {
            let router = Ipv6Net::from(router_interface_address(*prefix).addr());
            proxy(format!("PROXY_{port}"), router.to_string().into());
        }
        for (number, address) in partition.service_addresses.iter().enumerate() {
            proxy(format!("PROXY_SERVICE_{number}"), Ipv6Net::from(*address).to_string().into());
        }
    }
    if partition.dhcp6.is_some() {
        let servers = Ipv6Net::from(ALL_DHCP_SERVERS).to_string();
        let to = Some(("L4_DST_PORT", "547".into()));
        forward("DHCP6".to_owned(), [protocol(IPPROTO_UDP), to, destination(servers.into())]);
    }
    let leak = partition.leak_prefixes.iter().filter(|_| partition.leak);
    for (number, prefix) in leak.enumerate() {
        forward(format!("LEAK_{number}"), [None, None, destination(prefix.to_string().into())]);
    }
    rules.insert("DEFAULT_RULE".to_owned(), deny(("IP_TYPE", "IPV6ANY")));
    let description = format!("Isolation of boot VRF {}", partition.vrf);
    let row = table_row("L3V6", &description, ports.keys());
    AclTable { name: acl_table_name(&partition.vrf), row, rules }
}

/// The table that drops IPv4 on all these ports, whichever their VRFs.
pub fn acl_table_ipv4(ports: &BTreeSet<PortName>) -> AclTable {
    let rules =
        std::iter::once(("DEFAULT_RULE".to_owned(), deny(("ETHER_TYPE", ETHER_TYPE_IPV4)))).into_map();
    let row = table_row("L3", "No IPv4 on boot ports", ports.iter());
    AclTable { name: ACL_TABLE_IPV4.to_owned(), row, rules }
}

fn deny(all: (&'static str, &'static str)) -> AclRule {
    let deny = [("PRIORITY", PRIORITY_DEFAULT), ("PACKET_ACTION", "DROP"), all];
    deny.into_iter().map(|(field, value)| (field, value.into())).into_map()
}

fn table_row<'a>(kind: &str, description: &str, ports: impl Iterator<Item = &'a PortName>) -> Fields {
    let names: Vec<&str> = ports.map(PortName::as_str).collect();
    fields([("type", kind), ("stage", "ingress"), ("policy_desc", description), ("ports@", &names.join(","))])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desired::Desired;
    use crate::row::ConfigDb;

    fn partition(extra: &[(&str, &str)]) -> std::sync::Arc<Partition> {
        let mut row = fields([("prefix", "2001:db8::/56"), ("leak_prefix@", "2001:db8:a91::/64")]);
        row.extend(extra.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let mut config = ConfigDb::default();
        config.insert("BOOT_NETWORK_PARTITION", "p1", row);
        Desired::from_config(&config).partitions.into_values().next().unwrap()
    }

    fn table(partition: &Partition) -> AclTable {
        let ports = BTreeMap::from([("Ethernet4".parse().unwrap(), "2001:db8:0:2::/64".parse().unwrap())]);
        acl_table(partition, &ports, 18090)
    }

    #[test]
    fn lets_the_proxy_and_the_leak_through_and_denies_the_rest() {
        let table = table(&partition(&[]));
        assert_eq!(table.name, "BOOTNET_VrfBoot-p1");
        assert_eq!(table.row["ports@"], "Ethernet4");
        assert_eq!(table.rules["PROXY_Ethernet4"]["DST_IPV6"], "2001:db8:0:2::1/128");
        assert_eq!(table.rules["PROXY_Ethernet4"]["L4_DST_PORT"], "18090");
        assert_eq!(table.rules["LEAK_0"]["DST_IPV6"], "2001:db8:a91::/64");
        assert_eq!(table.rules["DEFAULT_RULE"]["PACKET_ACTION"], "DROP");
        let lowest = table.rules.iter().min_by_key(|(_, rule)| rule["PRIORITY"].parse::<u32>().unwrap());
        assert_eq!(lowest.unwrap().0, "DEFAULT_RULE");
    }

    #[test]
    fn one_table_drops_ipv4_on_every_port() {
        let ports = ["Ethernet4", "Ethernet0"].map(|name| name.parse().unwrap());
        let table = acl_table_ipv4(&ports.into());
        assert_eq!((table.row["type"].as_str(), table.row["ports@"].as_str()), ("L3", "Ethernet0,Ethernet4"));
        let rules: Vec<_> = table.rules.values().collect();
        assert_eq!(rules.len(), 1);
        assert_eq!((&*rules[0]["PACKET_ACTION"], &*rules[0]["ETHER_TYPE"]), ("DROP", "2048"));
        assert_eq!(acl_table_vrf(&table.name), None);
    }

    #[test]
    fn roles_that_are_off_open_nothing() {
        let table = table(&partition(&[("proxy", "disabled"), ("leak", "disabled")]));
        assert!(table.rules.keys().all(|rule| rule.starts_with("LINK_") || rule == "DEFAULT_RULE"));
    }

    #[test]
    fn advertisements_of_machines_leave_the_link_no_more_than_others() {
        let table = table(&partition(&[]));
        let foreign = table.rules.values().filter(|rule| rule.get("ICMPV6_TYPE").is_some_and(|t| t == "134"));
        let reach: Vec<_> = foreign.map(|rule| rule["DST_IPV6"].as_ref()).collect();
        assert_eq!(reach, ["ff02::1/128"]);
    }
}
