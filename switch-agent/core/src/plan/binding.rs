//! Binding, addressing and releasing one interface, by the rules of intfmgrd and orchagent.
//!
//! intfmgrd refuses a direct change of `vrf_name` and forgets it; it holds the deletion of a base row while
//! an address is on the netdev; orchagent reads a queue in which a deletion and a later write of the same
//! key collapse. So every step waits until the one before has been seen in STATE_DB, APPL_DB and the
//! kernel, and nothing is ever rewritten in place.

use ipnet::Ipv6Net;

use super::view::{Interface, View};
use super::wanted::Wanted;
use crate::action::Action;
use crate::desired::membership;
use crate::name::{PortKind, PortName, VrfName};
use crate::observed::AdvertiserState;
use crate::ownership::LedgerPort;

/// How far an interface is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// Somebody else's; nothing of ours is left on it.
    Foreign,
    /// Nothing of ours on it, and none wanted.
    Absent,
    /// Not bound: something outside must happen first.
    Waiting,
    /// The base row is written (or about to be).
    Binding,
    /// Bound and addressed in every database and the kernel.
    Addressed,
    /// Rows of ours are on their way out.
    Releasing,
}

#[derive(Debug)]
pub(super) struct Assessment {
    pub(super) progress: Progress,
    pub(super) actions: Vec<Action>,
    pub(super) waiting: Option<String>,
    pub(super) conflict: Option<String>,
    /// What the ledger must say of the interface before the actions run.
    pub(super) entry: Option<LedgerPort>,
}

impl Assessment {
    fn new(progress: Progress, entry: Option<LedgerPort>) -> Assessment {
        Assessment { progress, actions: Vec::new(), waiting: None, conflict: None, entry }
    }

    fn waiting(mut self, on: impl Into<String>) -> Assessment {
        self.waiting = Some(on.into());
        self
    }

    fn conflict(mut self, reason: String) -> Assessment {
        self.conflict = Some(reason);
        self
    }

    fn action(mut self, action: Action) -> Assessment {
        self.actions.push(action);
        self
    }
}

/// Every database and the kernel show the interface bound to the wanted VRF with all wanted addresses.
pub(super) fn addressed(view: &View<'_>, port: &PortName, wanted: &Wanted<'_>) -> bool {
    let interface = view.interface(port);
    bound(view, port, wanted.vrf, &interface)
        && wanted.addresses.iter().all(|address| {
            interface.has_address_row(*address)
                && interface.state_addresses.contains(address)
                && interface.kernel_has(*address)
        })
}

fn bound(view: &View<'_>, port: &PortName, vrf: &VrfName, interface: &Interface<'_>) -> bool {
    interface.row_vrf == Some(vrf.as_str())
        && interface.state_vrf == Some(vrf.as_str())
        && view.enslaved(port, vrf.as_str())
}

/// Judges one interface. `leak_in_the_way`: FRR still has routes through ports that leave.
pub(super) fn assess(
    view: &View<'_>,
    port: &PortName,
    wanted: Option<&Wanted<'_>>,
    leak_in_the_way: bool,
) -> Assessment {
    let interface = view.interface(port);
    let Some(wanted) = wanted else {
        return release(view, port, None, &interface, leak_in_the_way);
    };
    if let Some(member) = membership(view.config, port) {
        let mut assessment = release(view, port, Some(wanted), &interface, leak_in_the_way);
        if assessment.progress == Progress::Absent {
            assessment.progress = Progress::Foreign;
        }
        return assessment.conflict(member);
    }
    match interface.row_vrf {
        Some(vrf) if vrf == wanted.vrf.as_str() => settle(view, port, wanted, &interface, leak_in_the_way),
        Some(vrf) => moved(view, port, wanted, &interface, vrf, leak_in_the_way),
        None => bind(view, port, wanted, &interface, leak_in_the_way),
    }
}

