//! `plan(&Desired, &Observed) -> Plan`: total, deterministic, free of I/O, clock and randomness.
//!
//! A plan holds only actions whose preconditions hold now; everything else is waiting, with the reason.
//! Convergence takes several passes by design: act, observe, act. The plan of a converged switch is empty.

mod binding;
mod hold;
mod isolate;
mod leak;
mod leak_filter;
mod leak_rows;
mod services;
mod status;
mod view;
mod vrf;
mod wanted;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use crate::action::Action;
use crate::desired::Desired;
use crate::map::IntoMap;
use crate::name::PortName;
use crate::observed::Observed;
use crate::ownership::Ledger;
use crate::status::{Conflict, LeakStatus, Status, Waiting};
use binding::{Assessment, Progress};
use hold::Hold;
pub use leak::full_frr_spec;
use view::View;

/// The next steps, and why everything else has to wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// In execution order; each one's preconditions hold now.
    pub actions: Vec<Action>,
    pub status: Status,
}

/// Computes the next steps.
///
/// While CONFIG_DB, STATE_DB, APPL_DB, the kernel or the ledger cannot be read, nothing is done at all:
/// what runs goes on, and the status says what is missing.
pub fn plan(desired: &Desired, observed: &Observed) -> Plan {
    let Some(view) = View::new(desired, observed) else {
        return Plan { actions: Vec::new(), status: status::unreadable(desired, observed) };
    };
    let wanted = wanted::wanted(&view);
    let origins = vrf::effective_origins(&view, &wanted);
    // Adoption rarely changes; the ledger of a large switch is not copied without need.
    let adopted = (origins != view.ledger.vrfs).then(|| Ledger { vrfs: origins, ..view.ledger.clone() });
    let ledger = adopted.as_ref().unwrap_or(view.ledger);
    let view = View { ledger, ..view };
    let hold = Hold::of(&view);

    let addressed: BTreeMap<&PortName, bool> = wanted
        .interfaces
        .iter()
        .map(|(name, wanted)| (name, binding::addressed(&view, name, wanted)))
        .into_map();
    let is_addressed = |name: &PortName| addressed.get(name).copied().unwrap_or(false);
    let mut leak = leak::plan(&view, ledger, &wanted, &observed.frr, is_addressed);
    // FRR lets go first, unless it cannot: a port must be able to leave while FRR is broken.
    let leak_in_the_way = leak.withdraws() && !view.backing_off.contains_key("FRR");
    let frr = &leak.frr;

    let mut assessments: BTreeMap<PortName, Assessment> = BTreeMap::new();
    let with_rows = view.interfaces_with_rows();
    for name in wanted.interfaces.keys().chain(&with_rows) {
        if !wanted.held.contains(name) && !assessments.contains_key(name) {
            let assessment = binding::assess(&view, name, wanted.interfaces.get(name), leak_in_the_way);
            assessments.insert(name.clone(), assessment);
        }
    }

    let mut actions = Vec::new();
    let mut waiting: Vec<Waiting> = Vec::new();
    let progress = |name: &PortName| {
        let assessment = assessments.get(name);
        assessment.map_or(Progress::Absent, |assessment| assessment.progress)
    };
    let kept = services::kept(&wanted, progress);
    actions.extend(services::end(&view, &wanted, &kept));
    vrf::plan(&view, ledger, &wanted, &frr.lingering, &mut actions, &mut waiting);
    actions.extend(unreachable_defaults(&view, &wanted));

    let mut conflicts = Vec::new();
    let isolation = isolate::plan(&view, &wanted, &assessments, &mut actions, &mut waiting, &mut conflicts);

    let mut complete: BTreeMap<PortName, bool> = BTreeMap::new();
    let global_rejected = desired.rejected.iter().any(|rejected| rejected.row == "BOOT_NETWORK|global");
    for name in &kept {
        let Some(wanted) = wanted.interfaces.get(name) else {
            continue;
        };
        let step = services::start(&view, name, wanted, global_rejected);
        actions.extend(step.actions);
        if let Some(on) = step.waiting {
            waiting.push(Waiting { object: format!("services of {name}"), port: Some(name.clone()), on });
        }
        complete.insert(name.clone(), step.complete);
    }
    let upstream = observed.runtime.upstream.as_ref().map(|state| &state.spec);
    if upstream != desired.global.upstream.as_ref() && !global_rejected && view.free("control API") {
        actions.push(Action::SetUpstream(desired.global.upstream.clone()));
    }
    if view.free("FRR") {
        if !frr.withdraw.commands.is_empty() {
            actions.push(Action::WithdrawLeak(frr.withdraw.clone()));
        } else if !frr.apply.commands.is_empty() {
            actions.push(Action::ApplyLeak(frr.apply.clone()));
        }
    }
    actions.extend(leak.rows.delete.drain(..).map(Action::DeleteLeakRow));
    actions.append(&mut leak.rows.set.clone());
    for (vrf, leak) in &frr.leak {
        if let LeakStatus::Pending(on) | LeakStatus::Violation(on) = leak {
            let object = leak::waiting_object(vrf);
            waiting.push(Waiting { object, port: None, on: on.clone() });
        }
    }
    if let Some(on) = &frr.waiting {
        waiting.push(Waiting { object: "FRR".to_owned(), port: None, on: on.clone() });
    }

    conflicts.extend(leak.rows.conflicts.iter().cloned());
    let mut next = Ledger {
        vrfs: ledger.vrfs.clone(),
        ports: BTreeMap::new(),
        leak_rows: leak.rows.ours.clone(),
        leak_method: leak.method,
    };
    for (name, assessment) in &mut assessments {
        assessment.hold_outside(&isolation.unfenced);
        actions.append(&mut assessment.actions);
        let port = (name.kind() != crate::name::PortKind::Loopback).then(|| name.clone());
        let object = || format!("{}|{name}", name.kind().interface_table());
        if let Some(on) = &assessment.waiting {
            waiting.push(Waiting { object: object(), port: port.clone(), on: on.clone() });
        }
        if let Some(reason) = &assessment.conflict {
            conflicts.push(Conflict { object: object(), port, reason: reason.clone() });
        }
        if let Some(entry) = assessment.entry.take() {
            next.ports.insert(name.clone(), entry);
        }
    }
    for name in &wanted.held {
        if let Some(entry) = ledger.ports.get(name) {
            next.ports.insert(name.clone(), entry.clone());
        }
    }
    actions.retain(|action| !view.backing_off.contains_key(&action.object()));
    if observed.ledger.known() != Some(&next) {
        actions.push(Action::RecordLedger(next));
    }
    actions.retain(|action| hold.is_none_or(|hold| hold.permits(action)));
    actions.sort_by_key(Action::rank);

    let inputs =
        status::Inputs { view: &view, observed, wanted: &wanted, leak: &leak, isolation: &isolation };
    if let Some(hold @ Hold::Reboot(_)) = hold {
        return Plan { actions, status: status::frozen(&inputs, hold) };
    }
    waiting.extend(hold.map(Hold::waiting));
    let status = status::build(&inputs, &assessments, &complete, waiting, conflicts, actions.len());
    Plan { actions, status }
}

/// A boot VRF without a default route falls through to the main table; the deny does not wait for FRR.
fn unreachable_defaults(view: &View<'_>, wanted: &wanted::WantedSet<'_>) -> Vec<Action> {
    let missing = |vrf: &crate::name::VrfName| {
        let device = view.vrf_device(vrf)?;
        let table = device.vrf_table?;
        let there = view.kernel.unreachable_defaults.contains(vrf.as_str());
        let free = view.free(&format!("unreachable default of {vrf}"));
        (!there && free).then(|| Action::AddUnreachableDefault { vrf: vrf.clone(), table })
    };
    if !view.kernel.net_admin {
        return Vec::new();
    }
    wanted.partitions.values().filter_map(|partition| missing(&partition.vrf)).collect()
}
