//! From `ACL_TABLE` and `ACL_RULE` rows to filters of `tc`: a pure function.

use std::collections::BTreeMap;
use std::fmt::Write;

use ipnet::{Ipv4Net, Ipv6Net};
use switch_agent_core::row::{ConfigDb, Fields, fields, leaf_list};

pub(in crate::swss) const TABLE_STATUS: &str = "ACL_TABLE_TABLE";
pub(in crate::swss) const RULE_STATUS: &str = "ACL_RULE_TABLE";
/// TCP and UDP: what a rule means that names a port but no protocol.
const WITH_PORTS: [u8; 2] = [6, 17];
const ICMPV6: u8 = 58;
/// Behind every rule.
const LAST_PREFERENCE: u16 = u16::MAX;

/// What aclorch would make of CONFIG_DB.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Translation {
    /// Tables of each port, every packet goes through all of them.
    pub(super) ports: BTreeMap<String, Vec<Table>>,
    /// Rows of STATE_DB, by table and key.
    pub(super) state: BTreeMap<(&'static str, String), Fields>,
    /// Rows that are not installed, and why.
    pub(super) complaints: Vec<String>,
}

/// Filters of one ACL table, the first that matches decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Table {
    family: Family,
    filters: Vec<Filter>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Filter {
    /// Keys of `tc`'s flower; empty matches every packet of the family.
    matches: String,
    drop: bool,
}

/// One rule, its fields read.
#[derive(Debug, Default)]
struct Rule {
    priority: u32,
    drop: Option<bool>,
    /// Whether any field selects packets; aclorch takes no rule without one.
    selects: bool,
    protocol: Option<u8>,
    icmp_type: Option<u8>,
    icmp_code: Option<u8>,
    /// Flower's keys for addresses.
    addresses: String,
    src_port: Option<u16>,
    dst_port: Option<u16>,
}

impl Family {
    fn protocol(self) -> &'static str {
        match self {
            Family::V4 => "ip",
            Family::V6 => "ipv6",
        }
    }

    fn ether_type(self) -> u16 {
        match self {
            Family::V4 => 0x0800,
            Family::V6 => 0x86dd,
        }
    }

    fn ip_type(self) -> &'static str {
        match self {
            Family::V4 => "IPV4ANY",
            Family::V6 => "IPV6ANY",
        }
    }
}

/// Reads all rows. Tables of the control plane are caclmgrd's and left alone; rules without a table wait.
pub(super) fn translate(config: &ConfigDb) -> Translation {
    let mut translation = Translation::default();
    for (name, row) in config.table("ACL_TABLE") {
        if field(row, "type").is_some_and(|kind| kind.eq_ignore_ascii_case("CTRLPLANE")) {
            continue;
        }
        let key = (TABLE_STATUS, name.to_owned());
        match family(row) {
            Ok(family) => {
                translation.state.insert(key, status(true));
                let filters = translation.filters(config, name, family);
                let table = Table { family, filters };
                for port in
                    field(row, "ports@").or_else(|| field(row, "ports")).into_iter().flat_map(leaf_list)
                {
                    translation.ports.entry(port.to_owned()).or_default().push(table.clone());
                }
            }
            Err(why) => {
                translation.complaints.push(format!("ACL_TABLE|{name}: {why}"));
                translation.state.insert(key, status(false));
            }
        }
    }
    translation
}

impl Translation {
    fn filters(&mut self, config: &ConfigDb, table: &str, family: Family) -> Vec<Filter> {
        let mut rules = Vec::new();
        for (key, row) in config.table("ACL_RULE") {
            if key.split_once('|').is_none_or(|(of, _)| of != table) {
                continue;
            }
            let read = Rule::read(row, family).and_then(|rule| Ok((rule.priority, rule.filters()?)));
            self.state.insert((RULE_STATUS, key.to_owned()), status(read.is_ok()));
            match read {
                Ok(rule) => rules.push(rule),
                Err(why) => self.complaints.push(format!("ACL_RULE|{key}: {why}")),
            }
        }
        // Stable: equal priorities stay in the order of their names.
        rules.sort_by_key(|(priority, _)| std::cmp::Reverse(*priority));
        rules.into_iter().flat_map(|(_, filters)| filters).collect()
    }
}

