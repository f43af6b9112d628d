//! One pass's status, from what the plan found.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::binding::{Assessment, Progress};
use super::hold::Hold;
use super::isolate::Isolation;
use super::leak::LeakPlan;
use super::view::View;
use super::wanted::WantedSet;
use crate::desired::control_plane::control_plane;
use crate::desired::{Desired, Partition};
use crate::map::IntoMap;
use crate::name::{PartitionId, PortKind, PortName};
use crate::observed::{Observed, Source};
use crate::status::{
    Conflict, IsolationStatus, LeakStatus, PartitionStatus, Phase, PortStatus, Status, Verdict, Waiting,
};

pub(super) struct Inputs<'a, 'b> {
    pub(super) view: &'a View<'b>,
    pub(super) observed: &'a Observed,
    pub(super) wanted: &'a WantedSet<'b>,
    pub(super) leak: &'a LeakPlan,
    pub(super) isolation: &'a Isolation,
}

/// Sources that could not be read.
fn unknown(observed: &Observed) -> BTreeMap<String, String> {
    let mut unknown = BTreeMap::new();
    let mut note = |name: &str, why: Option<&String>| {
        if let Some(why) = why {
            unknown.insert(name.to_owned(), why.clone());
        }
    };
    fn why<T>(source: &Source<T>) -> Option<&String> {
        match source {
            Source::Unknown(why) => Some(why),
            Source::Known(_) => None,
        }
    }
    note("CONFIG_DB", why(&observed.config));
    note("STATE_DB", why(&observed.state));
    note("APPL_DB", why(&observed.appl));
    note("kernel", why(&observed.kernel));
    note("FRR", why(&observed.frr));
    note("ledger", why(&observed.ledger));
    unknown
}

/// The status while a source that everything depends on is unreadable.
pub(super) fn unreadable(desired: &Desired, observed: &Observed) -> Status {
    let unknown = unknown(observed);
    let sources: Vec<&str> = unknown.keys().map(String::as_str).collect();
    let on = format!("{} to be readable again", sources.join(", "));
    let ports = desired.ports.values().map(|port| {
        let partition = desired.partition_of(port);
        let status = PortStatus {
            port: port.name.clone(),
            alias: port.alias.clone(),
            index: port.index,
            partition: Some(port.partition.clone()),
            vrf: partition.map(|partition| partition.vrf.clone()),
            phase: Phase::Waiting,
            oper_up: None,
            prefix: Some(port.prefix),
            waiting_on: Some(on.clone()),
            error: None,
        };
        (port.name.clone(), status)
    });
    Status {
        verdict: Verdict::Degraded,
        ports: ports.into_map(),
        partitions: BTreeMap::new(),
        waiting: Vec::new(),
        conflicts: Vec::new(),
        rejected: desired.rejected.clone(),
        warnings: desired.warnings.clone(),
        leak_method: None,
        unknown,
        control_plane: observed.config.known().and_then(|config| control_plane(config, desired)),
        control_api_error: None,
    }
}

/// The status while a warm or fast reboot is under way: what runs counts, not what STATE_DB shows of it.
pub(super) fn frozen(inputs: &Inputs<'_, '_>, hold: Hold) -> Status {
    build(inputs, &BTreeMap::new(), &BTreeMap::new(), vec![hold.waiting()], Vec::new(), 0)
}