/// The base row names another VRF (or none): a rebind of ours, or somebody else's port.
fn moved(
    view: &View<'_>,
    port: &PortName,
    wanted: &Wanted<'_>,
    interface: &Interface<'_>,
    row_vrf: &str,
    leak_in_the_way: bool,
) -> Assessment {
    let ours = interface.owned_base(view.ledger, port).is_some();
    let mut assessment = release(view, port, Some(wanted), interface, leak_in_the_way);
    if !ours {
        if assessment.progress == Progress::Absent {
            assessment.progress = Progress::Foreign;
        }
        let row = format!("{}|{port}", port.kind().interface_table());
        let what = if row_vrf.is_empty() {
            "exists without vrf_name".to_owned()
        } else {
            format!("has vrf_name = {row_vrf:?}")
        };
        let wanted = wanted.vrf.as_str();
        return assessment.conflict(format!("{row} {what}, not {wanted:?}: the port is in foreign use"));
    }
    assessment
}

/// No base row: bind, as soon as no trace of an earlier life is left.
fn bind(
    view: &View<'_>,
    port: &PortName,
    wanted: &Wanted<'_>,
    interface: &Interface<'_>,
    leak_in_the_way: bool,
) -> Assessment {
    let owned = interface.owned_addresses(view.ledger, port, &wanted.addresses);
    if !owned.is_empty() {
        // Somebody took the base row away from over our address; intfmgrd now waits for the address to go.
        return release(view, port, Some(wanted), interface, leak_in_the_way);
    }
    let entry = view.ledger.ports.get(port);
    if let Some((text, _)) = interface.addresses.first() {
        let row = format!("{}|{port}|{text}", port.kind().interface_table());
        return Assessment::new(Progress::Foreign, None)
            .conflict(format!("{row} exists without a base row: the port is in foreign use"));
    }
    if !wanted.partition.manage_vrf && wanted.port.is_some() {
        let (table, vrf) = (port.kind().interface_table(), wanted.vrf.as_str());
        return Assessment::new(Progress::Waiting, None)
            .waiting(format!("{table}|{port} with vrf_name = {vrf:?}, from whoever manages the VRF"));
    }
    if let Some(on) = bind_barrier(view, port, wanted, interface) {
        return Assessment::new(Progress::Waiting, entry.cloned()).waiting(on);
    }
    let object = format!("{}|{port}", port.kind().interface_table());
    let next = LedgerPort { vrf: wanted.vrf.clone(), addresses: wanted.addresses.clone(), base_row: true };
    if !view.free(&object) {
        return Assessment::new(Progress::Waiting, entry.cloned())
            .waiting(format!("the next try to write {object}"));
    }
    Assessment::new(Progress::Binding, Some(next))
        .action(Action::BindInterface { port: port.clone(), vrf: wanted.vrf.clone() })
}

/// The first thing that keeps a base row from being written now.
fn bind_barrier(
    view: &View<'_>,
    port: &PortName,
    wanted: &Wanted<'_>,
    interface: &Interface<'_>,
) -> Option<String> {
    if let Some(missing) = view.vrf_missing(wanted.vrf) {
        return Some(missing);
    }
    if port.kind() != PortKind::Loopback {
        let table = if port.kind() == PortKind::PortChannel { "LAG_TABLE" } else { "PORT_TABLE" };
        if !view.state.port_table.get(port).is_some_and(|state| state.state_ok) {
            return Some(format!("portsyncd: STATE_DB {table}|{port} state = \"ok\""));
        }
        if interface.link.is_none() {
            return Some(format!("kernel device {port}"));
        }
    }
    trace(view, port, interface)
}

/// What is left of an earlier binding, if anything: intfmgrd, orchagent, vlanmgrd, kernel.
fn trace(view: &View<'_>, port: &PortName, interface: &Interface<'_>) -> Option<String> {
    if interface.state_vrf.is_some() {
        Some(format!("intfmgrd: STATE_DB INTERFACE_TABLE|{port} gone"))
    } else if view.appl.intf_table.contains(port) || view.appl.intf_key_set.contains(port) {
        Some(format!("orchagent: APPL_DB INTF_TABLE:{port} gone"))
    } else if view.state.vlan_members.contains(port) {
        Some(format!("vlanmgrd: STATE_DB VLAN_MEMBER_TABLE of {port} gone"))
    } else {
        let master = interface.link.and_then(|link| link.master.as_deref())?;
        Some(format!("kernel: {port} released by {master}"))
    }
}