fn status(active: bool) -> Fields {
    fields([("status", if active { "Active" } else { "Inactive" })])
}

/// aclorch takes names of fields in any case.
fn field<'a>(row: &'a Fields, name: &str) -> Option<&'a str> {
    row.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

fn family(row: &Fields) -> Result<Family, String> {
    if let Some(stage) = field(row, "stage").filter(|stage| !stage.eq_ignore_ascii_case("ingress")) {
        return Err(format!("stage {stage:?} is not supported"));
    }
    match field(row, "type").map(str::to_uppercase).as_deref() {
        Some("L3") => Ok(Family::V4),
        Some("L3V6") => Ok(Family::V6),
        kind => Err(format!("type {:?} is not supported", kind.unwrap_or_default())),
    }
}

/// A number, decimal or with `0x`.
fn number<T: TryFrom<u32>>(value: &str) -> Result<T, String> {
    let parsed = match value.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => value.parse(),
    };
    parsed
        .ok()
        .and_then(|number| T::try_from(number).ok())
        .ok_or_else(|| format!("{value:?} is out of range or no number"))
}

fn prefix(value: &str, family: Family) -> Result<String, String> {
    let no_prefix = |_| format!("{value:?} is no prefix");
    Ok(match (family, value.contains('/')) {
        (Family::V6, true) => value.parse::<Ipv6Net>().map_err(no_prefix)?.trunc().to_string(),
        (Family::V4, true) => value.parse::<Ipv4Net>().map_err(no_prefix)?.trunc().to_string(),
        (Family::V6, false) => {
            let address: std::net::Ipv6Addr =
                value.parse().map_err(|_| format!("{value:?} is no address"))?;
            Ipv6Net::from(address).to_string()
        }
        (Family::V4, false) => {
            let address: std::net::Ipv4Addr =
                value.parse().map_err(|_| format!("{value:?} is no address"))?;
            Ipv4Net::from(address).to_string()
        }
    })
}

impl Rule {
    fn read(row: &Fields, family: Family) -> Result<Rule, String> {
        let mut rule = Rule::default();
        for (name, value) in row {
            let name = name.to_uppercase();
            rule.field(&name, value, family).map_err(|why| format!("{name}: {why}"))?;
        }
        if !rule.selects {
            return Err("nothing to match".to_owned());
        }
        Ok(rule)
    }

    fn field(&mut self, name: &str, value: &str, family: Family) -> Result<(), String> {
        let v6 = family == Family::V6;
        match name {
            "PRIORITY" => {
                self.priority = number(value)?;
                return Ok(());
            }
            "PACKET_ACTION" => {
                self.drop = Some(match value.to_uppercase().as_str() {
                    "DROP" => true,
                    "FORWARD" => false,
                    // ACCEPT is a word of the control plane's tables.
                    _ => return Err(format!("{value:?} is no action of a data-plane table")),
                });
                return Ok(());
            }
            "IP_TYPE" if value.eq_ignore_ascii_case(family.ip_type()) => {}
            "ETHER_TYPE" if number(value) == Ok(family.ether_type()) => {}
            "IP_TYPE" | "ETHER_TYPE" => return Err(format!("{value:?} is not supported")),
            "IP_PROTOCOL" | "NEXT_HEADER" => self.protocol = Some(number(value)?),
            "ICMPV6_TYPE" if v6 => self.icmp_type = Some(number(value)?),
            "ICMPV6_CODE" if v6 => self.icmp_code = Some(number(value)?),
            "L4_SRC_PORT" => self.src_port = Some(number(value)?),
            "L4_DST_PORT" => self.dst_port = Some(number(value)?),
            "SRC_IPV6" if v6 => self.address("src_ip", value, family)?,
            "DST_IPV6" if v6 => self.address("dst_ip", value, family)?,
            "SRC_IP" if !v6 => self.address("src_ip", value, family)?,
            "DST_IP" if !v6 => self.address("dst_ip", value, family)?,
            _ => return Err("unknown field".to_owned()),
        }
        self.selects = true;
        Ok(())
    }

