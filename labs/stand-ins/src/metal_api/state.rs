//! What the stand-in knows: machines, and who asked what.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use tokio::sync::watch;

/// Calls kept.
const CALLS_MAX: usize = 4096;
const MACHINES_MAX: usize = 4096;

#[derive(Debug, Clone)]
struct Call {
    procedure: String,
    machine: Option<String>,
    outcome: &'static str,
}

#[derive(Debug)]
struct Machine {
    allocated: watch::Sender<bool>,
    waiting: bool,
}

impl Default for Machine {
    fn default() -> Self {
        Machine { allocated: watch::Sender::new(false), waiting: false }
    }
}

#[derive(Debug, Default)]
struct Inner {
    calls: VecDeque<Call>,
    machines: BTreeMap<String, Machine>,
}

#[derive(Debug, Default)]
pub(super) struct State(Mutex<Inner>);

impl State {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a call, or how one ended.
    pub(super) fn note(&self, procedure: &str, machine: Option<&str>, outcome: &'static str) {
        tracing::info!(procedure, machine, outcome, "call");
        let mut inner = self.inner();
        if inner.calls.len() >= CALLS_MAX {
            inner.calls.pop_front();
        }
        let (procedure, machine) = (procedure.to_owned(), machine.map(str::to_owned));
        inner.calls.push_back(Call { procedure, machine, outcome });
    }

    /// Changes a machine, which a first mention makes. `None` where there are too many.
    fn machine<T>(&self, id: &str, change: impl FnOnce(&mut Machine) -> T) -> Option<T> {
        let mut inner = self.inner();
        if inner.machines.len() >= MACHINES_MAX && !inner.machines.contains_key(id) {
            return None;
        }
        Some(change(inner.machines.entry(id.to_owned()).or_default()))
    }

    pub(super) fn knows(&self, id: &str) -> bool {
        self.inner().machines.contains_key(id)
    }

    pub(super) fn register(&self, id: &str) -> bool {
        self.machine(id, |_| ()).is_some()
    }

    pub(super) fn allocate(&self, id: &str) -> bool {
        self.machine(id, |machine| machine.allocated.send_replace(true)).is_some()
    }

    /// The machine waits from now on; the receiver tells when it is allocated.
    pub(super) fn wait(&self, id: &str) -> Option<watch::Receiver<bool>> {
        self.machine(id, |machine| {
            machine.waiting = true;
            machine.allocated.subscribe()
        })
    }

    pub(super) fn waits_no_more(&self, id: &str) {
        self.machine(id, |machine| machine.waiting = false);
    }

    /// `{"calls": [{"procedure", "machine", "outcome"}], "waiting": [uuid]}`
    pub(super) fn shown(&self) -> Value {
        let inner = self.inner();
        let calls = inner.calls.iter().map(
            |call| json!({ "procedure": call.procedure, "machine": call.machine, "outcome": call.outcome }),
        );
        let waiting = inner.machines.iter().filter(|(_, machine)| machine.waiting).map(|(id, _)| id);
        json!({ "calls": calls.collect::<Vec<_>>(), "waiting": waiting.collect::<Vec<_>>() })
    }
}
