//! One pass's status in the forms that others read: STATE_DB rows, JSON, log lines.

use std::collections::BTreeMap;

use serde::Serialize;
use switch_agent_core::action::Action;
use switch_agent_core::desired::{Desired, LeakMethod};
use switch_agent_core::frr::{Choice, Templates, render};
use switch_agent_core::map::IntoMap;
use switch_agent_core::name::PortName;
use switch_agent_core::observed::Observed;
use switch_agent_core::plan::full_frr_spec;
use switch_agent_core::row::Fields;
use switch_agent_core::status::{
    Conflict, IsolationStatus, LeakStatus, Phase, PortStatus, Status, Verdict, Waiting,
};
use tracing::{debug, info, warn};

use crate::backend::state_db::{Readiness, StatusRows};
use crate::hub::Hub;
use crate::reconciler::DecisionLog;

/// Since when each port has been in its phase.
#[derive(Debug, Default)]
pub(super) struct Since(BTreeMap<PortName, (Phase, u64)>);

impl Since {
    pub(super) fn update(&mut self, status: &Status, unix_s: u64) {
        self.0.retain(|port, _| status.ports.contains_key(port));
        for (name, port) in &status.ports {
            let entry = self.0.entry(name.clone()).or_insert((port.phase, unix_s));
            if entry.0 != port.phase {
                *entry = (port.phase, unix_s);
            }
        }
    }

    fn of(&self, port: &PortName) -> Option<u64> {
        self.0.get(port).map(|(_, since)| *since)
    }
}

/// What was logged last, so that a state is a line once and not every pass.
#[derive(Debug, Default)]
pub(super) struct Logged {
    verdict: Option<Verdict>,
    ports: BTreeMap<PortName, (Phase, Option<String>)>,
    rejected: Vec<String>,
    conflicts: Vec<Conflict>,
    unknown: BTreeMap<String, String>,
    leak: Option<Choice>,
    control_plane: Option<String>,
}

impl Logged {
    /// Logs what changed since the last pass.
    pub(super) fn changes(&mut self, status: &Status, decisions: &DecisionLog) {
        for (source, reason) in &status.unknown {
            if self.unknown.get(source) != Some(reason) {
                info!(source, reason, "cannot be read; nothing is removed meanwhile");
                decisions.record("source", source, "unreadable", Some(reason));
            }
        }
        for source in self.unknown.keys().filter(|source| !status.unknown.contains_key(*source)) {
            info!(source, "readable again");
            decisions.record("source", source, "readable", None);
        }
        self.unknown.clone_from(&status.unknown);
        for (name, port) in &status.ports {
            let now = (port.phase, port.waiting_on.clone().or_else(|| port.error.clone()));
            let before = self.ports.get(name);
            if before == Some(&now) {
                continue;
            }
            let (phase, reason) = (port.phase.as_str(), now.1.as_deref());
            decisions.record("port", name.as_str(), phase, reason);
            // On its way a port passes through one barrier after the other, each for milliseconds.
            let under_way = matches!(port.phase, Phase::Binding | Phase::Releasing);
            if under_way && before.is_some_and(|(before, _)| *before == port.phase) {
                debug!(port = %name, phase, reason, "port");
            } else {
                info!(port = %name, phase, reason, "port");
            }
            self.ports.insert(name.clone(), now);
        }
        self.ports.retain(|name, _| status.ports.contains_key(name));
        self.leak(status.leak_method.as_ref());
        let rejected: Vec<String> = status.rejected.iter().map(ToString::to_string).collect();
        for message in rejected.iter().filter(|message| !self.rejected.contains(message)) {
            warn!(message, "row rejected");
        }
        for rejected in
            status.rejected.iter().filter(|rejected| !self.rejected.contains(&rejected.to_string()))
        {
            decisions.record("row", &rejected.row, "rejected", Some(&rejected.to_string()));
        }
        self.rejected = rejected;
        // A port's own line has told of the conflict about it.
        let told =
            |conflict: &&Conflict| conflict.port.as_ref().is_some_and(|port| status.ports.contains_key(port));
        let new = status.conflicts.iter().filter(|conflict| !self.conflicts.contains(conflict));
        for conflict in new.filter(|conflict| !told(conflict)) {
            info!(object = conflict.object, reason = conflict.reason, "yielding to a foreign object");
        }
        for conflict in status.conflicts.iter().filter(|conflict| !self.conflicts.contains(conflict)) {
            decisions.record("object", &conflict.object, "yielded", Some(&conflict.reason));
        }
        self.conflicts.clone_from(&status.conflicts);
        let control_plane = status.control_plane.as_ref().map(|found| found.summary.clone());
        if self.control_plane != control_plane {
            match &status.control_plane {
                Some(found) if !found.denied.is_empty() => {
                    warn!(
                        reason = found.summary,
                        "the discovery proxy is out of reach; `show status` has the rows to add"
                    );
                }
                _ => info!(control_plane, "control-plane ACLs do not keep machines from the proxy"),
            }
            self.control_plane = control_plane;
        }
        if self.verdict != Some(status.verdict) {
            info!(verdict = ?status.verdict, "status");
            decisions.record("status", "switch", verdict_text(status.verdict), None);
            self.verdict = Some(status.verdict);
        }
    }
}

