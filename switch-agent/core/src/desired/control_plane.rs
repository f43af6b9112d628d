//! SONiC's control-plane ACLs: whether they let machines reach the proxy, and the rows that would.
//!
//! caclmgrd makes ip6tables rules of tables of type `CTRLPLANE`. With the first rule its chain `INPUT` ends in
//! DROP for every packet that nothing accepted, whatever the interface: the proxy's port then needs a rule, too.
//! The agent never writes one. Without any, nothing is dropped, and the first rule would arm the DROP for SSH and
//! everything else; with some, they are an operator's, who decides.

use std::collections::BTreeMap;

use ipnet::Ipv6Net;
use serde::Serialize;

use super::Desired;
use super::fields::quoted;
use crate::map::IntoMap;
use crate::row::{ConfigDb, Fields, Table, fields, leaf_list};

/// Table of the proposed rows. Not one of the agent's own names: what it calls its own it also deletes.
const PROPOSED: &str = "BOOT_NETWORK_PROXY";
/// Highest priority of the proposed rules; each has one of its own, as caclmgrd keeps one rule of each.
const PRIORITY: usize = 9000;
/// Machines without a routed address, and those that ask the router's link-local address.
const LINK_LOCAL: &str = "fe80::/10";

/// What control-plane ACLs mean for the proxy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ControlPlane {
    /// One line for people.
    pub summary: String,
    /// Control-plane tables with rules, by name.
    pub tables: Vec<String>,
    pub proxy_port: u16,
    /// Sources of requests that no rule lets through to the proxy's port: boot prefixes and link-local ones.
    pub denied: Vec<Ipv6Net>,
    /// What to add so that they pass, in the form of `config_db.json`; empty where nothing is denied.
    pub rows: BTreeMap<&'static str, BTreeMap<String, BTreeMap<String, Value>>>,
}

/// A field of a proposed row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Value {
    Text(String),
    List(Vec<String>),
}

/// Looks at control-plane ACLs. `None` where there are no rules of any, or nothing that would need one.
pub fn control_plane(config: &ConfigDb, desired: &Desired) -> Option<ControlPlane> {
    let tables: Vec<CaclTable<'_>> = config
        .table("ACL_TABLE")
        .filter(|(_, row)| row.get("type").is_some_and(|kind| kind == "CTRLPLANE"))
        .map(|(name, row)| CaclTable { name, row, rules: rules(config, name) })
        .filter(|table| !table.rules.is_empty())
        .collect();
    let served = desired.partitions.values().filter(|partition| partition.proxy);
    let mut sources: Vec<Ipv6Net> = served.map(|partition| partition.prefix).collect();
    if tables.is_empty() || sources.is_empty() || !desired.global.admin_up {
        return None;
    }
    sources.extend(LINK_LOCAL.parse::<Ipv6Net>());
    let port = desired.global.proxy_port;
    let passes = |source: &Ipv6Net| {
        let verdicts: Vec<Verdict> = tables.iter().map(|table| table.judge(*source, port)).collect();
        verdicts.contains(&Verdict::Accepts) && !verdicts.contains(&Verdict::Refuses)
    };
    let denied: Vec<Ipv6Net> = sources.into_iter().filter(|source| !passes(source)).collect();
    let rows = if denied.is_empty() { BTreeMap::new() } else { proposed(&denied, port) };
    let tables: Vec<String> = tables.iter().map(|table| quoted(table.name)).collect();
    Some(ControlPlane { summary: summary(&tables, port, &denied), tables, proxy_port: port, denied, rows })
}

fn summary(tables: &[String], port: u16, denied: &[Ipv6Net]) -> String {
    let tables = tables.join(", ");
    if denied.is_empty() {
        return format!("open to machines beside control-plane ACLs ({tables})");
    }
    let sources: Vec<String> = denied.iter().map(ToString::to_string).collect();
    let sources = sources.join(", ");
    format!("packets from {sources} to TCP port {port} are dropped by control-plane ACLs ({tables})")
}

fn rules<'a>(config: &'a ConfigDb, table: &str) -> Vec<&'a Fields> {
    let of = |key: &str| key.split_once('|').is_some_and(|(name, _)| name == table);
    config.table("ACL_RULE").filter(|(key, row)| of(key) && !row.is_empty()).map(|(_, row)| row).collect()
}

/// What one table says of a source. Where several speak, their order is caclmgrd's secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Accepts,
    Refuses,
    Silent,
}

struct CaclTable<'a> {
    name: &'a str,
    row: &'a Fields,
    rules: Vec<&'a Fields>,
}

