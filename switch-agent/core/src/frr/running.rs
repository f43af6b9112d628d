//! `show running-config`, as far as it can concern us.
//!
//! Total: what is not understood is skipped. Releases differ in the order of stanzas, in empty
//! `vrf <name>` stanzas, in defaults they print and in how contexts end (`exit`, `exit-vrf`, `!`), so
//! contexts are told by their opening line and by indentation, never by position.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::Ipv6Net;

use super::{DEFAULT_VRF, OBJECT_PREFIX};

/// The parts of a running configuration that the agent reads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Running {
    /// From `frr version <version>`.
    pub version: Option<String>,
    /// Prefix-lists of ours: name to sequence number to the rest of the entry (`permit 2001:db8::/64`).
    pub prefix_lists: BTreeMap<String, BTreeMap<u32, String>>,
    /// Route-maps of ours, in order.
    pub route_maps: BTreeMap<String, Vec<RouteMapEntry>>,
    /// Per VRF: what follows `ipv6 route`, all of them.
    pub routes: BTreeMap<String, BTreeSet<String>>,
    /// Per VRF: its BGP instance.
    pub bgp: BTreeMap<String, BgpInstance>,
}

/// One `route-map <name> <action> <seq>` stanza.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RouteMapEntry {
    /// `permit 10`.
    pub head: String,
    pub lines: Vec<String>,
}

/// One `router bgp <asn> [vrf <name>]` stanza.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BgpInstance {
    /// AS number as FRR writes it, plain or dotted.
    pub asn: String,
    /// Lines outside address families.
    pub lines: Vec<String>,
    /// Lines of `address-family ipv6 unicast`.
    pub ipv6: Vec<String>,
    /// Other address families hold lines.
    pub other_families: bool,
}

impl BgpInstance {
    /// The AS number, from either notation.
    pub fn asn_number(&self) -> Option<u32> {
        match self.asn.split_once('.') {
            Some((high, low)) => {
                Some(u32::from(high.parse::<u16>().ok()?) << 16 | u32::from(low.parse::<u16>().ok()?))
            }
            None => self.asn.parse().ok(),
        }
    }

    /// The route-map of all imports from VRFs.
    pub fn import_route_map(&self) -> Option<&str> {
        self.ipv6.iter().find_map(|line| line.strip_prefix("import vrf route-map "))
    }

    /// VRFs imported from.
    pub fn imports(&self) -> impl Iterator<Item = &str> {
        let vrfs = self.ipv6.iter().filter_map(|line| line.strip_prefix("import vrf "));
        vrfs.filter(|rest| !rest.starts_with("route-map "))
    }

    /// Whether `network <prefix>` stands here, without a route-map or label of somebody else's.
    pub fn has_network(&self, prefix: Ipv6Net) -> bool {
        let networks = self.ipv6.iter().filter_map(|line| line.strip_prefix("network "));
        networks.filter_map(|rest| rest.parse::<Ipv6Net>().ok()).any(|network| network == prefix)
    }

    pub fn router_id(&self) -> Option<&str> {
        self.lines.iter().find_map(|line| line.strip_prefix("bgp router-id "))
    }
}

#[derive(Debug, Default)]
enum Context {
    #[default]
    Top,
    Vrf(String),
    RouteMap(String),
    Bgp(String),
    Foreign,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Family {
    #[default]
    None,
    Ipv6Unicast,
    Other,
}

impl Running {
    pub fn parse(text: &str) -> Running {
        let mut running = Running::default();
        let mut context = Context::Top;
        let mut family = Family::None;
        for raw in text.lines() {
            let line = raw.trim();
            if line.is_empty() || line.starts_with('!') {
                continue;
            }
            if !raw.starts_with(' ') {
                family = Family::None;
                context = running.open(line);
                continue;
            }
            match &context {
                Context::Top | Context::Foreign => {}
                Context::Vrf(vrf) => running.route(vrf.clone(), line),
                Context::RouteMap(name) => {
                    let entry = running.route_maps.get_mut(name).and_then(|entries| entries.last_mut());
                    if let Some(entry) = entry {
                        entry.lines.push(line.to_owned());
                    }
                }
                Context::Bgp(vrf) => {
                    if let Some(instance) = running.bgp.get_mut(vrf) {
                        family = bgp_line(instance, family, line);
                    }
                }
            }
        }
        running
    }

    fn route(&mut self, vrf: String, line: &str) {
        if let Some(rest) = line.strip_prefix("ipv6 route ") {
            self.routes.entry(vrf).or_default().insert(rest.to_owned());
        }
    }

