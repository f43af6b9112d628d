//! JSON of the admin API, computed from a snapshot and the hub.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value, json};
use switch_agent_core::map::IntoMap;
use switch_agent_core::name::{MacAddr, PortName};
use switch_agent_core::status::{Phase, PortStatus, Verdict};
use switch_agent_core::timeline::{Boot, Entry};

use super::{AdminState, Snapshot};
use crate::hub::{Hub, timestamp};
use crate::metrics::advertise::PortReading;
use crate::metrics::dhcp6::Dhcp6Reading;

/// `GET /v1/ports`
pub(crate) fn ports(snapshot: &Snapshot, state: &AdminState) -> Value {
    json!({ "ports": snapshot.status.ports.values().map(|status| port(status, state)).collect::<Vec<_>>() })
}

/// `GET /v1/ports/{port}`
pub(crate) fn port(status: &PortStatus, state: &AdminState) -> Value {
    let view = state.hub.port(&status.port);
    let ra = state.metrics.advertise.read(&status.port);
    json!({
        "port": status.port,
        "alias": status.alias,
        "index": status.index,
        "partition": status.partition,
        "vrf": status.vrf,
        "phase": status.phase,
        "oper_status": oper_status(status),
        "prefix": status.prefix,
        "machines": view.machines,
        "lldp": view.lldp,
        "ra": ra.as_ref().map(advertiser),
        "dhcp6": state.metrics.dhcp6.read(&status.port).as_ref().map(dhcp6),
        "waiting_on": status.waiting_on,
        "error": status.error,
    })
}

/// What the advertiser of a port does and has counted since the process started.
fn advertiser(reading: &PortReading) -> Value {
    let ms = |us: Option<u64>| us.map(|us| Duration::from_micros(us).as_secs_f64() * 1e3);
    let time = |ms: Option<u64>| ms.and_then(|ms| i64::try_from(ms).ok()).map(timestamp);
    json!({
        "state": reading.state.as_str(),
        "sent": reading.sent,
        "last_multicast": time(reading.last_multicast_ms),
        "carrier_to_first_ms": ms(reading.carrier_to_first_us),
        "solicitations": reading.solicited,
        "last_solicitation": time(reading.last_solicit_ms),
        "answers": reading.answers,
        "answer_last_ms": ms(reading.answer_last_us),
        "answer_max_ms": ms(reading.answer_max_us),
        "suppressed": reading.suppressed,
        "dropped": reading.dropped,
        "muted": reading.muted,
        "mutes": reading.mutes,
        "foreign": reading.foreign,
        "foreign_inconsistent": reading.foreign_inconsistent,
        "send_errors": reading.send_errors,
    })
}

/// What the port's DHCPv6 has counted since the process started.
fn dhcp6(reading: &Dhcp6Reading) -> Value {
    let last = reading.last_sent_ms.and_then(|ms| i64::try_from(ms).ok()).map(timestamp);
    json!({
        "received": reading.received,
        "sent": reading.sent,
        "refused": reading.refused,
        "clients": reading.clients,
        "last_sent": last,
    })
}

pub(crate) fn oper_status(status: &PortStatus) -> &'static str {
    match status.oper_up {
        Some(true) => "up",
        Some(false) => "down",
        None => "unknown",
    }
}

/// `GET /v1/ports/{port}/timeline`: boots, the newest first.
pub(crate) fn timeline(port: &PortName, hub: &Hub) -> Value {
    json!({ "port": port, "boots": hub.boots(port).iter().rev().map(boot).collect::<Vec<_>>() })
}

fn boot(boot: &Boot) -> Value {
    json!({
        "number": boot.number,
        "started_at": timestamp(boot.started_ms),
        "ended": boot.ended,
        "dropped": boot.dropped,
        "entries": boot.entries.iter().map(timeline_entry).collect::<Vec<_>>(),
    })
}

fn timeline_entry(entry: &Entry) -> Value {
    json!({
        "stage": entry.stage,
        "at": timestamp(entry.unix_ms),
        "unix_ms": entry.unix_ms,
        "since_start_ms": entry.since_start_ms,
        "since_previous_ms": entry.since_previous_ms,
        "count": entry.count,
        "detail": entry.detail,
    })
}

