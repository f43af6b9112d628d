//! The wanted FRR state, from what is configured and what is addressed, and the way it gets there.

use std::cell::OnceCell;
use std::collections::BTreeMap;

use super::leak_rows::{Rows, RowsPlan};
use super::view::View;
use super::wanted::WantedSet;
use crate::desired::{Desired, LeakMethod, Rejected};
use crate::frr::{BootVrfSpec, Choice, FrrObserved, FrrPlan, FrrSpec};
use crate::map::IntoMap;
use crate::name::{PortName, VrfName};
use crate::observed::Source;
use crate::ownership::Ledger;
use crate::row::Fields;
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
    let rows = view.config.table("STATIC_ROUTE");
    let routes: Vec<StaticRoute<'_>> = rows.map(|(key, row)| StaticRoute { key, row }).collect();
    for partition in wanted.partitions.values() {
        let configured = mentions(frr, &partition.vrf) || routes.iter().any(|row| row.names(&partition.vrf));
        if view.vrf_device(&partition.vrf).is_none() && !configured {
            continue;
        }
        let leak_prefixes = if partition.leak { partition.leak_prefixes.clone() } else { Vec::new() };
        let in_vrf = wanted.interfaces.iter().filter(|(_, wanted)| wanted.partition.id == partition.id);
        let ports = in_vrf
            .filter_map(|(name, wanted)| Some((name.clone(), wanted.port?.prefix)))
            .filter(|(name, prefix)| {
                let routed = || routes.iter().any(|row| row.exports(name, *prefix, &partition.vrf));
                addressed(name) || exports(frr, name, *prefix, &partition.vrf) || routed()
            })
            .into_map();
        let leak_vrf = partition.leak_vrf.clone();
        vrfs.insert(partition.vrf.clone(), BootVrfSpec { leak_vrf, leak_prefixes, ports });
    }
    FrrSpec { vrfs }
}

/// What waits where the leak of a boot VRF does, for the status.
pub(super) fn waiting_object(vrf: &VrfName) -> String {
    format!("leak of {vrf}")
}

/// What the leak needs: a delta for vtysh, or rows, and the proof.
#[derive(Debug)]
pub(super) struct LeakPlan {
    pub(super) choice: Choice,
    pub(super) frr: FrrPlan,
    pub(super) rows: RowsPlan,
    /// For the ledger: the method whose objects may be there from now on.
    pub(super) method: Option<LeakMethod>,
    /// What does not go together on this switch, for the status.
    pub(super) warnings: Vec<Rejected>,
}

impl LeakPlan {
    /// Something of ours is on its way out of FRR.
    pub(super) fn withdraws(&self) -> bool {
        !self.frr.withdraw.is_empty() || !self.rows.delete.is_empty()
    }

    /// Nothing is left to do.
    pub(super) fn settled(&self) -> bool {
        !self.withdraws()
            && self.frr.apply.is_empty()
            && self.rows.set.is_empty()
            && self.rows.waiting.is_empty()
    }
}

/// Chooses the method and plans for it. A method begins when nothing of another one's is left: rows go
/// before lines come, and lines before rows.
pub(super) fn plan(
    view: &View<'_>,
    ledger: &Ledger,
    wanted: &WantedSet<'_>,
    frr: &Source<FrrObserved>,
    addressed: impl Fn(&PortName) -> bool,
) -> LeakPlan {
    let plan = chosen(view, ledger, wanted, frr, addressed);
    let nothing_left = wanted.partitions.is_empty() && !wanted.vrfs_held && plan.frr.lingering.is_empty();
    if nothing_left && !plan.withdraws() && frr.known().is_some() {
        return LeakPlan { method: None, ..plan };
    }
    plan
}

