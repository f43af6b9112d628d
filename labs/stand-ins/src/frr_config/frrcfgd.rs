//! frrcfgd, as far as the leak goes: the fields of a row are carried out one by one, in an order of the
//! daemon's own and only where they changed.

use std::collections::BTreeMap;

use switch_agent_core::row::Fields;

use super::Daemon;

#[derive(Debug, Default)]
pub(super) struct Frrcfgd {
    /// Rows as last seen, by table and key.
    seen: BTreeMap<(String, String), Fields>,
}

impl Daemon for Frrcfgd {
    const TABLES: &'static [&'static str] = &[
        "BGP_GLOBALS",
        "PREFIX_SET",
        "PREFIX",
        "ROUTE_MAP",
        "BGP_GLOBALS_AF",
        "BGP_GLOBALS_AF_NETWORK",
        "STATIC_ROUTE",
    ];
    const SEES_EVERY_DELETION: bool = false;
    const BY_FILE: bool = false;

    fn row(&mut self, table: &str, key: &str, row: Option<&Fields>) -> Vec<Vec<String>> {
        let id = (table.to_owned(), key.to_owned());
        let before = self.seen.get(&id).cloned();
        let none = Fields::new();
        let (old, new) = (before.as_ref().unwrap_or(&none), row.unwrap_or(&none));
        let batches = match table {
            "BGP_GLOBALS" => self.instance(key, old, new),
            "BGP_GLOBALS_AF" => self.family(key, old, new),
            "BGP_GLOBALS_AF_NETWORK" => self.network(key, before.is_some(), row.is_some()),
            "PREFIX" => self.prefix(key, old, new),
            "ROUTE_MAP" => self.route_map(key, old, new),
            "STATIC_ROUTE" => static_route(key, old, new),
            _ => Vec::new(),
        };
        match row {
            Some(row) => self.seen.insert(id, row.clone()),
            None => self.seen.remove(&id),
        };
        batches
    }
}

/// Fields that changed, in the daemon's order: the old value to take back, the new one to set.
fn changes<'a>(
    names: &'a [&'a str],
    old: &'a Fields,
    new: &'a Fields,
) -> impl Iterator<Item = (&'a str, Option<&'a str>, Option<&'a str>)> {
    names.iter().filter_map(|name| {
        let (old, new) = (old.get(*name).map(String::as_str), new.get(*name).map(String::as_str));
        (old != new).then_some((*name, old, new))
    })
}

impl Frrcfgd {
    fn field(&self, table: &str, key: &str, name: &str) -> Option<&String> {
        self.seen.get(&(table.to_owned(), key.to_owned()))?.get(name)
    }

    /// `None` while the VRF has no `local_asn`: whatever names it is ignored.
    fn instance_of(&self, vrf: &str) -> Option<String> {
        Some(format!("router bgp {} vrf {vrf}", self.field("BGP_GLOBALS", vrf, "local_asn")?))
    }

    fn instance(&self, vrf: &str, old: &Fields, new: &Fields) -> Vec<Vec<String>> {
        let Some(asn) = new.get("local_asn") else {
            let gone = old.get("local_asn").map(|asn| match vrf {
                "default" => vec![format!("no router bgp {asn}")],
                _ => vec![format!("no router bgp {asn} vrf {vrf}")],
            });
            return gone.into_iter().collect();
        };
        let instance = format!("router bgp {asn} vrf {vrf}");
        let mut batches = Vec::new();
        if !old.contains_key("local_asn") {
            batches.push(vec![instance.clone(), "no bgp default ipv4-unicast".to_owned()]);
        }
        for (_, old, new) in changes(&["router_id"], old, new) {
            let line = match (old, new) {
                (_, Some(id)) => format!("bgp router-id {id}"),
                (old, None) => format!("no bgp router-id {}", old.unwrap_or_default()),
            };
            batches.push(vec![instance.clone(), line]);
        }
        batches
    }

    fn family(&self, key: &str, old: &Fields, new: &Fields) -> Vec<Vec<String>> {
        let (vrf, family) = key.split_once('|').unwrap_or((key, ""));
        let Some(instance) = self.instance_of(vrf) else { return Vec::new() };
        let family = format!("address-family {}", family.to_lowercase().replace('_', " "));
        // The import comes before its route-map, in both directions.
        let changes = changes(&["import_vrf", "import_vrf_route_map"], old, new);
        let line = |(name, old, new): (&str, Option<&str>, Option<&str>)| {
            let what = if name == "import_vrf" { "import vrf" } else { "import vrf route-map" };
            match new {
                Some(value) => format!("{what} {value}"),
                None => format!("no {what} {}", old.unwrap_or_default()),
            }
        };
        changes.map(|change| vec![instance.clone(), family.clone(), line(change)]).collect()
    }