impl CaclTable<'_> {
    /// The first rule that is about any of `source` decides; one that is about a part of it, or about some
    /// packets of it only, can refuse but not accept.
    fn judge(&self, source: Ipv6Net, port: u16) -> Verdict {
        if !self.concerns(port) || !self.is_ipv6() {
            return Verdict::Silent;
        }
        let mut rules: Vec<(&str, &Fields)> =
            self.rules.iter().filter_map(|rule| Some((get(rule, "PRIORITY")?, *rule))).collect();
        // caclmgrd sorts the texts.
        rules.sort_by(|a, b| b.0.cmp(a.0));
        for (_, rule) in rules {
            let whole = match get(rule, "SRC_IPV6").map(prefix) {
                None => true,
                Some(Some(net)) if net.contains(&source) => true,
                Some(Some(net)) if source.contains(&net) => false,
                Some(_) => continue,
            };
            let narrowed = ["DST_IPV6", "IN_PORTS", "TCP_FLAGS"].iter().any(|name| get(rule, name).is_some());
            match get(rule, "PACKET_ACTION") {
                Some("ACCEPT") if whole && !narrowed => return Verdict::Accepts,
                Some("ACCEPT") | None => {}
                Some(_) => return Verdict::Refuses,
            }
        }
        Verdict::Silent
    }

    /// A table is of the protocol of the first rule that has an address, and skipped without one.
    fn is_ipv6(&self) -> bool {
        self.rules.iter().any(|rule| get(rule, "SRC_IPV6").or_else(|| get(rule, "DST_IPV6")).is_some())
    }

    /// Whether the table is about this TCP port. caclmgrd takes the port of one rule for all rules of a table,
    /// so only a table whose rules agree can be relied on.
    fn concerns(&self, port: u16) -> bool {
        let services = self.row.get("services@").or_else(|| self.row.get("services"));
        let serves = |name: &str| services.is_some_and(|list| leaf_list(list).any(|one| one == name));
        let named = |rule: &Fields| -> Option<bool> {
            if let Some(text) = get(rule, "L4_DST_PORT") {
                return Some(text.parse() == Ok(port));
            }
            let (from, to) = get(rule, "L4_DST_PORT_RANGE")?.split_once('-')?;
            Some((from.parse::<u16>().ok()?..=to.parse::<u16>().ok()?).contains(&port))
        };
        let mut ports = self.rules.iter().filter_map(|rule| named(rule)).peekable();
        serves("ANY") || serves("EXTERNAL_CLIENT") && ports.peek().is_some() && ports.all(|named| named)
    }
}

/// A field by its name in any case, where it says something.
fn get<'a>(rule: &'a Fields, name: &str) -> Option<&'a str> {
    let found = rule.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
    found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
}

fn prefix(text: &str) -> Option<Ipv6Net> {
    let net: Option<Ipv6Net> = text.parse().ok();
    net.or_else(|| Some(Ipv6Net::from(text.parse::<std::net::Ipv6Addr>().ok()?))).map(|net| net.trunc())
}

/// One table, as all its rules are about one port.
fn proposed(
    denied: &[Ipv6Net],
    port: u16,
) -> BTreeMap<&'static str, BTreeMap<String, BTreeMap<String, Value>>> {
    let texts = |row: Fields| row.into_iter().map(|(name, text)| (name, Value::Text(text)));
    let table = texts(fields([
        ("type", "CTRLPLANE"),
        ("stage", "ingress"),
        ("policy_desc", "Discovery proxy of the boot network"),
    ]));
    let services = ("services".to_owned(), Value::List(vec!["EXTERNAL_CLIENT".to_owned()]));
    let rules = denied.iter().enumerate().map(|(number, source)| {
        let row = fields([
            ("PRIORITY", &(PRIORITY - number).to_string()),
            ("PACKET_ACTION", "ACCEPT"),
            ("IP_PROTOCOL", "6"),
            ("SRC_IPV6", &source.to_string()),
            ("L4_DST_PORT", &port.to_string()),
        ]);
        (format!("{PROPOSED}|RULE_{}", number + 1), texts(row).into_map())
    });
    let table = std::iter::once((PROPOSED.to_owned(), table.chain([services]).into_map())).into_map();
    [("ACL_TABLE", table), ("ACL_RULE", rules.into_map())].into_iter().into_map()
}

impl ControlPlane {
    /// The proposed rows as CONFIG_DB has them, by table and key.
    pub fn rows_in_config_db(&self) -> BTreeMap<&'static str, Table> {
        let field = |(name, value): (&String, &Value)| match value {
            Value::Text(text) => (name.clone(), text.clone()),
            Value::List(items) => (format!("{name}@"), items.join(",")),
        };
        let row =
            |(key, row): (&String, &BTreeMap<String, Value>)| (key.clone(), row.iter().map(field).into_map());
        self.rows.iter().map(|(table, rows)| (*table, rows.iter().map(row).into_map())).into_map()
    }
}

#[cfg(test)]
mod tests;