fn chosen(
    view: &View<'_>,
    ledger: &Ledger,
    wanted: &WantedSet<'_>,
    frr: &Source<FrrObserved>,
    addressed: impl Fn(&PortName) -> bool,
) -> LeakPlan {
    let metadata = view.config.row("DEVICE_METADATA", "localhost");
    let configured = view.desired.global.leak_method;
    let choice = crate::frr::choose(configured, metadata, frr, ledger.leak_method);
    let warnings = warnings(view, &choice);
    let unread = FrrObserved::default();
    let observed = frr.known().filter(|frr| frr.managed);
    let spec = spec(view, wanted, observed.unwrap_or(&unread), addressed);
    let held = wanted.vrfs_held;
    let owned = |vrf: &VrfName| !held && ledger.owned_vrf(vrf).is_some();
    let mut plan = LeakPlan {
        frr: FrrPlan::default(),
        rows: RowsPlan::default(),
        method: ledger.leak_method,
        warnings,
        choice,
    };
    let rows = Rows { view, ledger, wanted, spec: &spec, observed, present: OnceCell::new() };
    let Some(method) = plan.choice.method else {
        // What runs goes on, as far as it is wanted.
        plan.rows = rows.withdraw_unwanted(ledger.leak_method);
        plan.frr.lingering.extend(plan.rows.lingering.iter().cloned());
        let reason = plan.choice.reason.clone();
        let pending = observed.is_some();
        let status = || match pending {
            true => LeakStatus::Pending(reason.clone()),
            false => LeakStatus::Unknown(reason.clone()),
        };
        plan.frr.leak = spec.vrfs.keys().map(|vrf| (vrf.clone(), status())).into_map();
        return plan;
    };
    if matches!(method, LeakMethod::Vtysh | LeakMethod::RenderOnly) {
        plan.rows = rows.withdraw_all();
        // Whoever made them may be gone: as long as they get fewer, and a moment more.
        let given_up = |vrf: &VrfName| view.overdue.contains(&waiting_object(vrf));
        let before = ledger.leak_method;
        let lines_of_rows = || observed.and_then(|frr| lines_of_rows(frr, &spec, before, &given_up));
        let on = match () {
            () if !plan.rows.delete.is_empty() => Some("rows of CONFIG_DB withdrawn".to_owned()),
            () if method == LeakMethod::Vtysh && ledger.leak_method != Some(method) => lines_of_rows(),
            () => None,
        };
        if plan.rows.delete.is_empty() && on.is_none() {
            plan.method = Some(method);
        }
        plan.frr = match (frr, on) {
            (_, Some(on)) => pending(&spec, &on),
            (Source::Unknown(why), None) => unknown(wanted, why),
            (Source::Known(frr), None) => crate::frr::plan(&spec, frr, method, &owned),
        };
        plan.frr.lingering.extend(plan.rows.lingering.iter().cloned());
        return plan;
    }
    let has_rows = |vrf: &VrfName| rows.present().iter().any(|row| row.vrf == *vrf);
    if ledger.leak_method == Some(LeakMethod::Vtysh) || ledger.leak_method.is_none() {
        // Whatever vtysh applied goes first.
        let leftovers = observed.map(|frr| crate::frr::leftovers(frr, &owned, &has_rows));
        let on = match (frr, leftovers) {
            (Source::Unknown(why), _) if ledger.leak_method.is_some() => {
                Some(format!("FRR to be readable, for lines that vtysh applied to be withdrawn: {why}"))
            }
            (_, Some(leftovers)) if !leftovers.is_empty() => {
                plan.frr.withdraw = leftovers;
                Some("lines that vtysh applied withdrawn".to_owned())
            }
            _ => None,
        };
        if let Some(on) = on {
            let withdraw = std::mem::take(&mut plan.frr.withdraw);
            plan.frr = FrrPlan { withdraw, ..pending(&spec, &on) };
            return plan;
        }
    }
    plan.method = Some(method);
    plan.rows = rows.plan(method);
    plan.frr = match frr {
        Source::Unknown(why) => unknown(wanted, why),
        Source::Known(frr) => crate::frr::plan(&spec, frr, method, &owned),
    };
    for (vrf, on) in &plan.rows.waiting {
        let status = plan.frr.leak.entry(vrf.clone());
        let status = status.or_insert_with(|| LeakStatus::Pending(on.clone()));
        if !matches!(status, LeakStatus::Violation(_)) {
            *status = LeakStatus::Pending(on.clone());
        }
    }
    plan.frr.lingering.extend(plan.rows.lingering.iter().cloned());
    plan
}