    fn network(&self, key: &str, was: bool, is: bool) -> Vec<Vec<String>> {
        let mut parts = key.splitn(3, '|');
        let (Some(vrf), Some(family), Some(prefix)) = (parts.next(), parts.next(), parts.next()) else {
            return Vec::new();
        };
        let (Some(instance), true) = (self.instance_of(vrf), was != is) else { return Vec::new() };
        let no = if is { "" } else { "no " };
        let family = format!("address-family {}", family.replace('_', " "));
        vec![vec![instance, family, format!("{no}network {prefix}")]]
    }

    fn prefix(&self, key: &str, old: &Fields, new: &Fields) -> Vec<Vec<String>> {
        let parts: Vec<&str> = key.split('|').collect();
        let [list, sequence, prefix, length] = parts.as_slice() else { return Vec::new() };
        if self.field("PREFIX_SET", list, "mode").is_none_or(|mode| mode != "IPv6") || *length != "exact" {
            tracing::error!(key, "no such prefix set");
            return Vec::new();
        }
        let line = |no: &str, action: &str| {
            vec![format!("{no}ipv6 prefix-list {list} seq {sequence} {} {prefix}", action.to_lowercase())]
        };
        let changes = changes(&["action"], old, new);
        let lines = changes.flat_map(|(_, old, new)| {
            old.map(|action| line("no ", action)).into_iter().chain(new.map(|action| line("", action)))
        });
        lines.collect()
    }

    fn route_map(&self, key: &str, old: &Fields, new: &Fields) -> Vec<Vec<String>> {
        let (map, sequence) = key.split_once('|').unwrap_or((key, ""));
        let head = |action: &str| format!("route-map {map} {action} {sequence}");
        let Some(action) = new.get("route_operation") else {
            let gone = old.get("route_operation").map(|action| vec![format!("no {}", head(action))]);
            return gone.into_iter().collect();
        };
        let mut batches = Vec::new();
        if old.get("route_operation") != Some(action) {
            batches.push(vec![head(action)]);
        }
        for (_, old, new) in changes(&["match_prefix_set"], old, new) {
            // The family is that of the set.
            let line = match new {
                Some(set) if self.field("PREFIX_SET", set, "mode").is_some_and(|mode| mode == "IPv6") => {
                    format!("match ipv6 address prefix-list {set}")
                }
                Some(_) => continue,
                None => format!("no match ipv6 address prefix-list {}", old.unwrap_or_default()),
            };
            batches.push(vec![head(action), line]);
        }
        batches
    }
}

/// One next hop is all that the leak has. Untagged, and announced by nobody but `BGP_GLOBALS_AF_NETWORK`.
fn static_route(key: &str, old: &Fields, new: &Fields) -> Vec<Vec<String>> {
    let (vrf, prefix) = key.split_once('|').unwrap_or(("default", key));
    let line = |no: &str, row: &Fields| {
        let field = |name: &str| row.get(name).map(String::as_str).unwrap_or_default();
        let mut words = vec![format!("{no}ipv6 route {prefix}")];
        if field("blackhole") == "true" {
            words.push("blackhole".to_owned());
        }
        words.extend([field("nexthop"), field("ifname"), field("distance")].map(str::to_owned));
        if !field("nexthop-vrf").is_empty() {
            words.push(format!("nexthop-vrf {}", field("nexthop-vrf")));
        }
        words.retain(|word| !word.is_empty());
        vec![format!("vrf {vrf}"), words.join(" ")]
    };
    if old == new {
        return Vec::new();
    }
    let gone = (!old.is_empty()).then(|| line("no ", old));
    gone.into_iter().chain((!new.is_empty()).then(|| line("", new))).collect()
}

#[cfg(test)]
mod tests {
    use switch_agent_core::row::fields;

    use super::*;

    #[test]
    fn fields_of_a_row_are_carried_out_in_the_daemons_order() {
        let mut daemon = Frrcfgd::default();
        let import = fields([("import_vrf", "default"), ("import_vrf_route_map", "M")]);
        let key = "VrfBoot-p1|ipv6_unicast";
        assert!(daemon.row("BGP_GLOBALS_AF", key, Some(&import)).is_empty(), "no instance yet");
        daemon.row("BGP_GLOBALS_AF", key, None);
        daemon.row("BGP_GLOBALS", "VrfBoot-p1", Some(&fields([("local_asn", "65000")])));
        let last = |batches: Vec<Vec<String>>| -> Vec<String> {
            batches.into_iter().filter_map(|mut lines| lines.pop()).collect()
        };
        let set = last(daemon.row("BGP_GLOBALS_AF", key, Some(&import)));
        assert_eq!(set, ["import vrf default", "import vrf route-map M"]);
        let gone = last(daemon.row("BGP_GLOBALS_AF", key, None));
        assert_eq!(gone, ["no import vrf default", "no import vrf route-map M"]);
    }
}
