//! bgpcfgd, as far as static routes go: each next hop of a `STATIC_ROUTE` row is a line with tag 1 (to be
//! announced) or 2, and the first route of a VRF makes BGP there redistribute those with tag 1.

use std::collections::{BTreeMap, BTreeSet};

use switch_agent_core::row::Fields;

use super::Daemon;

#[derive(Debug, Default)]
pub(super) struct Bgpcfgd {
    asn: Option<String>,
    /// Next hops as lines, and the tag, by VRF and prefix.
    routes: BTreeMap<String, BTreeMap<String, (BTreeSet<String>, u8)>>,
    /// VRFs whose routes came before the AS number.
    pending: BTreeSet<String>,
}

impl Daemon for Bgpcfgd {
    const TABLES: &'static [&'static str] = &["DEVICE_METADATA", "STATIC_ROUTE"];
    const SEES_EVERY_DELETION: bool = true;
    const BY_FILE: bool = true;

    fn row(&mut self, table: &str, key: &str, row: Option<&Fields>) -> Vec<Vec<String>> {
        let lines = match (table, row) {
            ("DEVICE_METADATA", Some(row)) => self.metadata(row),
            ("STATIC_ROUTE", row) => self.route(key, row),
            _ => Vec::new(),
        };
        if lines.is_empty() { Vec::new() } else { vec![lines] }
    }
}

impl Bgpcfgd {
    fn metadata(&mut self, row: &Fields) -> Vec<String> {
        self.asn = row.get("bgp_asn").cloned();
        if self.asn.is_none() {
            return Vec::new();
        }
        let pending = std::mem::take(&mut self.pending);
        pending.iter().flat_map(|vrf| self.redistribution(vrf, "")).collect()
    }

    fn route(&mut self, key: &str, row: Option<&Fields>) -> Vec<String> {
        let (vrf, prefix) = key.split_once('|').unwrap_or(("default", key));
        let known = self.routes.get(vrf).map_or(0, BTreeMap::len);
        let present = self.routes.get(vrf).and_then(|routes| routes.get(prefix)).cloned();
        let (before, tag_before) = present.unwrap_or_default();
        let Some((now, tag)) = row.map_or(Some((BTreeSet::new(), tag_before)), next_hops) else {
            tracing::error!(key, "not a static route");
            return Vec::new();
        };
        let line = |no: &str, hop: &str, tag: u8| {
            let family = if prefix.contains(':') { "ipv6" } else { "ip" };
            let vrf = if vrf == "default" { String::new() } else { format!(" vrf {vrf}") };
            format!("{no}{family} route {prefix}{hop}{vrf} tag {tag}")
        };
        let renewed = tag != tag_before;
        let gone = before.iter().filter(|hop| renewed || !now.contains(*hop));
        let mut lines: Vec<String> = gone.map(|hop| line("no ", hop, tag_before)).collect();
        let new = now.iter().filter(|hop| renewed || !before.contains(*hop));
        lines.extend(new.map(|hop| line("", hop, tag)));
        let (first, last) = (known == 0 && row.is_some(), known == 1 && row.is_none() && !before.is_empty());
        if first && self.asn.is_none() {
            self.pending.insert(vrf.to_owned());
        } else if first {
            lines.extend(self.redistribution(vrf, ""));
        } else if last {
            self.pending.remove(vrf);
            lines.extend(self.redistribution(vrf, "no "));
        }
        let routes = self.routes.entry(vrf.to_owned()).or_default();
        match row {
            Some(_) => routes.insert(prefix.to_owned(), (now, tag)),
            None => routes.remove(prefix),
        };
        lines
    }

    fn redistribution(&self, vrf: &str, no: &str) -> Vec<String> {
        let Some(asn) = &self.asn else { return Vec::new() };
        let instance = if vrf == "default" { String::new() } else { format!(" vrf {vrf}") };
        let mut lines = Vec::new();
        if no.is_empty() {
            lines.extend(["route-map STATIC_ROUTE_FILTER permit 10".to_owned(), "match tag 1".to_owned()]);
        }
        lines.push(format!("router bgp {asn}{instance}"));
        for family in ["ipv4", "ipv6"] {
            lines.push(format!("address-family {family}"));
            lines.push(format!("{no}redistribute static route-map STATIC_ROUTE_FILTER"));
            lines.push("exit-address-family".to_owned());
        }
        lines.push("exit".to_owned());
        if !no.is_empty() {
            lines.push("no route-map STATIC_ROUTE_FILTER".to_owned());
        }
        lines
    }
}