/// The base row names the wanted VRF: see it through to the address.
fn settle(
    view: &View<'_>,
    port: &PortName,
    wanted: &Wanted<'_>,
    interface: &Interface<'_>,
    leak_in_the_way: bool,
) -> Assessment {
    let stale: Vec<_> = interface
        .owned_addresses(view.ledger, port, &wanted.addresses)
        .into_iter()
        .filter(|owned| !wanted.addresses.contains(&owned.address()))
        .collect();
    let owned_base = interface.owned_base(view.ledger, port).is_some();
    let refused = interface.state_vrf.is_some_and(|vrf| vrf != wanted.vrf.as_str());
    if refused && owned_base {
        // intfmgrd refused this row and will not look at it again: out, then in anew.
        return release(view, port, Some(wanted), interface, leak_in_the_way);
    }
    let mut addresses = wanted.addresses.clone();
    addresses.extend(stale.iter().map(|owned| owned.address()));
    let entry = LedgerPort { vrf: wanted.vrf.clone(), addresses, base_row: owned_base };
    let assessment = Assessment::new(Progress::Binding, Some(entry));
    if !stale.is_empty() {
        if let Some(on) = still_serving(view, port, leak_in_the_way) {
            return assessment.waiting(on);
        }
        let deletes = stale.into_iter().map(Action::DeleteAddress);
        return Assessment { actions: deletes.collect(), ..assessment };
    }
    if bound(view, port, wanted.vrf, interface) {
        return address(view, port, wanted, interface, assessment);
    }
    let object = format!("{}|{port}", port.kind().interface_table());
    if let Some(missing) = view.vrf_missing(wanted.vrf) {
        return assessment.waiting(missing);
    }
    if refused {
        return assessment.conflict(format!("{object} names {}, but intfmgrd refused it", wanted.vrf));
    }
    let usable = port.kind() == PortKind::Loopback
        || view.state.port_table.get(port).is_some_and(|state| state.state_ok);
    if !usable {
        return assessment.waiting(format!("portsyncd: STATE_DB PORT_TABLE|{port} state = \"ok\""));
    }
    if interface.link.is_none() && (port.kind() != PortKind::Loopback || interface.state_vrf.is_some()) {
        // swss has stopped, and its tables are of before: there is nothing to bind.
        return assessment.waiting(format!("kernel device {port}"));
    }
    let on = if interface.state_vrf.is_none() {
        format!("intfmgrd: STATE_DB INTERFACE_TABLE|{port}")
    } else {
        format!("kernel: {port} enslaved to {}", wanted.vrf)
    };
    // swss does not know of what the kernel alone has lost.
    let due = if interface.state_vrf.is_none() { view.repairable(&object) } else { view.free(&object) };
    if !owned_base || !due {
        return assessment.waiting(on);
    }
    let repair = Action::RepairBinding { port: port.clone(), vrf: wanted.vrf.clone() };
    assessment.waiting(on).action(repair)
}

/// Bound: add what is missing of the wanted addresses.
fn address(
    view: &View<'_>,
    port: &PortName,
    wanted: &Wanted<'_>,
    interface: &Interface<'_>,
    mut assessment: Assessment,
) -> Assessment {
    let table = port.kind().interface_table();
    for address in &wanted.addresses {
        let row = interface.has_address_row(*address);
        let state = interface.state_addresses.contains(address);
        if row && state && interface.kernel_has(*address) {
            continue;
        }
        let object = format!("{table}|{port}|{address}");
        let on = if state && row {
            format!("kernel: {address} on {port}")
        } else {
            format!("intfmgrd: STATE_DB INTERFACE_TABLE|{port}|{address}")
        };
        assessment.waiting = Some(on);
        let overlap = overlapping(view, port, wanted.vrf, *address);
        // What the kernel alone has lost, swss does not know of.
        let due = view.free(&object) && (state || view.overdue.contains(&format!("{table}|{port}")));
        if let (false, Some(other)) = (row, overlap) {
            assessment.waiting = Some(format!("{other} gone: its prefix overlaps {address}"));
        } else if row && due {
            let repair = Action::RepairAddress { port: port.clone(), address: *address };
            assessment.actions.push(repair);
        } else if view.free(&object) && !row && !state {
            assessment.actions.push(Action::AddAddress { port: port.clone(), address: *address });
        }
    }
    if assessment.waiting.is_none() {
        assessment.progress = Progress::Addressed;
    }
    let foreign =
        interface.addresses.iter().find(|(_, net)| !net.is_some_and(|a| wanted.addresses.contains(&a)));
    if let Some((text, _)) = foreign {
        assessment.conflict = Some(format!("{table}|{port}|{text} is a foreign address on a boot port"));
    }
    assessment
}

