//! The proof: FRR's routes against the wanted leak.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::Ipv6Net;

use super::rows::static_prefixes;
use super::{BootVrfSpec, FrrObserved, Running, VrfRoutes};
use crate::name::VrfName;
use crate::status::LeakStatus;

/// What carries the leak prefixes into the boot VRF.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum LeaksBy {
    /// BGP's `import vrf`.
    #[default]
    Import,
    /// Static routes with a next hop in the leak VRF.
    Static,
}

/// What the delta says about one VRF.
#[derive(Debug, Default)]
pub(super) struct Verification {
    /// Why the leak cannot be applied.
    pub(super) blocked: Option<String>,
    /// The running configuration is not yet the wanted one.
    pub(super) changing: bool,
    pub(super) leaks_by: LeaksBy,
}

pub(super) fn leak_status(
    vrf: &VrfName,
    boot: &BootVrfSpec,
    observed: &FrrObserved,
    running: &Running,
    verification: &Verification,
) -> LeakStatus {
    let Some(routes) = observed.routes.get(vrf) else {
        return LeakStatus::Pending(format!("FRR's routes of VRF {vrf} are not read yet"));
    };
    let leaks = boot.leaks(vrf);
    let leaked = match verification.leaks_by {
        LeaksBy::Import => &routes.imported,
        LeaksBy::Static => &routes.statics,
    };
    let more = (routes.imported.keys().chain(leaked.keys())).find(|prefix| !leaked.contains_key(prefix));
    if let Some(prefix) = more.filter(|_| verification.leaks_by == LeaksBy::Static) {
        return LeakStatus::Violation(format!("VRF {vrf} imports {prefix} by BGP as well"));
    }
    let wanted: BTreeSet<Ipv6Net> = match verification.leaks_by {
        _ if !leaks => BTreeSet::new(),
        LeaksBy::Import => boot.leak_prefixes.iter().copied().collect(),
        LeaksBy::Static => boot.leak_prefixes.iter().flat_map(|prefix| static_prefixes(*prefix)).collect(),
    };
    if let Some(reason) = violation(vrf, boot, &wanted, observed, leaked, running) {
        return LeakStatus::Violation(reason);
    }
    if let Some(reason) = &verification.blocked {
        return LeakStatus::Pending(reason.clone());
    }
    if verification.changing {
        return LeakStatus::Pending("FRR's running configuration is being changed".to_owned());
    }
    // A default route that is itself leaked takes the place of the deny route.
    if !routes.deny_installed && !leaked.contains_key(&Ipv6Net::default()) {
        return LeakStatus::Pending(format!("the ::/0 blackhole of VRF {vrf} is not installed"));
    }
    if !leaks {
        return LeakStatus::Off;
    }
    let inwards = match verification.leaks_by {
        LeaksBy::Import => missing_imports(boot, routes),
        LeaksBy::Static => missing_statics(vrf, boot, &wanted, routes),
    };
    let missing = inwards.or_else(|| missing_exports(boot, observed, routes));
    missing.map_or(LeakStatus::Applied, LeakStatus::Pending)
}

/// More reachability than wanted.
fn violation(
    vrf: &VrfName,
    boot: &BootVrfSpec,
    wanted: &BTreeSet<Ipv6Net>,
    observed: &FrrObserved,
    leaked: &BTreeMap<Ipv6Net, bool>,
    running: &Running,
) -> Option<String> {
    let extra: Vec<String> = leaked.keys().filter(|p| !wanted.contains(p)).map(ToString::to_string).collect();
    if !extra.is_empty() {
        let shown = extra.iter().take(4).cloned().collect::<Vec<_>>().join(", ");
        let more = if extra.len() > 4 { format!(" and {} more", extra.len() - 4) } else { String::new() };
        return Some(format!("VRF {vrf} has routes that are no leak_prefix: {shown}{more}"));
    }
    let instance = running.bgp.get(vrf.as_str());
    if instance.is_some_and(|i| i.import_route_map().is_none() && i.imports().next().is_some()) {
        return Some(format!("VRF {vrf} imports without a route-map"));
    }
    let deny = observed.routes.get(vrf).is_some_and(|routes| routes.deny_installed);
    let leaked_default = leaked.contains_key(&Ipv6Net::default());
    let exported = |prefix: &Ipv6Net| observed.exported.get(prefix).is_some_and(|route| route.installed);
    if !deny && !leaked_default && boot.ports.values().any(exported) {
        return Some(format!("VRF {vrf} has a way back but no ::/0 blackhole: machines reach everything"));
    }
    None
}

fn missing_imports(boot: &BootVrfSpec, routes: &VrfRoutes) -> Option<String> {
    boot.leak_prefixes.iter().find_map(|prefix| match routes.imported.get(prefix) {
        Some(true) => None,
        Some(false) => Some(format!("route {prefix} is imported but not installed")),
        None if routes.importable.contains(prefix) => Some(format!("route {prefix} is not imported yet")),
        None => Some(format!("route {prefix} is not in VRF {}'s BGP table", boot.leak_vrf)),
    })
}

fn missing_statics(
    vrf: &VrfName,
    boot: &BootVrfSpec,
    wanted: &BTreeSet<Ipv6Net>,
    routes: &VrfRoutes,
) -> Option<String> {
    wanted.iter().find_map(|prefix| match routes.statics.get(prefix) {
        Some(true) => None,
        Some(false) => {
            let (leak_vrf, next_hop) = (&boot.leak_vrf, prefix.network());
            Some(format!("route {prefix} of VRF {vrf} has no way to {next_hop} in VRF {leak_vrf}"))
        }
        None => Some(format!("STATIC_ROUTE|{vrf}|{prefix} is no route of VRF {vrf} yet: FRR has not got it")),
    })
}

fn missing_exports(boot: &BootVrfSpec, observed: &FrrObserved, routes: &VrfRoutes) -> Option<String> {
    boot.ports.iter().find_map(|(port, prefix)| {
        // Without carrier there is no route, and nobody to route to.
        let up = routes.connected.contains(&prefix.trunc());
        match observed.exported.get(prefix) {
            Some(route) if route.interface != port.as_str() => {
                Some(format!("route {prefix} leaves by {}, not by {port}", route.interface))
            }
            _ if !up => None,
            Some(route) if !route.installed => Some(format!("route {prefix} by {port} is not installed")),
            Some(route) if !route.advertised => {
                Some(format!("{prefix} ({port}) is not advertised to any peer of VRF {}", boot.leak_vrf))
            }
            Some(_) => None,
            None => Some(format!("route {prefix} by {port} is not installed")),
        }
    })
}
