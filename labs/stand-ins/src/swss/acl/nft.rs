//! ACLs as a table of nftables: one chain for each ACL table, and one at each port's ingress that sends every
//! packet through those of the port.
//!
//! It is always replaced as a whole, by one transaction: no packet meets half an ACL, or none.

use std::collections::BTreeMap;
use std::fmt::Write;

use ipnet::IpNet;
use switch_agent_core::sim::SimSwitch;

use super::rules::{Family, Filter, Table};

/// Table of the family netdev that is this program's alone. Who asks for its counters knows the name.
const TABLE: &str = "swss";
/// Bytes that a comment may have (`NFTNL_UDATA_COMMENT_MAXLEN`, with its end).
const COMMENT_MAX: usize = 127;

/// Whether the kernel has what [`Ruleset`] needs, for `nft --check`: every kind of expression, at a netdev that
/// each network namespace has.
pub(super) const PROBE: &str = "table netdev swss_probe {
	chain acl { meta protocol ip6 icmpv6 type 1 counter drop; meta protocol ip6 tcp dport 1-2 counter return; }
	chain port { type filter hook ingress device \"lo\" priority filter; policy accept; jump acl; }
}
";

/// What is in front of the ports: by port the index of its netdev, which loses its chain when it goes, and the
/// tables.
#[derive(Debug, Default)]
pub(super) struct Ruleset {
    bound: Option<BTreeMap<String, (u32, Vec<Table>)>>,
}

impl Ruleset {
    /// The transaction that leads to what should be, nothing if that is already so.
    pub(super) fn bind(&mut self, switch: &SimSwitch, ports: &BTreeMap<String, Vec<Table>>) -> String {
        let existing = ports
            .iter()
            .filter_map(|(port, tables)| Some((port.clone(), (switch.link(port)?.ifindex, tables.clone()))));
        let wanted = Some(existing.collect());
        if self.bound == wanted {
            return String::new();
        }
        self.bound = wanted;
        let ports = self.bound.iter().flatten().map(|(port, (_, tables))| (port.as_str(), tables.as_slice()));
        ruleset(ports)
    }
}

/// The transaction that takes everything away, whether there is something or not.
pub(super) fn remove() -> String {
    format!("add table netdev {TABLE}\ndelete table netdev {TABLE}\n")
}

fn ruleset<'a>(ports: impl Iterator<Item = (&'a str, &'a [Table])> + Clone) -> String {
    let mut text = remove();
    // An ACL table is the same at all its ports, and so are its counters.
    let tables: BTreeMap<&str, &Table> =
        ports.clone().flat_map(|(_, tables)| tables).map(|table| (table.name.as_str(), table)).collect();
    if tables.is_empty() {
        return text;
    }
    let _ = writeln!(text, "table netdev {TABLE} {{");
    for (number, table) in tables.values().enumerate() {
        let _ = writeln!(text, "\tchain acl{number} {{\n\t\tcomment {}", comment(&table.name));
        for filter in &table.filters {
            let _ = writeln!(text, "\t\t{}", rule(table.family, filter));
        }
        let _ = writeln!(text, "\t}}");
    }
    for (number, (port, of_port)) in ports.enumerate() {
        let _ = writeln!(
            text,
            "\tchain port{number} {{\n\t\ttype filter hook ingress device \"{port}\" priority filter; policy accept;"
        );
        for table in of_port {
            let acl = tables.keys().position(|name| *name == table.name).unwrap_or_default();
            let _ = writeln!(text, "\t\tjump acl{acl}");
        }
        let _ = writeln!(text, "\t}}");
    }
    let _ = writeln!(text, "}}");
    text
}

/// A packet that is let through goes on to the port's next table.
fn rule(family: Family, filter: &Filter) -> String {
    let family = match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    };
    let mut text = format!("meta protocol {family}");
    let mut matches = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            let _ = write!(text, " {name} {value}");
        }
    };
    matches("meta l4proto", filter.protocol.map(|number| number.to_string()));
    matches("icmpv6 type", filter.icmp_type.map(|number| number.to_string()));
    matches("icmpv6 code", filter.icmp_code.map(|number| number.to_string()));
    matches("th sport", filter.src_port.map(|ports| ports.to_string()));
    matches("th dport", filter.dst_port.map(|ports| ports.to_string()));
    // Nothing to compare where every address is meant.
    let address = |net: Option<IpNet>| net.filter(|net| net.prefix_len() > 0).map(|net| net.to_string());
    matches(&format!("{family} daddr"), address(filter.destination));
    matches(&format!("{family} saddr"), address(filter.source));
    let verdict = if filter.drop { "drop" } else { "return" };
    let _ = write!(text, " counter {verdict} comment {}", comment(&filter.rule));
    text
}

/// In quotes, without what would end them: names of rows come from CONFIG_DB.
fn comment(name: &str) -> String {
    let harmless = |c: char| if c.is_ascii_graphic() && !matches!(c, '"' | '\\') { c } else { '_' };
    let name: String = name.chars().take(COMMENT_MAX).map(harmless).collect();
    format!("\"{name}\"")
}

#[cfg(test)]
mod packets;
#[cfg(test)]
mod tests;
