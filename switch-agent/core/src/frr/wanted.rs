//! The wanted configuration as facts, for comparison with a running one.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::Ipv6Net;

use super::{FrrSpec, Running, prefix_list_name, route_map_name};
use crate::name::{PortName, VrfName, router_interface_address};

/// A static route of ours in a leak VRF, by its three words.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ExportRoute {
    pub(super) prefix: Ipv6Net,
    /// The port of a /64; the VRF device for the router's own /128.
    pub(super) interface: String,
    /// The boot VRF.
    pub(super) vrf: VrfName,
}

impl ExportRoute {
    /// Reads what follows `ipv6 route`, if it has the exact form that the agent writes.
    pub(super) fn parse(text: &str) -> Option<ExportRoute> {
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        let [prefix, interface, "nexthop-vrf", vrf] = words.as_slice() else {
            return None;
        };
        let prefix: Ipv6Net = prefix.parse().ok()?;
        let vrf: VrfName = vrf.parse().ok()?;
        let ours = match prefix.prefix_len() {
            64 => interface.parse::<PortName>().is_ok(),
            128 => *interface == vrf.as_str(),
            _ => false,
        };
        ours.then(|| ExportRoute { prefix, interface: (*interface).to_owned(), vrf })
    }
}

impl std::fmt::Display for ExportRoute {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ipv6 route {} {} nexthop-vrf {}", self.prefix, self.interface, self.vrf)
    }
}

/// The deny route, as it stands in a `vrf` block.
pub(super) const DENY_ROUTE: &str = "::/0 blackhole 254";

/// What leaks want, by the place where it stands. Partitions without a leak contribute nothing.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    /// By leak VRF.
    pub(super) routes: BTreeMap<String, BTreeSet<ExportRoute>>,
    /// By leak VRF.
    pub(super) networks: BTreeMap<String, BTreeSet<Ipv6Net>>,
    /// By boot VRF: the VRF imported from.
    pub(super) imports: BTreeMap<VrfName, String>,
    /// Names of objects.
    pub(super) objects: BTreeSet<String>,
}

impl Wanted {
    pub(super) fn of(spec: &FrrSpec) -> Wanted {
        let mut wanted = Wanted::default();
        for (vrf, boot) in spec.vrfs.iter().filter(|(vrf, boot)| boot.leaks(vrf)) {
            wanted.imports.insert(vrf.clone(), boot.leak_vrf.clone());
            wanted.objects.extend([prefix_list_name(vrf), route_map_name(vrf)]);
            let routes = wanted.routes.entry(boot.leak_vrf.clone()).or_default();
            let networks = wanted.networks.entry(boot.leak_vrf.clone()).or_default();
            for (port, prefix) in &boot.ports {
                let prefix = prefix.trunc();
                networks.insert(prefix);
                routes.extend(export_routes(vrf, port, prefix));
            }
        }
        wanted
    }
}

/// The routes of one port: its /64 by the port, and the router's own address by the VRF device, without
/// which replies to services on the switch would be sent out of the port.
pub(super) fn export_routes(vrf: &VrfName, port: &PortName, prefix: Ipv6Net) -> [ExportRoute; 2] {
    let router = Ipv6Net::from(router_interface_address(prefix).addr());
    [
        ExportRoute { prefix, interface: port.to_string(), vrf: vrf.clone() },
        ExportRoute { prefix: router, interface: vrf.to_string(), vrf: vrf.clone() },
    ]
}

/// Whether the route-map of `vrf` is exactly the one entry that matches its prefix-list. Anything else
/// might permit more.
pub(crate) fn route_map_sound(running: &Running, vrf: &VrfName) -> bool {
    let Some([entry]) = running.route_maps.get(&route_map_name(vrf)).map(Vec::as_slice) else {
        return false;
    };
    entry.head == "permit 10" && entry.lines == [route_map_match(vrf)]
}

pub(super) fn route_map_match(vrf: &VrfName) -> String {
    format!("match ipv6 address prefix-list {}", prefix_list_name(vrf))
}