/// What no method of ours can make right here.
fn warnings(view: &View<'_>, choice: &Choice) -> Vec<Rejected> {
    let mut warnings = Vec::new();
    if let Some(warning) = &choice.warning {
        let value = Some(choice.configured.as_str());
        warnings.push(Rejected::of_field("BOOT_NETWORK|global", "leak_method", value, warning.clone()));
    }
    let managed =
        view.desired.partitions.values().filter(|partition| choice.metal_core && partition.manage_vrf);
    warnings.extend(managed.map(|partition| {
        let row = format!("BOOT_NETWORK_PARTITION|{}", partition.id);
        let rule = "does not go together with metal-core, which renders FRR's configuration here and keeps no \
                    VRF but its own: let it create the VRF and bind the ports, and set manage_vrf to disabled";
        Rejected::of_field(&row, "manage_vrf", Some("enabled"), rule)
    }));
    warnings
}

fn pending(spec: &FrrSpec, on: &str) -> FrrPlan {
    let leak = spec.vrfs.keys().map(|vrf| (vrf.clone(), LeakStatus::Pending(on.to_owned())));
    FrrPlan { leak: leak.into_map(), ..FrrPlan::default() }
}

fn unknown(wanted: &WantedSet<'_>, why: &str) -> FrrPlan {
    let partitions = wanted.partitions.values();
    let leak = partitions.map(|partition| (partition.vrf.clone(), LeakStatus::Unknown(why.to_owned())));
    FrrPlan { leak: leak.into_map(), ..FrrPlan::default() }
}

/// Lines that a daemon made of rows of the method `before`, which it has not taken back yet. They are the same
/// routes as vtysh's, and FRR would take the one for the other: bgpcfgd's with a tag, frrcfgd's without.
fn lines_of_rows(
    frr: &FrrObserved,
    spec: &FrrSpec,
    before: Option<LeakMethod>,
    given_up: &dyn Fn(&VrfName) -> bool,
) -> Option<String> {
    let running = crate::frr::Running::parse(&frr.running_config);
    let (daemon, any) = match before {
        Some(LeakMethod::FrrMgmt) => ("frrcfgd", true),
        _ => ("bgpcfgd", false),
    };
    let of_rows = |text: &str| any || text.split_ascii_whitespace().any(|word| word == "tag");
    let about = |vrf: &VrfName, table: &str, text: &str| {
        of_rows(text) && (table == vrf.as_str() || text.ends_with(&format!(" nexthop-vrf {vrf}")))
    };
    let count = |vrf: &VrfName| {
        let tables = running.routes.iter();
        tables.flat_map(|(table, routes)| routes.iter().filter(|text| about(vrf, table, text))).count()
    };
    let left: usize = spec.vrfs.keys().filter(|vrf| !given_up(vrf)).map(count).sum();
    (left > 0).then(|| format!("{daemon}: {left} routes withdrawn"))
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

/// A row of `STATIC_ROUTE`.
struct StaticRoute<'a> {
    key: &'a str,
    row: &'a Fields,
}

impl StaticRoute<'_> {
    /// The row has to do with this boot VRF.
    fn names(&self, vrf: &VrfName) -> bool {
        let inside = self.key.split('|').next() == Some(vrf.as_str());
        inside || self.row.get("nexthop-vrf").is_some_and(|name| name == vrf.as_str())
    }

    /// The row routes the port's /64 into its boot VRF.
    fn exports(&self, port: &PortName, prefix: Ipv6Net, vrf: &VrfName) -> bool {
        let field = |name: &str| self.row.get(name).map(String::as_str);
        field("ifname") == Some(port.as_str())
            && field("nexthop-vrf") == Some(vrf.as_str())
            && self.key.split_once('|').is_some_and(|(_, net)| net.parse() == Ok(prefix))
    }
}

/// The leak that a configuration asks for once every port is up, whatever the switch looks like now.
pub fn full_frr_spec(desired: &Desired) -> FrrSpec {
    let vrfs = desired.partitions.values().map(|partition| {
        let ports = desired.ports.values().filter(|port| port.partition == partition.id && port.admin_up);
        let spec = BootVrfSpec {
            leak_vrf: partition.leak_vrf.clone(),
            leak_prefixes: if partition.leak { partition.leak_prefixes.clone() } else { Vec::new() },
            ports: ports.map(|port| (port.name.clone(), port.prefix)).into_map(),
        };
        (partition.vrf.clone(), spec)
    });
    FrrSpec { vrfs: vrfs.filter(|_| desired.global.admin_up).into_map() }
}
