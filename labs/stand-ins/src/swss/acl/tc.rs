//! ACLs as filters of `tc`, classifier flower, on each port's own netdev: commands of its batch mode.

use std::collections::BTreeMap;
use std::fmt::Write;

use switch_agent_core::sim::SimSwitch;

use super::rules::{Family, Filter, Table};

/// Behind every rule.
const LAST_PREFERENCE: u16 = u16::MAX;

/// What is in front of each port.
#[derive(Debug, Default)]
pub(super) struct Filters {
    bound: BTreeMap<String, Bound>,
}

#[derive(Debug)]
struct Bound {
    /// A netdev that comes back has lost its filters.
    ifindex: u32,
    tables: Vec<Table>,
    generation: bool,
}

impl Filters {
    /// The commands that lead from what is bound to what should be.
    pub(super) fn bind(&mut self, switch: &SimSwitch, ports: &BTreeMap<String, Vec<Table>>) -> String {
        let mut batch = String::new();
        let ifindex = |port: &str| switch.link(port).map(|link| link.ifindex);
        self.bound.retain(|port, bound| {
            let same_netdev = ifindex(port) == Some(bound.ifindex);
            let wanted = ports.contains_key(port);
            if same_netdev && !wanted {
                batch.push_str(&unbind(port));
            }
            same_netdev && wanted
        });
        for (port, tables) in ports {
            let Some(ifindex) = ifindex(port) else {
                continue;
            };
            let generation = match self.bound.get(port) {
                Some(bound) if bound.tables == *tables => continue,
                Some(bound) => {
                    batch.push_str(&install(port, tables, !bound.generation));
                    batch.push_str(&retire(port, bound.tables.len(), bound.generation));
                    !bound.generation
                }
                None => {
                    batch.push_str(&install(port, tables, false));
                    false
                }
            };
            self.bound.insert(port.clone(), Bound { ifindex, tables: tables.clone(), generation });
        }
        batch
    }

    pub(super) fn unbind_all(&self) -> String {
        self.bound.keys().map(|port| unbind(port)).collect()
    }
}

/// Chains of a port are numbered from here; the two generations take turns.
fn chain(generation: bool, index: usize) -> usize {
    index + if generation { 1001 } else { 1 }
}

/// Commands that put the tables in front of a port. The port's first chain is switched over by one
/// replacement when all others are complete, so that no packet meets half an ACL.
fn install(port: &str, tables: &[Table], generation: bool) -> String {
    let mut text = format!("qdisc replace dev {port} clsact\n");
    for (index, table) in tables.iter().enumerate() {
        let this = chain(generation, index);
        let next = (index + 1 < tables.len()).then(|| format!("goto chain {}", chain(generation, index + 1)));
        let forward = next.as_deref().unwrap_or("ok");
        let protocol = protocol(table.family);
        for (preference, filter) in (1..LAST_PREFERENCE).zip(&table.filters) {
            let action = if filter.drop { "drop" } else { forward };
            let _ = writeln!(
                text,
                "filter add dev {port} ingress chain {this} protocol {protocol} pref {preference} flower \
                 skip_hw{} action {action}",
                matches(filter)
            );
        }
        // Where no rule matches; it also makes the chain of a table that has no rules.
        let _ = writeln!(
            text,
            "filter add dev {port} ingress chain {this} protocol all pref {LAST_PREFERENCE} flower skip_hw \
             action {forward}"
        );
    }
    let first = chain(generation, 0);
    let _ = writeln!(
        text,
        "filter replace dev {port} ingress protocol all pref 1 handle 1 flower skip_hw action goto chain {first}"
    );
    text
}

/// Commands that take away the chains of a generation that is no longer gone to.
fn retire(port: &str, tables: usize, generation: bool) -> String {
    (0..tables)
        .map(|index| format!("filter del dev {port} ingress chain {}\n", chain(generation, index)))
        .collect()
}

/// Commands that leave the port without ACLs.
pub(super) fn unbind(port: &str) -> String {
    format!("qdisc del dev {port} clsact\n")
}

fn protocol(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ipv6",
    }
}

/// Flower's keys; none match every packet of the family. Keys of a protocol are understood only behind its
/// name.
fn matches(filter: &Filter) -> String {
    let mut text = String::new();
    let mut key = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            let _ = write!(text, " {name} {value}");
        }
    };
    let protocol = |number| match number {
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        58 => "icmpv6".to_owned(),
        number => number.to_string(),
    };
    key("ip_proto", filter.protocol.map(protocol));
    key("type", filter.icmp_type.map(|number| number.to_string()));
    key("code", filter.icmp_code.map(|number| number.to_string()));
    key("src_port", filter.src_port.map(|ports| ports.to_string()));
    key("dst_port", filter.dst_port.map(|ports| ports.to_string()));
    key("dst_ip", filter.destination.map(|net| net.to_string()));
    key("src_ip", filter.source.map(|net| net.to_string()));
    text
}

#[cfg(test)]
mod tests;
