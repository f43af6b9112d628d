//! What `ACL_TABLE` and `ACL_RULE` rows mean: a pure function. How a kernel is told is not decided here.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use switch_agent_core::row::{ConfigDb, Fields, fields, leaf_list};

pub(in crate::swss) const TABLE_STATUS: &str = "ACL_TABLE_TABLE";
pub(in crate::swss) const RULE_STATUS: &str = "ACL_RULE_TABLE";
/// TCP and UDP: what a rule means that names a port but no protocol.
const WITH_PORTS: [u8; 2] = [6, 17];
const ICMPV6: u8 = 58;

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

/// One ACL table, the first of its filters that matches decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) name: String,
    pub(super) family: Family,
    pub(super) filters: Vec<Filter>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

/// What a packet of the table's family must have, all of it, and what becomes of it then. A filter with ports
/// or with ICMPv6's fields has the protocol, too.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Filter {
    /// Key of the `ACL_RULE` row.
    pub(super) rule: String,
    pub(super) protocol: Option<u8>,
    pub(super) icmp_type: Option<u8>,
    pub(super) icmp_code: Option<u8>,
    pub(super) src_port: Option<Ports>,
    pub(super) dst_port: Option<Ports>,
    pub(super) source: Option<IpNet>,
    pub(super) destination: Option<IpNet>,
    pub(super) drop: bool,
}

/// From the first to the last. In text `22` or `22-23`, as both programs take it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ports {
    first: u16,
    last: u16,
}

/// One rule, its fields read.
#[derive(Debug, Default)]
struct Rule {
    priority: u32,
    drop: Option<bool>,
    /// Whether any field selects packets; aclorch takes no rule without one.
    selects: bool,
    /// But for the verdict.
    filter: Filter,
}

impl Ports {
    pub(super) fn new(first: u16, last: u16) -> Option<Ports> {
        (first <= last).then_some(Ports { first, last })
    }
}

impl std::fmt::Display for Ports {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Ports { first, last } = self;
        if first == last { write!(f, "{first}") } else { write!(f, "{first}-{last}") }
    }
}

impl Family {
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
                let table = Table { name: name.to_owned(), family, filters };
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
            let read = Rule::read(row, family).and_then(|rule| Ok((rule.priority, rule.filters(key)?)));
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

fn port(value: &str) -> Result<Ports, String> {
    number(value).map(|port| Ports { first: port, last: port })
}

fn range(value: &str) -> Result<Ports, String> {
    let (first, last) = value.split_once('-').ok_or_else(|| format!("{value:?} is no range"))?;
    Ports::new(number(first)?, number(last)?).ok_or_else(|| format!("{value:?} ends before it begins"))
}

/// A port and a range of the same ports exclude each other.
fn once(ports: &mut Option<Ports>, value: Ports) -> Result<(), String> {
    match ports.replace(value) {
        None => Ok(()),
        Some(other) => Err(format!("{other} is said, too")),
    }
}

/// A prefix, or an address as one.
fn prefix(value: &str, family: Family) -> Result<IpNet, String> {
    let net = if value.contains('/') {
        value.parse::<IpNet>().map_err(|_| format!("{value:?} is no prefix"))?.trunc()
    } else {
        value.parse::<IpAddr>().map_err(|_| format!("{value:?} is no address"))?.into()
    };
    match (family, net) {
        (Family::V4, IpNet::V4(_)) | (Family::V6, IpNet::V6(_)) => Ok(net),
        _ => Err(format!("{value:?} is of the other family")),
    }
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
        let filter = &mut self.filter;
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
            "IP_PROTOCOL" | "NEXT_HEADER" => filter.protocol = Some(number(value)?),
            "ICMPV6_TYPE" if v6 => filter.icmp_type = Some(number(value)?),
            "ICMPV6_CODE" if v6 => filter.icmp_code = Some(number(value)?),
            "L4_SRC_PORT" => once(&mut filter.src_port, port(value)?)?,
            "L4_DST_PORT" => once(&mut filter.dst_port, port(value)?)?,
            "L4_SRC_PORT_RANGE" => once(&mut filter.src_port, range(value)?)?,
            "L4_DST_PORT_RANGE" => once(&mut filter.dst_port, range(value)?)?,
            "SRC_IPV6" if v6 => filter.source = Some(prefix(value, family)?),
            "DST_IPV6" if v6 => filter.destination = Some(prefix(value, family)?),
            "SRC_IP" if !v6 => filter.source = Some(prefix(value, family)?),
            "DST_IP" if !v6 => filter.destination = Some(prefix(value, family)?),
            _ => return Err("unknown field".to_owned()),
        }
        self.selects = true;
        Ok(())
    }

    /// Ports and ICMPv6's fields mean nothing without the protocol, so a rule that leaves it open becomes one
    /// filter per protocol. `key` is the row's.
    fn filters(&self, key: &str) -> Result<Vec<Filter>, String> {
        let drop = self.drop.ok_or_else(|| "PACKET_ACTION is missing".to_owned())?;
        let icmp = self.filter.icmp_type.is_some() || self.filter.icmp_code.is_some();
        let ports = self.filter.src_port.is_some() || self.filter.dst_port.is_some();
        let protocols: Vec<Option<u8>> = match self.filter.protocol {
            Some(protocol) if (icmp && protocol != ICMPV6) || (ports && !WITH_PORTS.contains(&protocol)) => {
                return Err(format!("IP_PROTOCOL {protocol} does not have what the rule matches"));
            }
            None if icmp && ports => return Err("ICMPv6 has no ports".to_owned()),
            None if icmp => vec![Some(ICMPV6)],
            None if ports => WITH_PORTS.map(Some).to_vec(),
            protocol => vec![protocol],
        };
        let filter = |protocol| Filter { rule: key.to_owned(), protocol, drop, ..self.filter.clone() };
        Ok(protocols.into_iter().map(filter).collect())
    }
}

#[cfg(test)]
mod tests;