/// `GET /v1/macs`: machines of boot ports, by MAC, each with the ports it is on.
pub(crate) fn macs(snapshot: &Snapshot, state: &AdminState) -> Value {
    let on_boot_ports =
        state.hub.homes().into_iter().filter(|(_, port)| snapshot.status.ports.contains_key(port));
    json!({ "macs": on_boot_ports.filter_map(|(found, _)| mac(found, snapshot, state)).collect::<Vec<_>>() })
}

/// `GET /v1/macs/{mac}`: whole port entries.
pub(crate) fn mac(wanted: MacAddr, snapshot: &Snapshot, state: &AdminState) -> Option<Value> {
    let status = snapshot.status.ports.get(&state.hub.lookup(wanted)?)?;
    Some(json!({ "mac": wanted, "ports": [port(status, state)] }))
}

/// `GET /v1/partitions`
pub(crate) fn partitions(snapshot: &Snapshot) -> Value {
    json!({ "partitions": snapshot.status.partitions.values().collect::<Vec<_>>() })
}

/// `GET /v1/plan`
pub(crate) fn plan(snapshot: &Snapshot) -> Value {
    json!({ "finished_at": snapshot.pass.as_ref().map(|pass| pass.finished_at), "plan": serde_json::from_str::<Value>(&snapshot.plan_json).unwrap_or_default() })
}

/// `GET /v1/status`
pub(crate) fn status(snapshot: &Snapshot, state: &AdminState) -> Value {
    let status = &snapshot.status;
    let nd = state.metrics.advertise.mode();
    let mut by_phase: Map<String, Value> =
        Phase::ALL.iter().map(|phase| (phase.as_str().to_owned(), json!(0))).collect();
    for phase in Phase::ALL {
        let count = status.ports.values().filter(|port| port.phase == phase).count();
        by_phase.insert(phase.as_str().to_owned(), json!(count));
    }
    let pass = snapshot.pass.as_ref().map(|pass| {
        json!({
            "reason": pass.reason,
            "duration_ms": u64::try_from(pass.duration.as_millis()).unwrap_or(u64::MAX),
            "finished_at": pass.finished_at,
            "actions": pass.actions,
        })
    });
    let unready = unready(snapshot);
    json!({
        "version": snapshot.version,
        "verdict": status.verdict,
        "ready": unready.is_empty(),
        "unready": unready,
        "pass": pass,
        "ports": { "total": status.ports.len(), "by_phase": by_phase },
        "partitions": status.partitions.len(),
        "machines": machines_by_port(snapshot, &state.hub).values().sum::<usize>(),
        "router_discovery": {
            "mode": nd.as_str(),
            "socket": nd.socket,
            "drop_rule": nd.drop_rule,
            "drop_rule_detail": nd.detail,
            "ports": state.metrics.advertise.states(),
        },
        "leak_method": status.leak_method,
        "control_api_error": status.control_api_error.as_deref().or_else(|| unreached(state)),
        "control_plane": status.control_plane,
        "waiting": status.waiting,
        "conflicts": status.conflicts,
        "rejected": status.rejected,
        "warnings": status.warnings,
        "unknown": status.unknown,
    })
}

/// Why the agent is not ready; empty when it is.
pub(crate) fn unready(snapshot: &Snapshot) -> Vec<String> {
    if snapshot.pass.is_none() && snapshot.status.unknown.is_empty() {
        return vec!["the first pass has not finished".to_owned()];
    }
    let mut reasons: Vec<String> = snapshot
        .status
        .unknown
        .iter()
        .map(|(source, why)| format!("{source} cannot be read: {why}"))
        .collect();
    if reasons.is_empty() && snapshot.status.verdict == Verdict::Degraded {
        reasons.push("degraded".to_owned());
    }
    reasons
}

/// The files of the control API may be good, and nobody there.
fn unreached(state: &AdminState) -> Option<&'static str> {
    let told = "not reached several times in a row; tried again with pauses";
    state.metrics.proxy.is_upstream_suspended().then_some(told)
}

/// Machines on each boot port.
pub(crate) fn machines_by_port(snapshot: &Snapshot, hub: &Hub) -> BTreeMap<PortName, usize> {
    let mut counts: BTreeMap<PortName, usize> =
        snapshot.status.ports.keys().map(|port| (port.clone(), 0)).into_map();
    for port in hub.homes().values() {
        if let Some(count) = counts.get_mut(port) {
            *count += 1;
        }
    }
    counts
}
