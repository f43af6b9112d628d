//! The wanted FRR state, from what is configured and what is addressed.

use std::collections::BTreeMap;

use super::view::View;
use super::wanted::WantedSet;
use crate::desired::{Desired, LeakMethod};
use crate::frr::{BootVrfSpec, FrrObserved, FrrPlan, FrrSpec};
use crate::name::{PortName, VrfName};
use crate::observed::Source;
use crate::ownership::Ledger;
use crate::status::LeakStatus;
use ipnet::Ipv6Net;

/// The wanted leak. A VRF or port that is there in FRR already stays while swss merely rebuilds it: routes
/// through a missing device are inactive, and withdrawing them would only churn the fabric.
pub(super) fn spec(
    view: &View<'_>,
    wanted: &WantedSet<'_>,
    frr: &FrrObserved,
    addressed: impl Fn(&PortName) -> bool,
) -> FrrSpec {
    let mut vrfs = BTreeMap::new();
    for partition in wanted.partitions.values() {
        let configured = mentions(frr, &partition.vrf);
        if view.vrf_device(&partition.vrf).is_none() && !configured {
            continue;
        }
        let leak_prefixes = if partition.leak { partition.leak_prefixes.clone() } else { Vec::new() };
        let in_vrf = wanted.interfaces.iter().filter(|(_, wanted)| wanted.partition.id == partition.id);
        let ports = in_vrf
            .filter_map(|(name, wanted)| Some((name.clone(), wanted.port?.prefix)))
            .filter(|(name, prefix)| addressed(name) || exports(frr, name, *prefix, &partition.vrf))
            .collect();
        let leak_vrf = partition.leak_vrf.clone();
        vrfs.insert(partition.vrf.clone(), BootVrfSpec { leak_vrf, leak_prefixes, ports });
    }
    FrrSpec { vrfs }
}

/// The delta and the proof; with FRR unread or unmanaged only a status.
pub(super) fn plan(
    view: &View<'_>,
    ledger: &Ledger,
    wanted: &WantedSet<'_>,
    frr: &Source<FrrObserved>,
    addressed: impl Fn(&PortName) -> bool,
) -> FrrPlan {
    let unread = |why: &str| -> FrrPlan {
        let leak = wanted
            .partitions
            .values()
            .map(|partition| (partition.vrf.clone(), LeakStatus::Unknown(why.to_owned())));
        FrrPlan { leak: leak.collect(), ..FrrPlan::default() }
    };
    match frr {
        Source::Unknown(why) => unread(why),
        Source::Known(observed) if !observed.managed => unread("FRR is not managed (--vtysh none)"),
        Source::Known(observed) => {
            let spec = spec(view, wanted, observed, addressed);
            let held = wanted.vrfs_held;
            let owned = |vrf: &VrfName| !held && ledger.owned_vrf(vrf).is_some();
            let method = match view.desired.global.leak_method {
                LeakMethod::Auto => LeakMethod::Vtysh,
                method => method,
            };
            crate::frr::plan(&spec, observed, method, &owned)
        }
    }
}

/// FRR's running configuration has something of ours in this boot VRF.
fn mentions(frr: &FrrObserved, vrf: &VrfName) -> bool {
    let ends = [format!(" nexthop-vrf {vrf}"), format!(" vrf {vrf}")];
    frr.running_config.lines().any(|line| {
        let bgp = line.starts_with("router bgp ") && line.ends_with(&ends[1]);
        bgp || line.trim_start().starts_with("ipv6 route ") && line.ends_with(&ends[0])
    })
}

/// FRR's running configuration routes the port's /64 into its boot VRF.
fn exports(frr: &FrrObserved, port: &PortName, prefix: Ipv6Net, vrf: &VrfName) -> bool {
    let wanted = format!("ipv6 route {prefix} {port} nexthop-vrf {vrf}");
    frr.running_config.lines().any(|line| line.trim() == wanted)
}

/// The leak that a configuration asks for once every port is up, whatever the switch looks like now.
pub fn full_frr_spec(desired: &Desired) -> FrrSpec {
    let vrfs = desired.partitions.values().map(|partition| {
        let ports = desired.ports.values().filter(|port| port.partition == partition.id && port.admin_up);
        let spec = BootVrfSpec {
            leak_vrf: partition.leak_vrf.clone(),
            leak_prefixes: if partition.leak { partition.leak_prefixes.clone() } else { Vec::new() },
            ports: ports.map(|port| (port.name.clone(), port.prefix)).collect(),
        };
        (partition.vrf.clone(), spec)
    });
    FrrSpec { vrfs: vrfs.filter(|_| desired.global.admin_up).collect() }
}