pub(super) fn build(
    inputs: &Inputs<'_, '_>,
    assessments: &BTreeMap<PortName, Assessment>,
    complete: &BTreeMap<PortName, bool>,
    mut waiting: Vec<Waiting>,
    mut conflicts: Vec<Conflict>,
    actions: usize,
) -> Status {
    let ports = ports(inputs, assessments, complete, &waiting);
    let partitions = partitions(inputs, &ports, &waiting);
    waiting.sort();
    conflicts.sort();
    let unknown = unknown(inputs.observed);
    let settled =
        |status: &PortStatus| matches!(status.phase, Phase::Ready | Phase::Foreign | Phase::Rejected);
    let leaks_settled = partitions.values().all(|partition| {
        let unread = matches!(partition.leak, LeakStatus::Unknown(_));
        matches!(partition.leak, LeakStatus::Applied | LeakStatus::Off | LeakStatus::Rendered)
            || matches!(&inputs.observed.frr, Source::Known(frr) if !frr.managed && unread)
    });
    let vrfs_ready = partitions.values().all(|partition| partition.vrf_ready);
    // What is on its way out counts as well, unless rejected rows hold it.
    let frr_settled = inputs.leak.settled();
    let vrfs_settled =
        inputs.wanted.vrfs_held || waiting.iter().all(|waiting| !waiting.object.starts_with("VRF|"));
    let fenced = waiting.iter().all(|waiting| !waiting.object.starts_with("ACL_"));
    let held = Hold::of(inputs.view).is_some();
    let settled_below = leaks_settled && frr_settled && vrfs_ready && vrfs_settled && fenced && !held;
    let verdict = if !unknown.is_empty() {
        Verdict::Degraded
    } else if actions == 0 && ports.values().all(settled) && settled_below {
        Verdict::Converged
    } else {
        Verdict::Converging
    };
    let desired = inputs.view.desired;
    Status {
        verdict,
        ports,
        partitions,
        waiting,
        conflicts,
        rejected: desired.rejected.clone(),
        warnings: desired.warnings.iter().chain(&inputs.leak.warnings).cloned().collect(),
        leak_method: Some(inputs.leak.choice.clone()),
        unknown,
        control_plane: control_plane(inputs.view.config, desired),
        control_api_error: inputs.observed.runtime.upstream.as_ref().and_then(|state| state.error.clone()),
    }
}

fn ports(
    inputs: &Inputs<'_, '_>,
    assessments: &BTreeMap<PortName, Assessment>,
    complete: &BTreeMap<PortName, bool>,
    waiting: &[Waiting],
) -> BTreeMap<PortName, PortStatus> {
    let view = inputs.view;
    let rejected = rejected_ports(view.desired);
    let mut waits: BTreeMap<&PortName, &str> = BTreeMap::new();
    for one in waiting {
        if let Some(port) = &one.port {
            waits.entry(port).or_insert(&one.on);
        }
    }
    let names = view.desired.ports.keys().chain(assessments.keys()).chain(rejected.keys());
    let names: BTreeSet<&PortName> = names.filter(|name| name.kind() != PortKind::Loopback).collect();
    let status = |name: &PortName| {
        let assessment = assessments.get(name);
        let listed = view.desired.ports.contains_key(name) || rejected.contains_key(name);
        if !listed && assessment.is_none_or(uninteresting) {
            return None;
        }
        let mut status = port_facts(view, name);
        status.phase = phase(inputs, name, assessment, complete.get(name).copied().unwrap_or(false));
        status.waiting_on =
            waits.get(name).map(|on| (*on).to_owned()).or_else(|| admin_down(view, name, status.phase));
        status.error = failure(view, name)
            .or_else(|| rejected.get(name).cloned())
            .or_else(|| assessment.and_then(|assessment| assessment.conflict.clone()));
        if rejected.contains_key(name) && status.phase != Phase::Releasing {
            status.phase = Phase::Rejected;
        }
        Some((name.clone(), status))
    };
    // Collected, and so in full nodes: the status stays until the next pass.
    names.into_iter().filter_map(status).collect()
}

/// An interface that only came up because it has rows in SONiC's tables, none of them ours.
fn uninteresting(assessment: &Assessment) -> bool {
    matches!(assessment.progress, Progress::Absent | Progress::Foreign)
}

fn admin_down(view: &View<'_>, name: &PortName, phase: Phase) -> Option<String> {
    let port = view.desired.ports.get(name)?;
    if phase != Phase::Waiting {
        None
    } else if !view.desired.global.admin_up {
        Some("BOOT_NETWORK|global admin_status = \"up\"".to_owned())
    } else if !port.admin_up {
        Some(format!("BOOT_NETWORK_PORT|{name} admin_status = \"up\""))
    } else {
        None
    }
}