impl Logged {
    fn leak(&mut self, choice: Option<&Choice>) {
        let Some(choice) = choice.filter(|choice| self.leak.as_ref() != Some(*choice)) else {
            return;
        };
        let method = choice.method.map_or("none", LeakMethod::as_str);
        if self.leak.as_ref().is_none_or(|before| before.method != choice.method) {
            info!(configured = choice.configured.as_str(), method, reason = choice.reason, "leak method");
        }
        if let Some(warning) = &choice.warning {
            warn!(method, warning, "leak method");
        }
        self.leak = Some(choice.clone());
    }
}

/// Ready is who has once found everything as wanted; what comes later is for the status to tell.
pub(super) fn readiness(converged_once: bool, status: &Status) -> Readiness {
    if converged_once {
        return Readiness::Ready;
    }
    let unknown = status.unknown.iter().map(|(source, reason)| format!("{source}: {reason}"));
    let waiting = status.waiting.iter().map(|waiting| format!("{}: {}", waiting.object, waiting.on));
    let reason = unknown.chain(waiting).next();
    Readiness::NotReady(reason.unwrap_or_else(|| "ports are being set up".to_owned()))
}

/// The plan as `GET /v1/plan` shows it: the last pass's actions, and what waits.
pub fn plan_json(actions: &[Action], status: &Status) -> String {
    #[derive(Serialize)]
    struct Step<'a> {
        action: &'static str,
        object: String,
        detail: &'a Action,
    }
    #[derive(Serialize)]
    struct Plan<'a> {
        actions: Vec<Step<'a>>,
        waiting: &'a [Waiting],
        conflicts: &'a [Conflict],
    }
    let step = |action| Step { action: Action::kind(action), object: action.object(), detail: action };
    let actions = actions.iter().map(step).collect();
    let plan = Plan { actions, waiting: &status.waiting, conflicts: &status.conflicts };
    serde_json::to_string(&plan).unwrap_or_default()
}

/// The FRR configuration that `render-only` leaves in the state directory: every configured port, up or not,
/// so that it changes with the configuration only. `None` without an AS number.
pub(super) fn rendered(desired: &Desired, observed: &Observed, templates: &Templates) -> Option<String> {
    let frr = observed.frr.known();
    let metadata = observed.config.known()?.row("DEVICE_METADATA", "localhost");
    let configured = || metadata?.get("bgp_asn")?.parse().ok();
    let asn = frr.and_then(|frr| frr.local_asn).or_else(configured)?;
    let router_id = frr.and_then(|frr| frr.router_id);
    match render(&full_frr_spec(desired), asn, router_id, templates) {
        Ok(text) => Some(text),
        Err(failure) => {
            warn!(reason = crate::observer::chain(&failure), "FRR configuration not rendered");
            None
        }
    }
}