/// Another interface of the VRF whose address rows overlap: orchagent takes a prefix once per VRF.
fn overlapping(view: &View<'_>, port: &PortName, vrf: &VrfName, address: Ipv6Net) -> Option<String> {
    let hit = |(name, _): &&&(PortName, Ipv6Net)| {
        name != port && view.state.interface_table.get(name).is_some_and(|other| other == vrf.as_str())
    };
    let (name, net) = view.networks.get(&address.trunc())?.iter().find(hit)?;
    Some(format!("{}|{name}|{net}", name.kind().interface_table()))
}

/// A service that must end before the address under it may go.
fn still_serving(view: &View<'_>, port: &PortName, leak_in_the_way: bool) -> Option<String> {
    match view.runtime.advertisers.get(port) {
        Some(AdvertiserState::Running(_)) => return Some(format!("advertiser {port} to cease")),
        Some(AdvertiserState::Ceasing) => return Some(format!("final advertisements on {port}")),
        None => {}
    }
    if view.runtime.services.contains_key(port) {
        return Some(format!("listener {port} to close"));
    }
    leak_in_the_way.then(|| "FRR: routes of leaving ports withdrawn".to_owned())
}

/// Takes rows of ours off the interface: addresses first, then the base row, each seen gone before the next.
fn release(
    view: &View<'_>,
    port: &PortName,
    wanted: Option<&Wanted<'_>>,
    interface: &Interface<'_>,
    leak_in_the_way: bool,
) -> Assessment {
    let entry = view.ledger.ports.get(port);
    let wanted = wanted.map_or(&[][..], |wanted| &wanted.addresses);
    let owned_addresses = interface.owned_addresses(view.ledger, port, wanted);
    let owned_base = interface.owned_base(view.ledger, port);
    let serving = view.runtime.services.contains_key(port) || view.runtime.advertisers.contains_key(port);
    if owned_addresses.is_empty() && owned_base.is_none() && !serving {
        // Nothing of ours in CONFIG_DB. The ledger remembers the interface until SONiC has let go too.
        let ours = entry.filter(|entry| entry.base_row && interface.base.is_none());
        let pending = ours.filter(|entry| interface.state_vrf == Some(entry.vrf.as_str()));
        let Some(on) = pending.and_then(|_| trace(view, port, interface)) else {
            return Assessment::new(Progress::Absent, None);
        };
        let assessment = Assessment::new(Progress::Releasing, entry.cloned()).waiting(on);
        return match interface.addresses.first() {
            Some((text, _)) => assessment.conflict(foreign_address(port, text)),
            None => assessment,
        };
    }
    // A lost ledger knows the rows by name only: from here on it knows them for certain.
    let known = entry.cloned().or_else(|| {
        Some(LedgerPort {
            vrf: interface.row_vrf_name()?,
            addresses: owned_addresses.iter().map(|owned| owned.address()).collect(),
            base_row: owned_base.is_some(),
        })
    });
    let mut assessment = Assessment::new(Progress::Releasing, known);
    if let Some(on) = still_serving(view, port, leak_in_the_way) {
        return assessment.waiting(on);
    }
    if !owned_addresses.is_empty() {
        assessment.actions = owned_addresses.into_iter().map(Action::DeleteAddress).collect();
        return assessment;
    }
    let Some(base) = owned_base else { return assessment };
    if let Some((text, _)) = interface.addresses.first() {
        let row = format!("{}|{port}|{text}", port.kind().interface_table());
        return assessment
            .waiting(format!("{row} removed by its owner"))
            .conflict(format!("{row} is a foreign address on a port that leaves the boot VRF"));
    }
    if let Some(address) = interface.state_addresses.first() {
        return assessment.waiting(format!("intfmgrd: STATE_DB INTERFACE_TABLE|{port}|{address} gone"));
    }
    assessment.action(Action::DeleteInterface(base))
}

/// intfmgrd holds the release of a port while any address is on it, whoever put it there.
fn foreign_address(port: &PortName, text: &str) -> String {
    let table = port.kind().interface_table();
    format!("{table}|{port}|{text} is a foreign address on a port that leaves the boot VRF")
}
