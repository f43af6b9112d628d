//! Creating and removing boot VRFs, by the rules of vrfmgrd.
//!
//! vrfmgrd deletes `VRF_TABLE` at once and the kernel device last; a row written in between is taken along
//! by the pending deletion. So a VRF is created only where no trace of an earlier one is left, and deleted
//! only when nothing names it any more.

use std::collections::BTreeMap;

use super::view::View;
use super::wanted::WantedSet;
use crate::action::Action;
use crate::name::VrfName;
use crate::observed::StateDb;
use crate::ownership::{Ledger, VrfOrigin};
use crate::status::Waiting;

/// The ledger's view of VRFs as the configuration now has it: adoption is a decision of the operator, so it
/// counts before anything is judged by name.
pub(super) fn effective_origins(view: &View<'_>, wanted: &WantedSet<'_>) -> BTreeMap<VrfName, VrfOrigin> {
    let mut origins = view.ledger.vrfs.clone();
    for partition in wanted.partitions.values() {
        let vrf = &partition.vrf;
        let exists = view.config.row("VRF", vrf.as_str()).is_some();
        if !partition.manage_vrf {
            origins.insert(vrf.clone(), VrfOrigin::Adopted);
        } else if !exists || view.ledger.owned_vrf(vrf).is_some() || origins.contains_key(vrf) {
            origins.insert(vrf.clone(), VrfOrigin::Created);
        }
    }
    let in_use = |vrf: &VrfName| wanted.partitions.values().any(|partition| partition.vrf == *vrf);
    origins.retain(|vrf, _| in_use(vrf) || wanted.vrfs_held || !gone(view, vrf));
    origins
}

/// No row, no trace in STATE_DB, no kernel device.
fn gone(view: &View<'_>, vrf: &VrfName) -> bool {
    let StateDb { vrf_table, vrf_object_table, .. } = view.state;
    view.config.row("VRF", vrf.as_str()).is_none()
        && !vrf_table.contains(vrf.as_str())
        && !vrf_object_table.contains(vrf.as_str())
        && !view.kernel.links.contains_key(vrf.as_str())
}

/// Actions on `VRF` rows. `lingering` are VRFs that FRR's running configuration still mentions.
pub(super) fn plan(
    view: &View<'_>,
    ledger: &Ledger,
    wanted: &WantedSet<'_>,
    lingering: &[VrfName],
    actions: &mut Vec<Action>,
    waiting: &mut Vec<Waiting>,
) {
    for partition in wanted.partitions.values().filter(|partition| partition.manage_vrf) {
        let vrf = &partition.vrf;
        let on = match create(view, vrf) {
            Step::Act(action) => {
                actions.push(action);
                continue;
            }
            Step::Repair(action, on) => {
                actions.push(action);
                on
            }
            Step::Wait(on) => on,
            Step::Done => continue,
        };
        waiting.push(Waiting { object: format!("VRF|{vrf}"), port: None, on });
    }
    let rows = view.config.table("VRF").filter_map(|(key, _)| key.parse::<VrfName>().ok());
    for vrf in rows.filter(|vrf| wanted.partitions.values().all(|partition| partition.vrf != *vrf)) {
        let Some(owned) = ledger.owned_vrf(&vrf) else {
            continue;
        };
        match in_use(view, wanted, &vrf, lingering) {
            Some(on) => waiting.push(Waiting { object: format!("VRF|{vrf}"), port: None, on }),
            None => {
                let table = view.vrf_device(&vrf).and_then(|device| device.vrf_table);
                let denied = view.kernel.unreachable_defaults.contains(vrf.as_str());
                if let (Some(table), true, true) = (table, denied, view.kernel.net_admin) {
                    actions.push(Action::RemoveUnreachableDefault { vrf: vrf.clone(), table });
                }
                actions.push(Action::DeleteVrf(owned));
            }
        }
    }
}

enum Step {
    Done,
    Act(Action),
    /// Goes on waiting, so that the next repair needs no new time.
    Repair(Action, String),
    Wait(String),
}

fn create(view: &View<'_>, vrf: &VrfName) -> Step {
    let object = format!("VRF|{vrf}");
    let device = view.vrf_device(vrf).is_some();
    let table = view.state.vrf_table.contains(vrf.as_str());
    let orch = view.state.vrf_object_table.contains(vrf.as_str());
    if view.config.row("VRF", vrf.as_str()).is_none() {
        return match (device, table, orch) {
            // Both STATE_DB rows without a device are what a deletion leaves that vrfmgrd never saw.
            (false, false, false) | (false, true, true) if view.free(&object) => {
                Step::Act(Action::CreateVrf(vrf.clone()))
            }
            (true, ..) => Step::Wait(format!("vrfmgrd: kernel device {vrf} of an earlier row gone")),
            (_, _, true) => Step::Wait(format!("orchagent: STATE_DB VRF_OBJECT_TABLE|{vrf} gone")),
            _ => Step::Wait(format!("vrfmgrd: STATE_DB VRF_TABLE|{vrf} gone")),
        };
    }
    match view.vrf_missing(vrf) {
        None => Step::Done,
        Some(on) if !device && !table && !orch && view.repairable(&object) => {
            Step::Repair(Action::RepairVrf(vrf.clone()), on)
        }
        Some(on) => Step::Wait(on),
    }
}

/// What still uses a VRF that is to go.
fn in_use(view: &View<'_>, wanted: &WantedSet<'_>, vrf: &VrfName, lingering: &[VrfName]) -> Option<String> {
    if wanted.vrfs_held {
        return Some("the rejected BOOT_NETWORK_PARTITION rows to be corrected or removed".to_owned());
    }
    if lingering.contains(vrf) {
        return Some(format!("FRR: lines of {vrf} withdrawn"));
    }
    if let Some(row) = view.rows_in_vrf(vrf.as_str()).into_iter().next() {
        return Some(format!("{row} leaving the VRF"));
    }
    let state = view.state.interface_table.iter().find(|(_, name)| *name == vrf.as_str());
    if let Some((port, _)) = state {
        return Some(format!("intfmgrd: STATE_DB INTERFACE_TABLE|{port} gone"));
    }
    let slave = view.kernel.links.iter().find(|(_, link)| link.master.as_deref() == Some(vrf.as_str()));
    slave.map(|(name, _)| format!("kernel: {name} released by {vrf}"))
}