    fn address(&mut self, key: &str, value: &str, family: Family) -> Result<(), String> {
        let prefix = prefix(value, family)?;
        let _ = write!(self.addresses, " {key} {prefix}");
        Ok(())
    }

    /// Flower knows ports and ICMPv6 types only together with the protocol, so a rule that leaves it open
    /// becomes one filter per protocol.
    fn filters(&self) -> Result<Vec<Filter>, String> {
        let drop = self.drop.ok_or_else(|| "PACKET_ACTION is missing".to_owned())?;
        let icmp = self.icmp_type.is_some() || self.icmp_code.is_some();
        let ports = self.src_port.is_some() || self.dst_port.is_some();
        let protocols: Vec<Option<u8>> = match self.protocol {
            Some(protocol) if (icmp && protocol != ICMPV6) || (ports && !WITH_PORTS.contains(&protocol)) => {
                return Err(format!("IP_PROTOCOL {protocol} does not have what the rule matches"));
            }
            None if icmp && ports => return Err("ICMPv6 has no ports".to_owned()),
            None if icmp => vec![Some(ICMPV6)],
            None if ports => WITH_PORTS.map(Some).to_vec(),
            protocol => vec![protocol],
        };
        Ok(protocols.into_iter().map(|protocol| self.filter(protocol, drop)).collect())
    }

    fn filter(&self, protocol: Option<u8>, drop: bool) -> Filter {
        let mut matches = String::new();
        if let Some(protocol) = protocol {
            // Keys of a protocol are understood only behind its name.
            let _ = match protocol {
                6 => write!(matches, " ip_proto tcp"),
                17 => write!(matches, " ip_proto udp"),
                ICMPV6 => write!(matches, " ip_proto icmpv6"),
                number => write!(matches, " ip_proto {number}"),
            };
        }
        let mut key = |name: &str, value: Option<u32>| {
            if let Some(value) = value {
                let _ = write!(matches, " {name} {value}");
            }
        };
        key("type", self.icmp_type.map(u32::from));
        key("code", self.icmp_code.map(u32::from));
        key("src_port", self.src_port.map(u32::from));
        key("dst_port", self.dst_port.map(u32::from));
        matches.push_str(&self.addresses);
        Filter { matches, drop }
    }
}

/// Chains of a port are numbered from here; the two generations take turns.
fn chain(generation: bool, index: usize) -> usize {
    index + if generation { 1001 } else { 1 }
}

/// `tc` commands that put the tables in front of a port. The port's first chain is switched over by one
/// replacement when all others are complete, so that no packet meets half an ACL.
pub(super) fn install(port: &str, tables: &[Table], generation: bool) -> String {
    let mut text = format!("qdisc replace dev {port} clsact\n");
    for (index, table) in tables.iter().enumerate() {
        let this = chain(generation, index);
        let next = (index + 1 < tables.len()).then(|| format!("goto chain {}", chain(generation, index + 1)));
        let forward = next.as_deref().unwrap_or("ok");
        let protocol = table.family.protocol();
        for (preference, filter) in (1..LAST_PREFERENCE).zip(&table.filters) {
            let action = if filter.drop { "drop" } else { forward };
            let _ = writeln!(
                text,
                "filter add dev {port} ingress chain {this} protocol {protocol} pref {preference} flower \
                 skip_hw{} action {action}",
                filter.matches
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

/// `tc` commands that take away the chains of a generation that is no longer gone to.
pub(super) fn retire(port: &str, tables: usize, generation: bool) -> String {
    (0..tables)
        .map(|index| format!("filter del dev {port} ingress chain {}\n", chain(generation, index)))
        .collect()
}

/// `tc` commands that leave the port without ACLs.
pub(super) fn unbind(port: &str) -> String {
    format!("qdisc del dev {port} clsact\n")
}

#[cfg(test)]
mod tests;
