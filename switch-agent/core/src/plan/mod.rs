//! `plan(&Desired, &Observed) -> Plan`: total, deterministic, free of I/O, clock and randomness.

use crate::action::Action;
use crate::status::Status;

/// The next steps, and why everything else has to wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// In execution order; each one's preconditions hold now.
    pub actions: Vec<Action>,
    pub status: Status,
}