fn port_facts(view: &View<'_>, name: &PortName) -> PortStatus {
    let desired = view.desired.ports.get(name);
    let partition = desired.and_then(|port| view.desired.partition_of(port));
    let row = view.config.row("PORT", name.as_str());
    let text = |field: &str| row.and_then(|row| row.get(field)).cloned();
    PortStatus {
        port: name.clone(),
        alias: desired
            .map(|port| port.alias.clone())
            .or_else(|| text("alias").map(Arc::from))
            .unwrap_or_else(|| name.as_str().into()),
        index: desired.map(|port| port.index).or_else(|| text("index")?.parse().ok()).unwrap_or_default(),
        partition: desired.map(|port| port.partition.clone()),
        vrf: partition
            .map(|partition| partition.vrf.clone())
            .or_else(|| view.ledger.ports.get(name).map(|entry| entry.vrf.clone())),
        phase: Phase::Waiting,
        oper_up: view.state.port_table.get(name).map(|state| state.oper_up),
        prefix: desired.map(|port| port.prefix),
        waiting_on: None,
        error: None,
    }
}

/// The message of each port whose own row is rejected.
fn rejected_ports(desired: &Desired) -> BTreeMap<PortName, String> {
    let mut ports = BTreeMap::new();
    for rejected in &desired.rejected {
        let key = rejected.row.strip_prefix("BOOT_NETWORK_PORT|").and_then(|key| key.parse().ok());
        if let Some(port) = key {
            ports.entry(port).or_insert_with(|| rejected.to_string());
        }
    }
    ports
}

/// Why the last action on one of the port's objects failed, while it backs off.
fn failure(view: &View<'_>, name: &PortName) -> Option<String> {
    if view.backing_off.is_empty() {
        return None;
    }
    let row = format!("{}|{name}", name.kind().interface_table());
    let address = format!("{row}|");
    let service = [format!("listener {name}"), format!("advertiser {name}"), row];
    let hit = |object: &String| object.starts_with(&address) || service.contains(object);
    let (object, reason) = view.backing_off.iter().find(|(object, _)| hit(object))?;
    Some(format!("{object}: {reason}"))
}

fn phase(inputs: &Inputs<'_, '_>, name: &PortName, assessment: Option<&Assessment>, complete: bool) -> Phase {
    if failure(inputs.view, name).is_some() {
        return Phase::Failed;
    }
    match assessment.map(|assessment| assessment.progress) {
        Some(Progress::Foreign) => Phase::Foreign,
        Some(Progress::Releasing) => Phase::Releasing,
        Some(Progress::Binding) => Phase::Binding,
        Some(Progress::Addressed) if complete => Phase::Ready,
        Some(Progress::Addressed) => Phase::Binding,
        // Frozen by a reboot, or held: what runs, runs.
        None if inputs.view.runtime.advertisers.contains_key(name) => Phase::Ready,
        Some(Progress::Waiting | Progress::Absent) | None => Phase::Waiting,
    }
}

fn partitions(
    inputs: &Inputs<'_, '_>,
    ports: &BTreeMap<PortName, PortStatus>,
    waiting: &[Waiting],
) -> BTreeMap<PartitionId, PartitionStatus> {
    let entry = |partition: &Partition| {
        let of = || ports.values().filter(|port| port.partition.as_ref() == Some(&partition.id));
        let vrf_row = format!("VRF|{}", partition.vrf);
        let leak = inputs.leak.frr.leak.get(&partition.vrf).cloned();
        let unread = IsolationStatus::Unknown("nothing is looked at during a reboot".to_owned());
        PartitionStatus {
            partition: partition.id.clone(),
            vrf: partition.vrf.clone(),
            prefix: partition.prefix,
            vrf_ready: inputs.view.vrf_ready(&partition.vrf),
            isolation: inputs.isolation.status.get(&partition.id).cloned().unwrap_or(unread),
            leak: leak.unwrap_or_else(|| LeakStatus::Pending("the boot VRF".to_owned())),
            ports: of().count(),
            ports_ready: of().filter(|port| port.phase == Phase::Ready).count(),
            waiting_on: waiting
                .iter()
                .find(|waiting| waiting.object == vrf_row)
                .map(|waiting| waiting.on.clone()),
            error: inputs.view.backing_off.get(&vrf_row).cloned(),
        }
    };
    inputs.wanted.partitions.iter().map(|(id, partition)| ((*id).clone(), entry(partition))).into_map()
}