/// The next hops of a row as the middle of a line, and the tag; `None` where its lists do not fit.
fn next_hops(row: &Fields) -> Option<(BTreeSet<String>, u8)> {
    let list = |name: &str| -> Option<Vec<&str>> {
        row.get(name).filter(|value| !value.trim().is_empty()).map(|value| value.split(',').collect())
    };
    let lists = ["blackhole", "nexthop", "ifname", "distance", "nexthop-vrf"].map(list);
    let [blackhole, nexthop, ifname, distance, vrf] = &lists;
    let count = lists.iter().flatten().map(Vec::len).next()?;
    if lists.iter().flatten().any(|list| list.len() != count) {
        return None;
    }
    let at = |list: &Option<Vec<&str>>, index: usize| {
        list.as_ref().and_then(|list| list.get(index).copied()).unwrap_or_default().to_owned()
    };
    let mut hops = BTreeSet::new();
    for index in 0..count {
        let (dark, far) = (at(blackhole, index) == "true", at(nexthop, index));
        let far = if matches!(far.as_str(), "::" | "0.0.0.0") { String::new() } else { far };
        if !dark && far.is_empty() && at(ifname, index).is_empty() {
            continue;
        }
        let distance = Some(at(distance, index)).filter(|value| value != "0");
        let mut words = if dark { vec!["blackhole".to_owned()] } else { vec![far, at(ifname, index)] };
        words.extend(distance);
        let vrf = at(vrf, index);
        if !dark && !vrf.is_empty() {
            words.push(format!("nexthop-vrf {vrf}"));
        }
        let words = words.iter().filter(|word| !word.is_empty());
        hops.insert(words.map(|word| format!(" {word}")).collect());
    }
    let tag = if row.get("advertise").is_some_and(|advertise| advertise == "false") { 2 } else { 1 };
    Some((hops, tag))
}

#[cfg(test)]
mod tests {
    use switch_agent_core::row::fields;

    use super::*;

    #[test]
    fn a_route_comes_and_goes_with_its_redistribution() {
        let mut daemon = Bgpcfgd::default();
        daemon.row("DEVICE_METADATA", "localhost", Some(&fields([("bgp_asn", "65000")])));
        let out = fields([("ifname", "Ethernet0"), ("nexthop-vrf", "VrfBoot-p1"), ("advertise", "true")]);
        let key = "default|2001:db8::/64";
        let lines = daemon.row("STATIC_ROUTE", key, Some(&out)).concat();
        assert_eq!(lines[0], "ipv6 route 2001:db8::/64 Ethernet0 nexthop-vrf VrfBoot-p1 tag 1");
        assert_eq!(lines.iter().filter(|line| line.starts_with("redistribute")).count(), 2);
        assert!(daemon.row("STATIC_ROUTE", key, Some(&out)).is_empty(), "what is there already");
        let dark = fields([("blackhole", "true"), ("distance", "254"), ("advertise", "false")]);
        let lines = daemon.row("STATIC_ROUTE", "VrfBoot-p1|::/0", Some(&dark)).concat();
        assert_eq!(lines[0], "ipv6 route ::/0 blackhole 254 vrf VrfBoot-p1 tag 2");
        assert!(lines.contains(&"router bgp 65000 vrf VrfBoot-p1".to_owned()));
        let lines = daemon.row("STATIC_ROUTE", key, None).concat();
        assert_eq!(lines[0], "no ipv6 route 2001:db8::/64 Ethernet0 nexthop-vrf VrfBoot-p1 tag 1");
        assert_eq!(lines.last().unwrap(), "no route-map STATIC_ROUTE_FILTER");
    }

    #[test]
    fn lists_that_do_not_fit_are_no_route() {
        let row = fields([("nexthop", "2001:db8::1,2001:db8::2"), ("ifname", "Ethernet0")]);
        assert_eq!(next_hops(&row), None);
    }
}