    /// A line in the first column: a statement of its own, or the opening of a context.
    fn open(&mut self, line: &str) -> Context {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        match words.as_slice() {
            ["frr", "version", version, ..] => self.version = Some((*version).to_owned()),
            ["ipv6", "route", ..] => self.route(DEFAULT_VRF.to_owned(), line),
            ["ipv6", "prefix-list", name, "seq", seq, rest @ ..] if name.starts_with(OBJECT_PREFIX) => {
                if let Ok(seq) = seq.parse() {
                    self.prefix_lists.entry((*name).to_owned()).or_default().insert(seq, rest.join(" "));
                }
            }
            ["vrf", name] => return Context::Vrf((*name).to_owned()),
            ["route-map", name, head @ ..] if name.starts_with(OBJECT_PREFIX) => {
                let entry = RouteMapEntry { head: head.join(" "), lines: Vec::new() };
                self.route_maps.entry((*name).to_owned()).or_default().push(entry);
                return Context::RouteMap((*name).to_owned());
            }
            ["router", "bgp", _, "view", ..] => return Context::Foreign,
            ["router", "bgp", asn, rest @ ..] => {
                let vrf = match rest {
                    ["vrf", name, ..] => (*name).to_owned(),
                    _ => DEFAULT_VRF.to_owned(),
                };
                let instance = BgpInstance { asn: (*asn).to_owned(), ..BgpInstance::default() };
                self.bgp.insert(vrf.clone(), instance);
                return Context::Bgp(vrf);
            }
            ["exit" | "exit-vrf" | "end"] => {}
            _ => return Context::Foreign,
        }
        Context::Top
    }
}

fn bgp_line(instance: &mut BgpInstance, family: Family, line: &str) -> Family {
    if let Some(name) = line.strip_prefix("address-family ") {
        return if name == "ipv6 unicast" { Family::Ipv6Unicast } else { Family::Other };
    }
    if line == "exit-address-family" {
        return Family::None;
    }
    match family {
        Family::None => instance.lines.push(line.to_owned()),
        Family::Ipv6Unicast => instance.ipv6.push(line.to_owned()),
        Family::Other => instance.other_families = true,
    }
    family
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ours_is_found_whatever_stands_around_it() {
        let running = Running::parse(include_str!("testdata/frr-8.4.4.conf"));
        assert_eq!(running.version.as_deref(), Some("8.4.4"));
        let list = &running.prefix_lists["BOOTNET-VrfBoot-p1-API"];
        assert_eq!(list[&10], "permit 2001:db8:a91::/64");
        let map = &running.route_maps["BOOTNET-VrfBoot-p1-IN"];
        assert_eq!(map[0].head, "permit 10");
        assert_eq!(map[0].lines, ["match ipv6 address prefix-list BOOTNET-VrfBoot-p1-API"]);
        assert!(running.routes["VrfBoot-p1"].contains("::/0 blackhole 254"));
        assert!(running.routes["default"].contains("2001:db8:b000::/64 Ethernet0 nexthop-vrf VrfBoot-p1"));
        let default = &running.bgp["default"];
        assert_eq!(default.asn_number(), Some(4_200_000_010));
        assert!(default.has_network("2001:db8:b000::/64".parse().unwrap()));
        assert!(default.other_families);
        let boot = &running.bgp["VrfBoot-p1"];
        assert_eq!(boot.import_route_map(), Some("BOOTNET-VrfBoot-p1-IN"));
        assert_eq!(boot.imports().collect::<Vec<_>>(), ["default"]);
        assert_eq!(boot.router_id(), Some("10.0.0.1"));
        assert!(!boot.other_families);
    }

    #[test]
    fn foreign_names_and_noise_are_skipped() {
        let text = "\
frr version 10.3
ipv6 prefix-list API seq 5 permit any
route-map DENY_MGMT deny 10
 match interface eth0
exit
vrf mgmt
exit-vrf
router bgp 65000 view V
 bgp router-id 9.9.9.9
exit
router bgp 64086.59914 as-notation dot
 address-family l2vpn evpn
  vni 10
   rd 1:1
  exit-vni
 exit-address-family
exit
interface Ethernet0
 ipv6 nd suppress-ra
exit
garbage \u{fffd}
 ipv6 route ::/0 blackhole 254
";
        let running = Running::parse(text);
        assert!(running.prefix_lists.is_empty() && running.route_maps.is_empty());
        assert!(running.routes.is_empty());
        assert_eq!(running.bgp.keys().collect::<Vec<_>>(), ["default"]);
        assert_eq!(running.bgp["default"].asn_number(), Some(4_200_000_010));
    }
}