/// Rows of our STATE_DB tables.
pub(super) fn status_rows(
    status: &Status,
    since: &Since,
    hub: &Hub,
    generation: u64,
    nd_mode: &str,
    unix_s: u64,
) -> StatusRows {
    let ports = status.ports.values().map(|port| (port.port.to_string(), port_row(port, since, hub)));
    let partitions = status.partitions.values().map(|partition| {
        let mut row = Fields::new();
        set(&mut row, "vrf_name", Some(partition.vrf.to_string()));
        set(&mut row, "prefix", Some(partition.prefix.to_string()));
        set(&mut row, "vrf_ready", Some(partition.vrf_ready.to_string()));
        set(&mut row, "ports", Some(partition.ports.to_string()));
        set(&mut row, "ports_ready", Some(partition.ports_ready.to_string()));
        let (state, detail) = leak_text(&partition.leak);
        set(&mut row, "leak", Some(state.to_owned()));
        set(&mut row, "leak_detail", detail);
        let (state, detail) = isolation_text(&partition.isolation);
        set(&mut row, "isolation", Some(state.to_owned()));
        set(&mut row, "isolation_detail", detail);
        set(&mut row, "waiting_on", partition.waiting_on.clone());
        set(&mut row, "error", partition.error.clone());
        (partition.partition.to_string(), row)
    });
    let mut global = Fields::new();
    set(&mut global, "version", Some(env!("CARGO_PKG_VERSION").to_owned()));
    set(&mut global, "status", Some(verdict_text(status.verdict).to_owned()));
    // Rounded, so that idle passes do not write.
    set(&mut global, "last_pass", Some((unix_s - unix_s % LAST_PASS_STEP_S).to_string()));
    set(&mut global, "config_generation", Some(generation.to_string()));
    set(&mut global, "router_discovery", Some(nd_mode.to_owned()));
    if let Some(choice) = &status.leak_method {
        set(&mut global, "leak_method", choice.method.map(|method| method.as_str().to_owned()));
        set(&mut global, "leak_method_reason", Some(choice.reason.clone()));
    }
    if let Some(control_plane) = &status.control_plane {
        let denied = !control_plane.denied.is_empty();
        set(&mut global, "control_plane_acl", Some(if denied { "denies" } else { "permits" }.to_owned()));
        set(
            &mut global,
            "control_plane_acl_rows",
            serde_json::to_string(&control_plane.rows).ok().filter(|_| denied),
        );
    }
    let rejected: Vec<String> = status.rejected.iter().map(ToString::to_string).collect();
    set(&mut global, "rejected", (!rejected.is_empty()).then(|| rejected.join("\n")));
    let warnings: Vec<String> = status.warnings.iter().map(ToString::to_string).collect();
    set(&mut global, "warnings", (!warnings.is_empty()).then(|| warnings.join("\n")));
    [
        ("BOOT_NETWORK_PORT_TABLE".to_owned(), ports.into_map()),
        ("BOOT_NETWORK_PARTITION_TABLE".to_owned(), partitions.into_map()),
        ("BOOT_NETWORK_STATE".to_owned(), std::iter::once(("global".to_owned(), global)).into_map()),
    ]
    .into_iter()
    .into_map()
}

/// Seconds between updates of `last_pass`.
const LAST_PASS_STEP_S: u64 = 60;

fn set(row: &mut Fields, field: &str, value: Option<String>) {
    if let Some(value) = value.filter(|value| !value.is_empty()) {
        row.insert(field.to_owned(), value);
    }
}

fn port_row(port: &PortStatus, since: &Since, hub: &Hub) -> Fields {
    let mut row = Fields::new();
    set(&mut row, "phase", Some(port.phase.as_str().to_owned()));
    set(&mut row, "partition", port.partition.as_ref().map(ToString::to_string));
    set(&mut row, "vrf_name", port.vrf.as_ref().map(ToString::to_string));
    set(&mut row, "prefix", port.prefix.map(|prefix| prefix.to_string()));
    set(&mut row, "waiting_on", port.waiting_on.clone());
    set(&mut row, "error", port.error.clone());
    set(&mut row, "since", since.of(&port.port).map(|since| since.to_string()));
    let machines = hub.port(&port.port).machines;
    if let Some(machine) = machines.into_iter().max_by_key(|machine| machine.last_seen) {
        let global = machine.addresses.iter().find(|address| !address.is_unicast_link_local());
        set(&mut row, "mac", Some(machine.mac.to_string()));
        set(&mut row, "address", global.map(ToString::to_string));
        set(&mut row, "machine_id", machine.machine_id);
    }
    row
}

fn leak_text(leak: &LeakStatus) -> (&'static str, Option<String>) {
    match leak {
        LeakStatus::Off => ("off", None),
        LeakStatus::Applied => ("applied", None),
        LeakStatus::Rendered => ("rendered", None),
        LeakStatus::Pending(detail) => ("pending", Some(detail.clone())),
        LeakStatus::Violation(detail) => ("violation", Some(detail.clone())),
        LeakStatus::Unknown(detail) => ("unknown", Some(detail.clone())),
    }
}

fn isolation_text(isolation: &IsolationStatus) -> (&'static str, Option<String>) {
    match isolation {
        IsolationStatus::Off => ("off", None),
        IsolationStatus::Active => ("active", None),
        IsolationStatus::Pending(detail) => ("pending", Some(detail.clone())),
        IsolationStatus::Unknown(detail) => ("unknown", Some(detail.clone())),
    }
}

fn verdict_text(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Converged => "converged",
        Verdict::Converging => "converging",
        Verdict::Degraded => "degraded",
    }
}

#[cfg(test)]
mod tests;
