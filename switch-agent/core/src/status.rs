//! The outcome of one pass as data. HTTP, STATE_DB, metrics, the CLI and the logs all derive from it.

use std::collections::BTreeMap;
use std::sync::Arc;

use ipnet::Ipv6Net;
use serde::{Deserialize, Serialize};

use crate::desired::Rejected;
use crate::desired::control_plane::ControlPlane;
use crate::frr::Choice;
use crate::name::{PartitionId, PortName, VrfName};

/// Where a port stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Its `BOOT_NETWORK_PORT` row (or its partition's row) is invalid.
    Rejected,
    /// Somebody else uses the port: left alone until it is free.
    Foreign,
    /// Something outside the agent must happen first.
    Waiting,
    /// The agent is binding it.
    Binding,
    /// All roles of the partition run on it.
    Ready,
    /// It is leaving the boot VRF.
    Releasing,
    /// An action on it failed; retried with back-off.
    Failed,
}

impl Phase {
    pub const ALL: [Phase; 7] = [
        Phase::Rejected,
        Phase::Foreign,
        Phase::Waiting,
        Phase::Binding,
        Phase::Ready,
        Phase::Releasing,
        Phase::Failed,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Phase::Rejected => "rejected",
            Phase::Foreign => "foreign",
            Phase::Waiting => "waiting",
            Phase::Binding => "binding",
            Phase::Ready => "ready",
            Phase::Releasing => "releasing",
            Phase::Failed => "failed",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PortStatus {
    pub port: PortName,
    pub alias: Arc<str>,
    pub index: u64,
    pub partition: Option<PartitionId>,
    pub vrf: Option<VrfName>,
    pub phase: Phase,
    pub oper_up: Option<bool>,
    pub prefix: Option<Ipv6Net>,
    /// What the port waits for; names the row, table or daemon.
    pub waiting_on: Option<String>,
    pub error: Option<String>,
}

/// State of a partition's leak, as FRR and the kernel show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", content = "detail", rename_all = "kebab-case")]
pub enum LeakStatus {
    /// No leak is wanted; the VRF only has its deny route.
    Off,
    /// Verified: FRR's routes equal the wanted set.
    Applied,
    /// On its way, or not yet possible: what is missing.
    Pending(String),
    /// More (or other) routes than wanted, or a broken state that the agent is repairing.
    Violation(String),
    /// Rendered for somebody else to apply (`render-only`).
    Rendered,
    /// FRR is not managed (`--vtysh none`), or cannot be read.
    Unknown(String),
}

/// State of a partition's isolation, as orchagent shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", content = "detail", rename_all = "kebab-case")]
pub enum IsolationStatus {
    /// The role is off.
    Off,
    /// orchagent says that every table and every rule is in the ASIC.
    Active,
    /// Not, or not yet: what is missing.
    Pending(String),
    /// The rows are there, and this release does not tell what became of them.
    Unknown(String),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PartitionStatus {
    pub partition: PartitionId,
    pub vrf: VrfName,
    pub prefix: Ipv6Net,
    pub vrf_ready: bool,
    pub leak: LeakStatus,
    pub isolation: IsolationStatus,
    pub ports: usize,
    pub ports_ready: usize,
    pub waiting_on: Option<String>,
    pub error: Option<String>,
}

/// Overall verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Everything wanted is there; ports held by others count as such.
    Converged,
    /// Work is under way or something outside is awaited.
    Converging,
    /// A source cannot be read; nothing is removed meanwhile.
    Degraded,
}

/// [`Waiting::object`] while no row of any object may be written.
pub const ALL_ROWS: &str = "all rows";

/// Something the plan cannot do yet.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Waiting {
    /// The object, as in [`crate::action::Action::object`].
    pub object: String,
    /// The port or VRF it belongs to, where there is one.
    pub port: Option<PortName>,
    pub on: String,
}

/// A foreign object in the way, or a foreign change of an object of ours; yielded to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Conflict {
    pub object: String,
    pub port: Option<PortName>,
    pub reason: String,
}

/// What a pass reads, by the names in [`Status::unknown`].
pub const SOURCES: [&str; 6] = ["CONFIG_DB", "STATE_DB", "APPL_DB", "kernel", "FRR", "ledger"];

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Status {
    pub verdict: Verdict,
    pub ports: BTreeMap<PortName, PortStatus>,
    pub partitions: BTreeMap<PartitionId, PartitionStatus>,
    pub waiting: Vec<Waiting>,
    pub conflicts: Vec<Conflict>,
    pub rejected: Vec<Rejected>,
    pub warnings: Vec<Rejected>,
    /// How the leak is carried out, and why so; `None` while CONFIG_DB cannot be read.
    pub leak_method: Option<Choice>,
    /// Those of [`SOURCES`] that could not be read, with the reason.
    pub unknown: BTreeMap<String, String>,
    /// What control-plane ACLs mean for the proxy; `None` where there are none.
    pub control_plane: Option<ControlPlane>,
    /// Whether the control API is configured and usable; `None` where no proxy is wanted.
    pub control_api_error: Option<String>,
}
