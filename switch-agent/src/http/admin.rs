//! The admin API towards operators: a unix socket and a loopback address, never a boot VRF.
//!
//! It reads: the last pass's [`Snapshot`], the [`Hub`], the metrics, the agent's public keys. It changes
//! nothing, so that whoever may read it cannot harm the switch.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use switch_agent_core::status::Status;
use tokio::sync::watch;

use crate::hub::Hub;
use crate::metrics::Metrics;
use crate::reconciler::{DecisionLog, Inspector};

mod events;
mod routes;
mod server;
#[cfg(test)]
pub(crate) mod tests;
mod unix;
pub(crate) mod view;

pub use server::{AdminError, AdminLimits, AdminListen, AdminServer};

/// What the reconciler publishes after each pass.
#[derive(Debug, Clone)]
pub struct Snapshot {
    pub status: Status,
    /// The last plan, as `switch-agent plan --json` prints it. Holds no secrets. As text: that of a start is
    /// ten times as large as a tree.
    pub plan_json: String,
    /// `None` until the first pass has finished.
    pub pass: Option<PassInfo>,
    pub version: String,
}

/// The pass that made a [`Snapshot`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PassInfo {
    /// Why it ran.
    pub reason: String,
    pub duration: Duration,
    pub finished_at: Timestamp,
    /// Actions it carried out.
    pub actions: usize,
}

impl Snapshot {
    /// What to publish before the first pass: not ready, and says so.
    pub fn starting() -> Snapshot {
        Snapshot {
            status: Status {
                verdict: switch_agent_core::status::Verdict::Converging,
                ports: std::collections::BTreeMap::new(),
                partitions: std::collections::BTreeMap::new(),
                waiting: Vec::new(),
                conflicts: Vec::new(),
                rejected: Vec::new(),
                warnings: Vec::new(),
                leak_method: None,
                unknown: std::collections::BTreeMap::new(),
                control_api_error: None,
                control_plane: None,
            },
            plan_json: String::new(),
            pass: None,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

/// Everything the admin API reads. Cheap to clone.
#[derive(Debug, Clone)]
pub struct AdminState {
    pub snapshots: watch::Receiver<Arc<Snapshot>>,
    pub hub: Hub,
    pub metrics: Metrics,
    /// The JWK set of `/.well-known/jwks.json`: public keys only.
    pub jwks: Arc<serde_json::Value>,
    pub decisions: DecisionLog,
    pub inspector: Inspector,
}

impl AdminState {
    /// The latest snapshot. The lock behind it is held for a reference count only.
    fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshots.borrow())
    }
}
